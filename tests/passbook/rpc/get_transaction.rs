use passbook::proto::{GetTransactionRequest, Transaction, get_transaction_request::Lookup};
use tonic::{Code, Status};

use crate::harness::*;

on_both_databases! {
    a_transaction_is_found_by_id_and_by_request_id,
    a_missing_transaction_is_not_found_by_id_or_request_id,
    a_request_that_was_refused_has_no_transaction,
    a_lookup_needs_a_well_formed_id,
}

async fn look_up(client: &Client, lookup: Option<Lookup>) -> Result<Transaction, Status> {
    let answer = client.clone().get_transaction(GetTransactionRequest { lookup }).await?;
    Ok(answer.into_inner().transaction.expect("a transaction"))
}

async fn a_transaction_is_found_by_id_and_by_request_id(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let mut client = servers[0].client();
    open_funded(&client, "a", "100").await;
    open(&client, "b").await;
    let mut request = transfer("a", "b", "30");
    request.description = "rent".to_owned();
    request.labels = [("month".to_owned(), "May".to_owned())].into();
    let made = client.transfer(request.clone()).await.expect("applied").into_inner();
    let made = made.transaction.expect("a transaction");

    // Another server answers, which has never seen the request.
    let other = servers[1].client();
    let by_id = look_up(&other, Some(Lookup::TransactionId(made.transaction_id.clone()))).await;
    let upper =
        look_up(&other, Some(Lookup::TransactionId(made.transaction_id.to_uppercase()))).await;
    let by_request = look_up(&other, Some(Lookup::RequestId(request.request_id))).await;

    assert_eq!(by_id.expect("found"), made);
    assert_eq!(upper.expect("found"), made);
    assert_eq!(by_request.expect("found"), made);
}

async fn a_missing_transaction_is_not_found_by_id_or_request_id(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let id = "0197a1b2-0000-7000-8000-000000000000";

    let by_id = look_up(&server.client(), Some(Lookup::TransactionId(id.to_owned()))).await;
    let by_request = look_up(&server.client(), Some(Lookup::RequestId("no such".to_owned()))).await;

    let by_id = refused(by_id, Code::NotFound, "TRANSACTION_NOT_FOUND");
    assert_eq!(metadata(&by_id, "transaction_id"), id);
    let by_request = refused(by_request, Code::NotFound, "TRANSACTION_NOT_FOUND");
    assert_eq!(metadata(&by_request, "request_id"), "no such");
}

async fn a_request_that_was_refused_has_no_transaction(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    open(&client, "a").await;
    let request = withdrawal("a", "1");
    let answer = client.withdraw(request.clone()).await;
    refused(answer, Code::FailedPrecondition, "INSUFFICIENT_FUNDS");

    let by_request = look_up(&client, Some(Lookup::RequestId(request.request_id))).await;

    refused(by_request, Code::NotFound, "TRANSACTION_NOT_FOUND");
}

async fn a_lookup_needs_a_well_formed_id(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let by_id = |text: &str| Some(Lookup::TransactionId(text.to_owned()));

    let missing = look_up(&client, None).await;
    refused(missing, Code::InvalidArgument, "INVALID_TRANSACTION_ID");
    for text in ["", "x", "0197a1b2", "' OR 1=1 --", "0197a1b2-0000-7000-8000-00000000000g", "٣"] {
        let status = refused(
            look_up(&client, by_id(text)).await,
            Code::InvalidArgument,
            "INVALID_TRANSACTION_ID",
        );
        assert_eq!(fields(&status), ["transaction_id"]);
    }
    for text in ["", "\u{0}", "ä", &"x".repeat(65)] {
        let answer = look_up(&client, Some(Lookup::RequestId(text.to_owned()))).await;
        let status = refused(answer, Code::InvalidArgument, "INVALID_REQUEST_ID");
        assert_eq!(fields(&status), ["request_id"]);
    }
}
