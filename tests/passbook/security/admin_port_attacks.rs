//! Hostile clients of an admin port with TLS keep no probe waiting, and read nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    harness::{
        admin::{Admin, status},
        *,
    },
    security::admin_port::{Target, request},
};

/// The begin of a ClientHello.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

impl Target {
    /// Asserts that a probe gets its answer soon.
    async fn assert_alive(&self, during: &str) {
        let start = Instant::now();
        let answer = self.send(request("GET", "/livez", &[]).as_bytes()).await;
        assert_eq!(status(&answer), Some(200), "{during}: {answer}");
        times::soon(&format!("a probe during {during}"), start.elapsed());
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.admin.0).await.expect("connected")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_clients_keep_no_probe_waiting() {
    let target = Target::start(true, &[]).await;
    let mut silent = Vec::new();
    let mut silent_after_handshake = Vec::new();
    for batch in 0..20 {
        for index in 0..50 {
            let mut stream = target.connect().await;
            match index % 4 {
                0 => {}
                1 => stream.write_all(HALF_A_HELLO).await.expect("sent"),
                stage => {
                    // A later connection may have ended this one.
                    let handshake = target.authority.handshake(stream, &["http/1.1"]).await;
                    if let Ok(mut stream) = handshake {
                        if stage == 3 {
                            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost").await;
                        }
                        silent_after_handshake.push(stream);
                    }
                    continue;
                }
            }
            silent.push(stream);
        }
        target.assert_alive(&format!("silence {batch}")).await;
    }
    assert!(silent_after_handshake.len() > 100, "{}", silent_after_handshake.len());
}

/// Opens connections from an address of its own, as fast as it can.
async fn flood(admin: Admin, opened: Arc<AtomicUsize>) {
    let mut last = VecDeque::new();
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Leaves no port behind in TIME_WAIT.
        socket.set_zero_linger().expect("set");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
        match socket.connect(admin.0).await {
            Ok(stream) => last.push_back(stream),
            Err(_) => sleep(ms(1)).await,
        }
        opened.fetch_add(1, Ordering::Relaxed);
        if last.len() > 200 {
            last.pop_front();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_from_one_machine_ends_no_probe_of_another() {
    let target = Target::start(true, &[]).await;
    let opened = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> =
        (0..2).map(|_| tokio::spawn(flood(target.admin, opened.clone()))).collect();
    for probe in 0..50 {
        let before = opened.load(Ordering::Relaxed);
        eventually("more connections", async || opened.load(Ordering::Relaxed) > before + 64).await;
        target.assert_alive(&format!("flood {probe}")).await;
    }
    floods.iter().for_each(tokio::task::JoinHandle::abort);
    println!("{} connections", opened.load(Ordering::Relaxed));
}

/// How long the port keeps a connection on which these bytes come one by one.
async fn patience(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let mut buffer = [0; 1024];
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
            return start.elapsed();
        }
        match timeout(ms(50), stream.read(&mut buffer)).await {
            Err(_) => {}
            Ok(read) => {
                let read = read.unwrap_or_default();
                assert!(!buffer[..read].starts_with(b"HTTP/1.1 2"), "{buffer:?}");
                return start.elapsed();
            }
        }
    }
    panic!("the port waited for {} bytes, one by one", bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_byte_by_byte_is_cut_off() {
    let target = Target::start(true, &[]).await;
    let hello = [HALF_A_HELLO, &[0; 500]].concat();
    let in_handshake = patience(target.connect().await, &hello).await;
    times::soon("a slow handshake", in_handshake);
    let stream = target.authority.handshake(target.connect().await, &["http/1.1"]).await;
    let slow = request("GET", "/livez", &[&format!("x: {}", "x".repeat(500))]);
    let in_headers = patience(stream.expect("a handshake"), slow.as_bytes()).await;
    times::soon("slow headers", in_headers);
    // A body that never comes: the response does not wait for it.
    let start = Instant::now();
    let bodiless = target.send(request("GET", "/livez", &["content-length: 9"]).as_bytes()).await;
    assert_eq!(status(&bodiless), Some(200), "{bodiless}");
    times::soon("a request without its body", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_and_large_headers_cost_little() {
    let target = Target::start(true, &[]).await;
    target.assert_alive("nothing").await;
    let idle_kib = target.server.memory_kib();
    let many: Vec<_> = (0..200).map(|number| format!("x-{number}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let answer = target.send(request("GET", "/livez", &many).as_bytes()).await;
    assert_eq!(status(&answer), Some(431), "{answer}");
    // The port may close the connection while the client still sends.
    let huge = request("GET", "/livez", &[&format!("x: {}", "x".repeat(4 << 20))]);
    let answer = target.send(huge.as_bytes()).await;
    assert!([None, Some(431)].contains(&status(&answer)), "{answer}");

    let mut connections = Vec::new();
    for _ in 0..100 {
        let stream = target.authority.handshake(target.connect().await, &["http/1.1"]).await;
        if let Ok(mut stream) = stream {
            let _ = stream.write_all(&huge.as_bytes()[..300 << 10]).await;
            connections.push(stream);
        }
    }
    let mib = target.server.memory_kib().saturating_sub(idle_kib) / 1024;
    println!("{} unfinished requests: {mib} MiB", connections.len());
    assert!(mib < 64, "{mib} MiB above idle");
    target.assert_alive("large headers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_request_is_hidden_in_another_one() {
    let target = Target::start(true, &[]).await;
    let inner = request("GET", "/metrics", &["authorization: Bearer hush-hush-0123456789-hush"]);
    let answer = target.send(inner.as_bytes()).await;
    assert!(answer.contains("passbook_ready"), "the inner request alone: {answer}");
    let chunked = format!("0\r\n\r\n{inner}");
    let length = &*format!("content-length: {}", inner.len());
    let chunks = "transfer-encoding: chunked";
    for (headers, body) in [
        (&[][..], &inner),
        (&["connection: keep-alive"], &inner),
        (&["content-length: 0"], &inner),
        (&[length], &inner),
        (&["content-length: 0", length], &inner),
        (&[chunks, "content-length: 5"], &chunked),
        (&["content-length: 5", chunks], &chunked),
        (&["transfer-encoding: identity, chunked"], &chunked),
        (&["transfer-encoding : chunked"], &chunked),
        (&["transfer-encoding:\u{b}chunked"], &chunked),
        (&["x: x\r\n transfer-encoding: chunked"], &chunked),
        (&["content-length: +0"], &inner),
        (&["content-length: 0x0"], &inner),
        (&["upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: "], &inner),
    ] {
        let outer = request("GET", "/livez", headers) + body;
        let answer = target.send(outer.as_bytes()).await;
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{headers:?}: {answer}");
        assert!(!answer.contains("passbook_"), "{headers:?}: {answer}");
        assert_ne!(status(&answer), Some(101), "{headers:?}: {answer}");
    }
    for preface in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /metrics\r\n", "\0\0\0\0"] {
        let answer = target.send(preface.as_bytes()).await;
        assert!(!answer.contains("passbook_") && status(&answer) != Some(200), "{answer}");
    }
    target.assert_alive("nothing").await;
}
