//! Peers without a credential: they cost little, and callers get in beside them.

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    attacks::*,
    harness::{
        certificates::Authority,
        credentials::bearer,
        http2::{self, Raw},
    },
};

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// The default of control calls of nobody that are no streams.
const NOBODY_CALLS_MAX: f64 = 512.0;
/// That of those that are streams, and of one connection.
const NOBODY_STREAMS_MAX: f64 = 64.0;
const CONNECTION_STREAMS_MAX: usize = 8;

/// A connection whose first call was answered.
async fn connect_and_call(target: &Target, authorization: &str) -> Raw {
    let address = target.server.address;
    let mut raw = Raw::connect(address, authorization).await.expect("connected");
    let get = raw.unary(GET_ACCOUNT, &missing_account());
    raw.write(&get).await.expect("written");
    raw.answer(1).await.expect("an answer");
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_watches_health_beyond_a_small_budget() {
    const CONNECTIONS: usize = 9;
    const CALLS: usize = 8192;
    let target = Target::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::connect(target.server.address, "").await.expect("connected");
        for _ in 0..CALLS / 64 {
            raw.write_calls(HEALTH_WATCH, &(), 64).await.expect("written");
        }
        connections.push(raw);
    }
    let shed = async || target.shed("control_calls", "connection").await;
    let expected = (CONNECTIONS * (CALLS - CONNECTION_STREAMS_MAX)) as f64;
    eventually("the others are shed", async || {
        let of_nobody = target.shed("control_calls", "identity").await;
        shed().await + of_nobody >= expected
    })
    .await;
    target.in_flight_falls_to(NOBODY_STREAMS_MAX).await;
    target.withstands("health watches of nobody", NOBODY_MIB_MAX).await;
    let mut health = HealthClient::new(target.server.channel());
    let check = HealthCheckRequest::default();
    health.check(check).await.expect("an orchestrator without a credential is served");
    // A probe with a credential, and a call.
    let mut probe = Raw::connect(target.server.address, "Bearer b-token").await.expect("connected");
    let check = probe.unary(HEALTH_CHECK, &());
    probe.write(&check).await.expect("written");
    probe.answer(1).await.expect("an operator is served");
    target.client("a").get_account(missing_account()).await.expect_err("not found");
}

/// The longest deadline, the largest headers, and a message that never comes.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_nobody_that_never_end_are_few_and_end_in_time() {
    let target = Target::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..12 {
        let mut raw = Raw::connect(target.server.address, "").await.expect("connected");
        raw.add_header("grpc-timeout", "99999999S".to_owned());
        raw.add_header("x-long", "x".repeat(13_000));
        for _ in 0..100 {
            let stream = raw.open();
            let call = raw.call(stream, HEALTH_CHECK);
            raw.write(&call).await.expect("written");
        }
        connections.push(raw);
    }
    let started = Instant::now();
    // Of 100 calls of a connection at most 64 stay, and the connections with the oldest ones are closed.
    eventually("some are shed", async || target.shed("control_calls", "connection").await > 0.0)
        .await;
    let in_flight = target.in_flight_falls_to(NOBODY_CALLS_MAX).await;
    assert!(in_flight > 0.0, "all of them were closed");
    target.withstands("calls of nobody that never end", NOBODY_MIB_MAX).await;
    target.in_flight_falls_to(0.0).await;
    times::promise("calls without a message end", started.elapsed(), seconds(22));
}

/// The same by an identity: its calls stay, so their headers count.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_calls_that_never_end_count() {
    const CALLS: usize = 4300;
    let target = Target::start(&[]).await;
    let mut raw = Raw::connect(target.server.address, "Bearer a-token").await.expect("connected");
    raw.add_header("x-long", "x".repeat(13_000));
    for _ in 0..CALLS {
        let stream = raw.open();
        let call = raw.call(stream, STREAM);
        raw.write(&call).await.expect("written");
    }
    eventually("calls are shed for their bytes", async || {
        target.shed("request_bytes", "identity").await + target.in_flight().await >= CALLS as f64
    })
    .await;
    assert!(target.shed("request_bytes", "identity").await > 0.0);
    target.withstands("4300 streams with large headers", IDENTITY_MIB_MAX).await;
    target.client("b").get_account(missing_account()).await.expect_err("not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_without_a_credential_do_not_keep_callers_out() {
    let target = Target::start(&["--connections-max", "40"]).await;
    let mut connections = Vec::new();
    for _ in 0..40 {
        // Fails if the connection had to make room for the next one.
        let Ok(mut raw) = Raw::connect(target.server.address, "").await else { continue };
        let watch = raw.unary(HEALTH_WATCH, &());
        let _ = raw.write(&watch).await;
        connections.push(raw);
    }
    target.withstands("40 connections of nobody, of 40", NOBODY_MIB_MAX).await;
    let started = Instant::now();
    for _ in 0..5 {
        // The server may not have accepted all peers yet: a caller among them is asked to try again.
        eventually("a caller gets in", async || {
            let get = within(PATIENCE, missing_account());
            let status = target.client("a").get_account(get).await.expect_err("not found");
            status.code() == Code::NotFound
        })
        .await;
    }
    times::promise("five callers connect", started.elapsed(), seconds(1));
}

/// Peers that have not even finished their handshake make room as well.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_do_not_keep_callers_out() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers = Callers::new(&[("a", "a-token")], &identity("a", &["*"], &[""]));
    let (files, tls) = (callers.arguments(), authority.arguments());
    let arguments = ["--connections-max", "40", "--handshake-timeout", "60s"].map(str::to_owned);
    let arguments = [files.as_slice(), &tls, &arguments].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(server.address).await.expect("connected"));
    }
    // Until its first call a caller is nobody as well, and makes room for peers that are accepted later:
    // it tries again.
    eventually("a caller gets in", async || {
        let Ok(channel) = authority.connect(&server, None).await else { return false };
        let client = Client::over(channel, bearer("a-token"));
        let status = client.get_account(missing_account()).await.expect_err("not found");
        status.code() == Code::NotFound
    })
    .await;
    for stream in &mut silent {
        let _ = stream.shutdown().await;
    }
}

/// One identity cannot take the connections of all.
#[tokio::test(flavor = "multi_thread")]
async fn one_identity_leaves_connections_to_others() {
    let target = Target::start(&["--connections-max", "40"]).await;
    let mut connections = Vec::new();
    for _ in 0..25 {
        connections.push(connect_and_call(&target, "Bearer a-token").await);
    }
    target.withstands("25 connections of one identity, of 40", IDENTITY_MIB_MAX).await;
    // 30 of the 40 are for callers, half of them for one identity.
    assert_eq!(target.shed("connections", "identity").await, 10.0);
    let status = target.client("b").get_account(missing_account()).await.expect_err("not found");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

/// A credential that the policy allows nothing takes no place of callers, whatever it calls.
#[tokio::test(flavor = "multi_thread")]
async fn identities_without_rights_do_not_keep_callers_out() {
    const CONNECTIONS: usize = 30;
    // A quarter of all.
    const PROVISIONAL_MAX: usize = 10;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let policy = [identity("a", &["*"], &[""]), identity("idle", &[], &[])].concat();
    let callers = Callers::new(&[("a", "a-token"), ("idle", "idle-token")], &policy);
    let arguments = [&ADMIN[..], &["--connections-max", "40"]].concat();
    let server = callers.serve(&database, &arguments).await;
    let admin = server.admin();
    let mut idle = Vec::new();
    for number in 0..CONNECTIONS {
        // Fails if the connection had to make room for the next one.
        let Ok(mut raw) = Raw::connect(server.address, "Bearer idle-token").await else { continue };
        let stream = raw.open();
        let call = raw.call(stream, [REFLECTION, "/x/y", GET_ACCOUNT][number % 3]);
        let _ = raw.write(&call).await;
        idle.push(raw);
    }
    let mut open = CONNECTIONS;
    for _ in 0..50 {
        open = 0;
        for raw in &mut idle {
            open += usize::from(raw.write(&http2::ping()).await.is_ok());
        }
        if open <= PROVISIONAL_MAX {
            break;
        }
        tokio::time::sleep(ms(100)).await;
    }
    assert!(open <= PROVISIONAL_MAX, "{open} connections are open");
    let in_flight = async || admin.metrics().await.value("passbook_calls_in_flight");
    eventually("no stream is open", async || in_flight().await == 0.0).await;
    let get = server.client_of("a-token").get_account(missing_account()).await;
    assert_eq!(get.expect_err("not found").code(), Code::NotFound);
}

/// Paths that no service has are answered at once, and cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn calls_to_unknown_paths_cost_nothing() {
    let target = Target::start(&[]).await;
    let mut raw = Raw::connect(target.server.address, "Bearer a-token").await.expect("connected");
    for number in 0..5000 {
        let stream = raw.open();
        let path = format!("/passbook.v1.AccountService/Unknown{number}");
        let call = [raw.call(stream, &path), http2::end(stream)].concat();
        raw.write(&call).await.expect("written");
    }
    target.in_flight_falls_to(0.0).await;
    target.withstands("5000 unknown paths", 32).await;
    let text = target.admin.metrics().await.text;
    assert!(!text.contains("Unknown4999"), "a caller can add metrics");
}

/// Headers that never end are no call yet, and each byte of them can become a field of a hundred.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_cost_little_and_are_closed() {
    const CONNECTIONS: usize = 512;
    const FIELDS: usize = 4_000;
    let target = Target::start(&[]).await;
    let mut connections = Vec::new();
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::connect(target.server.address, "").await.expect("connected");
        let stream = raw.open();
        let begun = raw.call_without_end(stream, HEALTH_CHECK);
        let bytes = [begun, http2::kept_header(stream), http2::same_header(stream, FIELDS)];
        // An error means that it is closed already.
        let _ = raw.write(&bytes.concat()).await;
        connections.push(raw);
    }
    target.assert_memory("512 connections with endless headers", NOBODY_MIB_MAX);
    let closed = async |connections: &mut Vec<Raw>| {
        // Writes nothing, and reads until the end.
        let mut count = 0;
        for raw in connections {
            count += usize::from(raw.write(&[]).await.is_err());
        }
        count
    };
    eventually("all but 64 are closed", async || {
        closed(&mut connections).await >= CONNECTIONS - 64
    })
    .await;
    eventually("all are closed", async || closed(&mut connections).await == CONNECTIONS).await;
    times::promise("endless headers are closed", started.elapsed(), seconds(7));
    target.client("b").get_account(missing_account()).await.expect_err("not found");
}

/// h2 keeps room for as many calls as a connection ever had at the same time, also after they have ended.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_had_many_calls_are_bounded() {
    const CONNECTIONS: usize = 48;
    /// The default of what one identity may have in flight.
    const CALLS: usize = 4096;
    let target = Target::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let address = target.server.address;
        let mut raw = Raw::connect(address, "Bearer a-token").await.expect("connected");
        let streams: Vec<u32> = (0..CALLS).map(|_| raw.open()).collect();
        for some in streams.chunks(256) {
            let calls: Vec<u8> = some.iter().flat_map(|it| raw.call(*it, STREAM)).collect();
            raw.write(&calls).await.expect("written");
        }
        eventually("all are in flight", async || target.in_flight().await >= CALLS as f64).await;
        let resets: Vec<u8> = streams.iter().flat_map(|it| http2::reset(*it)).collect();
        raw.write(&resets).await.expect("written");
        target.in_flight_falls_to(0.0).await;
        connections.push(raw);
    }
    let message = "closing connections that had many more calls than they have";
    assert!(target.server.log().contains(message), "{}", target.server.log());
    let attack = "48 connections that had 4096 calls each";
    target.withstands(attack, IDENTITY_MIB_MAX).await;
    // Those that are being closed have their memory for a moment.
    eventually(&format!("{attack} take less than 64 MiB"), async || {
        target.above_idle(target.server.memory_kib()) < 64
    })
    .await;
}

/// Each connection with a call, and with the largest frame, of a kind that nobody knows, which lacks its end.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_identity_take_little_memory() {
    const CONNECTIONS: usize = 400;
    const FRAME_LENGTH: usize = 16 * 1024;
    let target = Target::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw = connect_and_call(&target, "Bearer a-token").await;
        let frame = http2::unknown(FRAME_LENGTH);
        raw.write(&frame[..frame.len() - 1]).await.expect("written");
        connections.push(raw);
    }
    // So 1,744 of them, the default of one identity, take less than 140 MiB.
    target.withstands("400 connections with a frame without an end", 32).await;
}

/// The token counts, and not the room around it. Watchers have read all of their only message.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_calls_that_stay_are_not_kept() {
    const CALLS: usize = 4000;
    let target = Target::start(&[]).await;
    open(&target.client("a"), "alice").await;
    let authorization = format!("Bearer {}a-token", " ".repeat(13_000));
    let mut raw = Raw::connect(target.server.address, &authorization).await.expect("connected");
    let watch = WatchEntriesRequest { account_id: "alice".to_owned(), ..Default::default() };
    for _ in 0..CALLS / 40 {
        raw.write_calls(WATCH_ENTRIES, &watch, 40).await.expect("written");
    }
    let watchers = async || target.admin.metrics().await.value("passbook_watchers");
    eventually("all are there", async || watchers().await >= CALLS as f64).await;
    target.withstands("4000 watchers with large headers", 96).await;
}

/// Opens connections, each with a call first if there is a credential, then has as many calls on all of them as
/// one read can have. Each call is denied at once, when it runs.
async fn burst(target: &Target, authorization: &str, connections: usize) -> Vec<Raw> {
    const CALLS: usize = 620;
    let mut raws = Vec::new();
    for _ in 0..connections {
        raws.push(match authorization {
            "" => Raw::connect(target.server.address, "").await.expect("connected"),
            _ => connect_and_call(target, authorization).await,
        });
    }
    for raw in &mut raws {
        let calls: Vec<u8> = (0..CALLS).flat_map(|_| http2::smallest_call(raw.open())).collect();
        // Fails if the connection keeps too many calls.
        let _ = raw.write(&calls).await;
    }
    raws
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_the_smallest_calls_of_nobody_are_bounded() {
    let target = Target::start(&[]).await;
    let _connections = burst(&target, "", 500).await;
    tokio::time::sleep(seconds(1)).await;
    target.withstands("310,000 small calls of nobody", NOBODY_MIB_MAX).await;
    target.assert_memory("310,000 small calls of nobody", NOBODY_MIB_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_the_smallest_calls_of_one_identity_are_bounded() {
    let target = Target::start(&[]).await;
    let _connections = burst(&target, "Bearer a-token", 1000).await;
    tokio::time::sleep(seconds(1)).await;
    target.withstands("620,000 small calls of one identity", IDENTITY_MIB_MAX).await;
    target.assert_memory("620,000 small calls of one identity", IDENTITY_MIB_MAX);
}
