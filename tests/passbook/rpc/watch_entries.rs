use tokio::time::{Instant, timeout};

use crate::harness::*;

on_both_databases! {
    existing_entries_come_first_and_then_new_ones,
    entries_of_another_server_are_streamed,
    a_cut_stream_resumes_after_its_last_sequence,
    every_watcher_receives_entries_from_its_own_start,
    a_transaction_of_several_legs_arrives_whole_and_in_order,
    a_watcher_of_a_quiet_account_gets_heartbeats_only,
    malformed_requests_to_watch_are_invalid,
    only_the_client_deadline_ends_the_stream,
    a_server_that_shuts_down_ends_the_stream_and_does_not_wait_for_it,
}

async fn deposit_one(client: &Client, account_id: &str) -> Entry {
    deposited(client, account_id, "1").await.entries.remove(0)
}

async fn listed(client: &Client, account_id: &str) -> Vec<Entry> {
    let request = ListEntriesRequest { page_size: 1000, ..entries_of(account_id) };
    client.list_entries(request).await.expect("a page").entries
}

async fn existing_entries_come_first_and_then_new_ones(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    // More than one page, and exactly one page.
    for (count, last) in [(700, 700), (50, 750), (0, 750)] {
        post_many(&client, "alice", count).await;
        let mut watching = Watching::begin(&client, "alice", 0).await;

        assert_eq!(watching.until(last).await, listed(&client, "alice").await);
    }
    open(&client, "bob").await;
    post_many(&client, "bob", 300).await;
    let mut watching = Watching::begin(&client, "bob", 0).await;
    assert_eq!(watching.until(300).await, listed(&client, "bob").await, "and nothing of alice's");

    let mut watching = Watching::begin(&client, "alice", 745).await;
    assert_eq!(watching.until(750).await.len(), 5);
    let mut slowest = ms(0);
    for _ in 0..10 {
        let made = deposit_one(&client, "alice").await;
        let began = Instant::now();
        assert_eq!(watching.until(made.sequence).await, [made], "the outcome equals the answer");
        slowest = slowest.max(began.elapsed());
    }
    let figure = format!("{kind:?}: received after {slowest:?} at most");
    times::figure(&figure, slowest < ms(250));
    post_many(&client, "alice", 240).await;
    let received = watching.until(1000).await;
    assert_eq!(received.as_slice(), &listed(&client, "alice").await[760..]);
}

async fn entries_of_another_server_are_streamed(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    let (here, there) = (client, servers[1].client());
    open(&there, "alice").await;
    let mut watching = Watching::begin(&here, "alice", 0).await;

    for _ in 0..5 {
        let made = deposit_one(&there, "alice").await;
        assert_eq!(watching.until(made.sequence).await, [made]);
    }
    deposit_one(&here, "alice").await;
    deposit_one(&there, "alice").await;
    assert_eq!(watching.until(7).await.len(), 2);
}

async fn a_cut_stream_resumes_after_its_last_sequence(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open(&client, "alice").await;
    deposit_one(&client, "alice").await;
    let mut watching = Watching::begin(&client, "alice", 0).await;
    watching.until(1).await;

    drop(watching);
    for _ in 0..3 {
        deposit_one(&client, "alice").await;
    }

    // On another server, which has never seen the first stream.
    let mut watching = Watching::begin(&servers[1].client(), "alice", 1).await;
    assert_eq!(watching.until(4).await, listed(&client, "alice").await[1..]);
    let made = deposit_one(&client, "alice").await;
    assert_eq!(watching.until(5).await, [made]);
}

async fn every_watcher_receives_entries_from_its_own_start(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["alice", "bob"]).await;
    let mut first = Watching::begin(&client, "alice", 0).await;
    let mut of_bob = Watching::begin(&client, "bob", 0).await;
    let writing = async {
        for _ in 0..300 {
            deposit_one(&client, "alice").await;
        }
        deposit_one(&client, "bob").await
    };
    let watching = async {
        // They begin at different sequences while entries are added.
        let mut others = Vec::new();
        for round in 0..30 {
            let sequence = get(&client, "alice").await.sequence;
            let after = (sequence - round).max(0);
            others.push(Watching::begin(&client, "alice", after).await);
            tokio::time::sleep(ms(10)).await;
        }
        for other in &mut others {
            other.until(300).await;
        }
    };

    let (made, ()) = tokio::join!(writing, watching);

    assert_eq!(first.until(300).await, listed(&client, "alice").await);
    assert_eq!(of_bob.until(1).await, [made], "and nothing of alice's");
}

async fn a_transaction_of_several_legs_arrives_whole_and_in_order(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    open_with_overdraft(&client, "bob", "1000000").await;
    let mut watching = Watching::begin(&client, "alice", 0).await;
    let legs: Vec<_> =
        (1..=33).flat_map(|n| [leg("alice", &n.to_string()), leg("bob", "-1")]).collect();

    let mut made = Vec::new();
    for _ in 0..5 {
        let request = PostTransactionRequest { legs: legs.clone(), ..post(&[]) };
        let answer = client.post_transaction(request).await.expect("applied");
        let entries = answer.transaction.expect("a transaction").entries;
        made.extend(entries.into_iter().filter(|entry| entry.account_id == "alice"));
    }

    assert_eq!(watching.until(165).await, made);
}

async fn a_watcher_of_a_quiet_account_gets_heartbeats_only(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "frozen", "5").await;
    open(&client, "busy").await;
    database.execute("UPDATE accounts SET state = 'frozen' WHERE account_id = 'frozen'").await;
    let began = Instant::now();
    let mut watching = Watching::begin(&client, "frozen", 1).await;
    must_fail(client.withdraw(withdrawal("frozen", "1")).await, Reason::AccountFrozen);
    deposit_one(&client, "busy").await;

    for number in 1..=2 {
        let message = timeout(PATIENCE, watching.next()).await.expect("a heartbeat is due");
        assert_eq!(message.expect("the stream continues"), [], "a rejection adds no entry");
        let least = ms(4_900) * number;
        assert!(began.elapsed() >= least, "heartbeat {number} after {:?}", began.elapsed());
        times::promise("a heartbeat", began.elapsed(), ms(6_000) * number);
    }
    // A frozen account accepts deposits.
    let made = deposit_one(&client, "frozen").await;
    assert_eq!(watching.until(2).await, [made]);
}

async fn malformed_requests_to_watch_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "5").await;
    let cases = [
        (watch("", 0), Reason::InvalidAccountId, vec!["account_id"]),
        (watch("a b", -1), Reason::InvalidAccountId, vec!["account_id", "after_sequence"]),
        (watch("alice", -1), Reason::InvalidFilter, vec!["after_sequence"]),
        (watch("alice", i64::MIN), Reason::InvalidFilter, vec!["after_sequence"]),
        (watch("alice", 2), Reason::InvalidFilter, vec!["after_sequence"]),
        (watch("alice", i64::MAX), Reason::InvalidFilter, vec!["after_sequence"]),
    ];
    for (request, expected, expected_fields) in cases {
        let status = must_fail(client.watch_entries(request.clone()).await, expected);
        assert_eq!(fields(&status), expected_fields, "{request:?}");
    }
    let status = client.watch_entries(watch("alice", 2)).await.expect_err("there is one entry");
    assert!(status.message().contains("which is 1"), "{}", status.message());

    let status = must_fail(client.watch_entries(watch("nobody", 7)).await, Reason::AccountNotFound);
    assert_eq!(metadata(&status, "account_id"), "nobody");
    Watching::begin(&client, "alice", 1).await;
}

async fn only_the_client_deadline_ends_the_stream(kind: Kind) {
    let (_database, server, client) =
        start_server_with(kind, &["--default-deadline", "500ms"]).await;
    open(&client, "alice").await;
    let mut watching = Watching::begin(&client, "alice", 0).await;
    let began = Instant::now();

    let request = within(ms(1500), watch("alice", 0));
    let patient = server.patient();
    let mut stream = patient.watch_entries(request).await.expect("a stream");
    let end = stream.message().await.expect_err("the deadline passes");

    assert_reason(&end, Reason::DeadlineExceeded);
    assert_eq!(outcome(&end), "", "nothing was to be changed");
    let passed = began.elapsed();
    assert!(passed > ms(1300), "{passed:?}");
    times::promise("the end", passed, seconds(2));
    let made = deposit_one(&client, "alice").await;
    assert_eq!(watching.until(1).await, [made], "long after the default deadline");
}

async fn a_server_that_shuts_down_ends_the_stream_and_does_not_wait_for_it(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start_with(&database, &["--shutdown-grace", "5m"]).await;
    let client = server.client();
    open_funded(&client, "alice", "5").await;
    let mut caught_up = Watching::begin(&client, "alice", 0).await;
    caught_up.until(1).await;
    let mut unread = Watching::begin(&client, "alice", 0).await;

    server.terminate();

    let end = timeout(PATIENCE, caught_up.end()).await.expect("the stream ends");
    assert_reason(&end, Reason::ShuttingDown);
    let status = server.wait(PATIENCE).await.expect("no delay");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    // The message was sent before the end of the stream, and is read after it.
    assert_eq!(reason(&unread.end().await), "SHUTTING_DOWN");
    assert!(!server.log().contains("cannot read the database"), "{}", server.log());
}
