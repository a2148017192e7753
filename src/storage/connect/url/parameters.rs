//! The parameters of a URL. Providers' URLs have libpq's, so those are known here.

use std::sync::Once;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::storage::connect::url::{
    error::DatabaseUrlError,
    parts::{Pairs, port_number, without_brackets},
};

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Whether sqlx understands a parameter. It would log others with their values, and ignore them.
fn is_known_to_sqlx(name: &str) -> bool {
    match name {
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey"
        | "ssl-key" | "dbname" | "user" | "password" | "host" | "application_name" | "options" => {
            true
        }
        _ => name.starts_with("options[") && name.ends_with(']'),
    }
}

/// Whether a parameter of libpq's changes nothing here. Connections have their own time limits and
/// keepalives, the primary is found in any case, and the character set is UTF-8.
fn changes_nothing(name: &str, value: &str) -> bool {
    match name {
        "connect_timeout"
        | "keepalives"
        | "keepalives_idle"
        | "keepalives_interval"
        | "keepalives_count"
        | "tcp_user_timeout"
        | "fallback_application_name"
        | "load_balance_hosts"
        | "krbsrvname"
        | "gsslib"
        | "sslsni"
        | "sslcompression"
        | "max_protocol_version" => true,
        "channel_binding" => matches!(value, "disable" | "prefer" | "require"),
        "gssencmode" => matches!(value, "disable" | "prefer"),
        "gssdelegation" | "requiressl" => value == "0",
        "target_session_attrs" => matches!(value, "any" | "read-write" | "primary"),
        "client_encoding" => matches!(value, "UTF8" | "utf8" | "UTF-8" | "utf-8" | "auto"),
        "sslnegotiation" => value == "postgres",
        "sslcertmode" => matches!(value, "allow" | "disable"),
        "ssl_min_protocol_version" => matches!(value, "" | "TLSv1" | "TLSv1.1" | "TLSv1.2"),
        "ssl_max_protocol_version" => matches!(value, "" | "TLSv1.3"),
        "min_protocol_version" => value == "3.0",
        "sslkeylogfile" => value.is_empty(),
        _ => false,
    }
}

/// What to do about a parameter that cannot be used as it is.
fn advice_on(name: &str) -> Option<&'static str> {
    Some(match name {
        "sslmode" | "ssl-mode" => {
            "it must be disable, allow, prefer, require, verify-ca or verify-full"
        }
        "port" => "it must be a number from 1 to 65535",
        "statement-cache-capacity" => "it must be a whole number",
        "hostaddr" => "it must be an IP address",
        "target_session_attrs" => "changes go to the primary: write read-write, or leave it out",
        "gssencmode" => "TLS encrypts connections: write gssencmode=disable, or leave it out",
        "channel_binding" => "it must be disable, prefer or require",
        "client_encoding" => "it is always UTF8: leave it out",
        "sslnegotiation" => "it must be postgres: write that, or leave it out",
        "ssl_min_protocol_version" | "ssl_max_protocol_version" => {
            "connections use TLS 1.2 or 1.3: leave it out"
        }
        "requiressl" | "ssl" | "tls" | "sslaccept" => {
            "write sslmode=verify-full, or sslmode=require, instead"
        }
        "sslrootcert" => "system goes with sslmode=verify-full only",
        "sslpassword" => "leave it out, and name a key without a passphrase in sslkey",
        "sslcrl" | "sslcrldir" => "lists of revoked certificates are not supported: leave it out",
        "passfile" => "name the file in database_password_file instead",
        "service" | "servicefile" => "write the settings of the service into the URL instead",
        "search_path" | "schema" | "currentSchema" => "write options[search_path]=NAME instead",
        "database" | "username" => {
            "write it in its place in the URL: postgres://USER:PASSWORD@HOST:PORT/NAME"
        }
        "sslcertmode"
        | "min_protocol_version"
        | "gssdelegation"
        | "sslkeylogfile"
        | "require_auth"
        | "requirepeer"
        | "replication"
        | "pgbouncer"
        | "connection_limit"
        | "pool_timeout"
        | "pool_max_conns" => "it is not supported: leave it out",
        _ => return None,
    })
}

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
    if changes_nothing(name, &value) {
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
        _ => is_known_to_sqlx(name),
    };
    match (is_right, name) {
        (true, "host") => Ok(Some(without_brackets(&value).to_owned())),
        (true, _) => Ok(Some(value)),
        (false, _) => Err(advice(name, is_behind_password)),
    }
}

fn advice(name: &str, is_behind_password: bool) -> DatabaseUrlError {
    let is_plain = name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it));
    match advice_on(name) {
        Some(advice) => DatabaseUrlError::Parameter { name: name.to_owned(), advice },
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
            "database_url has channel_binding=require, which is not supported; \
             sslmode=verify-full proves the identity of the server, too"
        );
    });
}

/// Encodes parameters so that every URL parser reads the same.
pub(super) fn query<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}
