//! The comparison of the ledger with the statements of the bank.

use std::time::Duration;

use indicatif::HumanCount;
use passbook::proto::{Account, Entry, Money};

use crate::statement::{Row, Statement};

/// The most mismatches that are printed. The others are counted only.
const MISMATCHES_SHOWN_MAX: usize = 20;

/// The counts and mismatches of one account, or of all.
#[derive(Default)]
pub struct Tally {
    pub transactions: u64,
    /// The transactions that an earlier run had applied.
    pub replayed: u64,
    pub retries: u64,
    pub mismatches: Vec<String>,
    /// The latency of each transaction, its retries included.
    pub latencies: Vec<Duration>,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.replayed += other.replayed;
        self.retries += other.retries;
        self.mismatches.extend(other.mismatches);
        self.latencies.extend(other.latencies);
    }

    pub fn mismatch(&mut self, statement: &Statement, what: &str) {
        self.mismatches.push(format!("{}: {what}", statement.account_id));
    }

    /// Compares an entry with its row. Amounts are compared as text: the file and the API both
    /// write all of the currency's decimals, so equal text is exact equality.
    pub fn check_entry(
        &mut self,
        statement: &Statement,
        row: &Row,
        currency_code: &str,
        entry: Option<&Entry>,
    ) {
        let money = |value: &str| {
            Some(Money { currency_code: currency_code.to_owned(), value: value.to_owned() })
        };
        let expected = Entry {
            account_id: statement.account_id.clone(),
            sequence: row.sequence,
            amount: money(&row.signed_amount()),
            balance_after: money(&row.exact_balance),
            ..Entry::default()
        };
        let (expected, found) = (line(&expected), entry.map_or("nothing".to_owned(), line));
        if expected != found {
            self.mismatches.push(format!("expected {expected}; found {found}"));
        }
    }

    /// Compares an account that was read back with the end of its statement.
    pub fn check_account(&mut self, statement: &Statement, account: Option<&Account>) {
        let (balance, sequence) = (statement.balance(), statement.rows.len() as i64);
        let expected = format!("balance {balance}, sequence {sequence}");
        let found = account
            .filter(|account| account.account_id == statement.account_id)
            .map(|account| {
                let balance = account.balance.clone().unwrap_or_default().value;
                format!("balance {balance}, sequence {}", account.sequence)
            })
            .unwrap_or("nothing".to_owned());
        if expected != found {
            self.mismatch(statement, &format!("expected {expected}; found {found}"));
        }
    }

    /// Prints the summary. `duration` is the time of the transactions, without reading back.
    pub fn print(&mut self, accounts: usize, targets: &[String], duration: Duration) {
        for mismatch in self.mismatches.iter().take(MISMATCHES_SHOWN_MAX) {
            println!("MISMATCH  {mismatch}");
        }
        self.latencies.sort_unstable();
        let seconds = duration.as_secs_f64();
        let rate = self.transactions as f64 / seconds;
        println!("servers       {}", targets.join(", "));
        println!("accounts      {}", HumanCount(accounts as u64));
        println!("transactions  {}", HumanCount(self.transactions));
        println!("replayed      {}", HumanCount(self.replayed));
        println!("retries       {}", HumanCount(self.retries));
        println!("mismatches    {}", HumanCount(self.mismatches.len() as u64));
        println!("time          {seconds:.1} s, {rate:.0} transactions/s");
        println!(
            "latency       p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.latency_ms(1.0),
        );
    }

    /// The latency that this fraction of the transactions did not exceed, in milliseconds. Requires
    /// sorted latencies.
    fn latency_ms(&self, fraction: f64) -> f64 {
        let rank = (self.latencies.len() as f64 * fraction).ceil() as usize;
        let latency = self.latencies.get(rank.saturating_sub(1));
        latency.copied().unwrap_or_default().as_secs_f64() * 1000.0
    }
}

/// The fields of an entry that the file has, too, as text.
fn line(entry: &Entry) -> String {
    let amount = entry.amount.clone().unwrap_or_default();
    let balance = entry.balance_after.clone().unwrap_or_default();
    format!(
        "{} number {}: {} {}, then {} {}",
        entry.account_id,
        entry.sequence,
        amount.value,
        amount.currency_code,
        balance.value,
        balance.currency_code,
    )
}
