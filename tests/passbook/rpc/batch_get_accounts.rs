use crate::harness::{
    decimal::Decimal,
    ring::{RingLoad, Stop, open_ring},
    *,
};

on_both_databases! {
    accounts_come_in_the_order_of_the_request,
    the_first_account_that_is_missing_is_named,
    an_id_that_is_there_twice_is_invalid,
    an_empty_list_and_too_many_ids_are_invalid,
    a_thousand_accounts_are_read_at_once,
    a_batch_is_one_snapshot_while_money_moves,
}

async fn batch_get(client: &Client, account_ids: &[&str]) -> Result<Vec<Account>, Status> {
    let account_ids = account_ids.iter().map(|id| (*id).to_owned()).collect();
    let answer = client.batch_get_accounts(BatchGetAccountsRequest { account_ids }).await?;
    Ok(answer.accounts)
}

async fn accounts_come_in_the_order_of_the_request(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["a", "b", "C", "d"]).await;

    let accounts = batch_get(&client, &["d", "a", "C"]).await.expect("all exist");

    let ids: Vec<&str> = accounts.iter().map(|account| account.account_id.as_str()).collect();
    assert_eq!(ids, ["d", "a", "C"]);
    assert_eq!(accounts[1], get(&client, "a").await);
}

async fn the_first_account_that_is_missing_is_named(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;

    let answer = batch_get(&client, &["a", "missing-z", "missing-b"]).await;

    let status = must_fail(answer, Reason::AccountNotFound);
    assert_eq!(metadata(&status, "account_id"), "missing-z");
}

async fn an_id_that_is_there_twice_is_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;

    let status = must_fail(batch_get(&client, &["a", "b", "a"]).await, Reason::InvalidAccountId);
    assert_eq!(fields(&status), ["account_ids[2]"]);
}

async fn an_empty_list_and_too_many_ids_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let ids: Vec<String> = (0..1001).map(|number| format!("account-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();

    for ids in [&[][..], &ids] {
        let status = must_fail(batch_get(&client, ids).await, Reason::InvalidAccountId);
        assert_eq!(fields(&status), ["account_ids"]);
    }
    let answer = batch_get(&client, &["fine", "not fine"]).await;
    let status = must_fail(answer, Reason::InvalidAccountId);
    assert_eq!(fields(&status), ["account_ids[1]"]);
}

async fn a_thousand_accounts_are_read_at_once(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let ids: Vec<String> = (0..1000).map(|number| format!("account-{number}")).collect();
    for some in ids.chunks(50) {
        join_all(some.iter().map(|id| open(&client, id))).await;
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();

    let accounts = batch_get(&client, &ids).await.expect("all exist");

    assert!(accounts.iter().zip(&ids).all(|(account, id)| account.account_id == *id));
    assert_eq!(accounts.len(), 1000);
}

async fn a_batch_is_one_snapshot_while_money_moves(kind: Kind) {
    const READS: usize = 300;
    const MOMENTS: usize = 100;
    let (_database, _servers, clients) = start_loaded(kind, 2).await;
    let (accounts, _) = open_ring(&clients[0], 8).await;
    let ids: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let moving = RingLoad::transfers_on(&accounts, 12, Stop::When(stopped), seed());
    let moving_clients = clients.clone();
    let calling = tokio::spawn(async move { moving.run(&moving_clients).await.len() });

    let (mut reads, mut pictures) = (0, std::collections::BTreeSet::new());
    let end = tokio::time::Instant::now() + PATIENCE;
    while reads < READS || pictures.len() < MOMENTS {
        assert!(tokio::time::Instant::now() < end, "{reads} reads, {} moments", pictures.len());
        let accounts = batch_get(&clients[reads % 2], &ids).await.expect("all exist");
        let mut total = Decimal::ZERO;
        for account in &accounts {
            total += Decimal::parse(value(&account.balance));
        }
        assert_eq!(total, Decimal::parse("800.00"), "after {reads} reads: {accounts:#?}");
        pictures.insert(accounts.iter().map(|account| account.sequence).sum::<i64>());
        reads += 1;
    }

    stop.send_replace(true);
    let changes = calling.await.expect("no panic");
    println!("{reads} reads saw {} different moments of {changes} transfers", pictures.len());
}
