//! Identities: their own request ids, amount limits, visible resources, and files that change while
//! the server runs.

use passbook::proto::*;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::harness::{
    credentials::{Callers, NamedClient, allow, bearer, entry, identity, identity_with},
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

async fn open_for(client: &NamedClient, account_id: &str, amount: &str) {
    let mut client = client.clone();
    client.create_account(account_of(account_id, "USD")).await.expect("an account");
    client.deposit(deposit(account_id, amount)).await.expect("a deposit");
}

fn named(request_id: &str, request: DepositRequest) -> DepositRequest {
    DepositRequest { request_id: request_id.to_owned(), ..request }
}

async fn a_request_id_is_the_callers_own(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (mut east, mut west) = (server.client_of("east-token"), server.client_of("west-token"));
    east.create_account(account_of("shared:1", "USD")).await.expect("an account");

    // Another body as well: the same caller would get REQUEST_ID_REUSED.
    let first = east.deposit(named("one", deposit("shared:1", "1"))).await.expect("applied");
    let second = west.deposit(named("one", deposit("shared:1", "2"))).await.expect("applied");
    let again = east.deposit(named("one", deposit("shared:1", "1"))).await.expect("replayed");

    let (first, second) = (first.into_inner(), second.into_inner());
    assert!(!first.replayed && !second.replayed && again.into_inner().replayed);
    let by_name = |request_id: &str| {
        let lookup = Some(get_transaction_request::Lookup::RequestId(request_id.to_owned()));
        GetTransactionRequest { lookup }
    };
    let of_west = west.get_transaction(by_name("one")).await.expect("west's own").into_inner();
    assert_eq!(of_west.transaction, second.transaction);
    let request = GetRequestOutcomeRequest { request_id: "one".to_owned() };
    let resolved = east.get_request_outcome(request).await.expect("east's own").into_inner();
    assert_eq!(resolved.transaction, first.transaction);
    let account = east.get_account(GetAccountRequest { account_id: "shared:1".to_owned() }).await;
    assert_eq!(value(&account.unwrap().into_inner().account.unwrap().balance), "3.00");
}

async fn records_name_the_caller(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (mut east, mut all) = (server.client_of("east-token"), server.client_of("all-token"));
    open_for(&all, "east:1", "10").await;

    let made = east.deposit(deposit("east:1", "1")).await.expect("applied").into_inner();
    let freeze = FreezeAccountRequest {
        account_id: "east:1".to_owned(),
        reason: "a test".to_owned(),
        ..Default::default()
    };
    let mut held = Vec::new();
    for hold_id in ["captured", "released", "open"] {
        let request = PlaceHoldRequest { hold_id: hold_id.to_owned(), ..hold("east:1", "1") };
        let placed = east.place_hold(request).await.expect("placed").into_inner().hold;
        held.push(placed.expect("a hold"));
    }
    let ids: Vec<_> = held.iter().map(|it| it.hold_id.as_str()).collect();
    assert_eq!(ids, ["captured@east", "released@east", "open@east"]);
    let capture = CaptureHoldRequest {
        request_id: "capture".to_owned(),
        hold_id: "captured@east".to_owned(),
        ..CaptureHoldRequest::default()
    };
    all.capture_hold(capture).await.expect("captured");
    let release = ReleaseHoldRequest {
        request_id: "release".to_owned(),
        hold_id: "released@east".to_owned(),
    };
    all.release_hold(release).await.expect("released");
    east.freeze_account(freeze).await.expect("frozen");

    let request = GetAccountRequest { account_id: "east:1".to_owned() };
    let account = east.get_account(request).await.expect("found").into_inner().account;
    assert_eq!(account.expect("an account").created_by, "all");
    for (hold, ended_by) in held.into_iter().zip(["all", "all", ""]) {
        assert_eq!((&*hold.created_by, &*hold.ended_by), ("east", ""), "as it was placed");
        let request = GetHoldRequest { hold_id: hold.hold_id };
        let hold = east.get_hold(request).await.expect("found").into_inner().hold;
        let hold = hold.expect("a hold");
        assert_eq!((&*hold.created_by, &*hold.ended_by), ("east", ended_by), "{}", hold.hold_id);
    }
    assert_eq!(made.transaction.expect("a transaction").created_by, "east");
    let request = ListTransactionsRequest {
        account_id: "east:1".to_owned(),
        ..ListTransactionsRequest::default()
    };
    let listed = all.list_transactions(request).await.expect("listed").into_inner().transactions;
    let who: Vec<_> = listed.iter().map(|it| it.created_by.as_str()).collect();
    assert_eq!(who, ["all", "east", "all"], "the capture, the deposit, the opening's");
    let request = ListAccountChangesRequest {
        account_id: "east:1".to_owned(),
        ..ListAccountChangesRequest::default()
    };
    let changes = all.list_account_changes(request).await.expect("listed").into_inner().changes;
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
    let (mut client, mut all) = (server.client_of("token"), server.client_of("all-token"));
    open_for(&all, "a", "100").await;
    open_for(&all, "b", "100").await;
    all.create_account(account_of("e", "EUR")).await.expect("an account");
    let hold_id = all.place_hold(hold("a", "20")).await.expect("held").into_inner().hold;
    let hold_id = hold_id.expect("a hold").hold_id;

    let too_much = named("too-much", deposit("a", "10.01"));
    let capture = |amount| CaptureHoldRequest {
        request_id: new_request_id(),
        hold_id: hold_id.clone(),
        amount,
        ..CaptureHoldRequest::default()
    };
    let in_euros = DepositRequest { amount: money_of("EUR", "1"), ..deposit("e", "1") };
    for denial in [
        client.deposit(too_much.clone()).await.map(drop),
        client.withdraw(withdrawal("a", "11")).await.map(drop),
        client.transfer(transfer("a", "b", "11")).await.map(drop),
        client.place_hold(hold("a", "11")).await.map(drop),
        client.capture_hold(capture(None)).await.map(drop),
        client.capture_hold(capture(money("11"))).await.map(drop),
        client.deposit(in_euros).await.map(drop),
    ] {
        let status = refused(denial, Code::PermissionDenied, "PERMISSION_DENIED");
        assert_eq!(metadata(&status, "permission"), "amount");
    }
    client.deposit(deposit("a", "10")).await.expect("at the limit");
    client.capture_hold(capture(money("10"))).await.expect("at the limit");

    // A denial is not stored: the id stays unused.
    let request = GetRequestOutcomeRequest { request_id: "too-much".to_owned() };
    let resolved = client.get_request_outcome(request).await.expect("an answer").into_inner();
    assert_eq!(resolved.outcome(), RequestOutcome::NotSeen);
    callers.set_policy(&(policy("11") + &identity("all", &["*"], &[""])));
    eventually("the new limit counts", async || {
        client.clone().deposit(too_much.clone()).await.is_ok()
    })
    .await;
}

async fn hidden_resources_look_like_missing_ones(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (mut east, mut all) = (server.client_of("east-token"), server.client_of("all-token"));
    open_for(&all, "west:1", "10").await;
    let held = all.place_hold(hold("west:1", "1")).await.expect("held").into_inner();
    let hold_id = held.hold.expect("a hold").hold_id;
    let made = all.deposit(deposit("west:1", "1")).await.expect("applied").into_inner();
    let transaction_id = made.transaction.expect("a transaction").transaction_id;

    let mut answers = Vec::new();
    for (hold_id, transaction_id) in
        [(hold_id, transaction_id), ("nothing".to_owned(), new_request_id())]
    {
        let lookup = get_transaction_request::Lookup::TransactionId(transaction_id.clone());
        let capture = CaptureHoldRequest {
            request_id: "capture".to_owned(),
            hold_id: hold_id.clone(),
            ..CaptureHoldRequest::default()
        };
        let release =
            ReleaseHoldRequest { request_id: "release".to_owned(), hold_id: hold_id.clone() };
        let reverse = ReverseTransactionRequest {
            request_id: "reverse".to_owned(),
            transaction_id,
            ..ReverseTransactionRequest::default()
        };
        let denials = [
            east.get_hold(GetHoldRequest { hold_id }).await.map(drop),
            east.capture_hold(capture).await.map(drop),
            east.release_hold(release).await.map(drop),
            east.reverse_transaction(reverse).await.map(drop),
            east.get_transaction(GetTransactionRequest { lookup: Some(lookup) }).await.map(drop),
        ];
        let messages = denials.map(|denial| {
            let status = refused(denial, Code::PermissionDenied, "PERMISSION_DENIED");
            (status.message().to_owned(), status.details().to_vec())
        });
        answers.push(messages);
    }
    assert_eq!(answers[0], answers[1]);
    let missing = |account_id: &str| GetAccountRequest { account_id: account_id.to_owned() };
    for account_id in ["west:1", "west:2"] {
        let answer = east.get_account(missing(account_id)).await;
        refused(answer, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    refused(east.get_account(missing("east:none")).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
    let everything = ListTransactionsRequest::default();
    refused(east.list_transactions(everything).await, Code::PermissionDenied, "PERMISSION_DENIED");
}

async fn a_transaction_shows_only_entries_of_visible_accounts(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (mut east, mut all) = (server.client_of("east-token"), server.client_of("all-token"));
    open_for(&all, "east:1", "10").await;
    open_for(&all, "west:1", "10").await;
    let made = all.transfer(transfer("west:1", "east:1", "4")).await.expect("applied").into_inner();
    let transaction = made.transaction.expect("a transaction");
    assert_eq!(transaction.entries.len(), 2);

    let lookup = get_transaction_request::Lookup::TransactionId(transaction.transaction_id.clone());
    let request = GetTransactionRequest { lookup: Some(lookup) };
    let one = east.get_transaction(request).await.expect("its own").into_inner().transaction;
    let request = ListTransactionsRequest {
        account_id: "east:1".to_owned(),
        ..ListTransactionsRequest::default()
    };
    let listed = east.list_transactions(request).await.expect("its own").into_inner().transactions;

    let expected =
        Transaction { entries: vec![transaction.entries[1].clone()], ..transaction.clone() };
    assert_eq!(one, Some(expected.clone()));
    assert_eq!(listed[0], expected);
    // A reversal would touch the other account.
    let reverse = ReverseTransactionRequest {
        request_id: new_request_id(),
        transaction_id: transaction.transaction_id,
        ..ReverseTransactionRequest::default()
    };
    let answer = east.reverse_transaction(reverse).await;
    refused(answer, Code::PermissionDenied, "PERMISSION_DENIED");
}

async fn accounts_of_others_are_not_listed(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let (mut east, mut all) = (server.client_of("east-token"), server.client_of("all-token"));
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
        all.create_account(account_of(account_id, "USD")).await.expect("an account");
    }

    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListAccountsRequest { page_size: 2, page_token, ..ListAccountsRequest::default() };
        let page = east.list_accounts(request).await.expect("a page").into_inner();
        listed.extend(page.accounts.into_iter().map(|account| account.account_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ["east:", "east:1", "east:z", "shared:1"]);
}

async fn changed_policy_and_tokens_apply_within_seconds(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_shops();
    let server = callers.serve(&database, &[]).await;
    let all = server.client_of("all-token");
    open_for(&all, "east:1", "10").await;
    let balance = || GetAccountRequest { account_id: "east:1".to_owned() };
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
