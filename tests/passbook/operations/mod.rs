//! The program as an operator sees it: commands, settings, start, migrations, telemetry.

mod admin_port;
mod bench;
mod cli;
mod closed_pipes;
mod commits_of_history;
mod configuration;
mod configuration_spelling;
mod currency_tables;
mod database_urls;
mod deploy_manifests;
mod ephemeral;
mod export_import;
mod export_import_files;
mod export_import_large;
mod heads;
mod migrations;
mod migrations_beside_other_programs;
mod readiness;
mod rolling_update;
mod sessions;
mod startup_errors;
mod telemetry_logs;
mod telemetry_metrics;
mod telemetry_traces;
mod verify;
mod verify_columns;
