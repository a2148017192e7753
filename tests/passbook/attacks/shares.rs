//! One identity, `a`, does its worst; the other one, `b`, is served.

use tokio::time::{sleep, timeout};

use crate::{attacks::*, harness::http2::Raw};

on_both_databases! {
    verifications_leave_readers_to_others,
}

fn batch_of_a() -> BatchPostTransactionsRequest {
    let requests = (0..1000).map(|_| post(&[leg("alice", "1")])).collect();
    BatchPostTransactionsRequest { requests }
}

/// Batches of `a`, which fill its part of the queue. Returns how many of its requests were shed.
async fn batches_of_a(target: &Target) -> Attack {
    let a = target.client("a");
    let attack = Attack::by(12, move || {
        let a = a.clone();
        async move {
            let results = a.batch_post_transactions(batch_of_a()).await.expect("an answer").results;
            let is_shed = |it: &&PostTransactionResult| {
                matches!(it.result, Some(post_transaction_result::Result::Error(_)))
            };
            results.iter().filter(is_shed).count()
        }
    });
    eventually("the queue of a is full", async || target.shed("queue", "identity").await > 0.0)
        .await;
    attack
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_one_identity_do_not_shed_the_deposits_of_another() {
    let target = Target::start(&[]).await;
    open(&target.client("a"), "alice").await;
    let attack = batches_of_a(&target).await;
    target.withstands("12 callers of batches of 1000", IDENTITY_MIB_MAX).await;
    println!("{} requests of a were shed", attack.end().await);
    assert_eq!(target.shed("queue", "server").await, 0.0);
}

/// Half of the queue waits: 4,096 requests, which would fill four database transactions.
#[tokio::test(flavor = "multi_thread")]
async fn few_requests_of_one_identity_come_before_a_deposit_of_another() {
    let target = Target::start(&[]).await;
    let b = target.client("b");
    open_all(&b, &["alice", "bob"]).await;
    let applied = async || target.admin.metrics().await.value("passbook_batch_size_sum");
    let attack = batches_of_a(&target).await;
    let mut passed = Vec::new();
    for _ in 0..15 {
        let before = applied().await;
        b.deposit(within(PATIENCE, deposit("bob", "1"))).await.expect("served");
        passed.push(applied().await - before);
    }
    attack.end().await;
    passed.sort_by(f64::total_cmp);
    println!("requests that were applied during a deposit: {passed:?}");
    assert!(passed[7] <= 250.0, "the deposits of b waited for those of a: {passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_identity_do_not_shed_the_deposits_of_another() {
    let target = Target::start(&["--queue-capacity", "256"]).await;
    open(&target.client("a"), "alice").await;
    let mut streams = JoinSet::new();
    for _ in 0..12 {
        let a = target.client("a");
        let requests = std::iter::repeat_with(|| one_posting(post(&[leg("alice", "1")])));
        let requests = tokio_stream::iter(requests);
        streams.spawn(async move {
            let mut results = a.stream_transactions(requests).await.expect("a stream");
            while let Some(result) = results.message().await.expect("the stream goes on") {
                made(&result.result.expect("a result"));
            }
        });
    }
    eventually("the streams of a wait", async || {
        target.admin.metrics().await.value("passbook_queue_length") >= 60.0
    })
    .await;
    target.withstands("12 streams without end", IDENTITY_MIB_MAX).await;
    assert!(streams.try_join_next().is_none(), "a stream has ended");
}

/// A scan that looks at every account and finds none.
fn scan() -> ListAccountsRequest {
    let labels = labels(&[("kind", "shop"), ("missing", "x")]);
    ListAccountsRequest { labels, page_size: 1000, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_that_are_given_up_leave_readers_to_others() {
    let target = Target::start(&[]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    open_many(&b, 3000).await;
    let attack = Attack::by(24, move || {
        let a = a.clone();
        async move { usize::from(timeout(ms(100), a.list_accounts(scan())).await.is_err()) }
    });
    sleep(ms(300)).await;
    target.withstands("24 callers that give up scans", IDENTITY_MIB_MAX).await;
    b.list_accounts(within(PATIENCE, scan())).await.expect("a scan of another identity");
    println!("{} scans were given up", attack.end().await);
}

/// Accounts with a label.
async fn open_many(client: &Client, count: usize) {
    let opened = (0..count).map(|number| {
        let labels = labels(&[("kind", "shop")]);
        client.create_account(CreateAccountRequest {
            labels,
            ..account_of(&format!("account-{number}"), "USD")
        })
    });
    for answer in join_all(opened).await {
        answer.expect("opened");
    }
}

/// Reads of `a` that take all that it may read at a time, of an account of `b`.
async fn many_reads(a: &Client, b: &Client) -> JoinSet<Result<(), Status>> {
    open(b, "alice").await;
    post_many(b, "alice", 2500).await;
    let mut reads = JoinSet::new();
    for _ in 0..80 {
        let (a, account_id) = (a.clone(), "alice".to_owned());
        let verify = within(PATIENCE, VerifyAccountRequest { account_id });
        reads.spawn(async move { a.verify_account(verify).await.map(drop) });
    }
    sleep(ms(200)).await;
    reads
}

/// The one scan of all callers does not wait behind what else its identity reads. Each page of a
/// verification is a scan, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_behind_its_own_reads_delays_no_scan_of_others() {
    let target = Target::start(&[]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    let reads = many_reads(&a, &b).await;
    let its_scan = tokio::spawn(async move { a.list_accounts(within(PATIENCE, scan())).await });
    sleep(ms(200)).await;
    assert!(!its_scan.is_finished(), "the reads do not take long enough for this test");
    b.list_accounts(within(PATIENCE, scan())).await.expect("served");
    assert!(!its_scan.is_finished(), "the scan of b has waited for that of a");
    its_scan.await.expect("no panic").expect("served, too");
    for answer in reads.join_all().await {
        answer.expect("verified");
    }
}

/// What a call keeps of its message counts while it waits to read. All of the messages together are less
/// than an identity may send at a time.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_accounts_count_while_their_call_waits_to_read() {
    const CALLS: usize = 250;
    let target = Target::start(&[]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    let reads = many_reads(&a, &b).await;
    let account_ids: Vec<_> = (0..1000).map(|number| format!("{number:0>64}")).collect();
    let get = BatchGetAccountsRequest { account_ids };
    let calls = (0..CALLS).map(|_| a.batch_get_accounts(within(PATIENCE, get.clone())));
    let mut shed = 0;
    for answer in join_all(calls).await {
        let status = answer.expect_err("there are no such accounts");
        if reason(&status) == "OVERLOADED" {
            assert_metadata(&status, &[("limit", "request_bytes"), ("scope", "identity")]);
            shed += 1;
        } else {
            assert_eq!(reason(&status), "ACCOUNT_NOT_FOUND", "{status:?}");
        }
    }
    assert!(shed > CALLS / 8, "{shed} of {CALLS} calls are shed");
    for answer in reads.join_all().await {
        answer.expect("verified");
    }
}

/// Four identities verify a long account, which changes meanwhile. On either database eight verifications
/// could take all connections of readers.
async fn verifications_leave_readers_to_others(kind: Kind) {
    const ENTRIES: i64 = 20_000;
    const CHANGES: i64 = 5;
    let names = ["a", "b", "c", "d", "e"];
    let tokens = names.map(|name| format!("{name}-token"));
    let of_names: Vec<_> = names.into_iter().zip(tokens.iter().map(String::as_str)).collect();
    let policy = names.map(|name| identity(name, &["*"], &[""])).concat();
    let callers = Callers::new(&of_names, &policy);
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = callers.serve(&database, &ADMIN).await;
    let [a, b, c, d, e] = tokens.each_ref().map(|token| server.client_of(token));
    open(&b, "alice").await;
    post_entries(&b, "alice", ENTRIES).await;

    let mut verifications = JoinSet::new();
    for client in [&a, &c, &d, &e, &a, &c, &d, &e] {
        let (client, account_id) = (client.clone(), "alice".to_owned());
        let verify = within(PATIENCE, VerifyAccountRequest { account_id });
        verifications.spawn(async move { client.verify_account(verify).await });
    }
    let admin = server.admin();
    let in_flight = async || admin.metrics().await.value("passbook_calls_in_flight");
    eventually("all verifications run", async || in_flight().await >= 8.0).await;
    for change in 1..=CHANGES {
        b.deposit(within(PATIENCE, deposit("alice", "1"))).await.expect("applied");
        for client in [&a, &b] {
            let of = GetBalanceRequest { account_id: "alice".to_owned(), ..Default::default() };
            let balance = client.get_balance(within(PATIENCE, of)).await.expect("a balance");
            assert_eq!(balance.sequence, ENTRIES + change);
        }
    }
    assert!(verifications.try_join_next().is_none(), "reads have waited for a verification");

    for answer in verifications.join_all().await {
        let answer = answer.expect("verified");
        assert!(answer.valid, "{answer:?}");
        let entries = ENTRIES..=ENTRIES + CHANGES;
        assert!(entries.contains(&answer.entries_verified), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_one_identity_leave_half_to_others() {
    let target = Target::start(&["--identity-calls-max", "8000"]).await;
    open(&target.client("b"), "alice").await;
    let mut raw =
        Raw::without_window(target.server.address, "Bearer a-token").await.expect("connected");
    for _ in 0..5100 {
        let call = raw.unary(WATCH_ENTRIES, &watch("alice", 0));
        raw.write(&call).await.expect("written");
    }
    let shed = async || target.shed("watchers", "identity").await;
    eventually("the others are shed", async || shed().await >= 100.0).await;
    assert_eq!(shed().await, 100.0);
    target.withstands("5000 watchers of an account without entries", IDENTITY_MIB_MAX).await;
    target.client("b").watch_entries(watch("alice", 0)).await.expect("watched");
}
