use tonic_types::StatusExt;

use crate::harness::{http2::Raw, *};

on_both_databases! {
    an_account_is_read_as_of_its_last_change,
    a_change_made_by_one_process_is_seen_by_another,
    a_missing_account_is_not_found_by_name,
    an_error_has_headers_and_no_body,
}

async fn an_account_is_read_as_of_its_last_change(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let opened = open_funded(&client, "alice", "12.5").await;

    let account = get(&client, "alice").await;

    assert_eq!(account, opened);
    assert_eq!((value(&account.balance), value(&account.available)), ("12.50", "12.50"));
    assert_eq!((account.sequence, account.version), (1, 2));
    let (created, updated) =
        (account.create_time.expect("a time"), account.update_time.expect("a time"));
    assert!((updated.seconds, updated.nanos) >= (created.seconds, created.nanos));
}

async fn a_change_made_by_one_process_is_seen_by_another(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open(&client, "alice").await;

    for number in 1..=20 {
        let deposited = servers[number % 2].client().deposit(deposit("alice", "1")).await;
        deposited.expect("the deposit is applied");
        let seen = balance(&servers[(number + 1) % 2].client(), "alice").await;
        assert_eq!(seen, format!("{number}.00"), "an answered change is seen at once, everywhere");
    }
}

async fn a_missing_account_is_not_found_by_name(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let status =
        must_fail(client.get_account(account_named("nobody")).await, Reason::AccountNotFound);

    assert_eq!(metadata(&status, "account_id"), "nobody");
    assert!(status.message().contains("nobody"), "{}", status.message());
    let resource = status.get_details_resource_info().expect("ResourceInfo");
    assert_eq!(resource.resource_name, "nobody");
}

/// grpc-go takes a response with an empty body after the headers of the error for a broken one.
async fn an_error_has_headers_and_no_body(kind: Kind) {
    let (_database, server, _client) = start_server(kind).await;
    let mut raw = Raw::connect(server.address, "").await.expect("connected");
    let get = "/passbook.v1.AccountService/GetAccount";
    let call = raw.unary(get, &account_named("nobody"));
    raw.write(&call).await.expect("sent");
    raw.answer(1).await.expect("an answer");
    assert!(raw.is_ended_by_headers());
}
