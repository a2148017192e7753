//! Requests that are invalid, before any lookup, and the precedence of errors.

mod changes;
mod conditions;
mod currency_codes;
mod holds_and_accounts;
mod malformed_messages;
mod message_sizes;
mod postings;
mod precedence_of_holds_and_accounts;
mod precedence_of_postings;
mod queries;
mod random_messages;
mod validate_only;
