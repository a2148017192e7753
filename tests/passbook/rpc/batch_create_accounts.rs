use passbook::proto::create_account_result::Result as Outcome;

use crate::harness::*;

on_both_databases! {
    each_account_has_a_result_of_its_own,
    a_thousand_accounts_share_their_commits,
}

async fn send(client: &Client, requests: &[CreateAccountRequest]) -> Vec<CreateAccountResult> {
    let batch = BatchCreateAccountsRequest { requests: requests.to_vec() };
    let results = client.batch_create_accounts(batch).await.expect("an answer").results;
    assert_eq!(results.len(), requests.len());
    results
}

fn opened(result: &CreateAccountResult) -> &Account {
    match &result.result {
        Some(Outcome::Account(account)) => account,
        other => panic!("not opened: {other:?}"),
    }
}

fn error(result: &CreateAccountResult) -> Status {
    match &result.result {
        Some(Outcome::Error(error)) => status_of(error),
        other => panic!("no error: {other:?}"),
    }
}

async fn each_account_has_a_result_of_its_own(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "old", "5").await;
    let overdraft_limit = money_of("EUR", "250.5");
    let requests = [
        account_of("new", "USD"),
        account_of("new", "usd"),
        CreateAccountRequest { overdraft_limit, ..account_of("euro", "EUR") },
        account_of("old", "USD"),
        account_of("old", "EUR"),
        // Opened in a currency of the past before it was withdrawn, or not.
        account_of("kuna", "HRK"),
        account_of("new", "USD"),
        account_of("", "USD"),
    ];

    let results = send(&client, &requests).await;

    assert_eq!(opened(&results[0]).account_id, "new");
    assert_reason(&error(&results[1]), Reason::InvalidCurrencyCode);
    assert_eq!(value(&opened(&results[2]).available), "250.50");
    assert_eq!(opened(&results[3]), &get(&client, "old").await);
    assert_reason(&error(&results[4]), Reason::AccountExists);
    assert_reason(&error(&results[5]), Reason::InvalidCurrencyCode);
    assert_eq!(opened(&results[6]), opened(&results[0]), "one id, one account");
    assert_eq!(opened(&results[7]).account_id.len(), 36, "a UUID");
    assert_eq!(database.count("accounts").await, 4);
    // The errors equal those of the single call.
    for number in [1, 4, 5] {
        let alone = client.create_account(requests[number].clone()).await.expect_err("an error");
        assert_eq!(alone.details(), error(&results[number]).details());
    }

    deposited(&client, "new", "1").await;
    // Accounts of a withdrawn currency that exist are found.
    database.execute("UPDATE accounts SET currency_code = 'HRK' WHERE account_id = 'euro'").await;
    let kuna = CreateAccountRequest {
        overdraft_limit: money_of("HRK", "250.50"),
        ..account_of("euro", "HRK")
    };
    let again = send(&client, &[requests[0].clone(), kuna]).await;
    assert_eq!(opened(&again[0]), &get(&client, "new").await, "as it is now");
    assert_eq!(opened(&again[1]).account_id, "euro");
    for requests in [vec![], vec![account_of("x", "USD"); 1001]] {
        let batch = BatchCreateAccountsRequest { requests };
        let status = must_fail(client.batch_create_accounts(batch).await, Reason::InvalidRequests);
        assert_eq!(fields(&status), ["requests"]);
    }
    assert_eq!(database.count("accounts").await, 4);
}

async fn a_thousand_accounts_share_their_commits(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let requests: Vec<_> = (0..1000).map(|it| account_of(&format!("a-{it}"), "USD")).collect();

    let results = send(&client, &requests).await;

    for (request, result) in requests.iter().zip(&results) {
        assert_eq!(opened(result).account_id, request.account_id);
    }
    let times = "SELECT DISTINCT CAST(create_time_us AS TEXT) FROM accounts";
    let transactions = database.texts(times).await.len();
    println!("1000 accounts in at most {transactions} database transactions");
    assert!(transactions <= 20, "{transactions}");
}
