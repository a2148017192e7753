//! How long answers about what belongs to others take: no longer than those about what does not exist.

use crate::attacks::*;

/// The calls of each kind, times PASSBOOK_TEST_SCALE squared.
const CALLS: usize = 25;

/// The median time of calls about the one and about the other, in turns.
async fn medians<Answer>(
    call: impl AsyncFn(String) -> Result<Answer, Status>,
    existing: &str,
    missing: impl Fn() -> String,
) -> [Duration; 2] {
    let calls = CALLS * scale() * scale();
    let mut took = [Vec::new(), Vec::new()];
    for number in 0..2 * calls {
        let id = if number % 2 == 0 { existing.to_owned() } else { missing() };
        let start = Instant::now();
        let answer = call(id).await;
        took[number % 2].push(start.elapsed());
        let Err(status) = answer else { panic!("it belongs to others") };
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    took.map(|mut took| {
        took.sort();
        took[took.len() / 2]
    })
}

fn assert_alike(what: &str, [others, none]: [Duration; 2]) {
    let ratio = others.as_secs_f64() / none.as_secs_f64();
    let row = format!("{what}: {others:?} of others, {none:?} of none, {ratio:.2}");
    times::figure(&row, (0.8..=1.25).contains(&ratio));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_others_take_as_long_as_about_nothing() {
    let database = TestDatabase::create_for(Kind::Sqlite, Load::Alone).await;
    let policy = [identity("a", &["*"], &["a:"]), identity("b", &["*"], &[""])].concat();
    let callers = Callers::new(&[("a", "a-token"), ("b", "b-token")], &policy);
    let server = callers.serve(&database, &[]).await;
    let (a, b) = (server.client_of("a-token"), server.client_of("b-token"));
    open(&b, "b:1").await;
    let labels = largest_labels();
    let request = PostTransactionRequest { labels, ..post(&vec![leg("b:1", "1"); 100]) };
    let posted = b.post_transaction(request).await.expect("applied");
    let transaction_id = posted.transaction.expect("a transaction").transaction_id;
    let hold_id = place(&b, hold("b:1", "1")).await.hold_id;

    let get = async |id: String| a.get_transaction(transaction_by_id(&id)).await;
    let missing = || uuid::Uuid::now_v7().to_string();
    assert_alike("GetTransaction", medians(get, &transaction_id, missing).await);
    let get = async |hold_id: String| a.get_hold(GetHoldRequest { hold_id }).await;
    assert_alike("GetHold", medians(get, &hold_id, missing).await);
}
