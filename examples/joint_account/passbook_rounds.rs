//! The rounds through Passbook.

use anyhow::Context;
use passbook::proto::{
    CreateAccountRequest, DepositRequest, Entry, GetAccountRequest, ListEntriesRequest, Money,
    WithdrawRequest, account_service_client::AccountServiceClient,
};
use rust_decimal::Decimal;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::story::{CHANGE, START};

/// The result of a round.
pub struct Round {
    pub balance: Decimal,
    /// Whether the deposit locked the account before the withdrawal did.
    pub deposit_was_first: bool,
    pub statement: Vec<Entry>,
}

/// A client with two connections, to two servers or to one.
pub struct Passbook {
    depositor: AccountServiceClient<Channel>,
    withdrawer: AccountServiceClient<Channel>,
    /// The id of this run. It is a part of every account id, so that the accounts are new.
    run: Uuid,
    next_round: u32,
}

impl Passbook {
    pub async fn connect(depositor: &str, withdrawer: &str) -> anyhow::Result<Self> {
        Ok(Self {
            depositor: connect(depositor).await?,
            withdrawer: connect(withdrawer).await?,
            run: Uuid::now_v7(),
            next_round: 1,
        })
    }

    /// Plays one round on a new account.
    pub async fn play(&mut self) -> anyhow::Result<Round> {
        let account_id = format!("joint-{}-{}", self.run, self.next_round);
        self.next_round += 1;
        self.open(&account_id).await?;
        let deposit = deposit(&account_id, "deposit", CHANGE);
        let withdrawal = WithdrawRequest {
            request_id: format!("{account_id}-withdrawal"),
            account_id: account_id.clone(),
            amount: dollars(CHANGE),
            ..WithdrawRequest::default()
        };
        let (deposit, withdrawal) =
            tokio::join!(self.depositor.deposit(deposit), self.withdrawer.withdraw(withdrawal),);
        withdrawal?;
        let transaction = deposit?.into_inner().transaction.unwrap_or_default();
        let entry = transaction.entries.first().context("no entry")?;
        Ok(Round {
            deposit_was_first: entry.sequence == 2,
            balance: self.balance(&account_id).await?,
            statement: self.statement(&account_id).await?,
        })
    }

    /// Opens an account and deposits the first $1000.
    async fn open(&mut self, account_id: &str) -> anyhow::Result<()> {
        let account = CreateAccountRequest {
            account_id: account_id.to_owned(),
            currency_code: "USD".to_owned(),
            ..CreateAccountRequest::default()
        };
        self.depositor.create_account(account).await?;
        let first = deposit(account_id, "first", START);
        self.depositor.deposit(first).await?;
        Ok(())
    }

    async fn balance(&mut self, account_id: &str) -> anyhow::Result<Decimal> {
        let account_id = account_id.to_owned();
        let request = GetAccountRequest { account_id };
        let answer = self.depositor.get_account(request).await?.into_inner();
        let balance = answer.account.and_then(|account| account.balance);
        Ok(Decimal::from_str_exact(&balance.context("no balance")?.value)?)
    }

    async fn statement(&mut self, account_id: &str) -> anyhow::Result<Vec<Entry>> {
        let request = ListEntriesRequest {
            account_id: account_id.to_owned(),
            ..ListEntriesRequest::default()
        };
        Ok(self.withdrawer.list_entries(request).await?.into_inner().entries)
    }
}

fn deposit(account_id: &str, name: &str, amount: i64) -> DepositRequest {
    DepositRequest {
        request_id: format!("{account_id}-{name}"),
        account_id: account_id.to_owned(),
        amount: dollars(amount),
        ..DepositRequest::default()
    }
}

fn dollars(amount: i64) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), value: amount.to_string() })
}

async fn connect(target: &str) -> anyhow::Result<AccountServiceClient<Channel>> {
    AccountServiceClient::connect(target.to_owned())
        .await
        .with_context(|| format!("cannot reach {target}"))
}
