//! The command line: one module for each command. Those for people are in `passbook-terminal`.

mod checked_settings;
mod completions;
mod config;
mod contra_accounts;
mod ephemeral;
mod export;
mod heads;
mod healthcheck;
mod import;
mod man;
mod migrate;
mod progress;
mod published_file;
mod recorded_identities;
mod reloads;
mod schema;
mod serve;
mod token;
mod verify;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use passbook_bench::Bench;
use passbook_command::{CliError, output};
use rustix::{fs::Mode, process::umask};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{
        environment,
        file::{self, Settings},
        password_in_arguments,
    },
    telemetry::{self, log::LogFormat},
};

/// The default log filter. Four libraries are quieter than `info`: the migrator and PostgreSQL log
/// even that there was nothing to do, the trace exporter logs a lost collector twice, and h2 logs
/// lines that every attacker can cause.
const LOG_DEFAULT: &str =
    "info,sea_orm_migration=warn,sqlx::postgres::notice=warn,opentelemetry-otlp=off,h2=error";

/// A filter, or what is wrong with it. To the library a word alone is a module, so a misspelled level would
/// turn the log off.
fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let is_module = |part: &&str| {
        !part.contains(['=', '[']) && part.parse::<tracing::level_filters::LevelFilter>().is_err()
    };
    let mut parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    if let Some(word) = parts.find(is_module) {
        return Err(format!(
            "{word} is no level (off, error, warn, info, debug, trace); that of a module is written as \
             {word}=debug"
        ));
    }
    text.parse().map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

/// The heading of the flags that every command has.
const GLOBAL: &str = "Global options";

/// Passbook: a gRPC account service, the one place where account balances change.
///
/// Every setting of `serve` is a flag, an environment variable PASSBOOK_..., and a key of a TOML file
/// (--config). The key is the name of the flag with _ for -. A flag overrides the variable, the
/// variable overrides the file, and the file overrides the default.
///
/// Exit codes: 0 success, 1 error, 2 wrong usage or an invalid request. Commands that call a server
/// also have 3 rejected by the state, 4 not found, 5 denied, 6 no result and nothing was applied,
/// 7 no result and the change may have been applied.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// A TOML file with settings, such as `listen = "127.0.0.1:50051"`.
    #[arg(long, env, value_name = "FILE", global = true, help_heading = GLOBAL)]
    config: Option<PathBuf>,

    /// The filter of the log, which goes to stderr: a level, or levels by module, such as
    /// passbook=debug,h2=warn.
    #[arg(long, env, default_value = LOG_DEFAULT, global = true, help_heading = GLOBAL)]
    #[arg(value_name = "FILTER", value_parser = log_filter)]
    log: EnvFilter,

    /// The format of the log.
    #[arg(long, env, default_value_t = LogFormat::Auto, global = true, help_heading = GLOBAL)]
    #[arg(value_enum, value_name = "FORMAT")]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve gRPC until SIGTERM or ctrl-c.
    Serve(serve::Serve),
    #[command(flatten)]
    Terminal(passbook_terminal::Command),
    /// Validate settings without serving.
    Config(config::Config),
    /// Create tokens for callers.
    Token(token::Token),
    /// Create, update, show or revert the schema of the database.
    Migrate(migrate::Migrate),
    /// Recompute the whole ledger: exit code 1 if a stored value is wrong.
    Verify(verify::Verify),
    /// Write the whole ledger as JSON Lines.
    Export(export::Export),
    /// Read an export into an empty database.
    Import(import::Import),
    /// Sign where the chain of each account's entries ends: `verify --heads` checks it later.
    Heads(heads::Heads),
    /// Load servers, measure them, and check the balances: exit code 1 if money was lost or created. Not
    /// for a ledger that you keep: the accounts that a run opens stay.
    Bench(Bench),
    /// Ask a server for its health: exit code 0 if it serves, 1 if it does not.
    Healthcheck(healthcheck::Healthcheck),
    /// Print the script with which a shell completes commands and flags.
    Completions(completions::Completions),
    /// Print the manual page of `passbook`, or write those of all commands.
    Man(man::Man),
}

/// How long the end of the process waits for threads that are blocked.
const BLOCKED_TIME_MAX: Duration = Duration::from_secs(1);

/// Parses the command line, runs its command, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // Only this user may read what this program creates: ledgers, exports, tokens.
    umask(Mode::RWXG | Mode::RWXO);
    let (matches, file) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            output::error_line(format_args!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    telemetry::log::start(cli.log, cli.log_format);
    for unknown in environment::unknown_variables(&command()) {
        tracing::warn!("{unknown}");
    }
    if let Some(warning) = file.as_ref().and_then(Settings::warning) {
        tracing::warn!("{warning}");
    }
    let runtime = match &cli.command {
        Command::Bench(bench) => bench.runtime(),
        _ => Runtime::new(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(serve) => serve.run(password_in_arguments(&matches)).await,
            Command::Terminal(command) => command.run().await,
            Command::Config(config) => config.run(),
            Command::Token(token) => token.run(),
            Command::Migrate(migrate) => migrate.run().await,
            Command::Verify(verify) => verify.run().await,
            Command::Export(export) => export.run().await,
            Command::Import(import) => import.run().await,
            Command::Heads(heads) => heads.run().await,
            Command::Bench(bench) => bench.run().await,
            Command::Healthcheck(healthcheck) => healthcheck.run().await,
            Command::Completions(completions) => completions.run(command()),
            Command::Man(man) => man.run(file::document_keys(command())),
        }
    });
    // A file that cannot be read because its file system hangs must not keep the process.
    runtime.shutdown_timeout(BLOCKED_TIME_MAX);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Usage(message)) => {
            let sources = environment::sources(&message, &matches, file.as_ref());
            output::error_line(format_args!("error: {message}{sources}"));
            ExitCode::from(2)
        }
        Err(CliError::Run(message)) => failed(&message),
        Err(CliError::OutputClosed) => ExitCode::FAILURE,
        Err(CliError::Reported(exit_code)) => ExitCode::from(exit_code),
    }
}

fn command() -> clap::Command {
    environment::with_prefix(Cli::command())
}

/// Parses flags and variables. If they name a file of settings, reads the file and parses flags and
/// variables again with the values of the file as defaults.
fn parse() -> Result<(ArgMatches, Option<Settings>), String> {
    let whole = file::document_keys(command());
    let command = environment::without_empty_variables(whole.clone());
    let matches = command
        .try_get_matches()
        .or_else(|error| environment::explain(&error, &whole).map_or_else(|| error.exit(), Err))?;
    let Some(path) = matches.get_one::<PathBuf>(file::CONFIG_ID) else {
        return Ok((matches, None));
    };
    let settings = Settings::read(path, &whole).map_err(|error| {
        let message = error.to_string();
        let sources = environment::sources(&message, &matches, None);
        message + &sources
    })?;
    let command = environment::without_empty_variables(settings.apply(whole));
    let matches =
        command.try_get_matches().map_err(|error| settings.explain(&error).to_string())?;
    Ok((matches, Some(settings)))
}

fn failed(message: &str) -> ExitCode {
    output::error_line(format_args!("error: {message}"));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::{LOG_DEFAULT, log_filter};

    #[test]
    fn a_misspelled_level_is_no_module() {
        for right in [LOG_DEFAULT, "warn", "INFO", "off", "passbook=debug,h2=warn"] {
            assert!(log_filter(right).is_ok(), "{right}");
        }
        for wrong in ["warning", "verbose", "inf,h2=warn", "passbook", "passbook=dbug"] {
            assert!(log_filter(wrong).is_err(), "{wrong}");
        }
    }
}
