//! `passbook token`: creates bearer tokens.

use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use passbook_command::{CliError, output, parse_duration};
use sha2::{Digest, Sha256};

use crate::domain::{
    hex::to_hex,
    ids::{Identity, IdentityKind},
};

/// The prefix of every token. Secret scanners find leaked tokens by it.
const PREFIX: &str = "pbk_";
/// The number of random bytes in a token.
const SECRET_LENGTH: usize = 32;
/// The first time that RFC 3339 cannot express, since the Unix epoch.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a token. The token goes to standard output, and is stored nowhere. Its entry for the
    /// file of tokens goes to standard error, or to the end of that file with --append. The policy must
    /// have the identity first: servers reject a file of tokens with another one as a whole, and go on
    /// with what they had, also when the policy is narrowed. `passbook config check` finds that.
    Create {
        /// The identity that the token authenticates: a name that is in the policy.
        #[arg(long, value_name = "NAME", value_parser = token_identity)]
        identity: Identity,

        /// The lifetime of the token, such as 90days. Default: until its entry is removed from the
        /// file of tokens.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires_in: Option<Duration>,

        /// The file of tokens to which the entry of the token is appended. Servers read the file
        /// again within seconds.
        #[arg(long, value_name = "FILE")]
        append: Option<std::path::PathBuf>,
    },
}

impl Token {
    pub fn run(self) -> Result<(), CliError> {
        let Action::Create { identity, expires_in, append } = self.action;
        let mut secret = [0; SECRET_LENGTH];
        getrandom::fill(&mut secret).map_err(CliError::run)?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let sha256 = to_hex(&Sha256::digest(&token));
        let quoted = toml::Value::from(identity.as_str());
        let expire_time = match expires_in {
            None => "\"never\"".to_owned(),
            Some(duration) => expire_time(SystemTime::now(), duration)?,
        };
        let lines = format!(
            "[[token]]\nidentity = {quoted}\nsha256 = \"{sha256}\"\nexpire_time = {expire_time}\n"
        );
        match append {
            Some(path) => append_to(&path, &lines)
                .map_err(|error| CliError::Run(format!("{}: {error}", path.display())))?,
            None => output::error_line(lines.trim_end()),
        }
        // The token is stored nowhere: a caller that did not get it needs an error.
        writeln!(std::io::stdout(), "{token}").map_err(|error| {
            CliError::Run(format!("the token is lost, because it could not be written: {error}"))
        })
    }
}

/// The time after this duration, as in RFC 3339.
fn expire_time(now: SystemTime, duration: Duration) -> Result<String, CliError> {
    let time = now.checked_add(duration).filter(|time| *time < UNIX_EPOCH + YEAR_10000);
    let time = time.ok_or_else(|| {
        CliError::Usage(
            "--expires-in must end before the year 10000: leave it out for a token \
             without an end"
                .to_owned(),
        )
    })?;
    Ok(humantime::format_rfc3339_seconds(time).to_string())
}

fn token_identity(name: &str) -> Result<Identity, String> {
    Identity::new(IdentityKind::Token, name)
}

fn append_to(path: &std::path::Path, lines: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    // With one write, because a server may read the file at this moment.
    file.write_all(format!("\n{lines}").as_bytes())
}
