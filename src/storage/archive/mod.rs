//! The whole ledger as lines of JSON, to be moved to another database.
//!
//! ```text
//! {"type":"header","format":"passbook","format_version":1,"schema_version":"m2026...",...}
//! {"type":"currency","currency_code":"ETH","currency_scale":18}
//! {"type":"account","account_id":"alice",...}
//! {"type":"request",...}  {"type":"entry",...}  {"type":"hold",...}  {"type":"account_change",...}
//! {"type":"trailer","lines":{"currency":1,"account":2,...}}
//! ```
//!
//! A line is a row, with all of its columns: amounts as strings, hashes in hexadecimal, JSON as
//! it is, and everything else as it is stored. The trailer counts the lines, so that a file that
//! was cut off is noticed. Requests that were refused and fences are carried, too: else a "no"
//! could turn into a "yes" after the move.

mod export;
mod import;
mod input;
mod insert;
mod reader;

pub use export::ExportError;
pub use import::{ImportError, ImportProgress};

/// The name in the header.
const FORMAT: &str = "passbook";
/// Goes up when a reader of the version before could not read it.
const FORMAT_VERSION: u64 = 1;

/// What a column holds, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A string.
    Text,
    /// A number; 16 bits in PostgreSQL.
    SmallInteger,
    /// A number.
    Integer,
    /// true or false.
    Flag,
    /// A string with a decimal.
    Amount,
    /// A string of hexadecimal digits.
    Bytes,
    /// A string, with hyphens.
    Uuid,
    /// JSON.
    Json,
}

/// A column of a table.
struct Column {
    name: &'static str,
    kind: Kind,
    is_nullable: bool,
}

/// A table, and the type of the lines that carry its rows.
struct Table {
    name: &'static str,
    line: &'static str,
    /// Of the columns, the first so many are the primary key.
    key_length: usize,
    columns: &'static [Column],
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_nullable: false }
}

const fn nullable(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_nullable: true }
}

/// All tables, in the order of the lines.
const TABLES: [Table; 6] = [
    Table {
        name: "currencies",
        line: "currency",
        key_length: 1,
        columns: &[
            column("currency_code", Kind::Text),
            column("currency_scale", Kind::SmallInteger),
        ],
    },
    Table {
        name: "accounts",
        line: "account",
        key_length: 1,
        columns: &[
            column("account_id", Kind::Text),
            column("currency_code", Kind::Text),
            column("currency_scale", Kind::SmallInteger),
            column("balance", Kind::Amount),
            column("held", Kind::Amount),
            column("overdraft_limit", Kind::Amount),
            column("unlimited_overdraft", Kind::Flag),
            column("state", Kind::Text),
            column("sequence", Kind::Integer),
            column("version", Kind::Integer),
            column("last_hash", Kind::Bytes),
            column("labels", Kind::Json),
            column("create_time_us", Kind::Integer),
            column("update_time_us", Kind::Integer),
            column("caller", Kind::Text),
        ],
    },
    Table {
        name: "requests",
        line: "request",
        key_length: 2,
        columns: &[
            column("caller", Kind::Text),
            column("request_id", Kind::Text),
            column("fingerprint", Kind::Bytes),
            column("transaction_id", Kind::Uuid),
            column("kind", Kind::Text),
            nullable("rejection", Kind::Text),
            column("description", Kind::Text),
            column("labels", Kind::Json),
            column("entry_names", Kind::Json),
            column("create_time_us", Kind::Integer),
            nullable("hold_id", Kind::Text),
            nullable("reverses_transaction_id", Kind::Uuid),
        ],
    },
    Table {
        name: "entries",
        line: "entry",
        key_length: 2,
        columns: &[
            column("account_id", Kind::Text),
            column("sequence", Kind::Integer),
            column("transaction_id", Kind::Uuid),
            column("amount", Kind::Amount),
            column("balance_after", Kind::Amount),
            column("create_time_us", Kind::Integer),
            column("hash", Kind::Bytes),
        ],
    },
    Table {
        name: "holds",
        line: "hold",
        key_length: 1,
        columns: &[
            column("hold_id", Kind::Text),
            column("account_id", Kind::Text),
            column("amount", Kind::Amount),
            column("state", Kind::Text),
            nullable("expire_time_us", Kind::Integer),
            nullable("captured_amount", Kind::Amount),
            nullable("transaction_id", Kind::Uuid),
            column("request_id", Kind::Text),
            column("description", Kind::Text),
            column("labels", Kind::Json),
            column("create_time_us", Kind::Integer),
            column("update_time_us", Kind::Integer),
            column("caller", Kind::Text),
            column("end_caller", Kind::Text),
        ],
    },
    Table {
        name: "account_changes",
        line: "account_change",
        key_length: 2,
        columns: &[
            column("account_id", Kind::Text),
            column("version", Kind::Integer),
            column("kind", Kind::Text),
            column("reason", Kind::Text),
            column("caller", Kind::Text),
            column("attributes_before", Kind::Json),
            column("attributes_after", Kind::Json),
            column("create_time_us", Kind::Integer),
        ],
    },
];

/// How many lines there were of each table, in the order of [`TABLES`].
type Counts = [u64; TABLES.len()];

/// The trailer's counts.
fn trailer(counts: &Counts) -> serde_json::Value {
    let lines: serde_json::Map<String, serde_json::Value> = TABLES
        .iter()
        .zip(counts)
        .map(|(table, count)| (table.line.into(), (*count).into()))
        .collect();
    serde_json::json!({ "type": "trailer", "lines": lines })
}
