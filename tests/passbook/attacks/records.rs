//! Records that move no money are stored for good: an identity may have so many of them a minute.

use crate::{
    attacks::*,
    harness::audit_log::{Audit, FullPipe},
};

const RECORDS_MAX: &str = "100";

/// Makes calls until one is shed, and asserts why. Returns how many were not.
async fn until_shed<Answer>(call: impl AsyncFn(usize) -> Result<Answer, Status>) -> usize {
    for number in 0..2000 {
        if let Err(status) = call(number).await
            && reason(&status) == "OVERLOADED"
        {
            assert_metadata(&status, &[("limit", "records"), ("scope", "identity")]);
            assert_metadata(&status, &[("max", RECORDS_MAX), ("outcome", "not_applied")]);
            return number;
        }
    }
    panic!("2000 records were not too many");
}

/// A target that applies no change without a line in its audit log.
async fn audited_target() -> (Audit, Target) {
    let audit = Audit::new();
    let arguments = audit.arguments(&["--audit-required", "--identity-records-max", RECORDS_MAX]);
    let target = Target::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (audit, target)
}

/// Makes a deposit, and gives up soon.
async fn hurried_deposit(client: &Client) -> Result<(), Status> {
    match client.deposit(within(ms(5), deposit("alice", "1"))).await {
        // By the client itself.
        Err(status) if status.code() == tonic::Code::Cancelled => Ok(()),
        result => result.map(|_| ()),
    }
}

/// The size of the database.
async fn stored_bytes(target: &Target) -> usize {
    let size =
        "SELECT CAST(page_count * page_size AS TEXT) FROM pragma_page_count, pragma_page_size";
    target.database.text(size).await.parse().expect("a number")
}

/// What may be stored at first, and in the time that this takes: a hundred a minute.
fn assert_few(what: &str, count: usize, started: tokio::time::Instant) {
    let max = 100 + started.elapsed().as_secs() as usize * 2 + 4;
    println!("{count} {what}");
    assert!((90..=max).contains(&count), "{count} {what}, {max} are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_of_one_identity_are_few_and_have_no_labels() {
    let started = tokio::time::Instant::now();
    let target = Target::start(&["--identity-records-max", RECORDS_MAX]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    open(&b, "alice").await;
    let labels: std::collections::BTreeMap<_, _> =
        (0..32).map(|it| (format!("label-{it}"), "v".repeat(60))).collect();
    let before = stored_bytes(&target).await;
    let withdrawals = until_shed(async |number| {
        let (labels, request_id) = (labels.clone(), format!("{number:0>64}"));
        let description = "d".repeat(1000);
        let withdrawal = withdrawal(&"x".repeat(64), "1");
        a.withdraw(WithdrawRequest { labels, request_id, description, ..withdrawal }).await
    })
    .await;
    assert_few("withdrawals", withdrawals, started);
    let bytes = (stored_bytes(&target).await - before) / withdrawals;
    println!("{bytes} bytes for each");
    assert!(bytes < 1024, "{bytes} bytes for each");
    let labels = "SELECT coalesce(CAST(labels AS TEXT), '') FROM requests WHERE caller = 'a'";
    let stored = target.database.texts(labels).await;
    assert_eq!(stored.len(), withdrawals);
    assert!(stored.iter().all(|labels| !labels.contains("label-")), "{:?}", stored[0]);
    // A repeat stores nothing.
    let change = deposit("alice", "1");
    for number in 0..150 {
        let answer = b.deposit(change.clone()).await.expect("applied");
        assert_eq!(answer.replayed, number > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_of_one_identity_are_few_in_the_audit_log() {
    let started = tokio::time::Instant::now();
    let (audit, target) = audited_target().await;
    let (a, b) = (target.client("a"), target.client("b"));
    open(&b, "alice").await;
    let change = deposit("alice", "1");
    a.deposit(change.clone()).await.expect("applied");
    let repeats = until_shed(async |_| a.deposit(change.clone()).await).await;
    assert_few("repeats", repeats, started);
    let lines = audit.events("change").into_iter();
    assert!(lines.filter(|line| line["outcome"] == "replayed").count() <= repeats);
    let again = b.deposit(deposit("alice", "1")).await.expect("others are served");
    assert!(!again.replayed);
}

/// Entries that leave all balances as they were, and texts beside an amount.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_store_much_and_move_little_are_few() {
    for (what, is_posted, expected) in [("entries", true, 10), ("labels", false, 12)] {
        let target = Target::start(&["--identity-records-max", RECORDS_MAX]).await;
        let a = target.client("a");
        open(&target.client("b"), "alice").await;
        let started = tokio::time::Instant::now();
        let count = until_shed(async |_| match is_posted {
            true => {
                let legs = ["1", "-1"].repeat(5).into_iter().map(|value| leg("alice", value));
                a.post_transaction(post(&legs.collect::<Vec<_>>())).await.map(drop)
            }
            false => {
                let request = DepositRequest { labels: largest_labels(), ..deposit("alice", "1") };
                a.deposit(request).await.map(drop)
            }
        })
        .await;
        let max = expected + started.elapsed().as_secs() as usize / 4 + 1;
        println!("{count} {what}");
        assert!((expected - 1..=max).contains(&count), "{count} requests of {what}");
        // What moves money counts for nothing.
        let other = target.client("b");
        for _ in 0..150 {
            other.deposit(deposit("alice", "1")).await.expect("applied");
        }
    }
}

/// Each change that was begun has two lines, also if its caller gives up.
#[tokio::test(flavor = "multi_thread")]
async fn changes_without_a_result_are_few_in_the_audit_log() {
    let started = tokio::time::Instant::now();
    let (audit, target) = audited_target().await;
    let (a, b) = (target.client("a"), target.client("b"));
    open(&b, "alice").await;
    let lock = target.database.lock_account("alice").await;
    until_shed(async |_| hurried_deposit(&a).await).await;
    lock.close().await.expect("released");
    b.deposit(deposit("alice", "1")).await.expect("others are served");
    // They leave no debt: one comes back within a second.
    let are_served = async || a.deposit(deposit("alice", "1")).await.is_ok();
    eventually("changes of the identity are applied again", are_served).await;
    let lines = audit.events("change").into_iter();
    let lines = lines.filter(|line| line["outcome"] == "not_applied").count();
    assert_few("changes without a result in the audit log", lines, started);
    for _ in 0..150 {
        a.deposit(deposit("alice", "1")).await.expect("applied");
    }
}

/// The lines of a change whose caller gives up before its intent is written follow when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_for_their_intent_are_few() {
    let (audit, target) = audited_target().await;
    let pipe = audit.folder.path().join("pipe");
    let _full = FullPipe::new(&pipe);
    audit.link_to(&pipe);
    let a = target.client("a");
    let changes = until_shed(async |_| hurried_deposit(&a).await).await;
    println!("{changes} changes waited for their intent");
    // Also those whose caller gave up before they were begun. Without the limit there is no end.
    assert!((90..1000).contains(&changes), "{changes} changes");
}

/// The lines of changes whose intents could not be written follow when the disk has room.
#[tokio::test(flavor = "multi_thread")]
async fn changes_whose_intents_could_not_be_written_are_few() {
    const COUNT: usize = 1000;
    let (audit, target) = audited_target().await;
    let a = target.client("a");
    let batch = || BatchPostTransactionsRequest {
        requests: (0..COUNT).map(|_| posting(&[("nobody", "1")])).collect(),
    };
    let count = |event| audit.events(event).len();
    let is_quiet = async || count("intent") == count("change");
    eventually("all lines before it are written", is_quiet).await;
    audit.link_to("/dev/full");
    let results = a.batch_post_transactions(batch()).await.expect("results").results;
    for result in results {
        assert_eq!(reason(&error(&result)), "AUDIT_UNAVAILABLE");
    }
    audit.link_to(audit.folder.path().join("larger"));
    // The last line may not be whole yet.
    let written = || audit.text().matches("\"event\":\"change\"").count();
    eventually("the lines follow", async || written() == COUNT).await;
    let results = a.batch_post_transactions(batch()).await.expect("results").results;
    for result in results {
        assert_metadata(&error(&result), &[("limit", "records"), ("scope", "identity")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_audit_log_count_by_their_size() {
    let (audit, target) = audited_target().await;
    let (a, b) = (target.client("a"), target.client("b"));
    let ids: Vec<String> = (0..60).map(|it| format!("{it:0>64}")).collect();
    let requests = ids.iter().map(|id| account_of(id, "USD")).collect();
    b.batch_create_accounts(BatchCreateAccountsRequest { requests }).await.expect("accounts");
    let legs: Vec<_> = ids.iter().map(|id| (id.as_str(), "1")).collect();
    let large = posting(&legs);
    a.post_transaction(large.clone()).await.expect("applied");
    let before = audit.text().len();
    let repeats = until_shed(async |_| a.post_transaction(large.clone()).await).await;
    let bytes = (audit.text().len() - before) / repeats;
    println!("{repeats} repeats, {bytes} bytes of each");
    // Each has two lines of more than 4 KiB: 9 records. If it counted as one, there would be 100.
    assert!((8..=16).contains(&repeats), "{repeats} repeats");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_accounts_count_by_their_size() {
    let started = tokio::time::Instant::now();
    let target = Target::start(&["--identity-records-max", RECORDS_MAX]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    // 8 KiB, and some more for the keys.
    let labels: std::collections::BTreeMap<_, _> =
        (0..32).map(|it| (format!("label-{it}"), "v".repeat(256))).collect();
    let account =
        |id: String| CreateAccountRequest { labels: labels.clone(), ..account_of(&id, "USD") };
    let accounts =
        until_shed(async |it| a.create_account(account(format!("large-{it}"))).await).await;
    open_with(&b, account("alice".to_owned())).await;
    let changes =
        until_shed(async |it| b.update_account(limit_of("alice", &it.to_string())).await).await;
    println!("{accounts} accounts and {changes} changes in {:?}", started.elapsed());
    // 9 records each, and 17: without their labels each is one.
    assert!((10..=20).contains(&accounts), "{accounts} accounts");
    assert!((5..=10).contains(&changes), "{changes} changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_and_accounts_of_one_identity_are_few() {
    let started = tokio::time::Instant::now();
    let target = Target::start(&["--identity-records-max", RECORDS_MAX]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    let fences = until_shed(async |_| {
        a.fence_request(FenceRequestRequest { request_id: new_request_id() }).await
    })
    .await;
    assert_few("fences", fences, started);
    let accounts = until_shed(async |number| {
        b.create_account(account_of(&format!("account-{number}"), "USD")).await
    })
    .await;
    assert_few("accounts", accounts, started);
    // A batch counts as so many.
    let requests = (0..1000).map(|it| account_of(&format!("batch-{it}"), "USD")).collect();
    let batch = BatchCreateAccountsRequest { requests };
    b.batch_create_accounts(batch).await.expect("results");
    let all =
        accounts + target.database.count("accounts WHERE account_id LIKE 'batch-%'").await as usize;
    assert_few("accounts with a batch", all, started);
}

/// What is placed and released again moves no money.
#[tokio::test(flavor = "multi_thread")]
async fn releases_of_holds_of_one_identity_are_few() {
    let started = tokio::time::Instant::now();
    let target = Target::start(&["--identity-records-max", RECORDS_MAX]).await;
    let (a, b) = (target.client("a"), target.client("b"));
    open_funded(&b, "alice", "10").await;
    let released = until_shed(async |_| {
        let placed = a.place_hold(hold("alice", "1")).await?;
        let hold_id = placed.hold.expect("a hold").hold_id;
        a.release_hold(release(&hold_id)).await
    })
    .await;
    assert_few("released holds", released, started);
    // A capture moves the money.
    for _ in 0..150 {
        let hold_id = place(&b, hold("alice", "0.01")).await.hold_id;
        captured(&b, capture(&hold_id)).await;
    }
}
