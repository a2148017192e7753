//! Verification of every account against its entries and holds.

use std::sync::{Arc, atomic::Ordering};

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};
use tokio::sync::mpsc;

use crate::storage::verify::{
    error::VerifyError,
    partitions,
    progress::VerifyProgress,
    rows::{self, EntryLine, account_columns, entry_columns, read_packed, unknown_account},
};
use crate::{
    domain::{
        money::Currency,
        verification::{
            AccountVerifier, Comparison, CurrencyTotals, LedgerFault, LedgerTotals, StoredAccount,
        },
    },
    storage::{StorageError, dialect::DatabaseKind, entity::requests::EntryKey},
};

/// Rows of `entries` in one page, at most: half a megabyte, so that round trips do not count, and memory
/// is used again without a call of the system.
const ENTRY_PAGE: i64 = 5000;
/// The first `$3` entries with keys above `$1, $2`. A limit ends the scan: with the condition
/// `(account_key, sequence) <= (..)`, PostgreSQL 15 reads the index on to the end of the account.
const ENTRIES_AFTER: &str = "FROM entries WHERE (account_key, sequence) > ($1, $2) \
    ORDER BY account_key, sequence LIMIT $3";
/// Rows of `accounts` in one page.
const ACCOUNT_PAGE: usize = 1000;
/// The approximate number of entries in a partition: most partitions fit into a page.
const PARTITION_ENTRIES: i64 = 2500;

/// The entries in a range of keys, from one, exclusive, to another, inclusive, and the accounts to which
/// they should belong.
struct Partition {
    accounts: Vec<StoredAccount>,
    after: EntryKey,
    until: EntryKey,
}

impl Partition {
    /// The entry after which this partition's first account was split, if it was.
    fn resumes_after(&self) -> Option<i64> {
        let first = self.accounts.first()?;
        (first.account_key == self.after.0).then_some(self.after.1)
    }

    /// The number of entries, if the rows of the accounts are right.
    fn entries(&self) -> i64 {
        let Some((last, whole)) = self.accounts.split_last() else { return 0 };
        // The last account may go on in the next partition.
        let of_last = last.sequence.min(self.until.1);
        let entries = whole.iter().map(|it| it.sequence).fold(of_last, i64::saturating_add);
        entries.saturating_sub(self.resumes_after().unwrap_or(0))
    }
}

/// The approximate number of entries by the accounts' rows. A wrong row may have any sequence, whose
/// sum no integer has.
pub async fn entries_counted(connection: &DatabaseTransaction) -> Result<u64, StorageError> {
    let sql = "SELECT COALESCE(sum(CAST(sequence AS double precision)), 0.0) FROM accounts";
    let statement = DatabaseKind::of(connection).statement(sql, []);
    let row = connection.query_one_raw(statement).await?;
    let count: f64 = row.map_or(Ok(0.0), |row| row.try_get_by_index(0))?;
    Ok(count as u64)
}

/// Verifies all accounts, and adds their entries to the comparison.
pub async fn verify(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
    comparison: &Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let (progress, comparison) = (progress.clone(), comparison.clone());
    let work = move |connection, partition| {
        recompute(connection, partition, progress.clone(), comparison.clone())
    };
    partitions::for_each(connections, partition_all, work).await
}

/// Sends partitions, each from the end of the one before.
struct Partitioner {
    partitions: mpsc::Sender<Partition>,
    after: EntryKey,
}

impl Partitioner {
    /// Returns whether more partitions are wanted.
    async fn send(&mut self, accounts: Vec<StoredAccount>, until: EntryKey) -> bool {
        let after = std::mem::replace(&mut self.after, until);
        self.partitions.send(Partition { accounts, after, until }).await.is_ok()
    }
}

async fn partition_all(
    connection: Arc<DatabaseTransaction>,
    partitions: mpsc::Sender<Partition>,
) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(&*connection);
    let columns = account_columns(kind);
    let page = format!(
        "SELECT {columns} FROM accounts a WHERE a.account_key > $1 \
             ORDER BY a.account_key LIMIT {ACCOUNT_PAGE}"
    );
    let mut partitioner = Partitioner { partitions, after: (i64::MIN, i64::MIN) };
    loop {
        let statement = kind.statement(page.as_str(), [partitioner.after.0.into()]);
        let rows = connection.query_all_raw(statement).await?;
        let mut accounts = Vec::new();
        let mut entries = 0;
        for row in &rows {
            let stored = rows::stored_account(row)?;
            let (account_key, sequence) = (stored.account_key, stored.sequence);
            accounts.push(stored);
            entries += sequence;
            if entries < PARTITION_ENTRIES {
                continue;
            }
            // A long account is split: each part continues from the last entry of the one before.
            let mut end = PARTITION_ENTRIES;
            while sequence - end > PARTITION_ENTRIES {
                let stored = accounts.last().cloned();
                if !partitioner.send(accounts, (account_key, end)).await {
                    return Ok(());
                }
                accounts = stored.into_iter().collect();
                end += PARTITION_ENTRIES;
            }
            if !partitioner.send(accounts, (account_key, i64::MAX)).await {
                return Ok(());
            }
            (accounts, entries) = (Vec::new(), 0);
        }
        let is_last = rows.len() < ACCOUNT_PAGE;
        let last = accounts.last().map(|stored| stored.account_key);
        // The last partition reaches beyond the last account, where there should be no entry.
        let until = if is_last { Some(i64::MAX) } else { last };
        if let Some(account_key) = until
            && !partitioner.send(accounts, (account_key, i64::MAX)).await
        {
            return Ok(());
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn recompute(
    connection: Arc<DatabaseTransaction>,
    partition: Partition,
    progress: Arc<VerifyProgress>,
    comparison: Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let columns = entry_columns(DatabaseKind::of(&*connection));
    let begun = PartitionVerifier::begin(&connection, &partition, comparison).await?;
    let Some(mut check) = begun else { return Ok(LedgerTotals::default()) };
    let (mut after, until) = (partition.after, partition.until);
    // With the first entry behind the partition, one page has the whole of it as a rule.
    let limit = partition.entries().saturating_add(1).clamp(1, ENTRY_PAGE);
    loop {
        let values = [after.0, after.1, limit].map(Value::from);
        let page = read_packed(&*connection, &columns, ENTRIES_AFTER, values).await?;
        let mut is_over = (page.count as i64) < limit;
        let mut read = 0;
        for row in page.rows()? {
            let line = EntryLine::new(row);
            // One whose sequence cannot be read is a fault.
            let key = (line.account_key, line.sequence.unwrap_or(i64::MIN));
            if key > until {
                is_over = true;
                break;
            }
            check.push(line)?;
            after = key;
            read += 1;
        }
        progress.read.fetch_add(read, Ordering::Relaxed);
        if is_over {
            return check.finish(until.1);
        }
    }
}

/// Verifies the accounts of a partition as its entries are read.
struct PartitionVerifier {
    accounts: std::vec::IntoIter<StoredAccount>,
    current: Option<AccountVerifier>,
    comparison: Arc<Comparison>,
    /// The entries of the current account whose transaction is known.
    compared: CurrencyTotals,
    totals: LedgerTotals,
}

impl PartitionVerifier {
    /// None if the entry from which the first account continues is missing or unreadable: the
    /// partition before this one reports that.
    async fn begin(
        connection: &DatabaseTransaction,
        partition: &Partition,
        comparison: Arc<Comparison>,
    ) -> Result<Option<Self>, VerifyError> {
        let mut accounts = partition.accounts.clone().into_iter();
        let current = match (accounts.next(), partition.resumes_after()) {
            (Some(stored), Some(sequence)) => {
                let columns = entry_columns(DatabaseKind::of(connection));
                let from = "FROM entries WHERE account_key = $1 AND sequence = $2";
                let values = [stored.account_key.into(), sequence.into()];
                let page = read_packed(connection, &columns, from, values).await?;
                let line = page.rows()?.next().map(EntryLine::new);
                let read =
                    |line: EntryLine<'_>| line.entry(&stored.account_id, &stored.currency).ok();
                let Some(entry) = line.and_then(read) else { return Ok(None) };
                Some(AccountVerifier::after(stored, &entry))
            }
            (stored, _) => stored.map(AccountVerifier::new),
        };
        let (compared, totals) = (CurrencyTotals::default(), LedgerTotals::default());
        Ok(Some(Self { accounts, current, comparison, compared, totals }))
    }

    /// Verifies the next entry.
    fn push(&mut self, line: EntryLine<'_>) -> Result<(), VerifyError> {
        while let Some(current) = &self.current {
            if current.stored().account_key >= line.account_key {
                break;
            }
            self.finish_account()?;
        }
        let (account_key, sequence) = (line.account_key, line.sequence);
        let current = self.current.as_mut();
        let Some(current) = current.filter(|it| it.stored().account_key == account_key) else {
            return Err(LedgerFault::Entry {
                account_id: unknown_account(account_key),
                sequence: sequence.unwrap_or_default(),
                description: "its account does not exist".to_owned(),
            }
            .into());
        };
        let stored = current.stored();
        let entry = line
            .entry(&stored.account_id, &stored.currency)
            .map_err(|column| current.unreadable(sequence, column))?;
        current.push(&entry)?;
        self.totals.entries += 1;
        if let Some(kind) = self.comparison.add_entry(account_key, &entry) {
            self.compared.entries += 1;
            // A partition has far too few entries to overflow.
            self.compared.by_kind[kind as usize] += entry.amount.units();
        }
        Ok(())
    }

    /// Ends the partition at this sequence of its last account.
    fn finish(mut self, until: i64) -> Result<LedgerTotals, VerifyError> {
        if until != i64::MAX {
            // The last account is split here; those before it are whole.
            while self.accounts.len() > 0 {
                self.finish_account()?;
            }
            if let Some(current) = self.current.take() {
                current.require_through(until)?;
                self.add_compared(&current.stored().currency)?;
            }
            return Ok(self.totals);
        }
        while self.current.is_some() {
            self.finish_account()?;
        }
        Ok(self.totals)
    }

    /// Ends the current account and starts the next.
    fn finish_account(&mut self) -> Result<(), VerifyError> {
        if let Some(done) = self.current.take() {
            done.finish()?;
            let stored = done.stored();
            self.totals.accounts += 1;
            self.compared.accounts = 1;
            self.compared.balances = stored.balance.units();
            self.add_compared(&stored.currency)?;
        }
        self.current = self.accounts.next().map(AccountVerifier::new);
        Ok(())
    }

    /// Adds what was found of the current account to the totals.
    fn add_compared(&mut self, currency: &Currency) -> Result<(), VerifyError> {
        let mut found = LedgerTotals::default();
        *found.totals(currency) = std::mem::take(&mut self.compared);
        Ok(self.totals.add(found)?)
    }
}
