//! What became of a request: as it was answered, whoever asks, and with a fence for ever.

use passbook::proto::{
    DepositRequest, GetTransactionRequest, PostTransactionRequest, RequestOutcome,
    ResolveRequestRequest, ResolveRequestResponse, get_transaction_request::Lookup,
};
use prost::Message;
use tonic::Code;

use crate::{
    harness::{checker, *},
    post_transaction::leg,
};

on_both_databases! {
    each_kind_of_request_is_resolved_as_it_was_answered,
    what_was_answered_stays_so_whatever_comes_later,
    each_kind_of_refusal_is_resolved_as_it_was_answered,
    what_was_not_kept_was_not_seen,
    a_fenced_request_of_each_kind_is_refused_for_ever_on_every_server,
    a_fence_is_about_one_request_id_and_is_no_transaction,
    a_malformed_request_id_is_refused,
}

/// Accounts `a` with 100.00 and `b` with 10.00, and on `a` a hold for each of two requests.
async fn ledger(client: &Client) -> String {
    open_funded(client, "a", "100").await;
    open_funded(client, "b", "10").await;
    place(client, hold_named("to-capture", "a", "3")).await;
    place(client, hold_named("to-release", "a", "3")).await;
    let deposited = client.clone().deposit(deposit("a", "4")).await.expect("it is made");
    deposited.into_inner().transaction.expect("a transaction").transaction_id
}

/// One request of each kind, all of which can be made.
fn one_of_each(transaction_id: &str) -> Vec<Asked> {
    let legs = vec![leg("a", "-1"), leg("b", "1"), leg("a", "2")];
    let posting = PostTransactionRequest {
        request_id: new_request_id(),
        legs,
        description: "three legs".to_owned(),
        labels: [("key".to_owned(), "value".to_owned())].into(),
        ..PostTransactionRequest::default()
    };
    vec![
        Asked::Deposit(deposit("a", "1")),
        Asked::Withdraw(withdrawal("a", "1")),
        Asked::Transfer(transfer("a", "b", "1")),
        Asked::Post(posting),
        Asked::PlaceHold(hold("a", "1")),
        Asked::CaptureHold(capture("to-capture")),
        Asked::ReleaseHold(release("to-release")),
        Asked::Reverse(reversal(transaction_id)),
    ]
}

/// One request of each kind, none of which can be made.
fn one_refusal_of_each() -> Vec<Asked> {
    vec![
        Asked::Withdraw(withdrawal("a", "500")),
        Asked::Deposit(deposit("nobody", "1")),
        Asked::Transfer(transfer("a", "nobody", "1")),
        Asked::Post(PostTransactionRequest {
            request_id: new_request_id(),
            legs: vec![leg("b", "-1000")],
            ..PostTransactionRequest::default()
        }),
        Asked::PlaceHold(hold_named("to-capture", "b", "1")),
        Asked::CaptureHold(capture("no-hold")),
        Asked::ReleaseHold(release("no-hold")),
        Asked::Reverse(reversal(&uuid::Uuid::now_v7().to_string())),
    ]
}

fn applied(made: &Made) -> ResolveRequestResponse {
    ResolveRequestResponse {
        outcome: RequestOutcome::Applied.into(),
        transaction: made.transaction.clone(),
        hold: made.hold.clone(),
        ..ResolveRequestResponse::default()
    }
}

fn not_seen(fenced: bool) -> ResolveRequestResponse {
    let outcome = RequestOutcome::NotSeen.into();
    ResolveRequestResponse { outcome, fenced, ..ResolveRequestResponse::default() }
}

async fn each_kind_of_request_is_resolved_as_it_was_answered(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let (client, other) = (servers[0].client(), servers[1].client());

    for asked in one_of_each(&ledger(&client).await) {
        assert_eq!(asked.resolve(&client).await, not_seen(false), "{asked:?}");
        let made = asked.send(&client, seconds(10)).await.expect("it is made");
        for client in [&client, &other] {
            assert_eq!(asked.resolve(client).await, applied(&made));
            // What has its verdict is not fenced any more, and loses nothing by it.
            assert_eq!(asked.fence(client).await, applied(&made));
            let again = asked.send(client, seconds(10)).await.expect("it was made");
            assert_eq!(again, Made { replayed: true, ..made.clone() });
        }
    }
    checker::assert_consistent(&database).await;
}

async fn what_was_answered_stays_so_whatever_comes_later(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let client = server.client();
    open_funded(&client, "a", "100").await;
    let hold = Asked::PlaceHold(hold_named("h", "a", "3"));
    let placed = hold.send(&client, seconds(10)).await.expect("it is placed");
    let deposit = Asked::Deposit(deposit("a", "1"));
    let deposited = deposit.send(&client, seconds(10)).await.expect("it is made");

    captured(&client, capture("h")).await;
    let transaction_id = &deposited.transaction.as_ref().expect("one").transaction_id;
    reversed(&client, reversal(transaction_id)).await;

    assert_eq!(hold.resolve(&client).await, applied(&placed), "as it was placed: open");
    assert_eq!(hold.fence(&client).await, applied(&placed));
    assert_eq!(deposit.resolve(&client).await, applied(&deposited), "not reversed then");
    assert_eq!(deposit.fence(&client).await, applied(&deposited));
}

async fn each_kind_of_refusal_is_resolved_as_it_was_answered(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let (client, other) = (servers[0].client(), servers[1].client());
    ledger(&client).await;

    for asked in one_refusal_of_each() {
        let status = asked.send(&client, seconds(10)).await.expect_err("it is refused");
        // A judgement made anew would find it there.
        client.clone().deposit(deposit("a", "1000")).await.expect("the money arrives");
        for client in [&client, &other] {
            for resolved in [asked.resolve(client).await, asked.fence(client).await] {
                assert_eq!(resolved.outcome(), RequestOutcome::Rejected, "{asked:?}");
                assert_eq!((resolved.transaction, resolved.hold, resolved.fenced), {
                    (None, None, false)
                });
                let error = resolved.error.expect("an error");
                assert_eq!((error.code, error.message.as_str()), {
                    (status.code() as i32, status.message())
                });
                assert_eq!(error.encode_to_vec(), status.details(), "{asked:?}");
            }
        }
        let again = asked.send(&other, seconds(10)).await.expect_err("it stays refused");
        assert_repeated(&status, &again);
    }
    checker::assert_consistent(&database).await;
}

async fn what_was_not_kept_was_not_seen(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let client = server.client();
    open_funded(&client, "a", "100").await;
    let malformed = Asked::Withdraw(withdrawal("a", "1.001"));
    let dry = DepositRequest { validate_only: true, ..deposit("a", "1") };
    let dry = Asked::Deposit(dry);

    malformed.send(&client, seconds(10)).await.expect_err("it is malformed");
    dry.send(&client, seconds(10)).await.expect("it would be made");

    assert_eq!(malformed.resolve(&client).await, not_seen(false));
    assert_eq!(dry.resolve(&client).await, not_seen(false));
    assert_eq!(dry.fence(&client).await, not_seen(true));
    let status = dry.send(&client, seconds(10)).await;
    refused(status, Code::FailedPrecondition, "REQUEST_FENCED");
}

/// Every row that a request could change.
async fn standings(database: &TestDatabase) -> Vec<String> {
    let mut rows = database
        .texts(
            "SELECT account_id || ' ' || CAST(balance AS TEXT) || ' ' || CAST(held AS TEXT)
                 || ' ' || CAST(version AS TEXT) FROM accounts ORDER BY account_id",
        )
        .await;
    rows.extend(database.texts("SELECT hold_id || ' ' || state FROM holds ORDER BY 1").await);
    rows
}

async fn a_fenced_request_of_each_kind_is_refused_for_ever_on_every_server(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let (client, other) = (servers[0].client(), servers[1].client());
    let transaction_id = ledger(&client).await;
    // Those that could be made, and those that would be refused anyway.
    let all = [one_of_each(&transaction_id), one_refusal_of_each()].concat();
    let before = standings(&database).await;

    for asked in &all {
        assert_eq!(asked.fence(&client).await, not_seen(true), "{asked:?}");
    }
    // What was under way when the fence was made has arrived by then.
    tokio::time::sleep(seconds(1)).await;

    for asked in &all {
        for client in [&client, &other, &client] {
            let status = asked.send(client, seconds(10)).await;
            let status = refused(status, Code::FailedPrecondition, "REQUEST_FENCED");
            assert_eq!(metadata(&status, "request_id"), asked.request_id());
            assert_eq!(asked.resolve(client).await, not_seen(true));
            assert_eq!(asked.fence(client).await, not_seen(true), "again, and the same");
        }
    }
    assert_eq!(standings(&database).await, before);
    // The same under other ids is made.
    for asked in one_of_each(&transaction_id) {
        asked.send(&other, seconds(10)).await.expect("it is made");
    }
    checker::assert_consistent(&database).await;
}

async fn a_fence_is_about_one_request_id_and_is_no_transaction(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let mut client = server.client();
    open_funded(&client, "a", "100").await;
    let fenced = Asked::Deposit(deposit("a", "1"));
    fenced.fence(&client).await;

    // Whatever body comes under it: there was none to compare with.
    let request_id = fenced.request_id().to_owned();
    let other = withdrawal("a", "2");
    let other = passbook::proto::WithdrawRequest { request_id: request_id.clone(), ..other };
    refused(client.withdraw(other).await, Code::FailedPrecondition, "REQUEST_FENCED");
    let lookup = Some(Lookup::RequestId(request_id.clone()));
    let answer = client.get_transaction(GetTransactionRequest { lookup }).await;
    refused(answer, Code::NotFound, "TRANSACTION_NOT_FOUND");
    let near = DepositRequest { request_id: format!("{request_id}x"), ..deposit("a", "1") };
    client.deposit(near).await.expect("it is made");
    assert_eq!(balance(&client, "a").await, "101.00");
}

async fn a_malformed_request_id_is_refused(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let mut client = server.client();
    for request_id in ["", "é", "a\nb", &"x".repeat(65)] {
        for fence in [false, true] {
            let request = ResolveRequestRequest { request_id: request_id.to_owned(), fence };
            let answer = client.resolve_request(request).await;
            let status = refused(answer, Code::InvalidArgument, "INVALID_REQUEST_ID");
            assert_eq!(fields(&status), ["request_id"]);
        }
    }
    assert_eq!(database.count("requests").await, 0);
}
