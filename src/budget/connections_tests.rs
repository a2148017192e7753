//! Connections: who goes, and when.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::{
    budget::connections::{Connection, Connections},
    domain::ids::Identity,
};

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([127, 0, 0, last]))
}

fn named(name: &str) -> Identity {
    Identity::from_stored(name)
}

#[test]
fn peers_without_a_credential_do_not_keep_callers_out() {
    let connections = Connections::new(40, true);
    let of_others: Vec<_> = (0..9).map(|_| connections.open(address(1))).collect();
    let of_one = connections.open(address(2));
    let caller = connections.open(address(3));
    assert!(of_others[0].is_closing(), "the oldest one of the address with the most");
    assert!(of_others[1..].iter().chain([&of_one, &caller]).all(|it| !it.is_closing()));
    caller.establish(&named("caller"), None).unwrap();
    let more: Vec<_> = (0..20).map(|_| connections.open(address(1))).collect();
    assert!(!caller.is_closing() && !of_one.is_closing());
    assert_eq!(more.iter().filter(|it| !it.is_closing()).count(), 9);
}

#[test]
fn all_addresses_of_a_host_are_one_network() {
    let connections = Connections::new(40, true);
    let of_one = connections.open(address(1));
    let of_host = |number: u128| Some(IpAddr::from((0x2001 << 112 | number).to_be_bytes()));
    let of_host: Vec<_> = (0..10).map(|number| connections.open(of_host(number))).collect();
    assert!(!of_one.is_closing() && of_host[0].is_closing());
}

#[test]
fn one_identity_leaves_half_of_the_connections_to_others() {
    let connections = Connections::new(40, true);
    let open = |name| {
        let connection = connections.open(address(1));
        connection.establish(&named(name), None).map(|()| connection)
    };
    let all: Vec<_> = (0..40).filter_map(|_| open("greedy").ok()).collect();
    assert_eq!(all.len(), 15);
    assert!(open("other").is_ok());
    drop(all);
    assert!(open("greedy").is_ok());
}

#[test]
fn only_a_connection_without_a_credential_is_too_old_after_a_minute() {
    let connections = Connections::new(40, true);
    let (of_nobody, of_caller) = (connections.open(address(1)), connections.open(address(1)));
    of_caller.establish(&named("caller"), None).unwrap();
    connections.close_old(of_nobody.opened + Duration::from_secs(60));
    assert!(!of_nobody.is_closing());
    connections.close_old(of_caller.opened + Duration::from_secs(61));
    assert!(of_nobody.is_closing() && !of_caller.is_closing());
    let connections = Connections::new(40, false);
    let connection = connections.open(None);
    connections.close_old(connection.opened + Duration::from_secs(3600));
    assert!(!connection.is_closing(), "without authentication");
}

#[test]
fn a_response_that_is_not_read_for_some_periods_closes_its_connection() {
    let connections = Connections::new(40, false);
    let (slow, quick) = (connections.open(None), connections.open(None));
    let _unread = Connection::unread(&slow);
    drop(Connection::unread(&quick));
    connections.begin_period();
    connections.begin_period();
    assert!(!slow.is_closing());
    connections.begin_period();
    assert!(slow.is_closing() && !quick.is_closing());
}

#[test]
fn a_connection_ends_some_minutes_after_its_last_credential() {
    let connections = Connections::new(40, true);
    let [renewed, expired, lasting] = [(); 3].map(|()| connections.open(None));
    let now = SystemTime::now();
    let in_an_hour = Some(now + Duration::from_secs(3600));
    for (connection, expire_times) in
        [(&renewed, [Some(now), in_an_hour]), (&expired, [Some(now); 2]), (&lasting, [None; 2])]
    {
        for expire_time in expire_times {
            connection.establish(&named("caller"), expire_time).unwrap();
        }
    }
    let closed_after = |seconds| {
        connections.close_expired(now + Duration::from_secs(seconds));
        [&renewed, &expired, &lasting].map(|it| it.is_closing())
    };
    assert_eq!(closed_after(328), [false, false, false]);
    assert_eq!(closed_after(330), [false, true, false]);
    assert_eq!(closed_after(3600), [false, true, false]);
    // A stream was authorized again: its token in the file now has a later time.
    renewed.note_credential(Some(now + Duration::from_secs(7200)));
    assert_eq!(closed_after(3930), [false, true, false]);
    assert_eq!(closed_after(7530), [true, true, false]);
}

#[test]
fn connections_of_an_identity_that_was_removed_are_closed() {
    let connections = Connections::new(40, true);
    let (gone, kept) = (connections.open(None), connections.open(None));
    gone.establish(&named("gone"), None).unwrap();
    kept.establish(&named("kept"), None).unwrap();
    connections.close_those_of(|identity| *identity == named("gone"));
    assert!(gone.is_closing() && !kept.is_closing());
}

#[test]
fn peers_without_a_credential_that_had_many_calls_close_no_caller() {
    let connections = Connections::new(4000, true);
    let caller = connections.open(address(1));
    caller.establish(&named("caller"), None).unwrap();
    caller.note_read(60_000);
    let of_nobody: Vec<_> = (2..42).map(|last| connections.open(address(last))).collect();
    // As many as one read can have.
    of_nobody.iter().for_each(|connection| connection.note_read(630));
    connections.close_excess_kept();
    assert!(!caller.is_closing());
    assert_eq!(of_nobody.iter().filter(|it| it.is_closing()).count(), 14);
    let other = connections.open(address(1));
    other.establish(&named("other"), None).unwrap();
    other.note_read(6_000);
    connections.close_excess_kept();
    assert!(caller.is_closing() && !other.is_closing());
}
