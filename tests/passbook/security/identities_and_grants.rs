//! Identities: their own request ids, amount limits, visible resources, and files that change while
//! the server runs.

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::harness::{
    credentials::{Callers, allow, bearer, entry, identity, identity_with},
    *,
};

on_both_databases! {
    a_request_id_is_the_callers_own,
    records_name_the_caller,
    an_amount_above_the_limit_is_denied_and_not_recorded,
    hidden_resources_look_like_missing_ones,
    a_transaction_shows_only_entries_of_visible_accounts,
    accounts_of_others_are_not_listed,
    changed_policy_and_tokens_apply_within_seconds,
}

/// Two shops with their own accounts, and an identity with all rights.
fn two_shops() -> Callers {
    let policy = [
        identity("east", &["read", "write"], &["east:", "shared:"]),
        identity("west", &["read", "write"], &["west:", "shared:"]),
        identity("all", &["*"], &[""]),
    ];
    let tokens = [("east", "east-token"), ("west", "west-token"), ("all", "all-token")];
    Callers::new(&tokens, &policy.concat())
}

fn named(request_id: &str, request: DepositRequest) -> DepositRequest {
    DepositRequest { request_id: request_id.to_owned(), ..request }
}

async fn a_request_id_is_the_callers_own(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (east, west) = (server.client_of("east-token"), server.client_of("west-token"));
    open(&east, "shared:1").await;

    // Another body as well: the same caller would get REQUEST_ID_REUSED.
    let first = east.deposit(named("one", deposit("shared:1", "1"))).await.expect("applied");
    let second = west.deposit(named("one", deposit("shared:1", "2"))).await.expect("applied");
    let again = east.deposit(named("one", deposit("shared:1", "1"))).await.expect("replayed");

    assert!(!first.replayed && !second.replayed && again.replayed);
    let of_west = west.get_transaction(transaction_by_request_id("one")).await;
    let of_west = of_west.expect("west's own");
    assert_eq!(of_west.transaction, second.transaction);
    assert_eq!(request_outcome(&east, "one").await.transaction, first.transaction);
    assert_eq!(balance(&east, "shared:1").await, "3.00");
}

async fn records_name_the_caller(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (east, all) = (server.client_of("east-token"), server.client_of("all-token"));
    open_funded(&all, "east:1", "10").await;

    let made = deposited(&east, "east:1", "1").await;
    let mut held = Vec::new();
    for hold_id in ["captured", "released", "open"] {
        held.push(place(&east, hold_named(hold_id, "east:1", "1")).await);
    }
    let ids: Vec<_> = held.iter().map(|it| it.hold_id.as_str()).collect();
    assert_eq!(ids, ["captured@east", "released@east", "open@east"]);
    captured(&all, capture("captured@east")).await;
    released(&all, release("released@east")).await;
    freeze(&east, "east:1").await;

    assert_eq!(get(&east, "east:1").await.created_by, "all");
    for (hold, ended_by) in held.into_iter().zip(["all", "all", ""]) {
        assert_eq!((&*hold.created_by, &*hold.ended_by), ("east", ""), "as it was placed");
        let hold = get_hold(&east, &hold.hold_id).await;
        assert_eq!((&*hold.created_by, &*hold.ended_by), ("east", ended_by), "{}", hold.hold_id);
    }
    assert_eq!(made.created_by, "east");
    let listed = all.list_transactions(transactions_of("east:1")).await.expect("listed");
    let who: Vec<_> = listed.transactions.iter().map(|it| it.created_by.as_str()).collect();
    assert_eq!(who, ["all", "east", "all"], "the capture, the deposit, the opening's");
    let changes = all.list_account_changes(changes_of("east:1")).await.expect("listed").changes;
    assert_eq!(changes[0].created_by, "east");
}

async fn an_amount_above_the_limit_is_denied_and_not_recorded(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let policy = |limit: &str| {
        let limit = format!("{{ USD = \"{limit}\" }}");
        identity_with("limited", &[allow(&["*"], &["read", "credit", "debit"], &limit)])
    };
    let callers = Callers::new(
        &[("limited", "token"), ("all", "all-token")],
        &(policy("10") + &identity("all", &["*"], &[""])),
    );
    let server = callers.serve(&database, &[]).await;
    let (client, all) = (server.client_of("token"), server.client_of("all-token"));
    open_funded(&all, "a", "100").await;
    open_funded(&all, "b", "100").await;
    open_with(&all, account_of("e", "EUR")).await;
    let hold_id = place(&all, hold("a", "20")).await.hold_id;

    let too_much = named("too-much", deposit("a", "10.01"));
    for denial in [
        client.deposit(too_much.clone()).await.map(drop),
        client.withdraw(withdrawal("a", "11")).await.map(drop),
        client.transfer(transfer("a", "b", "11")).await.map(drop),
        client.place_hold(hold("a", "11")).await.map(drop),
        client.capture_hold(capture(&hold_id)).await.map(drop),
        client.capture_hold(capture_part(&hold_id, "11")).await.map(drop),
        client.deposit(deposit_in("e", "EUR", "1")).await.map(drop),
    ] {
        let status = must_fail(denial, Reason::PermissionDenied);
        assert_eq!(metadata(&status, "permission"), "amount");
    }
    client.deposit(deposit("a", "10")).await.expect("at the limit");
    client.capture_hold(capture_part(&hold_id, "10")).await.expect("at the limit");

    // A denial is not stored: the id stays unused.
    assert_eq!(request_outcome(&client, "too-much").await, not_seen(false));
    callers.set_policy(&(policy("11") + &identity("all", &["*"], &[""])));
    eventually("the new limit counts", async || client.deposit(too_much.clone()).await.is_ok())
        .await;
}

async fn hidden_resources_look_like_missing_ones(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (east, all) = (server.client_of("east-token"), server.client_of("all-token"));
    open_funded(&all, "west:1", "10").await;
    let hold_id = place(&all, hold("west:1", "1")).await.hold_id;
    let transaction_id = deposited(&all, "west:1", "1").await.transaction_id;

    let mut answers = Vec::new();
    for (hold_id, transaction_id) in
        [(hold_id, transaction_id), ("nothing".to_owned(), new_request_id())]
    {
        let denials = [
            east.capture_hold(capture(&hold_id)).await.map(drop),
            east.release_hold(release(&hold_id)).await.map(drop),
            east.reverse_transaction(reversal(&transaction_id)).await.map(drop),
            east.get_transaction(transaction_by_id(&transaction_id)).await.map(drop),
            east.get_hold(GetHoldRequest { hold_id }).await.map(drop),
        ];
        let messages = denials.map(|denial| {
            let status = must_fail(denial, Reason::PermissionDenied);
            (status.message().to_owned(), status.details().to_vec())
        });
        answers.push(messages);
    }
    assert_eq!(answers[0], answers[1]);
    for account_id in ["west:1", "west:2"] {
        must_fail(east.get_account(account_named(account_id)).await, Reason::PermissionDenied);
    }
    must_fail(east.get_account(account_named("east:none")).await, Reason::AccountNotFound);
    let everything = ListTransactionsRequest::default();
    must_fail(east.list_transactions(everything).await, Reason::PermissionDenied);
}

async fn a_transaction_shows_only_entries_of_visible_accounts(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (east, all) = (server.client_of("east-token"), server.client_of("all-token"));
    open_funded(&all, "east:1", "10").await;
    open_funded(&all, "west:1", "10").await;
    let made = all.transfer(transfer("west:1", "east:1", "4")).await.expect("applied");
    let transaction = made.transaction.expect("a transaction");
    assert_eq!(transaction.entries.len(), 2);

    let one = east.get_transaction(transaction_by_id(&transaction.transaction_id)).await;
    let one = one.expect("its own").transaction;
    let listed = east.list_transactions(transactions_of("east:1")).await.expect("its own");

    let expected =
        Transaction { entries: vec![transaction.entries[1].clone()], ..transaction.clone() };
    assert_eq!(one, Some(expected.clone()));
    assert_eq!(listed.transactions[0], expected);
    // A reversal would touch the other account.
    let reverse = reversal(&transaction.transaction_id);
    must_fail(east.reverse_transaction(reverse).await, Reason::PermissionDenied);
}

async fn accounts_of_others_are_not_listed(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (east, all) = (server.client_of("east-token"), server.client_of("all-token"));
    let ids = [
        "east",
        "east.1",
        "east:",
        "east:1",
        "east:z",
        "east;".trim_end_matches(';'),
        "shared:1",
        "west:1",
    ];
    for account_id in ids {
        open(&all, account_id).await;
    }

    let request = ListAccountsRequest { page_size: 2, ..Default::default() };
    let accounts = all_pages!(east.list_accounts(request).accounts).concat();
    let listed: Vec<_> = accounts.iter().map(|account| account.account_id.as_str()).collect();
    assert_eq!(listed, ["east:", "east:1", "east:z", "shared:1"]);
}

async fn changed_policy_and_tokens_apply_within_seconds(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let all = server.client_of("all-token");
    open_funded(&all, "east:1", "10").await;
    let balance = || account_named("east:1");
    let code = async |token: &str| {
        server.client_of(token).get_account(balance()).await.err().map(|status| status.code())
    };

    // An invalid file changes nothing.
    callers.set_tokens("[[token]]\nidentity = \"east\"\n");
    eventually("it says so", async || server.log().contains("tokens and policy not reloaded"))
        .await;
    assert_eq!(code("east-token").await, None);

    // A new token beside the old one, then in its place.
    let old = entry("east", "east-token");
    callers.set_tokens(&(old + &entry("east", "next-token")));
    eventually("both count", async || code("next-token").await.is_none()).await;
    assert_eq!(code("east-token").await, None);
    callers.set_tokens(&entry("east", "next-token"));
    let gone = async || code("east-token").await == Some(Code::Unauthenticated);
    eventually("the old one is gone", gone).await;
    assert_eq!(code("next-token").await, None);

    callers.set_policy(&identity("east", &["read"], &["elsewhere:"]));
    let denied = async || code("next-token").await == Some(Code::PermissionDenied);
    eventually("the new policy counts", denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_follow_their_access_settings() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let callers = two_shops();
    let cases: [(&[&str], _, _); 4] = [
        (&[], None, Some(Code::Unauthenticated)),
        (&["--reflection", "public"], None, None),
        (&["--reflection", "off"], None, Some(Code::Unauthenticated)),
        (&["--health", "authenticated"], Some(Code::Unauthenticated), Some(Code::Unauthenticated)),
    ];
    for (arguments, health, reflection) in cases {
        let server = callers.serve(&database, arguments).await;
        assert_eq!(ask_health(&server, None).await, health, "{arguments:?}");
        assert_eq!(ask_reflection(&server, None).await, reflection, "{arguments:?}");
        let known = match arguments {
            ["--reflection", "off"] => Some(Code::Unimplemented),
            _ => None,
        };
        assert_eq!(ask_health(&server, Some("west-token")).await, None, "{arguments:?}");
        assert_eq!(ask_reflection(&server, Some("west-token")).await, known, "{arguments:?}");
    }
}

async fn ask_health(server: &Server, token: Option<&str>) -> Option<Code> {
    let credential = token.map_or(credentials::authorization(None), bearer);
    let mut client = HealthClient::with_interceptor(server.channel(), credential);
    let request = HealthCheckRequest { service: String::new() };
    client.check(request).await.err().map(|status| status.code())
}

async fn ask_reflection(server: &Server, token: Option<&str>) -> Option<Code> {
    let credential = token.map_or(credentials::authorization(None), bearer);
    let mut client = ServerReflectionClient::with_interceptor(server.channel(), credential);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await;
    answers.err().map(|status| status.code())
}
