//! The parameters of a URL. Providers' URLs have libpq's, so those are known here.

use std::sync::Once;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::storage::connect::url::{
    error::DatabaseUrlError,
    parts::{Pairs, port_number, without_brackets},
};

/// Parameters that sqlx understands. Others it would log, with their values, and ignore.
const KEPT: [&str; 14] = [
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "host",
];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// libpq's parameters that change nothing here, with the values for which that is true (empty:
/// all). Connections have their own time limits and keepalives, the primary is found in any case,
/// and the character set is UTF-8.
const DROPPED: [(&str, &[&str]); 25] = [
    ("connect_timeout", &[]),
    ("keepalives", &[]),
    ("keepalives_idle", &[]),
    ("keepalives_interval", &[]),
    ("keepalives_count", &[]),
    ("tcp_user_timeout", &[]),
    ("fallback_application_name", &[]),
    ("load_balance_hosts", &[]),
    ("krbsrvname", &[]),
    ("gsslib", &[]),
    ("sslsni", &[]),
    ("sslcompression", &[]),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("gssencmode", &["disable", "prefer"]),
    ("gssdelegation", &["0"]),
    ("target_session_attrs", &["any", "read-write", "primary"]),
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ("sslnegotiation", &["postgres"]),
    ("sslcertmode", &["allow", "disable"]),
    ("ssl_min_protocol_version", &["", "TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("ssl_max_protocol_version", &["", "TLSv1.3"]),
    ("min_protocol_version", &["3.0"]),
    ("max_protocol_version", &[]),
    ("requiressl", &["0"]),
    ("sslkeylogfile", &[""]),
];

const LEAVE_OUT: &str = "it cannot be done here: leave it out";
const WRITE_SSL_MODE: &str = "write sslmode=verify-full, or sslmode=require, instead";
const WRITE_SEARCH_PATH: &str = "write options[search_path]=NAME instead";
const WRITE_PLACE: &str = "write it where a URL has it: postgres://USER:PASSWORD@HOST:PORT/NAME";
const WRITE_PASSWORD_FILE: &str = "name the file in database_password_file instead";

/// Parameters that cannot be used as they are, and what to do instead.
const ADVICE: [(&str, &str); 38] = [
    ("sslmode", "it must be disable, allow, prefer, require, verify-ca or verify-full"),
    ("port", "it must be a number from 1 to 65535"),
    ("statement-cache-capacity", "it must be a whole number"),
    ("hostaddr", "it must be an IP address"),
    ("target_session_attrs", "changes go to the primary: write read-write, or leave it out"),
    ("gssencmode", "connections are encrypted by TLS: write gssencmode=disable, or leave it out"),
    ("channel_binding", "it must be disable, prefer or require"),
    ("client_encoding", "it is always UTF8: leave it out"),
    ("sslnegotiation", "it must be postgres: write that, or leave it out"),
    ("sslcertmode", LEAVE_OUT),
    ("ssl_min_protocol_version", "TLS 1.2 and 1.3 are spoken: leave it out"),
    ("ssl_max_protocol_version", "TLS 1.2 and 1.3 are spoken: leave it out"),
    ("min_protocol_version", LEAVE_OUT),
    ("gssdelegation", LEAVE_OUT),
    ("requiressl", WRITE_SSL_MODE),
    ("ssl", WRITE_SSL_MODE),
    ("tls", WRITE_SSL_MODE),
    ("sslaccept", WRITE_SSL_MODE),
    ("sslpassword", "give a key without a passphrase in sslkey, and leave it out"),
    ("sslcrl", "lists of revoked certificates are not looked at: leave it out"),
    ("sslcrldir", "lists of revoked certificates are not looked at: leave it out"),
    ("sslkeylogfile", LEAVE_OUT),
    ("passfile", WRITE_PASSWORD_FILE),
    ("service", "write what the service's file says into the URL"),
    ("servicefile", "write what the service's file says into the URL"),
    ("require_auth", LEAVE_OUT),
    ("requirepeer", LEAVE_OUT),
    ("replication", LEAVE_OUT),
    ("search_path", WRITE_SEARCH_PATH),
    ("schema", WRITE_SEARCH_PATH),
    ("currentSchema", WRITE_SEARCH_PATH),
    ("database", WRITE_PLACE),
    ("username", WRITE_PLACE),
    ("pgbouncer", LEAVE_OUT),
    ("connection_limit", LEAVE_OUT),
    ("pool_timeout", LEAVE_OUT),
    ("pool_max_conns", LEAVE_OUT),
    ("sslrootcert", "system goes with sslmode=verify-full only"),
];
/// The longest name that an error repeats.
const NAME_LENGTH_MAX: usize = 40;

/// Parameters for sqlx.
pub(super) struct Parameters {
    pub kept: Pairs,
}

impl Parameters {
    /// Keeps the parameters for sqlx. The error names the first that cannot be used.
    pub(super) fn check(all: Pairs) -> Result<Self, DatabaseUrlError> {
        let mut kept = Pairs::new();
        for (name, value) in all {
            let is_behind_password = kept.iter().any(|(name, _)| name == "password");
            if let Some(value) = value_to_keep(&name, value, is_behind_password)? {
                kept.push((name, value));
            }
        }
        let mut this = Self { kept };
        this.use_built_in_roots()?;
        Ok(this)
    }

    /// The value of the last parameter with one of these names.
    pub(super) fn last(&self, names: &[&str]) -> Option<&str> {
        let mut from_end = self.kept.iter().rev();
        from_end.find(|(name, _)| names.contains(&&**name)).map(|(_, value)| &**value)
    }

    /// Replaces `sslrootcert=system`, which names no file. As in libpq, it requires verify-full.
    fn use_built_in_roots(&mut self) -> Result<(), DatabaseUrlError> {
        if self.last(&["sslrootcert"]) != Some("system") {
            return Ok(());
        }
        self.kept.retain(|(name, _)| name != "sslrootcert");
        match self.last(&["sslmode"]) {
            Some("verify-full") => {}
            None => self.kept.push(("sslmode".to_owned(), "verify-full".to_owned())),
            Some(_) => return Err(advice("sslrootcert", false)),
        }
        Ok(())
    }
}

/// The value for sqlx; None if the parameter changes nothing.
fn value_to_keep(
    name: &str,
    value: String,
    is_behind_password: bool,
) -> Result<Option<String>, DatabaseUrlError> {
    if let Some((_, values)) = DROPPED.iter().find(|(dropped, _)| *dropped == name)
        && (values.is_empty() || values.contains(&&*value))
    {
        if (name, &*value) == ("channel_binding", "require") {
            warn_of_channel_binding();
        }
        return Ok(None);
    }
    let is_right = match name {
        "host" | "hostaddr" | "port" if value.contains(',') => {
            return Err(DatabaseUrlError::HostsAsParameter);
        }
        "sslmode" | "ssl-mode" => SSL_MODES.contains(&&*value),
        "port" => port_number(&value).is_some(),
        "hostaddr" => value.parse::<std::net::IpAddr>().is_ok(),
        "statement-cache-capacity" => value.parse::<usize>().is_ok(),
        _ => KEPT.contains(&name) || (name.starts_with("options[") && name.ends_with(']')),
    };
    match (is_right, name) {
        (true, "host") => Ok(Some(without_brackets(&value).to_owned())),
        (true, _) => Ok(Some(value)),
        (false, _) => Err(advice(name, is_behind_password)),
    }
}

fn advice(name: &str, is_behind_password: bool) -> DatabaseUrlError {
    let known = ADVICE.iter().find(|(known, _)| *known == name.replace("ssl-mode", "sslmode"));
    let is_plain = name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it));
    match known {
        Some((_, advice)) => DatabaseUrlError::Parameter { name: name.to_owned(), advice },
        // `?password=a&b=c` may have the password `a&b=c`.
        None if is_behind_password || !is_plain || name.len() > NAME_LENGTH_MAX => {
            DatabaseUrlError::Unnamed
        }
        None => DatabaseUrlError::Unknown(name.to_owned()),
    }
}

/// Warns instead of refusing: the parameter is in providers' URLs.
fn warn_of_channel_binding() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "database_url has channel_binding=require, which is not done here: \
             sslmode=verify-full makes as sure that it is the right server"
        );
    });
}

/// Encodes parameters so that every URL parser reads the same.
pub(super) fn query<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}
