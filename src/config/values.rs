//! Values as people write them, to the flag, into the environment and into files.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// A switch, as the many programs write it that set variables.
pub(super) fn parse_switch(text: &str) -> Result<bool, &'static str> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err("must be true or false; 1 or 0, yes or no, on or off are taken, too"),
    }
}

/// An address to listen on, with its port. A name is looked up; `:PORT` is every IPv4 address.
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
        // Without asking the system, which may know it as ::1 only, or not at all.
        _ if host.eq_ignore_ascii_case("localhost") => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ if host.contains([':', '[', ']']) => {
            Err(format!("an IPv6 address must be in brackets: {EXAMPLE}"))
        }
        _ => look_up(host, port).map_err(|why| format!("{host} cannot be looked up: {why}")),
    }
}

/// An IPv4 address if there is one: clients are given those.
fn look_up(host: &str, port: u16) -> Result<SocketAddr, String> {
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(|error| error.to_string())?.collect();
    let first = addresses.iter().find(|it| it.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| "it has no address".to_owned())
}

/// Currencies with their decimals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrencyList(pub Vec<(String, u32)>);

/// Separated by commas; what is empty, and space around it, does not count.
pub(super) fn parse_currencies(text: &str) -> Result<CurrencyList, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(parse_currency).collect::<Result<_, _>>().map(CurrencyList)
}

fn parse_currency(text: &str) -> Result<(String, u32), String> {
    let wrong = |what: &str| format!("{text:?} {what}");
    let (code, scale) =
        text.split_once('=').ok_or_else(|| wrong("must be CODE=SCALE, e.g. ETH=18"))?;
    let scale = scale.trim().parse();
    let scale = scale.map_err(|_| wrong("must have a whole number for SCALE, e.g. ETH=18"))?;
    Ok((code.trim().to_owned(), scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
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
    fn what_is_no_address_is_answered_with_an_example() {
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
        assert!(error.starts_with("no such host cannot be looked up: "), "{error}");
    }

    #[test]
    fn lists_of_currencies_may_have_space_and_gaps() {
        let two = CurrencyList(vec![("ETH".to_owned(), 18), ("PTS".to_owned(), 2)]);
        for text in ["ETH=18,PTS=2", " ETH=18 , PTS = 2,", ",ETH=18,,PTS=2\n"] {
            assert_eq!(parse_currencies(text), Ok(two.clone()), "{text}");
        }
        assert_eq!(parse_currencies(" , "), Ok(CurrencyList(Vec::new())));
        assert!(parse_currencies("ETH").is_err_and(|error| error.contains("\"ETH\" must be")));
        assert!(parse_currencies("ETH=x").is_err_and(|error| error.contains("whole number")));
    }
}
