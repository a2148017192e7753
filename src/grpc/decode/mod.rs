//! Decodes requests into domain types, and finds requests of invalid shape. One file for each noun.
//!
//! A decoder reads all fields before it rejects a request; of a list that is too long, the elements up
//! to the limit, or none. `BadRequest` lists every violation. The reason of the error is that of the
//! lowest number in `ErrorReason`; of two violations with one number, that of the field declared first.
//! Rules that depend on the state of the ledger belong to the domain.

mod accounts;
mod decoder;
mod events;
mod holds;
mod postings;
mod queries;
mod streamed;

pub use accounts::{
    account_batch, account_update, close, currency_of_new_account, freeze, new_account, unfreeze,
};
pub use decoder::Decoder;
pub use events::watched_events;
pub use holds::{capture, hold_update, new_hold, release};
pub use postings::{batch, deposit, reversal, transaction, transfer, withdraw};
pub use queries::{
    BalanceQuery, EntryList, TransactionList, account_change_list, account_ids, account_list,
    balance, balance_sums, entry_list, hold_list, transaction_list, transaction_name, watch,
};
pub use streamed::streamed;

/// The most legs of one transaction.
pub const LEGS_MAX: usize = 100;
/// The most requests in one batch.
pub const BATCH_MAX: usize = 1000;
/// The most legs in one BatchPostTransactions: their entries must fit into a response of 4 MiB,
/// which clients accept by default.
const BATCH_LEGS_MAX: usize = 5000;
/// The most accounts in one BatchGetAccounts.
const BATCH_GET_MAX: usize = 1000;
/// The most prefixes of accounts in one WatchEvents.
const PREFIXES_MAX: usize = 100;
