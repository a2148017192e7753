//! What is refused before anything is looked at, and which reason comes first.

mod account_and_entry_queries;
mod conditions;
mod currency_codes;
mod hold_and_transaction_queries;
mod holds_and_accounts;
mod malformed_messages;
mod message_sizes;
mod postings;
mod precedence_of_holds_and_accounts;
mod precedence_of_postings;
mod validate_only;
