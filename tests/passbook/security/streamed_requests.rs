//! A stream is no way around what the policy and the limits say of each request in it.

use crate::{
    harness::{
        audit_log::{Audit, end, text},
        credentials::{Callers, allow, identity},
        *,
    },
    security::call_limits::assert_shed,
};

on_both_databases! {
    each_request_needs_the_method_of_its_kind_and_the_rights_on_its_accounts,
    each_request_counts_as_a_call_for_the_rate_of_calls,
}

/// Sends these requests in one message, and returns their results in order.
async fn stream(client: &Client, changes: Vec<Change>) -> Vec<Result<Answer, Status>> {
    let count = changes.len();
    let requests = changes.into_iter().map(Change::streamed).collect();
    let message = StreamTransactionsRequest { requests, ..Default::default() };
    let messages = tokio_stream::iter([message]);
    let mut responses = client.stream_transactions(messages).await.expect("a stream");
    let mut results = Vec::new();
    while let Some(response) = responses.message().await.expect("no error ends the stream") {
        results.extend(response.results.into_iter().map(Answer::of));
    }
    assert_eq!(results.len(), count);
    results
}

fn permission(result: &Result<Answer, Status>) -> String {
    match result {
        Ok(_) => "applied".to_owned(),
        Err(status) => {
            assert_reason(status, Reason::PermissionDenied);
            metadata(status, "permission")
        }
    }
}

async fn each_request_needs_the_method_of_its_kind_and_the_rights_on_its_accounts(kind: Kind) {
    let (database, audit) = (TestDatabase::create(kind).await, Audit::new());
    let rights = allow(&["east:*"], &["read", "credit", "debit"], "{ USD = \"10\" }");
    let policy = identity("east", &["StreamTransactions", "Deposit", "PlaceHold"], &[])
        + &rights
        + &identity("fixture", &["*"], &[""]);
    let callers = Callers::new(&[("east", "east-token"), ("fixture", "fixture-token")], &policy);
    let server = audit.serve(&database, &callers, &[]).await;
    open_all(&server.client_of("fixture-token"), &["east:1", "west:1"]).await;

    let results = stream(
        &server.client_of("east-token"),
        vec![
            posting(&[("east:1", "5")]).into(),
            deposit("east:1", "10").into(),
            deposit("east:1", "11").into(),
            deposit("west:1", "1").into(),
            withdrawal("east:1", "1").into(),
            // What the layers check for a call comes before its fields.
            withdrawal("", "").into(),
            hold("east:1", "1").into(),
            release("no-such-hold").into(),
            reversal("malformed").into(),
        ],
    )
    .await;
    end(server).await;

    let permissions: Vec<_> = results.iter().map(permission).collect();
    let expected = [
        "applied", "applied", "amount", "account", "method", "method", "applied", "method",
        "method",
    ];
    assert_eq!(permissions, expected);
    let of_east = |event| {
        let lines = audit.events(event).into_iter();
        lines.filter(|line| text(line, "identity") == "east").collect::<Vec<_>>()
    };
    let (changes, denials) = (of_east("change"), of_east("denial"));
    assert_eq!((changes.len(), denials.len()), (3, 6), "{changes:?} {denials:?}");
    for line in [changes, denials].concat() {
        assert_eq!(text(&line, "method"), "passbook.v1.AccountService/StreamTransactions");
    }
}

async fn each_request_counts_as_a_call_for_the_rate_of_calls(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers =
        Callers::new(&[("east", "east-token")], &identity("east", &["read", "write"], &[""]));
    let server = callers.serve(&database, &["--identity-rate-max", "10"]).await;
    let client = server.client_of("east-token");
    open(&client, "east:1").await;

    let deposits = (0..100).map(|_| deposit("east:1", "1").into()).collect();
    let results = stream(&client, deposits).await;

    // Eight are left of a burst of ten. More come only with time.
    let shed: Vec<_> = results.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!((50..=92).contains(&shed.len()), "{} were shed", shed.len());
    for status in shed {
        assert_shed(status, "call_rate", "identity", "10");
    }
}
