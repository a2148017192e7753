//! `passbook account`: opens, reads and changes accounts.

mod list;
mod open;

use clap::{Args, Subcommand};
use passbook_command::{
    CliError,
    proto::{
        Account, BatchGetAccountsRequest, CloseAccountRequest, FreezeAccountRequest,
        GetAccountRequest, GetBalanceRequest, ListAccountChangesRequest, UnfreezeAccountRequest,
        UpdateAccountRequest, VerifyAccountRequest,
    },
    table::Fields,
};
use prost_types::{FieldMask, Timestamp};

use crate::{
    OnServer,
    account::{
        list::{List, Sum},
        open::Open,
    },
    arguments::{Basis, ExpectedVersion, money, parse_label, parse_past},
    output::{ListArguments, Page, Rows, print_pages},
    server::{CallKind, Server},
    view::{account_text, enum_name, value_and_currency},
};

#[derive(Subcommand)]
pub enum AccountCommand {
    /// Open accounts with a balance of zero.
    Open(OnServer<Open>),
    /// Print one account, or several as of one moment.
    Get(OnServer<Get>),
    /// Print all accounts that match the filters, in byte order of their ids.
    List(OnServer<List>),
    /// Print the sums of the accounts that match the filters, by currency, as of one moment.
    Sum(OnServer<Sum>),
    /// Change the labels and the overdraft of an account.
    Update(OnServer<Update>),
    /// Freeze an account: money comes in, but none goes out.
    Freeze(OnServer<StateChange>),
    /// Open a frozen account again.
    Unfreeze(OnServer<StateChange>),
    /// Close an account permanently. It must have a zero balance and no open holds.
    Close(OnServer<StateChange>),
    /// Print who changed the state and the attributes of an account, when and why.
    Changes(OnServer<Changes>),
    /// Print the balance of an account at a time.
    Balance(OnServer<Balance>),
    /// Recompute an account from all of its entries: exit code 1 if a stored value is wrong.
    Verify(OnServer<Verify>),
}

impl AccountCommand {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Open(command) => command.run(Open::run).await,
            Self::Get(command) => command.run(Get::run).await,
            Self::List(command) => command.run(List::run).await,
            Self::Sum(command) => command.run(Sum::run).await,
            Self::Update(command) => command.run(Update::run).await,
            Self::Freeze(command) => command.run(StateChange::freeze).await,
            Self::Unfreeze(command) => command.run(StateChange::unfreeze).await,
            Self::Close(command) => command.run(StateChange::close).await,
            Self::Changes(command) => command.run(Changes::run).await,
            Self::Balance(command) => command.run(Balance::run).await,
            Self::Verify(command) => command.run(Verify::run).await,
        }
    }
}

fn print(server: &Server, account: Option<Account>) -> Result<(), CliError> {
    let account = account.unwrap_or_default();
    server.format().print(&account, || account_text(&account))
}

#[derive(Args)]
pub struct Get {
    /// The ids of the accounts.
    #[arg(required = true, value_name = "ACCOUNT_ID")]
    account_ids: Vec<String>,
}

impl Get {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        if let [account_id] = self.account_ids.as_slice() {
            let request = GetAccountRequest { account_id: account_id.clone() };
            let send = async |request| server.accounts().get_account(request).await;
            let response = server.call(CallKind::Read, request, send).await?;
            return print(server, response.account);
        }
        let request = BatchGetAccountsRequest { account_ids: self.account_ids };
        let send = async |request| server.accounts().batch_get_accounts(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        Rows::all(server.format()).print(&response.accounts)
    }
}

#[derive(Args)]
#[group(required = true, multiple = true, id = "attributes")]
pub struct Attributes {
    /// A new label. Can be repeated. The new labels replace all labels of the account.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// Remove all labels.
    #[arg(long, conflicts_with = "labels")]
    clear_labels: bool,

    /// How far below zero the balance may go.
    #[arg(long, value_name = "AMOUNT", requires = "currency", allow_negative_numbers = true)]
    overdraft_limit: Option<String>,

    /// Whether the balance may go below zero without a limit.
    #[arg(long, value_name = "BOOL", conflicts_with = "overdraft_limit")]
    unlimited_overdraft: Option<bool>,
}

#[derive(Args)]
pub struct Update {
    /// The id of the account.
    account_id: String,

    #[command(flatten)]
    attributes: Attributes,

    /// The currency of the overdraft limit.
    #[arg(long, value_name = "CURRENCY", requires = "overdraft_limit")]
    currency: Option<String>,

    #[command(flatten)]
    expected: ExpectedVersion,
}

impl Update {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let Attributes { labels, clear_labels, overdraft_limit, unlimited_overdraft } =
            self.attributes;
        let fields = [
            ("labels", clear_labels || !labels.is_empty()),
            ("overdraft_limit", overdraft_limit.is_some()),
            ("unlimited_overdraft", unlimited_overdraft.is_some()),
        ];
        let paths = fields.into_iter().filter(|(_, is_set)| *is_set);
        let paths = paths.map(|(path, _)| path.to_owned()).collect();
        let currency = self.currency.unwrap_or_default();
        let account_id = self.account_id;
        let request = UpdateAccountRequest {
            account_id: account_id.clone(),
            update_mask: Some(FieldMask { paths }),
            labels: labels.into_iter().collect(),
            overdraft_limit: overdraft_limit.map(|limit| money(&limit, &currency)),
            unlimited_overdraft: unlimited_overdraft.unwrap_or_default(),
            expected_version: self.expected.expected_version,
        };
        let send = async |request| server.accounts().update_account(request).await;
        let response = server.call(CallKind::Update(&account_id), request, send).await?;
        print(server, response.account)
    }
}

/// Which account changes its state, and why.
#[derive(Args)]
pub struct StateChange {
    /// The id of the account.
    account_id: String,

    /// The reason, which the account's history keeps.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    expected: ExpectedVersion,
}

impl StateChange {
    async fn freeze(self, server: &Server) -> Result<(), CliError> {
        let Self { account_id, reason, expected: ExpectedVersion { expected_version } } = self;
        let kind = CallKind::Update(&account_id);
        let account_id = account_id.clone();
        let request = FreezeAccountRequest { account_id, reason, expected_version };
        let send = async |request| server.accounts().freeze_account(request).await;
        print(server, server.call(kind, request, send).await?.account)
    }

    async fn unfreeze(self, server: &Server) -> Result<(), CliError> {
        let Self { account_id, reason, expected: ExpectedVersion { expected_version } } = self;
        let kind = CallKind::Update(&account_id);
        let account_id = account_id.clone();
        let request = UnfreezeAccountRequest { account_id, reason, expected_version };
        let send = async |request| server.accounts().unfreeze_account(request).await;
        print(server, server.call(kind, request, send).await?.account)
    }

    async fn close(self, server: &Server) -> Result<(), CliError> {
        let Self { account_id, reason, expected: ExpectedVersion { expected_version } } = self;
        let kind = CallKind::Update(&account_id);
        let account_id = account_id.clone();
        let request = CloseAccountRequest { account_id, reason, expected_version };
        let send = async |request| server.accounts().close_account(request).await;
        print(server, server.call(kind, request, send).await?.account)
    }
}

#[derive(Args)]
pub struct Changes {
    /// The id of the account.
    account_id: String,

    #[command(flatten)]
    list: ListArguments,
}

impl Changes {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        print_pages(&self.list, server.format(), async |Page { page_size, page_token }| {
            let account_id = self.account_id.clone();
            let request = ListAccountChangesRequest { account_id, page_size, page_token };
            let send = async |request| server.accounts().list_account_changes(request).await;
            let page = server.call(CallKind::Read, request, send).await?;
            Ok((page.changes, page.next_page_token))
        })
        .await
    }
}

#[derive(Args)]
pub struct Balance {
    /// The id of the account.
    account_id: String,

    /// The time: like 2026-11-26T09:42:23Z, a date, or a duration before now like 7days. Default:
    /// now.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    at: Option<Timestamp>,

    #[command(flatten)]
    basis: Basis,
}

impl Balance {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = GetBalanceRequest {
            account_id: self.account_id,
            at_time: self.at,
            time_basis: self.basis.time_basis().into(),
        };
        let send = async |request| server.accounts().get_balance(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        server.format().print(&response, || {
            let balance = value_and_currency(response.balance.as_ref());
            let fields = Fields::default().with("balance", balance);
            fields.with("sequence", response.sequence).text()
        })
    }
}

#[derive(Args)]
pub struct Verify {
    /// The id of the account.
    account_id: String,
}

impl Verify {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = VerifyAccountRequest { account_id: self.account_id };
        let send = async |request| server.accounts().verify_account(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        let fault = response.fault.as_ref();
        server.format().print(&response, || {
            let fields = Fields::default()
                .with("valid", response.valid)
                .with("entries_verified", response.entries_verified);
            let Some(fault) = fault else { return fields.text() };
            fields
                .with("fault", enum_name(fault.kind().as_str_name(), "VERIFICATION_FAULT_KIND_"))
                .with("sequence", fault.sequence)
                .with("description", &fault.description)
                .text()
        })?;
        match fault {
            None => Ok(()),
            Some(_) => Err(CliError::Run("the account has a fault".to_owned())),
        }
    }
}
