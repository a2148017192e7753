//! The conformance suite: the real server, as processes of its own, on real databases.
//!
//! One file an RPC, then one file a promise. Each test runs on SQLite and on PostgreSQL where
//! both have the behaviour (`on_both_databases!`). `scripts/test` brings the PostgreSQL.

mod harness;

mod batch_get_accounts;
mod batch_post_transactions;
mod create_account;
mod deposit;
mod get_account;
mod get_transaction;
mod list_accounts;
mod list_entries;
mod post_transaction;
mod stream_transactions;
mod transfer;
mod withdraw;
mod write_path_stats;

mod bad_bytes;
mod bad_input;
mod bad_input_in_queries;
mod bench;
mod cancellation;
mod commands;
mod commit_cuts;
mod conditions;
mod dry_runs;
mod exactly_once;
mod failure;
mod foreign_lock;
mod guards;
mod health_and_reflection;
mod locking;
mod locking_controls;
mod migrations;
mod overdraft_race;
mod overload;
mod paging_under_writes;
mod poison;
mod precedence;
mod resolve_after_a_kill;
mod resolve_request;
mod round_trips;
mod shutdown;
mod strangers;
mod tidy;
