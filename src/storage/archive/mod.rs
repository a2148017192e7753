//! Export and import: the whole ledger as lines of JSON, to move it to another database.
//!
//! ```text
//! {"type":"header","format":"passbook","format_version":1,"schema_version":"m...",...}
//! {"type":"currency","currency_code":"ETH","currency_scale":18}
//! {"type":"account","account_id":"alice",...}
//! {"type":"request",...}  {"type":"entry",...}  {"type":"hold",...}  {"type":"account_change",...}
//! {"type":"commit",...}
//! {"type":"trailer","lines":{"currency":1,"account":2,...}}
//! ```
//!
//! A line is a row with all of its columns: amounts as strings, bytes in hexadecimal, JSON as it
//! is, accounts by their ids, and other values as stored. The trailer counts the lines, so that a truncated file is
//! noticed. Rejected requests and fences are included: without them, a repeated request that was
//! rejected could be applied after the move.

mod export;
mod fields;
mod import;
mod input;
mod insert;
mod reader;
mod values;

pub use export::ExportError;
pub use import::{ImportError, ImportProgress};

use crate::storage::tables::{TABLE_COUNT, TABLES};

/// The name in the header.
const FORMAT: &str = "passbook";
/// Rises with each change that older readers cannot read.
const FORMAT_VERSION: u64 = 1;

/// The number of lines of each table, in the order of [`TABLES`].
type Counts = [u64; TABLE_COUNT];

/// The trailer line with these counts.
fn trailer(counts: &Counts) -> serde_json::Value {
    let lines: serde_json::Map<String, serde_json::Value> = TABLES
        .iter()
        .zip(counts)
        .map(|(table, count)| (table.row_name.into(), (*count).into()))
        .collect();
    serde_json::json!({ "type": "trailer", "lines": lines })
}
