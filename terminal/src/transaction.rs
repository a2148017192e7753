//! `passbook transaction`: reads and reverses transactions.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use passbook_command::{
    CliError,
    proto::{
        GetTransactionRequest, ListTransactionsRequest, ReverseTransactionRequest, TransactionKind,
        get_transaction_request::Lookup,
    },
};
use prost_types::Timestamp;

use crate::{
    OnServer,
    arguments::{
        Basis, ChangeArguments, EffectiveTime, Force, LabelFilter, OptionalAmount, parse_past,
    },
    change,
    output::{ListArguments, Page, print_pages},
    server::{CallKind, Server},
    view::transaction_text,
};

#[derive(Subcommand)]
pub enum TransactionCommand {
    /// Print a transaction with its entries.
    Get(OnServer<Get>),
    /// Print all transactions that match the filters, latest first.
    List(OnServer<List>),
    /// Undo a transaction or a part of it, at most all of it, by posting the opposite entries.
    Reverse(OnServer<Reverse>),
}

impl TransactionCommand {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Get(command) => command.run(Get::run).await,
            Self::List(command) => command.run(List::run).await,
            Self::Reverse(command) => command.run(Reverse::run).await,
        }
    }
}

#[derive(Args)]
#[group(id = "lookup", required = true, multiple = false)]
pub struct Get {
    /// The id of the transaction.
    transaction_id: Option<String>,

    /// The id of the request that this caller sent.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Get {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let by_request = self.request_id.map(Lookup::RequestId);
        let lookup = self.transaction_id.map(Lookup::TransactionId).or(by_request);
        let request = GetTransactionRequest { lookup };
        let send = async |request| server.accounts().get_transaction(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        let transaction = response.transaction.unwrap_or_default();
        server.format().print(&transaction, || transaction_text(&transaction))
    }
}

#[derive(Args)]
pub struct List {
    /// Only transactions with an entry on this account.
    #[arg(long, value_name = "ACCOUNT_ID", default_value = "", hide_default_value = true)]
    account: String,

    /// Only transactions of this kind.
    #[arg(long, value_name = "KIND", value_parser = kind_parser())]
    kind: Option<TransactionKind>,

    /// Only transactions at or after this time: like 2026-11-26T09:42:23Z, a date, or a duration
    /// before now like 7days.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Option<Timestamp>,

    /// Only transactions before this time, written in the same ways.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    until: Option<Timestamp>,

    #[command(flatten)]
    labels: LabelFilter,

    #[command(flatten)]
    basis: Basis,

    #[command(flatten)]
    list: ListArguments,
}

fn kind_parser() -> impl TypedValueParser<Value = TransactionKind> {
    let names = ["deposit", "withdrawal", "transfer", "posting", "capture", "reversal"];
    PossibleValuesParser::new(names).map(|name| {
        let name = format!("TRANSACTION_KIND_{}", name.to_uppercase());
        TransactionKind::from_str_name(&name).unwrap_or_default()
    })
}

impl List {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let filter = ListTransactionsRequest {
            account_id: self.account,
            kind: self.kind.unwrap_or_default().into(),
            start_time: self.since,
            end_time: self.until,
            labels: self.labels.map()?,
            time_basis: self.basis.time_basis().into(),
            ..Default::default()
        };
        print_pages(&self.list, server.format(), async |Page { page_size, page_token }| {
            let request = ListTransactionsRequest { page_size, page_token, ..filter.clone() };
            let send = async |request| server.accounts().list_transactions(request).await;
            let page = server.call(CallKind::Read, request, send).await?;
            Ok((page.transactions, page.next_page_token))
        })
        .await
    }
}

#[derive(Args)]
pub struct Reverse {
    /// The id of the transaction to undo.
    transaction_id: String,

    #[command(flatten)]
    amount: OptionalAmount,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    effective: EffectiveTime,

    #[command(flatten)]
    change: ChangeArguments,
}

impl Reverse {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let labels = self.change.labels.map()?;
        let request = |request_id| ReverseTransactionRequest {
            request_id,
            transaction_id: self.transaction_id,
            description: self.change.description,
            labels,
            amount: self.amount.money(),
            force: self.force.force,
            effective_time: self.effective.time,
        };
        let call = async |request| server.accounts().reverse_transaction(request).await;
        change::send(server, self.change.request_id, request, call).await
    }
}
