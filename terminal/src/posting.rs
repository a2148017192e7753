//! `passbook deposit`, `withdraw`, `transfer` and `post`: change balances.

use clap::Args;
use passbook_command::{
    CliError,
    proto::{
        DepositRequest, Leg, PostTransactionRequest, Transaction, TransferRequest, WithdrawRequest,
    },
};
use prost::Name;

use crate::{
    arguments::{Amount, ConditionArguments, Force, PostingArguments, money},
    server::{CallKind, Server},
    view::{replayed_note, transaction_text},
};

/// Prints the response to a change of balances.
pub fn print(
    server: &Server,
    response: &impl Name,
    transaction: Option<&Transaction>,
    replayed: bool,
) -> Result<(), CliError> {
    server.format().print(response, || {
        let text = transaction.map(transaction_text).unwrap_or_default();
        format!("{}{text}", replayed_note(replayed))
    })
}

/// A deposit or a withdrawal.
#[derive(Args)]
pub struct OneAccount {
    /// The id of the account.
    account_id: String,

    #[command(flatten)]
    amount: Amount,

    #[command(flatten)]
    posting: PostingArguments,

    #[command(flatten)]
    condition: ConditionArguments,
}

impl OneAccount {
    pub async fn deposit(self, server: &Server) -> Result<(), CliError> {
        let request_id = self.posting.change.request_id.announce(server.format());
        let request = DepositRequest {
            request_id: request_id.clone(),
            account_id: self.account_id,
            amount: Some(self.amount.money()),
            description: self.posting.change.description,
            labels: self.posting.change.labels.map(),
            condition: self.condition.condition(&self.amount),
            validate_only: self.posting.validate_only,
            effective_time: self.posting.effective.time,
        };
        let send = async |request| server.accounts().deposit(request).await;
        let response = server.call(CallKind::Change(&request_id), request, send).await?;
        print(server, &response, response.transaction.as_ref(), response.replayed)
    }
}

/// A withdrawal.
#[derive(Args)]
pub struct Withdraw {
    #[command(flatten)]
    of: OneAccount,

    #[command(flatten)]
    force: Force,
}

impl Withdraw {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let Self { of, force: Force { force } } = self;
        let request_id = of.posting.change.request_id.announce(server.format());
        let request = WithdrawRequest {
            request_id: request_id.clone(),
            account_id: of.account_id,
            amount: Some(of.amount.money()),
            description: of.posting.change.description,
            labels: of.posting.change.labels.map(),
            condition: of.condition.condition(&of.amount),
            validate_only: of.posting.validate_only,
            effective_time: of.posting.effective.time,
            force,
        };
        let send = async |request| server.accounts().withdraw(request).await;
        let response = server.call(CallKind::Change(&request_id), request, send).await?;
        print(server, &response, response.transaction.as_ref(), response.replayed)
    }
}

#[derive(Args)]
pub struct Transfer {
    /// The account that pays. Conditions are about it.
    source_account_id: String,

    /// The account that receives the money.
    destination_account_id: String,

    #[command(flatten)]
    amount: Amount,

    #[command(flatten)]
    posting: PostingArguments,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    condition: ConditionArguments,
}

impl Transfer {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request_id = self.posting.change.request_id.announce(server.format());
        let request = TransferRequest {
            request_id: request_id.clone(),
            source_account_id: self.source_account_id,
            destination_account_id: self.destination_account_id,
            amount: Some(self.amount.money()),
            description: self.posting.change.description,
            labels: self.posting.change.labels.map(),
            condition: self.condition.condition(&self.amount),
            validate_only: self.posting.validate_only,
            effective_time: self.posting.effective.time,
            force: self.force.force,
        };
        let send = async |request| server.accounts().transfer(request).await;
        let response = server.call(CallKind::Change(&request_id), request, send).await?;
        print(server, &response, response.transaction.as_ref(), response.replayed)
    }
}

#[derive(Args)]
pub struct Post {
    /// A leg: an account, the signed amount that it receives, and the currency. Can be repeated.
    #[arg(long = "leg", required = true, num_args = 3, allow_negative_numbers = true)]
    #[arg(value_names = ["ACCOUNT_ID", "AMOUNT", "CURRENCY"])]
    legs: Vec<String>,

    #[command(flatten)]
    posting: PostingArguments,

    #[command(flatten)]
    force: Force,
}

impl Post {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request_id = self.posting.change.request_id.announce(server.format());
        let legs = self.legs.as_chunks::<3>().0.iter().map(|[account_id, amount, currency]| Leg {
            account_id: account_id.clone(),
            amount: Some(money(amount, currency)),
            condition: None,
        });
        let request = PostTransactionRequest {
            request_id: request_id.clone(),
            legs: legs.collect(),
            description: self.posting.change.description,
            labels: self.posting.change.labels.map(),
            validate_only: self.posting.validate_only,
            effective_time: self.posting.effective.time,
            force: self.force.force,
        };
        let send = async |request| server.accounts().post_transaction(request).await;
        let response = server.call(CallKind::Change(&request_id), request, send).await?;
        print(server, &response, response.transaction.as_ref(), response.replayed)
    }
}
