//! One identity, `a`, does its worst; the other one, `b`, is served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{attacks::*, harness::http2::Raw};

/// Calls of `b`, one after another. None of them may fail.
async fn serve<Answer>(calls: usize, call: impl AsyncFn() -> Result<Answer, Status>) -> Duration {
    let mut took = Vec::new();
    for _ in 0..calls {
        let start = Instant::now();
        call().await.unwrap_or_else(|status| panic!("a call of another identity: {status:?}"));
        took.push(start.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

/// Tasks that repeat until they are dropped or `ended` is true.
struct Attack {
    tasks: JoinSet<usize>,
    ended: Arc<AtomicBool>,
}

impl Attack {
    fn by<Call, Done>(callers: usize, call: Call) -> Self
    where
        Call: Fn() -> Done + Clone + Send + 'static,
        Done: Future<Output = usize> + Send + 'static,
    {
        let (mut tasks, ended) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for _ in 0..callers {
            let (call, ended) = (call.clone(), ended.clone());
            tasks.spawn(async move {
                let mut count = 0;
                while !ended.load(Ordering::Relaxed) {
                    count += call().await;
                }
                count
            });
        }
        Self { tasks, ended }
    }

    /// Ends, and returns the sum of what the calls returned.
    async fn end(self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().sum()
    }
}

fn batch_of_a() -> BatchPostTransactionsRequest {
    let requests = (0..1000).map(|_| post(&[leg("alice", "1")])).collect();
    BatchPostTransactionsRequest { requests }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_one_identity_do_not_shed_the_deposits_of_another() {
    let target = Target::start(&[]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    open_all(&b, &["alice", "bob"]).await;
    let one = async || b.deposit(within(PATIENCE, deposit("bob", "1"))).await;
    let before = serve(60, one).await;
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
    let during = serve(5, one).await;
    let shed = attack.end().await;
    assert_eq!(target.shed("queue", "server").await, 0.0);
    println!("{shed} requests of a were shed");
    let figure = format!("deposits beside batches: p99 {during:?}, {before:?} before");
    times::figure(&figure, during <= before * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_identity_do_not_shed_the_deposits_of_another() {
    let target = Target::start(&["--queue-capacity", "256"]).await;
    let b = target.client("b");
    open_all(&b, &["alice", "bob"]).await;
    let one = async || b.deposit(within(PATIENCE, deposit("bob", "1"))).await;
    let before = serve(60, one).await;
    let mut streams = JoinSet::new();
    for _ in 0..12 {
        let a = target.client("a");
        let requests = tokio_stream::iter(std::iter::repeat_with(|| StreamTransactionsRequest {
            request: Some(post(&[leg("alice", "1")])),
        }));
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
    let during = serve(60, one).await;
    let figure = format!("deposits beside streams: p99 {during:?}, {before:?} before");
    times::figure(&figure, during <= before * 3);
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
    let one = async || b.get_account(within(PATIENCE, account_named("account-1"))).await;
    let before = serve(100, one).await;
    let attack = Attack::by(24, move || {
        let a = a.clone();
        async move { usize::from(timeout(ms(100), a.list_accounts(scan())).await.is_err()) }
    });
    sleep(ms(300)).await;
    let during = serve(100, one).await;
    b.list_accounts(within(PATIENCE, scan())).await.expect("a scan of another identity");
    println!("{} scans were given up", attack.end().await);
    let figure = format!("reads beside scans: p99 {during:?}, {before:?} before");
    times::figure(&figure, during <= before * 3);
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
    target.assert_memory("watchers", IDENTITY_MIB_MAX);
    target.client("b").watch_entries(watch("alice", 0)).await.expect("watched");
}
