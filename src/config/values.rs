//! Parsers of values, which accept what people write into flags, variables and files.

use std::{
    ffi::OsStr,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Arg, Command,
    builder::TypedValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use http::Uri;
use passbook_command::parse_duration;

use crate::domain::ids::AccountId;

/// The longest deadline of calls that have none of their own: that of a unary call with any deadline.
pub const DEFAULT_DEADLINE_MAX: Duration = Duration::from_secs(300);

/// A parser of values that may contain a password: its errors do not repeat them, as clap's own do.
#[derive(Clone)]
pub(super) struct Discreet<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Discreet<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "must be UTF-8".to_owned());
        text.and_then(self.0).map_err(|why| {
            let argument = argument.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{argument}': {why}\n");
            let mut error = clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command);
            // From this the variable or the key is found that has the value.
            error.insert(ContextKind::InvalidArg, ContextValue::String(argument));
            error
        })
    }
}

/// Parses a switch in all common spellings: tools that set variables differ in them.
pub(super) fn parse_switch(text: &str) -> Result<bool, &'static str> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err("must be true or false; 1 or 0, yes or no, on or off are accepted, too"),
    }
}

/// Parses the deadline of calls that have none.
pub(super) fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = parse_duration(text)?;
    if deadline > DEFAULT_DEADLINE_MAX {
        return Err(format!("must be at most {}s", DEFAULT_DEADLINE_MAX.as_secs()));
    }
    Ok(deadline)
}

/// Parses a listening address with its port. A name is resolved. `:PORT` means all IPv4 addresses.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    const EXAMPLE: &str = "must be ADDRESS:PORT, such as 127.0.0.1:50051, localhost:50051 or \
                           [::1]:50051, or :50051 for all addresses";
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.contains("://") {
        return Err(format!("{EXAMPLE}, without http://"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address must be in brackets, with its port: {EXAMPLE}"));
    }
    let (host, port) = text.rsplit_once(':').ok_or(EXAMPLE)?;
    let port: u16 = port.parse().map_err(|_| format!("{EXAMPLE}; PORT is from 0 to 65535"))?;
    match host {
        "" | "*" => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        // Not resolved by the system, which may know `localhost` as ::1 only, or not at all.
        _ if host.eq_ignore_ascii_case("localhost") => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ if host.contains([':', '[', ']']) => {
            Err(format!("an IPv6 address must be in brackets: {EXAMPLE}"))
        }
        _ => resolve(host, port).map_err(|why| format!("{host} cannot be resolved: {why}")),
    }
}

/// Resolves a name, to an IPv4 address if it has one: clients use those.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(|error| error.to_string())?.collect();
    let first = addresses.iter().find(|it| it.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| "it has no address".to_owned())
}

/// Codes of currencies with their numbers of decimals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrencyList(pub Vec<(String, u32)>);

/// Parses `CODE=SCALE` items of a list.
pub(super) fn parse_currencies(text: &str) -> Result<CurrencyList, String> {
    parse_list(text, parse_currency).map(CurrencyList)
}

/// Parses items separated by commas. Empty items and spaces around items are ignored.
fn parse_list<T>(
    text: &str,
    parse_item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse_item).collect()
}

fn parse_currency(text: &str) -> Result<(String, u32), String> {
    let wrong = |what: &str| format!("{text:?} {what}");
    let (code, scale) =
        text.split_once('=').ok_or_else(|| wrong("must be CODE=SCALE, such as ETH=18"))?;
    let scale = scale.trim().parse();
    let scale = scale.map_err(|_| wrong("must have a whole number for SCALE, such as ETH=18"))?;
    Ok((code.trim().to_owned(), scale))
}

/// The contra accounts of currencies, by the codes of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContraAccountList(pub Vec<(String, AccountId)>);

/// Parses `CODE=ACCOUNT_ID` items of a list.
pub(super) fn parse_contra_accounts(text: &str) -> Result<ContraAccountList, String> {
    parse_list(text, parse_contra_account).map(ContraAccountList)
}

fn parse_contra_account(text: &str) -> Result<(String, AccountId), String> {
    let parts = text.split_once('=');
    let (code, id) =
        parts.ok_or_else(|| format!("{text:?} must be CODE=ACCOUNT_ID, such as USD=world:usd"))?;
    let account_id = AccountId::parse(id.trim()).map_err(|error| format!("{text:?}: {error}"))?;
    Ok((code.trim().to_owned(), account_id))
}

/// Where the keys are that verify JWTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// In this file.
    File(PathBuf),
    /// At this https URL, or at this http URL of this machine.
    Url(Uri),
}

impl fmt::Display for JwksSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Url(url) => url.fmt(formatter),
        }
    }
}

/// Parses the name of a file or, if it has a scheme, a URL.
pub(super) fn parse_jwks(text: &str) -> Result<JwksSource, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("must be a file or a URL".to_owned());
    }
    if !text.contains("://") {
        return Ok(JwksSource::File(text.into()));
    }
    let url: Uri = text.parse().map_err(|error| format!("must be a file or a URL: {error}"))?;
    if has_user_info(&url) {
        return Err("must not have a user name or a password".to_owned());
    }
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => Ok(JwksSource::Url(url)),
        (Some("http"), Some(host)) if is_loopback(host) => Ok(JwksSource::Url(url)),
        _ => Err("must be a file or an https:// URL; http:// is for this machine only, such as \
                  http://127.0.0.1:8080/jwks"
            .to_owned()),
    }
}

/// Whether a URL has a user name or a password.
pub(super) fn has_user_info(url: &Uri) -> bool {
    url.authority().is_some_and(|authority| authority.as_str().contains('@'))
}

fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_file_or_a_url_that_nobody_else_can_answer() {
        for file in ["jwks.json", "/etc/passbook/jwks.json", " keys "] {
            assert_eq!(parse_jwks(file), Ok(JwksSource::File(file.trim().into())));
        }
        for url in [
            "https://issuer.example/jwks?v=1",
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "http://localhost/",
        ] {
            assert_eq!(parse_jwks(url), Ok(JwksSource::Url(url.parse().unwrap())));
        }
        for wrong in [
            "http://issuer.example/jwks",
            "http://127.0.0.1.example/",
            "https://user:password@issuer.example/",
            "http://127.0.0.1@issuer.example/",
            "ftp://127.0.0.1/",
            "https://",
            "",
        ] {
            assert!(parse_jwks(wrong).is_err_and(|error| !error.contains("password@")), "{wrong}");
        }
    }

    #[test]
    fn all_spellings_of_addresses_are_parsed() {
        for (text, address) in [
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            (" 0.0.0.0:0\n", "0.0.0.0:0"),
            ("[::1]:50051", "[::1]:50051"),
            ("localhost:50051", "127.0.0.1:50051"),
            ("LocalHost:1", "127.0.0.1:1"),
            (":50051", "0.0.0.0:50051"),
            ("*:50051", "0.0.0.0:50051"),
        ] {
            assert_eq!(parse_address(text).map(|it| it.to_string()).as_deref(), Ok(address));
        }
    }

    #[test]
    fn errors_about_addresses_have_an_example() {
        for (text, words) in [
            ("50051", "127.0.0.1:50051, localhost:50051"),
            ("localhost", ":50051 for all addresses"),
            ("127.0.0.1", "must be ADDRESS:PORT"),
            ("127.0.0.1:", "PORT is from 0 to 65535"),
            ("127.0.0.1:70000", "PORT is from 0 to 65535"),
            ("::1:50051", "in brackets"),
            ("::1", "in brackets"),
            ("[::1]", "[::1]:50051"),
            ("http://127.0.0.1:50051", "without http://"),
            ("", "must be ADDRESS:PORT"),
        ] {
            let error = parse_address(text).expect_err(text);
            assert!(error.contains(words) && error.contains("127.0.0.1:50051"), "{text}: {error}");
        }
        let error = parse_address("no such host:1").expect_err("there is none");
        assert!(error.starts_with("no such host cannot be resolved: "), "{error}");
    }

    #[test]
    fn lists_of_currencies_may_have_spaces_and_empty_items() {
        let two = CurrencyList(vec![("ETH".to_owned(), 18), ("PTS".to_owned(), 2)]);
        for text in ["ETH=18,PTS=2", " ETH=18 , PTS = 2,", ",ETH=18,,PTS=2\n"] {
            assert_eq!(parse_currencies(text), Ok(two.clone()), "{text}");
        }
        assert_eq!(parse_currencies(" , "), Ok(CurrencyList(Vec::new())));
        assert!(parse_currencies("ETH").is_err_and(|error| error.contains("\"ETH\" must be")));
        assert!(parse_currencies("ETH=x").is_err_and(|error| error.contains("whole number")));
    }
}
