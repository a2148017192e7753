use crate::harness::*;

on_both_databases! {
    a_new_account_is_open_and_empty,
    opening_it_again_with_the_same_attributes_returns_it_as_it_is_now,
    opening_it_again_with_other_attributes_is_rejected,
    a_retried_creation_succeeds_after_the_account_has_changed,
    an_account_without_an_id_gets_a_uuid_of_version_7,
    a_configured_currency_has_its_own_decimals,
    two_processes_that_open_the_same_account_open_one,
}

fn full_request() -> CreateAccountRequest {
    CreateAccountRequest {
        account_id: "alice:main_1.0-x".to_owned(),
        currency_code: "EUR".to_owned(),
        overdraft_limit: money_of("EUR", "250.5"),
        unlimited_overdraft: false,
        labels: labels(&[("team/a", "blue, \"green\" and ✓")]),
    }
}

async fn a_new_account_is_open_and_empty(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;

    let account = open_with(&client, full_request()).await;

    assert_eq!(account.account_id, "alice:main_1.0-x");
    assert_eq!(account.currency_code, "EUR");
    assert_eq!(account.balance, money_of("EUR", "0.00"));
    assert_eq!(account.held, money_of("EUR", "0.00"));
    assert_eq!(account.available, money_of("EUR", "250.50"));
    assert_eq!(account.overdraft_limit, money_of("EUR", "250.50"));
    assert!(!account.unlimited_overdraft);
    assert_eq!(account.state(), AccountState::Open);
    assert_eq!((account.sequence, account.version), (0, 1));
    assert_eq!(account.labels, full_request().labels);
    assert!(account.create_time.is_some());
    assert_eq!(account.create_time, account.update_time);
    assert_eq!(get(&client, &account.account_id).await, account);
}

async fn opening_it_again_with_the_same_attributes_returns_it_as_it_is_now(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with(&client, full_request()).await;
    let deposit = deposit_in("alice:main_1.0-x", "EUR", "7.25");
    client.deposit(deposit).await.expect("the deposit is applied");

    // Another spelling of the same limit is the same attribute.
    let again =
        CreateAccountRequest { overdraft_limit: money_of("EUR", "250.50"), ..full_request() };
    let account = open_with(&client, again).await;

    assert_eq!(value(&account.balance), "7.25");
    assert_eq!((account.sequence, account.version), (1, 2));
    assert_eq!(database.count("accounts").await, 1);
}

async fn opening_it_again_with_other_attributes_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let account = open_with(&client, full_request()).await;
    let others = [
        CreateAccountRequest {
            currency_code: "USD".to_owned(),
            overdraft_limit: None,
            ..full_request()
        },
        CreateAccountRequest { overdraft_limit: money_of("EUR", "250.51"), ..full_request() },
        CreateAccountRequest { overdraft_limit: None, unlimited_overdraft: true, ..full_request() },
        CreateAccountRequest { labels: [].into(), ..full_request() },
    ];

    for other in others {
        let status = must_fail(client.create_account(other).await, Reason::AccountExists);
        assert_eq!(metadata(&status, "account_id"), "alice:main_1.0-x");
    }

    assert_eq!(get(&client, "alice:main_1.0-x").await, account);
}

async fn a_retried_creation_succeeds_after_the_account_has_changed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let account_id = open_with(&client, full_request()).await.account_id;
    open(&client, "unlimited").await;
    let labels = |value: &str| labels(&[("team/a", value)]);
    let changes = [
        UpdateAccountRequest { labels: labels("red"), ..Default::default() },
        UpdateAccountRequest { overdraft_limit: money_of("EUR", "1"), ..Default::default() },
        UpdateAccountRequest { unlimited_overdraft: true, ..Default::default() },
        UpdateAccountRequest { labels: labels("blue"), ..Default::default() },
    ];

    let mut now = full_request();
    for change in changes {
        let request = UpdateAccountRequest { account_id: account_id.clone(), ..change };
        let changed = client.update_account(request).await.expect("changed").account;
        let changed = changed.expect("an account");
        assert_eq!(open_with(&client, full_request()).await, changed, "a retry is safe");
        // Its current attributes differ from those at its creation.
        now.labels.clone_from(&changed.labels);
        now.overdraft_limit = changed.overdraft_limit.clone();
        now.unlimited_overdraft = changed.unlimited_overdraft;
        must_fail(client.create_account(now.clone()).await, Reason::AccountExists);
    }
    let frozen = freeze(&client, &account_id).await;
    assert_eq!(open_with(&client, full_request()).await, frozen);
    let closed = close(&client, &account_id).await.expect("it is empty");
    assert_eq!(open_with(&client, full_request()).await, closed);
    // Several concurrent requests, in one transaction or in several.
    let calls = (0..20).map(async |_| {
        open_with(&client, full_request()).await;
        open(&client, "unlimited").await;
    });
    join_all(calls).await;

    // An imported ledger keeps this.
    let (folder, target) = (tempfile::tempdir().expect("a folder"), {
        let other = if kind == Kind::Sqlite { Kind::Postgres } else { Kind::Sqlite };
        database.create_beside(other).await
    });
    let file = folder.path().join("ledger.jsonl").to_string_lossy().into_owned();
    let export = ["export", "--database-url", database.url(), "--output", &file];
    passbook(&export).await.must_succeed();
    let import = ["import", "--database-url", target.url(), "--input", &file];
    passbook(&import).await.must_succeed();
    let moved = Server::start(&target).await;
    assert_eq!(open_with(&moved.client(), full_request()).await, closed);
    must_fail(moved.client().create_account(now).await, Reason::AccountExists);
}

async fn an_account_without_an_id_gets_a_uuid_of_version_7(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;

    let first = open_with(&client, account_of("", "USD")).await;
    let second = open_with(&client, account_of("", "USD")).await;

    let id = uuid::Uuid::parse_str(&first.account_id).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_ne!(first.account_id, second.account_id);
}

async fn a_configured_currency_has_its_own_decimals(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server =
        Server::start_with(&database, &["--currency", "ETH=18", "--currency", "CREDIT=0"]).await;
    let client = server.client();

    let account = open_with(&client, account_of("ether", "ETH")).await;
    open_with(&client, account_of("points", "CREDIT")).await;

    assert_eq!(value(&account.balance), "0.000000000000000000");
    let largest = "9999999999.999999999999999999";
    let deposit = deposit_in("ether", "ETH", largest);
    client.deposit(deposit).await.expect("the largest amount");
    assert_eq!(balance(&client, "ether").await, largest);
    assert_eq!(balance(&client, "points").await, "0");
}

async fn two_processes_that_open_the_same_account_open_one(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let clients = [servers[0].client(), servers[1].client()];
    let calls =
        (0..40).map(async |call| open(&clients[call % 2], &format!("shared-{}", call / 8)).await);

    let mut accounts = join_all(calls).await;

    accounts.sort_by(|left, right| left.account_id.cmp(&right.account_id));
    accounts.dedup();
    assert_eq!(accounts.len(), 5, "{accounts:#?}");
    assert_eq!(database.count("accounts").await, 5);
}
