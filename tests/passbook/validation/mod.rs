//! Requests that are refused before any lookup, and the precedence of errors.

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
