//! Import: lines into an empty database, all or nothing.

use std::{
    io::BufRead,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use migration::{
    m20261126_000007_commits::write_commits,
    m20261129_000010_opening_attributes::write_opening_attributes,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use crate::storage::archive::{
    fields::{FIELDS, Row, store_values},
    insert::{insert, rows_max},
    reader::RecordReader,
};
use crate::{
    domain::verification::LedgerTotals,
    storage::{
        CommitError, StorageError, Store, VerifyError, VerifyProgress,
        connect::session::Role,
        dialect::DatabaseKind,
        snapshot::look_up_by_index,
        tables::{COMMITS, TABLE_COUNT, TABLES, Table},
        verify::verify,
        write::transaction,
    },
};

/// Bytes of one table's lines that are collected before they are inserted.
const CHUNK_BYTES: u64 = 4 << 20;

/// The progress of an import.
#[derive(Debug, Default)]
pub struct ImportProgress {
    /// Bytes of the input read so far.
    pub bytes: AtomicU64,
    /// Whether all input is read and is being verified.
    pub is_verifying: AtomicBool,
    /// The progress of the verification.
    pub verify: Arc<VerifyProgress>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A table has rows already.
    #[error("the database is not empty: the table {0} has rows; import into a new database")]
    NotEmpty(String),
    /// A line is not one of an export.
    #[error("{0}")]
    Line(String),
    /// The database refused some rows.
    #[error("lines {from}-{to}, of type {line}: {error}")]
    Refused {
        /// The first line of those rows.
        from: u64,
        /// The last line of those rows.
        to: u64,
        /// The type of the lines.
        line: &'static str,
        /// The database's reason.
        error: StorageError,
    },
    /// The imported ledger has a fault.
    #[error("the imported ledger is inconsistent: {0}")]
    Verify(#[from] VerifyError),
    /// The database does not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// COMMIT was not confirmed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<DbErr> for ImportError {
    fn from(error: DbErr) -> Self {
        Self::Storage(error.into())
    }
}

impl Store {
    /// Reads an export into this database, which has the schema and nothing else in it, verifies
    /// it as a whole, and only then commits. Servers wait meanwhile.
    ///
    /// # Errors
    /// Why not; then nothing was changed, unless COMMIT was not confirmed.
    pub async fn import(
        &self,
        input: impl BufRead + Send,
        progress: &ImportProgress,
    ) -> Result<LedgerTotals, ImportError> {
        let transaction = transaction::begin(&self.open(Role::Maintenance).await?).await?;
        let kind = DatabaseKind::of(&transaction);
        look_up_by_index(&transaction).await?;
        let names = TABLES.map(|table| table.name).join(", ");
        if kind == DatabaseKind::Postgres {
            let lock = format!("LOCK TABLE {names} IN EXCLUSIVE MODE");
            transaction.execute_unprepared(&lock).await?;
        }
        require_empty(&transaction).await?;
        fill(&transaction, input, progress).await?;
        if !has_rows(&transaction, &COMMITS).await? {
            // An export of the schema before.
            write_commits(&transaction).await?;
            write_opening_attributes(&transaction).await?;
        }
        if kind == DatabaseKind::Postgres {
            // Without statistics the planner takes the tables for empty.
            transaction.execute_unprepared(&format!("ANALYZE {names}")).await?;
        }
        progress.is_verifying.store(true, Ordering::Relaxed);
        let transaction = Arc::new(transaction);
        let totals = verify(std::slice::from_ref(&transaction), &progress.verify).await?;
        // All tasks that shared the transaction ended with the verification.
        let transaction = Arc::into_inner(transaction).ok_or_else(|| {
            StorageError::Unavailable("the import's transaction is still in use".to_owned())
        })?;
        transaction.commit().await.map_err(CommitError::from)?;
        Ok(totals)
    }
}

/// Only currencies may be there: a server records the configured ones at its start.
async fn require_empty(transaction: &DatabaseTransaction) -> Result<(), ImportError> {
    for table in TABLES.iter().filter(|table| table.row_name != "currency") {
        if has_rows(transaction, table).await? {
            return Err(ImportError::NotEmpty(table.name.to_owned()));
        }
    }
    Ok(())
}

async fn has_rows(transaction: &DatabaseTransaction, table: &Table) -> Result<bool, DbErr> {
    let sql = format!("SELECT 1 FROM {} LIMIT 1", table.name);
    let statement = DatabaseKind::of(transaction).statement(sql, []);
    Ok(transaction.query_one_raw(statement).await?.is_some())
}

/// Rows of one table to be inserted.
#[derive(Default)]
struct Chunk {
    rows: Vec<Row>,
    bytes: u64,
    first_line: u64,
}

async fn fill(
    transaction: &DatabaseTransaction,
    input: impl BufRead + Send,
    progress: &ImportProgress,
) -> Result<(), ImportError> {
    let rows_max = rows_max(DatabaseKind::of(transaction));
    let mut records = RecordReader::begin(input).map_err(ImportError::Line)?;
    let mut chunks: [Chunk; TABLE_COUNT] = Default::default();
    let mut bytes = records.bytes;
    while let Some((table, row)) = records.next().map_err(ImportError::Line)? {
        let chunk = &mut chunks[table];
        if chunk.rows.is_empty() {
            chunk.first_line = records.number;
        }
        chunk.bytes += records.bytes - bytes;
        bytes = records.bytes;
        chunk.rows.push(row);
        if chunk.rows.len() == rows_max || chunk.bytes > CHUNK_BYTES {
            // Of rows that name accounts, the accounts come first.
            for (table, chunk) in chunks[..=table].iter_mut().enumerate() {
                let chunk = std::mem::take(chunk);
                if !chunk.rows.is_empty() {
                    flush(transaction, table, chunk, records.number).await?;
                }
            }
            progress.bytes.store(records.bytes, Ordering::Relaxed);
        }
    }
    for (table, chunk) in chunks.into_iter().enumerate() {
        if !chunk.rows.is_empty() {
            flush(transaction, table, chunk, records.number).await?;
        }
    }
    progress.bytes.store(records.bytes, Ordering::Relaxed);
    Ok(())
}

async fn flush(
    transaction: &DatabaseTransaction,
    table: usize,
    mut chunk: Chunk,
    to: u64,
) -> Result<(), ImportError> {
    let (fields, from) = (&FIELDS[table], chunk.first_line);
    let table: &Table = TABLES[table];
    let refused = |error| ImportError::Refused { from, to, line: table.row_name, error };
    if table.row_name == "currency" {
        // Skips those that are there already with the same decimals.
        let existing = existing_currencies(transaction).await?;
        chunk.rows.retain(|row| !existing.contains(row));
        if chunk.rows.is_empty() {
            return Ok(());
        }
    }
    store_values(transaction, fields, &mut chunk.rows).await.map_err(refused)?;
    insert(transaction, table, chunk.rows).await.map_err(refused)
}

async fn existing_currencies(transaction: &DatabaseTransaction) -> Result<Vec<Row>, StorageError> {
    let sql = "SELECT currency_code, currency_scale FROM currencies";
    let statement = DatabaseKind::of(transaction).statement(sql, []);
    let mut currencies = Vec::new();
    for row in transaction.query_all_raw(statement).await? {
        let code: String = row.try_get_by_index(0)?;
        let scale: i16 = row.try_get_by_index(1)?;
        currencies.push(vec![code.into(), scale.into()]);
    }
    Ok(currencies)
}
