//! Output that is not read to its end: `passbook export | head -1`.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Output, Stdio},
};

use crate::harness::*;

on_both_databases! {
    commands_end_quietly_when_their_output_pipe_is_closed,
    a_server_serves_whether_or_not_its_ready_line_is_read,
    a_server_serves_although_nobody_reads_its_log,
}

fn spawn(arguments: &[&str], stderr: Stdio) -> Child {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    command.spawn().expect("the binary starts")
}

/// Runs a command whose standard output is closed from the beginning.
fn unread(arguments: &[&str]) -> Output {
    let mut child = spawn(arguments, Stdio::piped());
    drop(child.stdout.take());
    child.wait_with_output().expect("it ends")
}

async fn commands_end_quietly_when_their_output_pipe_is_closed(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "5").await;
    let (url, target) = (database.url(), format!("http://{}", server.address));
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["serve", "--help"], 0),
        (&["--version"], 0),
        (&["config", "check"], 0),
        (&["verify", "--database-url", url], 0),
        (&["migrate", "status", "--database-url", url], 0),
        (&["healthcheck", "--target", &target], 0),
        (&["export", "--database-url", url], 1),
    ] {
        let output = unread(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(code), ""), "{arguments:?}");
    }
    // The exit code still reports the result.
    database.execute("UPDATE accounts SET balance = '6' WHERE account_id = 'alice'").await;
    let output = unread(&["verify", "--database-url", url]);
    assert_eq!(output.status.code(), Some(1));
    // A token that is not read is lost.
    let output = unread(&["token", "create", "--identity", "a"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("the token is lost"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    // Standard error is closed as well.
    let mut child = spawn(&["migrate", "status", "--database-url", "mysql://h"], Stdio::piped());
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
}

async fn a_server_serves_whether_or_not_its_ready_line_is_read(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (mut server, target) = serve(&database, "debug");
    drop((server.0.stdout.take(), server.0.stderr.take()));
    eventually("it serves", async || is_healthy(&target).await).await;
    assert!(server.0.try_wait().expect("it can be asked").is_none(), "it goes on");
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().expect("it can be ended");
        self.0.wait().expect("it ends");
    }
}

/// Starts a server with this level of its log. Returns its address, too.
fn serve(database: &TestDatabase, log: &str) -> (Ended, String) {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let listen = free.local_addr().expect("an address").to_string();
    drop(free);
    let arguments = ["serve", "--listen", &listen, "--database-url", database.url(), "--log", log];
    (Ended(spawn(&arguments, Stdio::piped())), format!("http://{listen}"))
}

async fn is_healthy(target: &str) -> bool {
    passbook(&["healthcheck", "--target", target]).await.code == Some(0)
}

async fn a_server_serves_although_nobody_reads_its_log(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (mut server, target) = serve(&database, "trace");
    eventually("it serves", async || is_healthy(&target).await).await;
    let mut log = server.0.stderr.take().expect("a pipe");

    // The pipe has been full for long.
    for _ in 0..30 {
        assert!(is_healthy(&target).await, "it serves");
    }

    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        log.read_to_end(&mut text).map(|_| text)
    });
    tokio::time::sleep(seconds(2)).await;
    assert!(is_healthy(&target).await, "it serves");
    drop(server);
    let log = reading.join().expect("no panic").expect("it is read");
    let log = String::from_utf8_lossy(&log);
    assert!(log.len() > 64 * 1024, "it filled the pipe: {}", log.len());
    assert!(log.contains("lines of the log were lost"), "{}", log.len());
    // No line is in the middle of another one.
    let torn = log.lines().filter(|line| line.matches("\"timestamp\"").count() > 1);
    assert_eq!(torn.count(), 0);
}
