//! Encodes domain types into messages of the contract. One file for each noun.
//!
//! Encoding cannot fail, and knows no rules. Lists are cut, and responses that would be too large
//! are rejected, in [`response_size`].

mod accounts;
mod events;
mod holds;
mod requests;
pub mod response_size;
mod transactions;
mod values;
mod verification;

pub use accounts::{account, account_change, account_state, balance_sum, created_account};
pub use events::{EVENT_TOKEN_FORM, event, event_kind, event_token};
pub use holds::{hold, hold_state};
pub use requests::{fenced, outcome, posting_result, streamed_result};
pub use transactions::{entry, transaction, transaction_kind, watched_entry};
pub use values::{money, sum};
pub use verification::verified_account;
