//! Replays real bank statements through one or more Passbook servers, and checks every balance.
//!
//! ```text
//! cargo run --release --example replay_statements -- bank-statements.csv \
//!     --target http://127.0.0.1:50051 --target http://127.0.0.1:50052
//! ```
//!
//! The file is a CSV with the columns `account_id`, `sequence`, `kind` (deposit or withdraw),
//! `amount` and `exact_balance`. Accounts run in parallel; the transactions of one account run
//! strictly one after the other, through all servers in turn, so that every server changes every
//! account.
//!
//! A request id consists of the prefix, the account and the sequence. So an interrupted run can be
//! started again: requests that were applied before return their stored results.

mod servers;
mod statement;
mod tally;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use passbook::proto::{
    BatchGetAccountsRequest, CreateAccountRequest, DepositRequest, Entry, ListEntriesRequest,
    Money, Transaction, WithdrawRequest,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::Status;

use crate::{
    servers::{Servers, describe},
    statement::{Kind, Row, Statement, read_statements},
    tally::Tally,
};

/// The most accounts in one BatchGetAccounts: the limit of the server.
const ACCOUNTS_PER_READ_MAX: usize = 1000;
/// A page is so small that long statements need several pages.
const ENTRIES_PER_PAGE: i32 = 100;

/// Replays a CSV of bank statements through Passbook and checks every balance.
#[derive(Parser)]
struct Arguments {
    /// The CSV file with the columns account_id, sequence, kind, amount and exact_balance.
    file: PathBuf,
    /// A server. Can be repeated for several servers over one database.
    #[arg(long = "target", value_name = "URL", default_value = "http://127.0.0.1:50051")]
    targets: Vec<String>,
    /// The number of accounts that are replayed at the same time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    in_flight: usize,
    /// The prefix of every account id and request id. The same prefix continues the same run.
    #[arg(long, default_value = "berka")]
    prefix: String,
    /// The currency of every amount in the file.
    #[arg(long, value_name = "CODE", default_value = "CZK")]
    currency: String,
    /// The overdraft limit of the accounts.
    #[arg(long, value_name = "AMOUNT", default_value = "20000.00")]
    overdraft_limit: String,
    /// The deadline of one attempt of a call.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let statements = read_statements(&arguments.file, &arguments.prefix)?;
    let servers = Servers::connect(&arguments.targets, arguments.timeout).await?;
    let replay = Arc::new(Replay { servers, statements, arguments });

    let start = Instant::now();
    let mut tally = Replay::run(&replay).await?;
    let duration = start.elapsed();
    replay.read_back(&mut tally).await?;

    let targets = &replay.arguments.targets;
    tally.print(replay.statements.len(), targets, duration);
    if !tally.mismatches.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    println!("\nEvery result, every balance and every statement equals that of the bank.");
    Ok(ExitCode::SUCCESS)
}

struct Replay {
    servers: Servers,
    statements: Vec<Statement>,
    arguments: Arguments,
}

impl Replay {
    /// Replays all statements, `in_flight` of them at a time.
    async fn run(replay: &Arc<Self>) -> anyhow::Result<Tally> {
        let rows = replay.statements.iter().map(|statement| statement.rows.len());
        let style = "{bar:40} {human_pos} of {human_len} transactions, {per_sec}, {eta} left";
        let progress = ProgressBar::new(rows.sum::<usize>() as u64)
            .with_style(ProgressStyle::with_template(style)?);
        let permits = Arc::new(Semaphore::new(replay.arguments.in_flight.max(1)));
        let mut tasks = JoinSet::new();
        for index in 0..replay.statements.len() {
            let replay = Arc::clone(replay);
            let permits = Arc::clone(&permits);
            let progress = progress.clone();
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await?;
                let statement = &replay.statements[index];
                anyhow::Ok(replay.replay_statement(statement, &progress).await)
            });
        }
        let mut total = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            total.add(tally??);
        }
        progress.finish_and_clear();
        Ok(total)
    }

    /// Opens one account and replays its rows in order. Stops at the first rejection, because the
    /// later rows could not match.
    async fn replay_statement(&self, statement: &Statement, progress: &ProgressBar) -> Tally {
        let mut tally = Tally::default();
        if let Err(status) = self.open_account(statement, &mut tally).await {
            tally.mismatch(statement, &describe(&status));
            return tally;
        }
        for row in &statement.rows {
            let start = Instant::now();
            match self.change(statement, row, &mut tally).await {
                Ok((transaction, replayed)) => {
                    tally.latencies.push(start.elapsed());
                    tally.transactions += 1;
                    tally.replayed += u64::from(replayed);
                    let entries = transaction.unwrap_or_default().entries;
                    self.check_entry(statement, row, entries.first(), &mut tally);
                }
                Err(status) => {
                    let what = format!("transaction {}: {}", row.sequence, describe(&status));
                    tally.mismatch(statement, &what);
                    return tally;
                }
            }
            progress.inc(1);
        }
        tally
    }

    async fn open_account(&self, statement: &Statement, tally: &mut Tally) -> Result<(), Status> {
        let request = CreateAccountRequest {
            account_id: statement.account_id.clone(),
            currency_code: self.arguments.currency.clone(),
            overdraft_limit: Some(self.money(&self.arguments.overdraft_limit)),
            ..CreateAccountRequest::default()
        };
        let retries = &mut tally.retries;
        self.servers
            .call(0, retries, &request, |mut client, request| async move {
                client.create_account(request).await
            })
            .await?;
        Ok(())
    }

    /// Applies the change of one row. Also returns whether an earlier run has applied it.
    async fn change(
        &self,
        statement: &Statement,
        row: &Row,
        tally: &mut Tally,
    ) -> Result<(Option<Transaction>, bool), Status> {
        let account_id = statement.account_id.clone();
        let request_id = format!("{account_id}-{}", row.sequence);
        let amount = Some(self.money(&row.amount));
        let turn = row.sequence as usize;
        let retries = &mut tally.retries;
        match row.kind {
            Kind::Deposit => {
                let request =
                    DepositRequest { request_id, account_id, amount, ..DepositRequest::default() };
                let send = |mut client: servers::Client, request| async move {
                    client.deposit(request).await
                };
                let response = self.servers.call(turn, retries, &request, send).await?;
                Ok((response.transaction, response.replayed))
            }
            Kind::Withdraw => {
                let request = WithdrawRequest {
                    request_id,
                    account_id,
                    amount,
                    ..WithdrawRequest::default()
                };
                let send = |mut client: servers::Client, request| async move {
                    client.withdraw(request).await
                };
                let response = self.servers.call(turn, retries, &request, send).await?;
                Ok((response.transaction, response.replayed))
            }
        }
    }

    /// Reads every account and every entry back, through the servers in turn, and compares them
    /// with the file.
    async fn read_back(&self, tally: &mut Tally) -> anyhow::Result<()> {
        for (turn, statements) in self.statements.chunks(ACCOUNTS_PER_READ_MAX).enumerate() {
            let account_ids = statements.iter().map(|statement| &statement.account_id);
            let request = BatchGetAccountsRequest { account_ids: account_ids.cloned().collect() };
            let send = |mut client: servers::Client, request| async move {
                client.batch_get_accounts(request).await
            };
            let retries = &mut tally.retries;
            let response = self.servers.call(turn, retries, &request, send).await?;
            for (index, statement) in statements.iter().enumerate() {
                tally.check_account(statement, response.accounts.get(index));
            }
        }
        for (turn, statement) in self.statements.iter().enumerate() {
            let entries = self.list_entries(turn, statement, tally).await?;
            for (index, row) in statement.rows.iter().enumerate() {
                self.check_entry(statement, row, entries.get(index), tally);
            }
        }
        Ok(())
    }

    async fn list_entries(
        &self,
        turn: usize,
        statement: &Statement,
        tally: &mut Tally,
    ) -> Result<Vec<Entry>, Status> {
        let mut entries = Vec::new();
        let mut request = ListEntriesRequest {
            account_id: statement.account_id.clone(),
            page_size: ENTRIES_PER_PAGE,
            ..ListEntriesRequest::default()
        };
        loop {
            let send = |mut client: servers::Client, request| async move {
                client.list_entries(request).await
            };
            let retries = &mut tally.retries;
            let page = self.servers.call(turn, retries, &request, send).await?;
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return Ok(entries);
            }
            request.page_token = page.next_page_token;
        }
    }

    fn check_entry(
        &self,
        statement: &Statement,
        row: &Row,
        entry: Option<&Entry>,
        tally: &mut Tally,
    ) {
        tally.check_entry(statement, row, &self.arguments.currency, entry);
    }

    fn money(&self, value: &str) -> Money {
        Money { currency_code: self.arguments.currency.clone(), value: value.to_owned() }
    }
}
