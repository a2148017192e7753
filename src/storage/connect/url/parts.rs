//! Splits a PostgreSQL URL, strictly: if a part of a password could be read as a delimiter or a
//! host, the result is an error and not a guess.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use crate::storage::connect::{target::HOSTS_MAX, url::error::DatabaseUrlError};

/// Names as libpq's parameters have them, and decoded values.
pub(super) type Pairs = Vec<(String, String)>;

/// The parts of a URL behind its scheme.
pub(super) struct Parts {
    /// `user` and `password`, each if given.
    pub user: Pairs,
    /// `host` and `port` of each host, each if given; at least one host.
    pub hosts: Vec<Pairs>,
    /// `dbname`, if given.
    pub database: Pairs,
    /// The query parameters.
    pub parameters: Pairs,
}

impl Parts {
    /// Splits the text behind `postgres://`.
    pub(super) fn split(rest: &str) -> Result<Self, DatabaseUrlError> {
        // Characters that would end a password too early or be dropped.
        if rest.contains('#') || rest.contains(char::is_control) {
            return Err(DatabaseUrlError::Malformed);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if [user, path, query].iter().any(|part| part.contains('@')) {
            return Err(DatabaseUrlError::Malformed);
        }
        let parts = Self {
            user: user_and_password(user)?,
            hosts: hosts_and_ports(hosts)?,
            database: pair("dbname", path)?,
            parameters: parameters(query)?,
        };
        Ok(parts)
    }
}

fn user_and_password(text: &str) -> Result<Pairs, DatabaseUrlError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok([pair("user", user)?, pair("password", password)?].concat())
}

fn hosts_and_ports(text: &str) -> Result<Vec<Pairs>, DatabaseUrlError> {
    let hosts: Vec<&str> = text.split(',').map(str::trim).collect();
    if hosts.len() > HOSTS_MAX {
        return Err(DatabaseUrlError::HostsMax);
    }
    if hosts.len() > 1 && hosts.contains(&"") {
        return Err(DatabaseUrlError::Hosts);
    }
    hosts.into_iter().map(|host| host_and_port(host).ok_or(DatabaseUrlError::Hosts)).collect()
}

/// A name, an IPv4 address, an IPv6 address in brackets, or a folder of a socket (`%2Frun`).
fn host_and_port(text: &str) -> Option<Pairs> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            (ipv6(&decoded(address).ok()?)?, rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (name(decoded(host).ok()?)?, rest)
        }
    };
    let mut pairs = Pairs::new();
    if !host.is_empty() {
        pairs.push(("host".to_owned(), host));
    }
    match port.strip_prefix(':') {
        // As in `h1:,h2`: the default.
        Some("") => {}
        Some(digits) => pairs.push(("port".to_owned(), port_number(digits)?)),
        None if port.is_empty() => {}
        None => return None,
    }
    Some(pairs)
}

/// The address, with its zone if it has one: `fe80::1%eth0`.
fn ipv6(text: &str) -> Option<String> {
    let address = text.split('%').next().unwrap_or(text);
    address.parse::<Ipv6Addr>().ok().map(|_| text.to_owned())
}

fn name(text: String) -> Option<String> {
    let is_name = |text: &str| text.chars().all(|it| it.is_alphanumeric() || ".-_".contains(it));
    (text.starts_with('/') || is_name(&text)).then_some(text)
}

/// A port from 1 to 65535, in canonical form.
pub(super) fn port_number(text: &str) -> Option<String> {
    text.parse::<u16>().ok().filter(|port| *port > 0).map(|port| port.to_string())
}

/// The host without its brackets, if it has any.
pub(super) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host)
}

fn parameters(query: &str) -> Result<Pairs, DatabaseUrlError> {
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    parameters
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').ok_or(DatabaseUrlError::Unnamed)?;
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// No pair if the text is empty.
fn pair(name: &str, text: &str) -> Result<Pairs, DatabaseUrlError> {
    let value = decoded(text)?;
    Ok(if value.is_empty() { Vec::new() } else { vec![(name.to_owned(), value)] })
}

/// Decodes `%XX`. A `%` without two digits is an error: it should have been written `%25`.
fn decoded(text: &str) -> Result<String, DatabaseUrlError> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err(DatabaseUrlError::Malformed);
    }
    let decoded =
        percent_decode_str(text).decode_utf8().map_err(|_| DatabaseUrlError::Malformed)?;
    // PostgreSQL's protocol ends texts with NUL.
    if decoded.contains('\0') { Err(DatabaseUrlError::Malformed) } else { Ok(decoded.into_owned()) }
}
