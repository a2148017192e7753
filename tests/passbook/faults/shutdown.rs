//! SIGTERM: accepted requests are answered, then the process exits.

use sea_orm::{ConnectionTrait, TransactionTrait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{
    checker::{self, History},
    ring::{open_ring, random_change},
    *,
};

on_both_databases! {
    every_accepted_request_is_answered_at_shutdown,
    an_idle_server_shuts_down_at_once,
    an_open_connection_does_not_delay_the_shutdown,
    a_connection_with_bytes_in_flight_ends_without_a_reset,
    at_shutdown_health_changes_first_and_calls_are_still_answered,
    a_second_signal_ends_the_shutdown_delay,
}

async fn every_accepted_request_is_answered_at_shutdown(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let seed = seed();
    let mut history = History::new();
    for round in 0..3 * scale() as u64 {
        let mut server = Server::start_with(&database, &["--shutdown-grace", "10s"]).await;
        let client = server.client();
        let (accounts, opening) = open_ring(&client, 4).await;
        history.extend(opening);
        let (stop, stopped) = watch::channel(false);
        let mut callers = JoinSet::new();
        for caller in 0..32 {
            let random = fastrand::Rng::with_seed(seed.wrapping_add(round * 100 + caller));
            callers.spawn(call(client.clone(), random, accounts.clone(), stopped.clone()));
        }
        tokio::time::sleep(ms(400)).await;

        server.terminate();
        let status = server.wait(PATIENCE).await;
        stop.send_replace(true);

        let status = status.expect("the process ends within its grace period");
        assert_eq!(status.code(), Some(0), "{}", server.log());
        let mut not_accepted = 0;
        for (made, errors) in callers.join_all().await {
            history.extend(made);
            not_accepted += errors.len();
            for (change, status) in errors {
                was_never_accepted(&database, &change, &status).await;
            }
        }
        println!("{kind:?}: {} changes answered, {not_accepted} not accepted", history.len());
    }
    checker::assert_sound(&database, &history).await;
}

/// Makes calls until it is stopped or the server refuses.
async fn call(
    client: Client,
    mut random: fastrand::Rng,
    accounts: Vec<String>,
    stopped: watch::Receiver<bool>,
) -> (History, Vec<(Change, Status)>) {
    let (mut history, mut errors) = (History::new(), Vec::new());
    while !*stopped.borrow() && errors.len() < 3 {
        let change = random_change(&mut random, &accounts);
        match change.send(&client, PATIENCE).await {
            Ok(answer) => history.push((change, RequestResult::Applied(answer))),
            Err(status) if request::is_definite(&status) => {
                history.push((change, RequestResult::Rejected(status)));
            }
            Err(status) => errors.push((change, status)),
        }
    }
    (history, errors)
}

/// Asserts that the final error is of a call that was not accepted and left no trace.
async fn was_never_accepted(database: &TestDatabase, change: &Change, status: &Status) {
    // tonic's own error: its connection ended before the request was sent.
    let is_of_transport = std::error::Error::source(status).is_some();
    let is_shutdown =
        status.code() == Code::Unavailable && reason_if_any(status) == "SHUTTING_DOWN";
    assert!(is_of_transport || is_shutdown, "{status:?}");
    let kept = format!("requests WHERE request_id = '{}'", change.request_id());
    assert_eq!(database.count(&kept).await, 0, "accepted, applied and not answered: {status:?}");
}

async fn an_idle_server_shuts_down_at_once(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start_with(&database, &["--shutdown-grace", "5m"]).await;
    open(&server.client(), "alice").await;

    server.terminate();

    let status = server.wait(PATIENCE).await.expect("there is nothing to wait for");
    assert_eq!(status.code(), Some(0));
    assert_eq!(server.stdout().len(), 1, "one line, when ready: {:?}", server.stdout());
}

async fn an_open_connection_does_not_delay_the_shutdown(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start_with(&database, &["--shutdown-grace", "2s"]).await;
    // One connection that never sends a byte, and one of an idle client.
    let silent = TcpStream::connect(server.address).await.expect("a connection");
    let client = server.client();
    open(&client, "alice").await;

    server.terminate();

    let status = server.wait(PATIENCE).await.expect("the grace period is over");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    drop((silent, client));
}

/// The frames of HTTP/2 that have no payload but for eight bytes of a PING, by their type.
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

/// A reset would make the client lose the responses that it has not read.
async fn a_connection_with_bytes_in_flight_ends_without_a_reset(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start_with(&database, &["--shutdown-grace", "30s"]).await;
    let connection = TcpStream::connect(server.address).await.expect("a connection");
    connection.set_nodelay(true).expect("no delay");
    let (reader, mut writer) = connection.into_split();
    let mut reader = BufReader::new(reader);
    writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("the preface");
    writer.write_all(&frame(SETTINGS, 0, &[])).await.expect("the settings");
    let (answers, mut to_send) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    // Sends all the time, also while the server closes the connection.
    let sending = tokio::spawn(async move {
        loop {
            let next = to_send.try_recv().unwrap_or_else(|_| frame(PING, 0, &[7; 8]).repeat(20));
            writer.write_all(&next).await?;
            tokio::task::yield_now().await;
            if to_send.is_closed() {
                return std::io::Result::Ok(());
            }
        }
    });

    tokio::time::sleep(ms(200)).await;
    server.terminate();
    let mut header = [0; 9];
    let end = loop {
        if let Err(end) = reader.read_exact(&mut header).await {
            break end;
        }
        let length = usize::from(header[1]) << 8 | usize::from(header[2]);
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await.expect("a whole frame");
        // The server waits for the answer to its PING before it ends.
        if matches!(header[3], SETTINGS | PING) && header[4] != ACK {
            let payload = if header[3] == PING { &payload[..] } else { &[] };
            answers.send(frame(header[3], ACK, payload)).expect("it sends");
        }
    };

    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "{end}");
    drop((answers, reader));
    sending.await.expect("no panic").expect("the server reads to the end");
    let status = server.wait(PATIENCE).await.expect("there is nothing to wait for");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

/// During `shutdown_delay` a load balancer can remove the server without losing a call.
async fn at_shutdown_health_changes_first_and_calls_are_still_answered(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let arguments = ["--shutdown-delay", "4s"];
    let (mut server, admin) = Server::start_with_admin(&database, &arguments).await;
    let client = server.client();
    open(&client, "alice").await;
    assert_eq!(serving_status(&server, "").await, ServingStatus::Serving);

    server.terminate();
    let terminated = Instant::now();

    becomes(&server, "", ServingStatus::NotServing).await;
    let (ready, why) = admin.get("/readyz").await;
    assert_eq!((ready, admin.get("/livez").await.0), (503, 200), "{why}");
    while terminated.elapsed() < ms(1500) {
        // On an existing connection and on a new one.
        client.deposit(deposit("alice", "1")).await.expect("still answered");
        server.client().deposit(deposit("alice", "1")).await.expect("still let in");
        tokio::time::sleep(ms(50)).await;
    }
    let status = server.wait(PATIENCE).await.expect("there is nothing more to wait for");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(terminated.elapsed() >= ms(3900), "it did not wait: {:?}", terminated.elapsed());
}

/// A second signal ends the shutdown delay. A third one cuts unanswered calls, which the exit code
/// reports.
async fn a_second_signal_ends_the_shutdown_delay(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let arguments = ["--shutdown-delay", "5m", "--shutdown-grace", "5m"];
    let mut server = Server::start_with(&database, &arguments).await;
    open(&server.client(), "alice").await;
    server.terminate();
    assert!(server.wait(ms(700)).await.is_none(), "it has five minutes");
    server.terminate();
    let status = server.wait(PATIENCE).await.expect("nothing is under way");
    assert_eq!(status.code(), Some(0), "{}", server.log());

    let (mut server, admin) = Server::start_with_admin(&database, &arguments[2..]).await;
    let session = database.connect().await;
    let lock = session.begin().await.expect("begun");
    let update = "UPDATE accounts SET account_id = account_id WHERE account_id = 'alice'";
    lock.execute_unprepared(update).await.expect("locked");
    let client = server.client();
    let change = Change::Deposit(deposit("alice", "1"));
    let sent = change.clone();
    let call = tokio::spawn(async move { sent.send(&client, 2 * PATIENCE).await });
    let waits = async || admin.metrics().await.value("passbook_queue_length") == 1.0;
    eventually("the call waits", waits).await;
    server.terminate();
    assert!(server.wait(ms(700)).await.is_none(), "a call is under way");
    server.terminate();
    let status = server.wait(PATIENCE).await.expect("cut");
    assert_eq!(status.code(), Some(1), "{}", server.log());
    let log = server.log();
    assert!(
        log.contains("error: calls were still unanswered at the second signal to end\n"),
        "{log}"
    );
    call.await.expect("no panic").expect_err("it was cut");
    lock.rollback().await.expect("rolled back");
    checker::assert_consistent(&database).await;
}
