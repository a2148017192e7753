//! The conformance suite: the real server, as processes of its own, on real databases.
//!
//! One file an RPC, then one file a promise. Each test runs on SQLite and on PostgreSQL where
//! both have the behaviour (`on_both_databases!`). `scripts/test` brings the PostgreSQL.

mod harness;

mod account_states;
mod batch_get_accounts;
mod batch_post_transactions;
mod capture_hold;
mod create_account;
mod deposit;
mod get_account;
mod get_balance;
mod get_transaction;
mod holds_queries;
mod list_account_changes;
mod list_accounts;
mod list_entries;
mod list_transactions;
mod list_transactions_at_length;
mod place_hold;
mod post_transaction;
mod release_hold;
mod resolve_request;
mod reverse_transaction;
mod stream_transactions;
mod transfer;
mod update_account;
mod verify_account;
mod watch_entries;
mod withdraw;
mod write_path_stats;

mod bad_bytes;
mod bad_input;
mod bad_input_in_new_queries;
mod bad_input_in_new_rpcs;
mod bad_input_in_queries;
mod bench;
mod cancellation;
mod commands;
mod commit_cuts;
mod conditions;
mod dry_runs;
mod exactly_once;
mod expired_holds;
mod export_import;
mod export_import_large;
mod failover;
mod failure;
mod foreign_lock;
mod guards;
mod guards_of_holds;
mod health_and_reflection;
mod locking;
mod locking_controls;
mod migrations;
mod model;
mod overdraft_race;
mod overload;
mod paging_under_writes;
mod poison;
mod precedence;
mod precedence_of_new_rpcs;
mod races;
mod races_of_holds;
mod races_with_time;
mod readiness;
mod resolve_after_a_kill;
mod round_trips;
mod shutdown;
mod start_up;
mod strangers;
mod tidy;
mod verify;
mod watching_through_trouble;
