//! The audit log: one line for each change, whatever becomes of it; denials that no noise hides; and
//! no change without a line, if that is required.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::harness::{
    credentials::{Callers, identity},
    servers::free_port,
    *,
};

on_both_databases! {
    every_change_has_one_line,
    without_audit_nothing_changes,
    after_a_kill_every_applied_change_has_a_line,
    the_line_of_a_change_whose_caller_gave_up_says_what_became_of_it,
}

/// The file of an audit log.
struct Audit {
    folder: TempDir,
}

impl Audit {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// All lines. Each is an object, with a time.
    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        assert!(lines.iter().all(|line| line["time"].is_string()), "{text}");
        lines
    }

    fn events(&self, event: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["event"] == event).collect()
    }

    /// The arguments of a server with this log.
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let path = self.path().to_str().expect("a plain path").to_owned();
        let arguments = ["--audit-file".to_owned(), path].into_iter();
        arguments.chain(more.iter().map(|it| (*it).to_owned())).collect()
    }

    /// A server with this log that authenticates its callers.
    async fn serve(&self, database: &TestDatabase, callers: &Callers, more: &[&str]) -> Server {
        let arguments = self.arguments(more);
        callers.serve(database, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// The log is this file from now on: the path is a link.
    fn link_to(&self, file: &str) {
        let next = self.folder.path().join("next");
        symlink(file, &next).expect("a link");
        fs::rename(next, self.path()).expect("the link replaces the other one");
    }
}

fn callers() -> Callers {
    let policy = [
        identity("all", &["*"], &[""]),
        identity("east", &["read", "write"], &["east:"]),
        identity("a", &["read"], &[""]),
    ];
    let tokens = [("all", "all-token"), ("east", "east-token"), ("a", "a-token")];
    Callers::new(&tokens, &policy.concat())
}

/// Ends the server, so that all lines are written.
async fn end(mut server: Server) {
    server.terminate();
    assert!(server.wait(PATIENCE).await.expect("it ends").success(), "{}", server.log());
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

fn sha256_hex(text: &str, digits: usize) -> String {
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..digits].to_owned()
}

fn message(request: PostTransactionRequest) -> StreamTransactionsRequest {
    StreamTransactionsRequest { request: Some(request) }
}

async fn every_change_has_one_line(kind: Kind) {
    let (database, callers, audit) = (TestDatabase::create(kind).await, callers(), Audit::new());
    let server = audit.serve(&database, &callers, &[]).await;
    let client = server.client_of("east-token");

    open(&client, "east:1").await;
    let request = DepositRequest {
        description: "zebra stripes".to_owned(),
        labels: labels(&[("animal", "zebra")]),
        ..deposit("east:1", "7391.73")
    };
    let applied = client.deposit(request.clone()).await.expect("applied").transaction;
    let applied = applied.expect("a transaction").transaction_id;
    assert!(client.deposit(request.clone()).await.expect("replayed").replayed);
    client.withdraw(withdrawal("east:1", "10000")).await.expect_err("too much");
    client.deposit(deposit("west:1", "1")).await.expect_err("denied");
    let requests = vec![posting(&[("east:1", "1")]), posting(&[("east:1", "-9999")])];
    client.batch_post_transactions(BatchPostTransactionsRequest { requests }).await.expect("both");
    let messages = [posting(&[("east:1", "1")]), posting(&[("west:1", "1")])].map(message);
    let mut results =
        client.stream_transactions(tokio_stream::iter(messages)).await.expect("a stream");
    while results.message().await.expect("a result").is_some() {}
    freeze(&client, "east:1").await;
    let fence = FenceRequestRequest { request_id: new_request_id() };
    client.fence_request(fence).await.expect("fenced");
    // Neither a change nor a denial.
    client.deposit(deposit("east:1", "1.234")).await.expect_err("invalid");
    let dry_run = DepositRequest { validate_only: true, ..deposit("east:1", "1") };
    client.deposit(dry_run).await.expect("valid");
    get(&client, "east:1").await;
    end(server).await;

    let changes = audit.events("change");
    let summary: Vec<_> = changes
        .iter()
        .map(|line| {
            let method = text(line, "method").trim_start_matches("passbook.v1.AccountService/");
            (method, text(line, "outcome"), text(line, "reason"))
        })
        .collect();
    let expected = [
        ("CreateAccount", "applied", ""),
        ("Deposit", "applied", ""),
        ("Deposit", "replayed", ""),
        ("Withdraw", "rejected", "insufficient_funds"),
        ("BatchPostTransactions", "applied", ""),
        ("BatchPostTransactions", "rejected", "insufficient_funds"),
        ("StreamTransactions", "applied", ""),
        ("FreezeAccount", "applied", ""),
        ("FenceRequest", "applied", ""),
    ];
    assert_eq!(summary, expected);
    let denials = audit.events("denial");
    let denied: Vec<_> =
        denials.iter().map(|it| (text(it, "reason"), &it["account_ids"])).collect();
    let west = &Value::from(vec!["west:1"]);
    assert_eq!(denied, [("permission_denied", west), ("permission_denied", west)]);
    let events: Vec<_> = audit.lines().iter().map(|it| text(it, "event").to_owned()).collect();
    assert_eq!((events[0].as_str(), events[events.len() - 1].as_str()), ("start", "stop"));
    assert_eq!(events.len(), 1 + changes.len() + denials.len() + 1, "{events:?}");

    let line = &changes[1];
    assert_eq!((text(line, "identity"), text(line, "credential")), ("east", "token"));
    assert_eq!(text(line, "credential_sha256"), sha256_hex("east-token", 8));
    assert_eq!(text(line, "request_sha256"), sha256_hex(&request.request_id, 16));
    assert_eq!(line["account_ids"], Value::from(vec!["east:1"]));
    assert!(text(line, "peer").starts_with("127.0.0.1:"), "{line}");
    assert_eq!([&changes[1], &changes[2]].map(|it| text(it, "transaction_id")), [&applied; 2]);
    for secret in ["east-token", "zebra", "7391.73", &request.request_id] {
        assert!(!audit.text().contains(secret), "{secret} in {}", audit.text());
    }
    assert_eq!(fs::metadata(audit.path()).expect("it exists").permissions().mode() & 0o777, 0o600);
}

async fn without_audit_nothing_changes(kind: Kind) {
    let (database, callers, audit) = (TestDatabase::create(kind).await, callers(), Audit::new());
    let first = audit.folder.path().join("first");
    audit.link_to(first.to_str().expect("a plain path"));
    let server = audit.serve(&database, &callers, &["--audit-required"]).await;
    let client = server.client_of("all-token");
    open_funded(&client, "a", "1").await;
    let applied = deposit("a", "1");
    client.deposit(applied.clone()).await.expect("applied");
    eventually("all lines are there", async || audit.events("change").len() == 3).await;
    let count = async || (database.count("requests").await, database.count("accounts").await);
    let before = count().await;

    audit.link_to("/dev/full");
    let denied = [
        client.deposit(deposit("a", "1")).await.map(drop),
        client.create_account(account_of("b", "USD")).await.map(drop),
        client
            .freeze_account(FreezeAccountRequest { account_id: "a".into(), ..Default::default() })
            .await
            .map(drop),
        client.fence_request(FenceRequestRequest { request_id: new_request_id() }).await.map(drop),
        // A repeat as well: it is a change until the ledger has found its record.
        client.deposit(applied.clone()).await.map(drop),
    ];
    for denied in denied {
        assert_eq!(outcome(&must_fail(denied, Reason::AuditUnavailable)), "not_applied");
    }
    let requests = vec![posting(&[("a", "1")]), posting(&[("a", "1")])];
    let batch = BatchPostTransactionsRequest { requests };
    for result in client.batch_post_transactions(batch).await.expect("two results").results {
        assert_reason(&error(&result), Reason::AuditUnavailable);
    }
    let messages = tokio_stream::iter([message(posting(&[("a", "1")]))]);
    let mut results = client.stream_transactions(messages).await.expect("a stream");
    let result = results.message().await.expect("a response").and_then(|it| it.result);
    assert_reason(&error(&result.expect("a result")), Reason::AuditUnavailable);
    assert_eq!((count().await, balance(&client, "a").await), (before, "2.00".to_owned()));
    assert!(server.log().contains("audit lines cannot be written"), "{}", server.log());

    let second = audit.folder.path().join("second");
    audit.link_to(second.to_str().expect("a plain path"));
    let is_back = async || client.deposit(deposit("a", "1")).await.is_ok();
    eventually("changes are applied again", is_back).await;
    end(server).await;
    assert_eq!(balance_of(&database, "a").await, "3.00");
    let applied = audit.events("change").into_iter().filter(|it| it["outcome"] == "applied");
    assert_eq!(applied.count(), 1, "{}", audit.text());
    let intents: Vec<_> = audit.events("intent").iter().map(|it| it["change_id"].clone()).collect();
    let changes: Vec<_> = audit.events("change").iter().map(|it| it["change_id"].clone()).collect();
    assert!(changes.iter().all(|it| intents.contains(it)), "{}", audit.text());
    assert_eq!(changes.len(), intents.len(), "each intent has its end: {}", audit.text());
}

/// By another server, without an audit log.
async fn balance_of(database: &TestDatabase, account_id: &str) -> String {
    let server = callers().serve(database, &[]).await;
    balance(&server.client_of("all-token"), account_id).await
}

async fn after_a_kill_every_applied_change_has_a_line(kind: Kind) {
    let (database, audit) = (TestDatabase::create(kind).await, Audit::new());
    let arguments = audit.arguments(&["--audit-required"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut server = Server::start_with(&database, &arguments).await;
    let client = server.client();
    open(&client, "a").await;
    let mut load = JoinSet::new();
    for _ in 0..16 {
        let client = client.clone();
        load.spawn(async move { while client.deposit(deposit("a", "1")).await.is_ok() {} });
    }
    let moves = async || database.count("requests").await >= 50;
    eventually("the load makes headway", moves).await;
    server.kill9();
    while load.join_next().await.is_some() {}

    let applied = database.texts("SELECT request_id FROM requests").await;
    let intents: BTreeSet<_> =
        audit.events("intent").iter().map(|it| text(it, "request_sha256").to_owned()).collect();
    for request_id in &applied {
        assert!(intents.contains(&sha256_hex(request_id, 16)), "{request_id} has no line");
    }
    println!("{kind:?}: {} requests, {} intents", applied.len(), intents.len());
}

async fn the_line_of_a_change_whose_caller_gave_up_says_what_became_of_it(kind: Kind) {
    let (database, audit) = (TestDatabase::create(kind).await, Audit::new());
    let arguments = audit.arguments(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;
    let client = server.client();
    open(&client, "a").await;
    let foreign_lock = database.lock_account("a").await;
    server.patient().deposit(within(ms(200), deposit("a", "1"))).await.expect_err("locked");
    drop(foreign_lock);
    eventually("its line is there", async || audit.events("change").len() == 2).await;
    end(server).await;
    let changes = audit.events("change");
    assert_eq!(changes.len(), 2, "{}", audit.text());
    assert_eq!(text(&changes[1], "outcome"), "not_applied", "{}", audit.text());
}

/// The file is a pipe that is full: a write hangs, as on a network file system.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_its_intent_until_its_deadline() {
    const PIPE_SIZE: usize = 64 * 1024;
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let made = Command::new("mkfifo").arg(audit.path()).status();
    assert!(made.expect("mkfifo runs").success());
    let pipe = fs::OpenOptions::new().read(true).write(true).open(audit.path());
    let mut pipe = pipe.expect("the pipe");
    pipe.write_all(&vec![b'\n'; PIPE_SIZE]).expect("it is full now");
    let arguments = audit.arguments(&["--audit-required"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;

    let request = within(ms(300), account_of("a", "USD"));
    let status =
        must_fail(server.patient().create_account(request).await, Reason::DeadlineExceeded);
    assert_eq!(outcome(&status), "not_applied");
    assert_eq!(database.count("accounts").await, 0);

    pipe.read_exact(&mut vec![0; PIPE_SIZE]).expect("all of it");
    open(&server.client(), "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_hides_no_denial() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let server = audit.serve(&database, &callers(), &[]).await;
    let (a, nobody) = (server.client_of("a-token"), server.client());
    let noise = (0..1000).map(|_| nobody.get_account(account_named("a")));
    let probes = (0..100).map(|_| a.deposit(deposit("a", "1")));
    let (noise, probes) = tokio::join!(join_all(noise), join_all(probes));
    for answer in noise {
        must_fail(answer, Reason::Unauthenticated);
    }
    for answer in probes {
        must_fail(answer, Reason::PermissionDenied);
    }
    let logged = server.log_lines();
    let names_a =
        logged.iter().filter(|it| it["message"] == "call denied" && it["identity"] == "a");
    assert!(names_a.count() >= 10, "{}", server.log());
    end(server).await;

    let denials = audit.events("denial");
    for (who, reason, count) in [("a", "permission_denied", 100), ("", "unauthenticated", 1000)] {
        let lines = denials.iter().filter(|it| text(it, "identity") == who);
        let lines: Vec<_> = lines.collect();
        assert!(lines.iter().all(|it| it["reason"] == reason), "{lines:?}");
        let counted: u64 = lines.iter().filter_map(|it| it["count"].as_u64()).sum();
        assert_eq!(counted, count, "{lines:?}");
        // A period may have ended meanwhile.
        assert!((11..=22).contains(&lines.len()), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_names_the_file_and_both_contents() {
    let (database, callers) = (TestDatabase::create(Kind::Sqlite).await, callers());
    let audit = Audit::new();
    let server = audit.serve(&database, &callers, &[]).await;
    let policy = fs::read_to_string(callers.policy_file()).expect("the policy");
    let invalid = "identity = 3";
    callers.set_policy(invalid);
    eventually("it is not in force", async || audit.events("reload").len() == 1).await;
    let valid = identity("all", &["*"], &[""]);
    callers.set_policy(&valid);
    eventually("it is in force", async || audit.events("reload").len() == 2).await;
    end(server).await;

    let owner = fs::metadata(callers.policy_file()).expect("it exists").uid();
    let contents = [policy.as_str(), invalid, &valid].map(|text| sha256_hex(text, 64));
    let reloads = audit.events("reload");
    for (index, outcome) in ["rejected", "applied"].into_iter().enumerate() {
        let line = &reloads[index];
        assert_eq!(text(line, "outcome"), outcome, "{line}");
        assert_eq!(line["error"].is_string(), outcome == "rejected", "{line}");
        assert_eq!(text(&line["before"], "sha256"), contents[index]);
        assert_eq!(text(&line["after"], "sha256"), contents[index + 1]);
        assert_eq!(text(&line["after"], "file"), callers.policy_file().to_str().expect("plain"));
        assert_eq!(line["after"]["owner_uid"], owner);
        assert!(line["after"]["modify_time"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_left_alone() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let server = audit.serve(&database, &callers(), &["--audit-amounts"]).await;
    let client = server.client_of("all-token");
    open(&client, "a").await;
    eventually("its line is there", async || audit.events("change").len() == 1).await;
    let old = audit.folder.path().join("audit.jsonl.1");
    fs::rename(audit.path(), &old).expect("renamed");
    let before = fs::read_to_string(&old).expect("the old file");
    deposited(&client, "a", "5").await;
    eventually("its line is in a new file", async || audit.events("change").len() == 1).await;
    end(server).await;

    assert_eq!(fs::read_to_string(&old).expect("the old file"), before);
    let amount = &audit.events("change")[0]["amounts"][0];
    let fields = ["account_id", "currency_code", "value"].map(|field| text(amount, field));
    assert_eq!(fields, ["a", "USD", "5.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_can_be_the_audit_log() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let arguments = ["--database-url", database.url(), "--audit-file", "-"];
    let server = Server::launch(address, &arguments).await;
    let client = server.client();
    let is_open = async || client.create_account(account_of("a", "USD")).await.is_ok();
    eventually("it is ready", is_open).await;
    let is_change = |line: &String| line.contains("\"event\":\"change\"");
    eventually("its line is there", async || server.stdout().iter().any(is_change)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_audit_log_must_fit() {
    for (arguments, words) in [
        (&["--audit-required"][..], "audit_required needs audit_file"),
        (&["--audit-amounts"], "audit_amounts needs audit_file"),
        (&["--audit-file", "/no/such/folder/audit"], "audit_file /no/such/folder/audit"),
        (&["--audit-file", "/"], "audit_file /"),
    ] {
        passbook(&[&["config", "check"], arguments].concat()).await.must_fail_with(2, words);
    }
}
