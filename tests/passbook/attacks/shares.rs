//! One identity, `a`, does its worst; the other one, `b`, is served.

use tokio::time::{sleep, timeout};

use crate::{attacks::*, harness::http2::Raw};

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

/// The one scan of all callers does not wait behind other reads of its identity.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_behind_its_own_reads_delays_no_scan_of_others() {
    let target = Target::start(&[]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    open(&b, "alice").await;
    post_many(&b, "alice", 5000).await;
    let mut reads = JoinSet::new();
    for _ in 0..40 {
        let (a, account_id) = (a.clone(), "alice".to_owned());
        let verify = within(PATIENCE, VerifyAccountRequest { account_id });
        reads.spawn(async move { a.verify_account(verify).await });
    }
    sleep(ms(200)).await;
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
