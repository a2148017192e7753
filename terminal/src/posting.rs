//! `passbook deposit`, `withdraw`, `transfer` and `post`: change balances.

use clap::Args;
use passbook_command::{
    CliError,
    proto::{DepositRequest, Leg, PostTransactionRequest, TransferRequest, WithdrawRequest},
};

use crate::{
    arguments::{Amount, ConditionArguments, Force, PostingArguments, money},
    change,
    server::Server,
};

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
        let labels = self.posting.change.labels.map()?;
        let request = |request_id| DepositRequest {
            request_id,
            account_id: self.account_id,
            amount: Some(self.amount.money()),
            description: self.posting.change.description,
            labels,
            condition: self.condition.condition(&self.amount),
            validate_only: self.posting.validate_only,
            effective_time: self.posting.effective.time,
        };
        let call = async |request| server.accounts().deposit(request).await;
        change::send(server, self.posting.change.request_id, request, call).await
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
        let labels = of.posting.change.labels.map()?;
        let request = |request_id| WithdrawRequest {
            request_id,
            account_id: of.account_id,
            amount: Some(of.amount.money()),
            description: of.posting.change.description,
            labels,
            condition: of.condition.condition(&of.amount),
            validate_only: of.posting.validate_only,
            effective_time: of.posting.effective.time,
            force,
        };
        let call = async |request| server.accounts().withdraw(request).await;
        change::send(server, of.posting.change.request_id, request, call).await
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
        let labels = self.posting.change.labels.map()?;
        let request = |request_id| TransferRequest {
            request_id,
            source_account_id: self.source_account_id,
            destination_account_id: self.destination_account_id,
            amount: Some(self.amount.money()),
            description: self.posting.change.description,
            labels,
            condition: self.condition.condition(&self.amount),
            validate_only: self.posting.validate_only,
            effective_time: self.posting.effective.time,
            force: self.force.force,
        };
        let call = async |request| server.accounts().transfer(request).await;
        change::send(server, self.posting.change.request_id, request, call).await
    }
}

#[derive(Args)]
pub struct Post {
    /// A leg: an account, the signed amount that it receives, and the currency. Can be repeated.
    #[arg(long = "leg", required = true, num_args = 3, allow_negative_numbers = true)]
    #[arg(value_names = ["ACCOUNT_ID", "AMOUNT", "CURRENCY"])]
    legs: Vec<String>,

    /// Only if the amounts sum to zero in each currency.
    #[arg(long)]
    require_balanced: bool,

    #[command(flatten)]
    posting: PostingArguments,

    #[command(flatten)]
    force: Force,
}

impl Post {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let legs = self.legs.as_chunks::<3>().0.iter().map(|[account_id, amount, currency]| Leg {
            account_id: account_id.clone(),
            amount: Some(money(amount, currency)),
            condition: None,
        });
        let labels = self.posting.change.labels.map()?;
        let request = |request_id| PostTransactionRequest {
            request_id,
            legs: legs.collect(),
            description: self.posting.change.description,
            labels,
            validate_only: self.posting.validate_only,
            effective_time: self.posting.effective.time,
            force: self.force.force,
            require_balanced: self.require_balanced,
        };
        let call = async |request| server.accounts().post_transaction(request).await;
        change::send(server, self.posting.change.request_id, request, call).await
    }
}
