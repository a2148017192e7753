//! The audit log: one line for each change, whatever becomes of it; denials that no noise hides; and
//! no change without a line, if that is required.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    time::SystemTime,
};

use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{
    admin::ADMIN,
    audit_log::{Audit, FullPipe, callers, end, sha256_hex, text},
    *,
};

on_both_databases! {
    every_change_has_one_line,
    without_audit_nothing_changes,
    after_a_kill_every_applied_change_has_a_line,
    the_line_of_a_change_whose_caller_gave_up_says_what_became_of_it,
    every_intent_of_a_stream_that_is_cut_has_an_end,
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
    let requests = vec![account_of("east:2", "USD"), account_of("west:2", "USD")];
    client.batch_create_accounts(BatchCreateAccountsRequest { requests }).await.expect("both");
    let messages = [posting(&[("east:1", "1")]), posting(&[("west:1", "1")])].map(one_posting);
    let mut results =
        client.stream_transactions(tokio_stream::iter(messages)).await.expect("a stream");
    while results.message().await.expect("a result").is_some() {}
    freeze(&client, "east:1").await;
    let forced = WithdrawRequest { force: true, ..withdrawal("east:1", "1") };
    client.withdraw(forced).await.expect("applied");
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
        ("BatchCreateAccounts", "applied", ""),
        ("StreamTransactions", "applied", ""),
        ("FreezeAccount", "applied", ""),
        ("Withdraw", "applied", ""),
        ("FenceRequest", "applied", ""),
    ];
    assert_eq!(summary, expected);
    let forced: Vec<_> = changes.iter().map(|line| line["forced"] == true).collect();
    assert_eq!(forced.iter().position(|it| *it), Some(9));
    assert_eq!(forced.iter().filter(|it| **it).count(), 1);
    let denials = audit.events("denial");
    let denied: Vec<_> =
        denials.iter().map(|it| (text(it, "reason"), &it["account_ids"])).collect();
    let west = ["west:1", "west:2", "west:1"].map(|it| Value::from(vec![it]));
    assert_eq!(denied, [0, 1, 2].map(|number| ("permission_denied", &west[number])));
    let events: Vec<_> = audit.lines().iter().map(|it| text(it, "event").to_owned()).collect();
    assert_eq!((events[0].as_str(), events[events.len() - 1].as_str()), ("start", "stop"));
    assert_eq!(events.len(), 1 + changes.len() + denials.len() + 1, "{events:?}");

    let line = &changes[1];
    assert_eq!((text(line, "identity"), text(line, "credential")), ("east", "token"));
    assert_eq!(text(line, "credential_sha256"), sha256_hex("east-token", 16));
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
    let messages = tokio_stream::iter([one_posting(posting(&[("a", "1")]))]);
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

async fn every_intent_of_a_stream_that_is_cut_has_an_end(kind: Kind) {
    let (database, audit) = (TestDatabase::create(kind).await, Audit::new());
    let arguments = audit.arguments(&["--audit-required"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;
    let client = server.client();
    open(&client, "a").await;
    let foreign_lock = database.lock_account("a").await;
    let (sender, messages) = mpsc::channel(10);
    for _ in 0..10 {
        sender.try_send(one_posting(posting(&[("a", "1")]))).expect("there is room");
    }
    let results = client.stream_transactions(ReceiverStream::new(messages)).await;
    let count = |event| audit.events(event).len();
    eventually("all have begun", async || count("intent") == 11).await;
    drop((results, sender));
    drop(foreign_lock);
    eventually("all have ended", async || count("change") == 11).await;
    end(server).await;

    let ids = |event| -> BTreeSet<String> {
        audit.events(event).iter().map(|it| text(it, "change_id").to_owned()).collect()
    };
    assert_eq!(ids("intent"), ids("change"));
    let changes = audit.events("change");
    let applied = changes.iter().filter(|it| it["outcome"] == "applied").count();
    assert_eq!(applied, 1 + database.count("requests").await as usize, "{}", audit.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_its_intent_until_its_deadline() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let mut pipe = FullPipe::new(&audit.path());
    let arguments = audit.arguments(&["--audit-required"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;

    let request = within(ms(300), account_of("a", "USD"));
    let status =
        must_fail(server.patient().create_account(request).await, Reason::DeadlineExceeded);
    assert_eq!(outcome(&status), "not_applied");
    assert_eq!(database.count("accounts").await, 0);

    pipe.drain();
    open(&server.client(), "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_stream_waits_for_its_intent_until_its_own_deadline() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let mut pipe = FullPipe::new(&audit.path());
    let arguments = audit.arguments(&["--audit-required"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;
    // There is no such account: each request is rejected, which is a change as well.
    let [short, long] = [0, 60].map(|seconds| {
        let timeout = prost_types::Duration { seconds, nanos: 300_000_000 };
        let request = Change::from(posting(&[("a", "1")])).streamed();
        StreamedRequest { timeout: Some(timeout), ..request }
    });
    let (sender, messages) = mpsc::channel(1);
    sender.try_send(in_any_order(vec![short, long])).expect("there is room");
    let client = server.client();
    let responses = client.stream_transactions(ReceiverStream::new(messages)).await;
    let mut responses = responses.expect("a stream");
    let mut next = async || {
        let response = responses.message().await.expect("no error").expect("a result");
        let [result] = response.results.try_into().expect("one result");
        Answer::of(result)
    };

    let status = must_fail(next().await, Reason::DeadlineExceeded);
    assert_eq!(outcome(&status), "not_applied");
    pipe.drain();
    must_fail(next().await, Reason::AccountNotFound);
}

/// If they were written one after another, the others would begin after the first write.
#[tokio::test(flavor = "multi_thread")]
async fn the_intents_of_a_batch_are_written_together() {
    const COUNT: usize = 20;
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let mut pipe = FullPipe::new(&audit.path());
    let arguments = audit.arguments(&[&["--audit-required"], &ADMIN[..]].concat());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;
    let client = server.client();
    let batch = tokio::spawn(async move {
        // There is no such account: each request is rejected, which is a change as well.
        let requests = (0..COUNT).map(|_| posting(&[("a", "1")])).collect();
        client.batch_post_transactions(BatchPostTransactionsRequest { requests }).await
    });
    let started = "grpc_server_started_total{grpc_type=\"unary\",\
                   grpc_service=\"passbook.v1.AccountService\",\
                   grpc_method=\"BatchPostTransactions\"}";
    let has_begun = async || server.admin().metrics().await.value(started) == 1.0;
    eventually("the batch has begun", has_begun).await;
    // Another change gives up, and the batch waits for longer.
    let request = within(ms(500), account_of("b", "USD"));
    must_fail(server.patient().create_account(request).await, Reason::DeadlineExceeded);

    let drained = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    pipe.drain();
    let results = batch.await.expect("it ends").expect("results").results;
    assert_eq!(results.len(), COUNT);
    let lines = BufReader::new(pipe.file).lines().map(|line| line.expect("a line"));
    let lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect("an object"));
    let intents: Vec<_> = lines
        .filter(|it| it["event"] == "intent" && text(it, "method").contains("Batch"))
        .take(COUNT)
        .collect();
    for intent in &intents {
        assert!(text(intent, "time") < drained.as_str(), "{intent} after {drained}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_on_with_a_full_disk_and_their_lines_follow() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    audit.link_to("/dev/full");
    let server = audit.serve(&database, &callers(), &ADMIN).await;
    let client = server.client_of("all-token");
    open_funded(&client, "a", "1").await;
    server.client().get_account(account_named("a")).await.expect_err("no token");
    let failures = "passbook_audit_write_failures_total";
    let is_counted = async || server.admin().metrics().await.value(failures) >= 1.0;
    eventually("the failure is counted", is_counted).await;
    let file = audit.folder.path().join("file");
    audit.link_to(file.to_str().expect("a plain path"));
    end(server).await;

    let events: Vec<_> = audit.lines().iter().map(|it| text(it, "event").to_owned()).collect();
    assert_eq!(events, ["start", "change", "change", "denial", "stop"]);
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
