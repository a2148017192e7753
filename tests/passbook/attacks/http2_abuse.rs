//! HTTP/2 abuse: the server survives, its memory stays small, and it serves other callers.

use std::{io, net::SocketAddr};

use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

use crate::{
    attacks::*,
    harness::{
        checker,
        http2::{self, Raw},
    },
};

/// How long an attack lasts before others are measured.
const ADVANCE: Duration = seconds(1);
/// The part of a large message that is sent at a time, in bytes.
const PART: usize = 16 * 1024;
/// The prefix of each gRPC message.
const PREFIX: usize = 5;
/// One-byte frames in a write, and writes to a stream: somewhat less than may be unread.
const SMALL_FRAMES: usize = 64;
const SMALL_FRAMES_WRITES: u64 = 1000;
const CONNECTIONS: usize = 4;
/// The attacker is an identity. In a build without optimisation, 4,096 idle streams take 128 MiB.
const MIB_MAX: u64 = IDENTITY_MIB_MAX * 5 / 8;

/// One connection of an attacker, until the time is over or the server closes it.
async fn attack(name: &'static str, address: SocketAddr, end: Instant) -> io::Result<u64> {
    if name == "slow handshakes" {
        return slow_handshakes(address, end).await;
    }
    let mut raw = Raw::connect(address, "Bearer a-token").await?;
    let mut frames: u64 = 0;
    let mut stream = raw.open();
    match name {
        "endless headers" => {
            let begun = raw.call_without_end(stream, DEPOSIT);
            raw.write(&begun).await?;
        }
        "empty data" => {
            let begun = raw.call(stream, DEPOSIT);
            raw.write(&begun).await?;
        }
        _ => {}
    }
    while Instant::now() < end {
        let bytes = match name {
            // CVE-2023-44487
            "rapid resets" => {
                let stream = raw.open();
                [raw.call(stream, DEPOSIT), http2::reset(stream)].concat()
            }
            "calls that never end" => {
                let stream = raw.open();
                raw.call(stream, DEPOSIT)
            }
            "streams that never end" => {
                let stream = raw.open();
                raw.call(stream, STREAM)
            }
            // CVE-2024-27316
            "endless headers" => http2::more_headers(stream, 8 * 1024),
            "empty data" => http2::data(stream, &[]).repeat(64),
            // Continues on the next stream when flow control limits this one.
            "small frames that nobody reads" => {
                let call = frames.is_multiple_of(SMALL_FRAMES_WRITES).then(|| {
                    stream = raw.open();
                    raw.call(stream, STREAM)
                });
                [call.unwrap_or_default(), http2::data(stream, &[0]).repeat(SMALL_FRAMES)].concat()
            }
            "pings" => http2::ping().repeat(64),
            "settings" => [http2::settings(), http2::settings_ack()].concat().repeat(64),
            "huge messages" => {
                let stream = raw.open();
                let begun = http2::data(stream, &http2::message_of(u32::MAX));
                [raw.call(stream, DEPOSIT), begun].concat()
            }
            "large messages that never end" => {
                let stream = raw.open();
                let begun = http2::data(stream, &http2::message_of(1024 * 1024));
                let more = http2::data(stream, &[7; PART]);
                [raw.call(stream, STREAM), begun, more].concat()
            }
            other => unreachable!("{other}"),
        };
        let data = match name {
            "large messages that never end" => PREFIX + PART,
            "small frames that nobody reads" => SMALL_FRAMES,
            _ => 0,
        };
        raw.write_data(&bytes, data).await?;
        frames += 1;
        // Some thousand frames a second in total. More would be a flood, which saturates a machine
        // with two cores whatever its content.
        if frames.is_multiple_of(4) {
            sleep(ms(1)).await;
        }
    }
    sleep(ms(100)).await;
    Ok(frames)
}

async fn slow_handshakes(address: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut connections = Vec::new();
    while Instant::now() < end && connections.len() < 250 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"PRI * HT").await?;
        connections.push(stream);
        sleep(ms(2)).await;
    }
    sleep(end.saturating_duration_since(Instant::now())).await;
    Ok(connections.len() as u64)
}

/// Attackers that reconnect when they are disconnected.
async fn attackers(name: &'static str, address: SocketAddr, end: Instant) -> (u64, u64) {
    let mut attackers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        attackers.spawn(async move {
            let (mut frames, mut ended) = (0, 0);
            while Instant::now() < end {
                match attack(name, address, end).await {
                    Ok(sent) => frames += sent,
                    Err(_) => {
                        ended += 1;
                        sleep(ms(5)).await;
                    }
                }
            }
            (frames, ended)
        });
    }
    attackers.join_all().await.into_iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
}

/// Makes requests that are large enough to arrive in several DATA frames.
async fn serve_batches(client: &Client, end: Instant) {
    while Instant::now() < end {
        let requests = (0..200).map(|_| post(&[leg("of-b", "1")])).collect();
        let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
        client.batch_post_transactions(batch).await.expect("batches are served");
        sleep(ms(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_survives_abuse_stays_small_and_serves_others() {
    let mut target =
        Target::start(&["--handshake-timeout", "1s", "--default-deadline", "2s"]).await;
    for name in [
        "rapid resets",
        "calls that never end",
        "streams that never end",
        "endless headers",
        "empty data",
        "pings",
        "settings",
        "huge messages",
        "large messages that never end",
        "small frames that nobody reads",
        "slow handshakes",
    ] {
        let end = Instant::now() + ADVANCE + measured();
        let measure = async {
            sleep(ADVANCE).await;
            target.withstands(name, MIB_MAX).await;
        };
        let (_, _, (frames, ended)) = tokio::join!(
            measure,
            serve_batches(&target.other, end),
            attackers(name, target.server.address, end)
        );
        println!("{name}: {frames} writes, {ended} connections ended");
        assert!(target.server.wait(ms(0)).await.is_none(), "{name}: the server ended");
    }
    target.withstands("after the abuse", MIB_MAX).await;
    checker::assert_consistent(&target.database).await;
}

/// h2 counts frames of calls whose request is no longer read, and closes connections for them.
#[tokio::test(flavor = "multi_thread")]
async fn calls_refused_while_sending_do_not_end_their_connection() {
    const CALLS: usize = 2000;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let callers = Callers::new(&[("alice", "alice-token")], &identity("alice", &["*"], &[""]));
    let server = callers.serve(&database, &[]).await;
    let mut raw = Raw::connect(server.address, "Bearer nobody's").await.expect("connected");
    for _ in 0..CALLS {
        let stream = raw.open();
        let call = raw.call(stream, STREAM);
        raw.write(&call).await.expect("written");
        raw.answer(stream).await.expect("shed");
        let rest = [http2::data(stream, &[0]).repeat(100), http2::reset(stream)].concat();
        raw.write_data(&rest, 100).await.expect("the connection is there");
    }
    let stream = raw.open();
    let call = raw.call(stream, STREAM);
    raw.write(&call).await.expect("written");
    raw.answer(stream).await.expect("the connection serves");
}

/// So it does for many concurrent calls whose requests are not read yet.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_calls_at_once_do_not_end_their_connection() {
    const CALLS: usize = 8000;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start(&database).await;
    let mut raw = Raw::connect(server.address, "").await.expect("connected");
    let mut bytes = Vec::new();
    for _ in 0..CALLS {
        let stream = raw.open();
        bytes.extend(raw.call(stream, DEPOSIT));
        // The message, and END_STREAM in its own frame, as most clients send it.
        bytes.extend([http2::data(stream, &http2::message_of(0)), http2::end(stream)].concat());
    }
    raw.write(&bytes).await.expect("written");
    let stream = raw.open();
    let call = [raw.call(stream, DEPOSIT), http2::end(stream)].concat();
    raw.write(&call).await.expect("written");
    raw.answer(stream).await.expect("the connection serves");
}

/// The data of an endless call is kept no longer than the call's time limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_call_is_ended_at_its_deadline() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (server, admin) = Server::start_with_admin(&database, &["--default-deadline", "3s"]).await;
    let mut raw = Raw::connect(server.address, "").await.expect("connected");
    for _ in 0..10 {
        let stream = raw.open();
        let begun = http2::data(stream, &http2::message_of(1000));
        let call = [raw.call(stream, DEPOSIT), begun].concat();
        raw.write(&call).await.expect("written");
    }
    let in_flight = async || admin.metrics().await.value("passbook_calls_in_flight");
    eventually("they are under way", async || in_flight().await == 10.0).await;
    eventually("they are given up", async || in_flight().await == 0.0).await;
    raw.write(&[]).await.expect("the connection is there");
    assert_eq!(admin.metrics().await.handled("Deposit", "DeadlineExceeded"), 10.0);
}
