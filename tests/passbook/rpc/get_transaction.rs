use crate::harness::*;

on_both_databases! {
    a_transaction_is_found_by_id_and_by_request_id,
    a_missing_transaction_is_not_found_by_id_or_request_id,
    a_request_that_was_rejected_has_no_transaction,
    a_lookup_needs_a_well_formed_id,
}

async fn look_up(client: &Client, request: GetTransactionRequest) -> Result<Transaction, Status> {
    let answer = client.get_transaction(request).await?;
    Ok(answer.transaction.expect("a transaction"))
}

async fn a_transaction_is_found_by_id_and_by_request_id(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "a", "100").await;
    open(&client, "b").await;
    let mut request = transfer("a", "b", "30");
    request.description = "rent".to_owned();
    request.labels = labels(&[("month", "May")]);
    let made = client.transfer(request.clone()).await.expect("applied");
    let made = made.transaction.expect("a transaction");

    // Another server answers, which has never seen the request.
    let other = servers[1].client();
    let by_id = look_up(&other, transaction_by_id(&made.transaction_id)).await;
    let upper = look_up(&other, transaction_by_id(&made.transaction_id.to_uppercase())).await;
    let by_request = look_up(&other, transaction_by_request_id(&request.request_id)).await;

    assert_eq!(by_id.expect("found"), made);
    assert_eq!(upper.expect("found"), made);
    assert_eq!(by_request.expect("found"), made);
}

async fn a_missing_transaction_is_not_found_by_id_or_request_id(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let id = "0197a1b2-0000-7000-8000-000000000000";

    let by_id = look_up(&client, transaction_by_id(id)).await;
    let by_request = look_up(&client, transaction_by_request_id("no such")).await;

    let by_id = must_fail(by_id, Reason::TransactionNotFound);
    assert_eq!(metadata(&by_id, "transaction_id"), id);
    let by_request = must_fail(by_request, Reason::TransactionNotFound);
    assert_eq!(metadata(&by_request, "request_id"), "no such");
}

async fn a_request_that_was_rejected_has_no_transaction(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let request = withdrawal("a", "1");
    must_fail(client.withdraw(request.clone()).await, Reason::InsufficientFunds);

    let by_request = look_up(&client, transaction_by_request_id(&request.request_id)).await;

    must_fail(by_request, Reason::TransactionNotFound);
}

async fn a_lookup_needs_a_well_formed_id(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let missing = look_up(&client, GetTransactionRequest { lookup: None }).await;
    must_fail(missing, Reason::InvalidTransactionId);
    for text in ["", "x", "0197a1b2", "' OR 1=1 --", "0197a1b2-0000-7000-8000-00000000000g", "٣"] {
        let status = must_fail(
            look_up(&client, transaction_by_id(text)).await,
            Reason::InvalidTransactionId,
        );
        assert_eq!(fields(&status), ["transaction_id"]);
    }
    for text in ["", "\u{0}", "ä", &"x".repeat(65)] {
        let answer = look_up(&client, transaction_by_request_id(text)).await;
        let status = must_fail(answer, Reason::InvalidRequestId);
        assert_eq!(fields(&status), ["request_id"]);
    }
}
