//! The admin port answers whatever silent or slow clients do.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_clients_keep_no_probe_waiting() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (_server, admin) = Server::start_with_admin(&database, &[]).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        for index in 0..96 {
            let mut stream = TcpStream::connect(admin.0).await.expect("connected");
            if index % 2 == 0 {
                stream.write_all(b"GET /livez HTTP/1.1\r\nhost").await.expect("sent");
            }
            silent.push(stream);
        }
        let start = Instant::now();
        assert_eq!(admin.get("/livez").await, (200, "alive\n".to_owned()));
        times::soon("a probe", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_send_its_request_is_cut_off() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (_server, admin) = Server::start_with_admin(&database, &[]).await;
    let start = Instant::now();
    let mut slow = TcpStream::connect(admin.0).await.expect("connected");
    slow.write_all(b"GET /livez HTTP/1.1\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, slow.read_to_end(&mut answer)).await.expect("it ends");
    assert!(read.is_err() || !answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    times::soon("a client without a request", start.elapsed());
}
