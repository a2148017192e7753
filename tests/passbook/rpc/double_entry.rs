//! Double entry: `require_balanced` on PostTransaction, and contra accounts of the server.

use sea_orm::ConnectionTrait;

use crate::harness::{
    checker,
    credentials::{Callers, allow, identity, identity_with},
    *,
};

on_both_databases! {
    a_posting_that_must_be_balanced_is_rejected_if_it_is_not,
    the_contra_account_is_the_other_side_of_all_that_comes_and_goes,
    every_way_to_send_a_request_leads_to_balanced_transactions,
    a_forced_withdrawal_takes_what_is_not_there_to_the_contra_account,
    what_no_contra_account_can_take_is_rejected,
    results_stay_when_contra_accounts_come_and_go,
    a_ledger_with_contra_accounts_moves_to_another_database,
    several_servers_keep_the_sum_at_zero,
    a_caller_needs_no_right_on_the_contra_account_and_does_not_see_it,
    a_server_does_not_start_with_a_contra_account_that_cannot_take_money,
}

/// The id of the contra account comes before all others, its entry behind them.
const CONTRA: [&str; 2] = ["--contra-account", "USD=World"];

/// A ledger with the contra account, and a server that uses it.
async fn start(database: &TestDatabase) -> (Server, Client) {
    let server = Server::start(database).await;
    open_unlimited(&server.client(), "World").await;
    drop(server);
    let server = Server::start_with(database, &CONTRA).await;
    let client = server.client();
    (server, client)
}

/// The same with an identity that has the rights of one rule, and one that may do all. The callers' files
/// live as long as what is returned first.
async fn start_for(database: &TestDatabase, rule: String) -> (Callers, Server, [Client; 2]) {
    let policy = identity_with("own", &[rule]) + &identity("all", &["*"], &[""]);
    let callers = Callers::new(&[("own", "own-token"), ("all", "all-token")], &policy);
    let server = callers.serve(database, &[]).await;
    open_unlimited(&server.client_of("all-token"), "World").await;
    drop(server);
    let server = callers.serve(database, &CONTRA).await;
    let clients = ["own-token", "all-token"].map(|token| server.client_of(token));
    (callers, server, clients)
}

/// The accounts and amounts of a transaction.
fn amounts(transaction: &Transaction) -> Vec<(&str, &str)> {
    transaction.entries.iter().map(|it| (it.account_id.as_str(), value(&it.amount))).collect()
}

fn is_unbalanced<Answer: std::fmt::Debug>(answer: Result<Answer, Status>, sum: Option<&str>) {
    let status = must_fail(answer, Reason::Unbalanced);
    assert_eq!(metadata(&status, "sum"), sum.unwrap_or_default(), "{status:?}");
    assert_eq!(outcome(&status), "", "it is a result: {status:?}");
}

async fn verified(database: &TestDatabase) {
    checker::assert_consistent(database).await;
    database.passbook(&["verify", "--require-balanced"]).await.must_succeed();
}

async fn a_posting_that_must_be_balanced_is_rejected_if_it_is_not(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_all(&client, &["bob"]).await;
    open_with(&client, account_of("carol", "EUR")).await;
    let demand = |legs: &[Leg]| PostTransactionRequest { require_balanced: true, ..post(legs) };
    let unbalanced = demand(&[leg("alice", "-5"), leg("bob", "4.99")]);

    is_unbalanced(client.post_transaction(unbalanced.clone()).await, Some("-0.01"));

    is_unbalanced(client.post_transaction(unbalanced.clone()).await, Some("-0.01"));
    let relaxed = PostTransactionRequest { require_balanced: false, ..unbalanced };
    must_fail(client.post_transaction(relaxed).await, Reason::RequestIdReused);
    let two_currencies = demand(&[leg("alice", "-5"), leg_in("carol", "EUR", "5")]);
    is_unbalanced(client.post_transaction(two_currencies).await, Some("5.00"));
    let missing = demand(&[leg("nobody", "1")]);
    is_unbalanced(client.post_transaction(missing).await, Some("1.00"));
    let balanced = demand(&[leg("alice", "-5"), leg("bob", "2"), leg("bob", "3")]);
    posted(&client, balanced).await;
    assert_eq!(balance(&client, "bob").await, "5.00");
    let output = database.passbook(&["verify", "--require-balanced"]).await;
    output.must_fail_with(1, "the ledger has a fault");
}

async fn the_contra_account_is_the_other_side_of_all_that_comes_and_goes(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, client) = start(&database).await;
    open_all(&client, &["alice", "bob"]).await;

    let first = deposited(&client, "alice", "100").await;
    assert_eq!(amounts(&first), [("alice", "100.00"), ("World", "-100.00")]);
    let second = withdrawn(&client, "alice", "30").await;
    assert_eq!(amounts(&second), [("alice", "-30.00"), ("World", "30.00")]);
    let moved = client.transfer(transfer("alice", "bob", "5")).await.expect("applied");
    let moved = moved.transaction.expect("a transaction");
    assert_eq!(amounts(&moved), [("alice", "-5.00"), ("bob", "5.00")]);
    place_all(&client, "alice", "10", &["out", "within"]).await;
    let out = captured(&client, capture("out")).await.transaction.expect("a transaction");
    assert_eq!(amounts(&out), [("alice", "-10.00"), ("World", "10.00")]);
    let within = captured(&client, capture_to("bob", "within", "4")).await;
    let within = within.transaction.expect("a transaction");
    assert_eq!(amounts(&within), [("alice", "-4.00"), ("bob", "4.00")]);

    let part = ReverseTransactionRequest { amount: money("20"), ..reversal(&first.transaction_id) };
    let part = reversed(&client, part).await;
    assert_eq!(amounts(&part), [("alice", "-20.00"), ("World", "20.00")]);
    let all = reversed(&client, reversal(&moved.transaction_id)).await;
    assert_eq!(amounts(&all), [("alice", "5.00"), ("bob", "-5.00")]);
    let dry = DepositRequest { validate_only: true, ..deposit("bob", "1") };
    let dry = client.deposit(dry).await.expect("valid").transaction.expect("a transaction");
    assert_eq!(amounts(&dry), [("bob", "1.00"), ("World", "-1.00")]);
    assert_eq!(balance(&client, "World").await, "-40.00");
    verified(&database).await;
}

async fn every_way_to_send_a_request_leads_to_balanced_transactions(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, client) = start(&database).await;
    open_all(&client, &["alice", "bob"]).await;
    let undone = deposited(&client, "alice", "5").await.transaction_id;
    place_all(&client, "alice", "1", &["hold"]).await;
    let effective_time = Some(timestamp(1_700_000_000_000_000));
    let both_ways = posting(&[("alice", "-1"), ("bob", "1")]);
    let changes: [Change; 8] = [
        DepositRequest { effective_time, ..deposit("bob", "2") }.into(),
        Change::from(DepositRequest { effective_time, ..deposit("bob", "2") }).in_stream(),
        Change::from(withdrawal("bob", "1")).in_stream(),
        Change::from(capture("hold")).in_stream(),
        Change::from(ReverseTransactionRequest { effective_time, ..reversal(&undone) }).in_stream(),
        Change::PostInBatch(both_ways.clone()),
        Change::PostInStream(PostTransactionRequest { request_id: new_request_id(), ..both_ways }),
        Change::from(posting(&[("World", "-1"), ("bob", "1")])).in_stream(),
    ];
    // Without this, funds for the reversal would lack.
    deposited(&client, "alice", "9").await;

    for change in changes {
        let answer = change.send(&client, PATIENCE).await.expect("applied");
        let transaction = answer.transaction();
        let [(_, first), (_, second)] = amounts(transaction)[..] else { panic!("{transaction:?}") };
        assert_eq!(first.trim_start_matches('-'), second.trim_start_matches('-'), "{change:?}");
        assert_ne!(first, second, "{change:?}");
        let times = transaction.entries.iter().map(|it| it.effective_time);
        assert!(times.clone().all(|it| it == transaction.effective_time), "{change:?}");
        let again = change.send(&client, PATIENCE).await.expect("applied");
        assert_eq!((again.transaction(), again.replayed), (transaction, true), "{change:?}");
    }

    let alone = posting(&[("bob", "1")]);
    for change in [Change::PostInBatch(alone.clone()), Change::from(alone.clone()).in_stream()] {
        // The second one is a repeat of the first.
        is_unbalanced(change.send(&client, PATIENCE).await, Some("1.00"));
    }
    verified(&database).await;
}

async fn a_forced_withdrawal_takes_what_is_not_there_to_the_contra_account(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rule = allow(&["alice"], &["read", "debit", "force"], "\"unlimited\"");
    let (_callers, _server, [own, all]) = start_for(&database, rule).await;
    open_funded(&all, "alice", "1").await;
    let force = WithdrawRequest { force: true, ..withdrawal("alice", "4") };

    let forced = own.withdraw(force).await.expect("applied").transaction.expect("a transaction");

    assert_eq!(amounts(&forced), [("alice", "-4.00")]);
    assert_eq!(balance(&all, "World").await, "3.00");
    must_fail(own.withdraw(withdrawal("alice", "1")).await, Reason::InsufficientFunds);
    let original = all.get_transaction(transaction_by_id(&forced.transaction_id)).await;
    let original = original.expect("it exists").transaction.expect("a transaction");
    assert_eq!(amounts(&original), [("alice", "-4.00"), ("World", "4.00")]);
    verified(&database).await;
}

async fn what_no_contra_account_can_take_is_rejected(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let client = server.client();
    open_all(&client, &["alice"]).await;
    open_with(&client, account_of("carol", "EUR")).await;
    let before = client.deposit(deposit_in("carol", "EUR", "7")).await.expect("applied");
    let before = before.transaction.expect("a transaction");
    place(
        &client,
        PlaceHoldRequest { amount: money_of("EUR", "1"), ..hold_named("h", "carol", "1") },
    )
    .await;
    drop(server);
    let (_server, client) = start(&database).await;

    is_unbalanced(client.deposit(deposit_in("carol", "EUR", "1")).await, Some("1.00"));
    is_unbalanced(client.post_transaction(posting(&[("alice", "1")])).await, Some("1.00"));
    is_unbalanced(client.deposit(deposit("World", "1")).await, Some("1.00"));
    is_unbalanced(client.reverse_transaction(reversal(&before.transaction_id)).await, None);
    is_unbalanced(client.capture_hold(capture("h")).await, None);
    freeze(&client, "World").await;
    let status = must_fail(client.deposit(deposit("alice", "1")).await, Reason::AccountFrozen);
    assert_eq!(metadata(&status, "account_id"), "World");
    withdrawn_after_thaw(&client).await;
    nothing_is_taken_by_force(&client).await;
    assert_eq!(balance(&client, "carol").await, "7.00");
}

/// The reversal of a withdrawal takes the money back from the contra account, which no caller has chosen.
async fn nothing_is_taken_by_force(client: &Client) {
    deposited(client, "alice", "1").await;
    let taken = withdrawn(client, "alice", "1").await;
    freeze(client, "World").await;
    let forced = ReverseTransactionRequest { force: true, ..reversal(&taken.transaction_id) };
    must_fail(client.reverse_transaction(forced).await, Reason::AccountFrozen);
    unfreeze(client, "World").await;
}

async fn withdrawn_after_thaw(client: &Client) {
    unfreeze(client, "World").await;
    deposited(client, "alice", "1").await;
    withdrawn(client, "alice", "1").await;
}

async fn results_stay_when_contra_accounts_come_and_go(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let client = server.client();
    open_all(&client, &["alice"]).await;
    open_unlimited(&client, "World").await;
    let alone = deposit("alice", "1");
    let first = client.deposit(alone.clone()).await.expect("applied").transaction;
    drop(server);

    let server = Server::start_with(&database, &CONTRA).await;
    let client = server.client();
    let again = client.deposit(alone).await.expect("the same");
    assert_eq!((again.transaction, again.replayed), (first.clone(), true));
    let first = first.expect("a transaction");
    let undone = reversed(&client, reversal(&first.transaction_id)).await;
    assert_eq!(amounts(&undone), [("alice", "-1.00"), ("World", "1.00")]);
    let both = deposit("alice", "2");
    let second = client.deposit(both.clone()).await.expect("applied").transaction;
    let rejected: Change = posting(&[("alice", "1")]).into();
    let first_rejection = must_fail(rejected.send(&client, PATIENCE).await, Reason::Unbalanced);
    drop(server);

    let server = Server::start(&database).await;
    let client = server.client();
    let again = client.deposit(both).await.expect("the same");
    assert_eq!((again.transaction, again.replayed), (second.clone(), true));
    assert_still_rejected(&client, &[(rejected, first_rejection)]).await;
    // Both of its entries are reversed, with and without the setting.
    let second = second.expect("a transaction");
    let undone = reversed(&client, reversal(&second.transaction_id)).await;
    assert_eq!(amounts(&undone), [("alice", "-2.00"), ("World", "2.00")]);
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
    // The first deposit had one side.
    let output = database.passbook(&["verify", "--require-balanced"]).await;
    output.must_fail_with(1, "the ledger has a fault");
}

async fn a_ledger_with_contra_accounts_moves_to_another_database(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, client) = start(&database).await;
    open_all(&client, &["alice"]).await;
    let request = deposit("alice", "5");
    let first = client.deposit(request.clone()).await.expect("applied").transaction;
    withdrawn(&client, "alice", "1").await;
    let rejected: Change = posting(&[("alice", "1")]).into();
    let rejection = must_fail(rejected.send(&client, PATIENCE).await, Reason::Unbalanced);
    drop(server);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let export = database.passbook(&["export"]).await.must_succeed().stdout;
    std::fs::write(file.path(), export).expect("it is written");
    let target = database.create_beside(kind).await;

    let input = file.path().to_string_lossy();
    target.passbook(&["import", "--input", &input]).await.must_succeed();

    let server = Server::start_with(&target, &CONTRA).await;
    let client = server.client();
    let again = client.deposit(request).await.expect("the same");
    assert_eq!((again.transaction, again.replayed), (first, true));
    assert_still_rejected(&client, &[(rejected, rejection)]).await;
    deposited(&client, "alice", "1").await;
    verified(&target).await;
}

async fn several_servers_keep_the_sum_at_zero(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let (server, client) = start(&database).await;
    let other = Server::start_with(&database, &CONTRA).await;
    let accounts = ["a", "b", "c"];
    open_all(&client, &accounts).await;
    let callers = [&server, &other, &server, &other].map(|server| {
        let client = server.client();
        tokio::spawn(async move {
            for round in 0..40 {
                let account_id = accounts[fastrand::usize(..accounts.len())];
                let next = accounts[fastrand::usize(..accounts.len())];
                let amount = (fastrand::u8(1..9)).to_string();
                // In both orders of accounts, and with the contra account as a named one.
                let change: Change = match round % 6 {
                    0 | 1 => deposit(account_id, &amount).into(),
                    2 => withdrawal(account_id, &amount).into(),
                    3 => transfer(account_id, "World", &amount).into(),
                    4 => transfer("World", account_id, &amount).into(),
                    _ => transfer(account_id, next, &amount).into(),
                };
                if let Err(status) = change.send(&client, PATIENCE).await {
                    let reason = reason(&status);
                    assert!(
                        ["INSUFFICIENT_FUNDS", "INVALID_ACCOUNT_ID"].contains(&&*reason),
                        "{status:?}"
                    );
                }
            }
        })
    });
    for caller in callers {
        caller.await.expect("it ran");
    }
    assert_ne!(balance(&client, "World").await, "0.00");
    verified(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_lock_on_an_account_delays_no_other_deposit() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (_server, client) = start(&database).await;
    open_all(&client, &["alice", "bob"]).await;
    let other_program = database.lock_account("alice").await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.deposit(deposit("alice", "1")).await }
    });
    for _ in 0..20 {
        deposited(&client, "bob", "1").await;
    }
    let late = within(ms(300), deposit("alice", "2"));
    client.deposit(late).await.expect_err("the row is locked");

    other_program.execute_unprepared("ROLLBACK").await.expect("the row is free");

    waiting.await.expect("it ran").expect("applied");
    assert_eq!(balance(&client, "World").await, "-21.00");
    verified(&database).await;
}

async fn a_caller_needs_no_right_on_the_contra_account_and_does_not_see_it(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rule = allow(&["shop:*"], &["read", "credit", "debit"], "\"unlimited\"");
    let (_callers, _server, [own, all]) = start_for(&database, rule).await;
    open_all(&all, &["shop:1"]).await;

    let made = deposited(&own, "shop:1", "3").await;

    assert_eq!(amounts(&made), [("shop:1", "3.00")]);
    let request = DepositRequest { validate_only: true, ..deposit("shop:1", "3") };
    let dry = own.deposit(request).await.expect("valid").transaction.expect("a transaction");
    assert_eq!(amounts(&dry), [("shop:1", "3.00")]);
    let recorded = request_outcome(&own, &made.request_id).await.transaction;
    assert_eq!(recorded.as_ref(), Some(&made));
    let listed = own.list_transactions(transactions_of("shop:1")).await.expect("a list");
    assert_eq!(listed.transactions, std::slice::from_ref(&made));
    let seen = all.get_transaction(transaction_by_id(&made.transaction_id)).await;
    let seen = seen.expect("it exists").transaction.expect("a transaction");
    assert_eq!(amounts(&seen), [("shop:1", "3.00"), ("World", "-3.00")]);
    must_fail(own.get_account(account_named("World")).await, Reason::PermissionDenied);
    let undone = reversed(&own, reversal(&made.transaction_id)).await;
    assert_eq!(amounts(&undone), [("shop:1", "-3.00")]);
    assert_eq!(balance(&all, "World").await, "0.00");
    let within = posted(&all, posting(&[("World", "1"), ("World", "-1")])).await;
    let undone = own.reverse_transaction(reversal(&within.transaction_id)).await;
    must_fail(undone, Reason::PermissionDenied);
    // The contra account is named, but not what it has.
    all.update_account(limit_of("World", "5")).await.expect("it is updated");
    let status = must_fail(own.deposit(deposit("shop:1", "6")).await, Reason::InsufficientFunds);
    let shown = ["available", "version"].map(|key| metadata(&status, key));
    assert_eq!(shown, ["", ""], "{status:?}");
    must_fail(own.deposit(deposit("World", "1")).await, Reason::PermissionDenied);
}

async fn a_server_does_not_start_with_a_contra_account_that_cannot_take_money(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["limited"]).await;
    open_unlimited(&client, "frozen").await;
    freeze(&client, "frozen").await;
    open_unlimited(&client, "closed").await;
    close(&client, "closed").await.expect("it is closed");
    let serve = async |accounts: &str| {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--contra-account", accounts];
        database.passbook(&arguments).await
    };
    for (accounts, why) in [
        ("USD=missing", "the account does not exist"),
        ("USD=missing", "passbook account open missing --currency USD --unlimited-overdraft"),
        ("EUR=frozen", "the account has another currency"),
        ("USD=frozen", "the account is frozen"),
        ("USD=frozen", "passbook account unfreeze frozen"),
        ("USD=closed", "the account is closed"),
        ("USD=limited", "the account has no unlimited overdraft"),
        ("USD=limited", "passbook account update limited --unlimited-overdraft true"),
        ("USD=a,USD=b", "USD has two accounts"),
        ("XXY=a", "XXY"),
    ] {
        serve(accounts).await.must_fail_with(2, why);
    }
    for (accounts, why) in [("USD", "must be CODE=ACCOUNT_ID"), ("USD=a b", "[A-Za-z0-9._:-]")] {
        let outcome = serve(accounts).await;
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
    }
}
