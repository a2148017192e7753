use super::*;

/// The hosts of a URL with three of them.
fn hosts(target: TargetSession) -> Hosts {
    let options = PgConnectOptions::new_without_pgpass();
    Hosts::new(vec![options; 3], target, CONNECT_TIME_MAX)
}

fn identity(state: ServerState, system: &str, timeline: Option<&str>) -> ServerIdentity {
    let columns = [Some(system), Some("5"), timeline, Some("1"), Some("2200"), Some("public")];
    ServerIdentity::parse(state, columns.map(|it| it.map(str::to_owned))).unwrap()
}

#[test]
fn a_command_reads_from_the_primary_or_else_from_a_standby() {
    let primary = identity(ServerState::Primary, "7", Some("00000002"));
    let promoted = identity(ServerState::Primary, "7", Some("00000003"));
    let read_only = identity(ServerState::ReadOnly, "7", Some("00000001"));
    let standby = identity(ServerState::Standby, "7", None);
    let other_standby = identity(ServerState::Standby, "8", None);
    for (servers, expected) in [
        (vec![], None),
        (vec![&standby, &primary, &read_only], Some((1, ServerState::Primary))),
        (vec![&standby, &primary, &primary], Some((1, ServerState::Primary))),
        (vec![&standby, &read_only], Some((1, ServerState::ReadOnly))),
        (vec![&standby, &other_standby], Some((0, ServerState::Standby))),
    ] {
        let found: Vec<_> = servers.into_iter().cloned().enumerate().collect();
        let chosen = hosts(TargetSession::PreferPrimary).choose(&found);
        assert_eq!(chosen, Ok(expected), "{found:?}");
    }
    for servers in [[&primary, &promoted], [&promoted, &primary]] {
        let found: Vec<_> = servers.into_iter().cloned().enumerate().collect();
        let (host, reason) = hosts(TargetSession::PreferPrimary).choose(&found).unwrap_err();
        assert!(host == 0 && reason.ends_with("name the one to read in database_url"), "{reason}");
    }
}

#[test]
fn a_command_stays_with_the_host_and_the_ledger_from_which_it_reads() {
    let hosts = hosts(TargetSession::PreferPrimary);
    assert_eq!(hosts.chosen_to_read(), None);
    let primary = identity(ServerState::Primary, "7", Some("00000002"));
    hosts.choose(&[(1, primary)]).unwrap();
    hosts.switch_to(1);
    assert_eq!((hosts.chosen_to_read(), hosts.may_switch()), (Some(1), false));
    hosts.admit(&identity(ServerState::Standby, "7", None)).unwrap();
    for other in [
        identity(ServerState::Primary, "7", Some("00000001")),
        identity(ServerState::Primary, "8", Some("00000002")),
        identity(ServerState::Standby, "8", None),
    ] {
        hosts.admit(&other).unwrap_err();
    }
}

#[tokio::test]
async fn connections_from_before_a_promotion_are_stale() {
    let hosts = hosts(TargetSession::Primary);
    let server = |timeline: &str| identity(ServerState::Primary, "7", Some(timeline));
    let opened = Instant::now();
    tokio::time::sleep(Duration::from_millis(50)).await;

    hosts.admit(&server("00000001")).unwrap();
    assert!(!hosts.is_stale(opened.elapsed()), "it leads to the same server");
    assert_eq!(hosts.failovers(), 0);
    hosts.admit(&server("00000002")).unwrap();
    assert!(hosts.is_stale(opened.elapsed()), "it may lead to the replaced one");
    assert_eq!(hosts.failovers(), 1);
    hosts.admit(&server("00000001")).unwrap_err();
    hosts.admit(&server("00000002")).unwrap();
    assert_eq!(hosts.failovers(), 1, "the same server again");
}
