//! Rights on accounts: exact ids, denials, directions, sums of amounts, overdrafts, and what a caller
//! sees.

use crate::harness::{
    credentials::{Callers, allow, deny, identity, identity_with},
    *,
};

on_both_databases! {
    an_exact_account_id_is_no_prefix,
    a_denial_wins_over_what_other_rules_allow,
    the_amounts_of_one_request_add_up,
    every_amount_of_every_request_is_limited,
    lists_leave_out_what_is_denied,
    a_caller_without_the_right_to_read_sees_no_balance,
    the_error_of_a_reversal_has_no_amount_of_an_entry_that_its_caller_may_not_read,
    a_balance_is_not_found_out_by_requests_that_move_no_money,
    results_of_earlier_requests_show_what_the_policy_allows_now,
    a_repeat_gets_its_result_although_the_hold_has_grown,
    a_fence_needs_the_right_to_move_money_of_some_account,
}

/// A server on which `all` may do everything, and `own` what these rules allow.
async fn serve(database: &TestDatabase, rules: &[String]) -> (Server, Callers) {
    let tokens = [("own", "own-token"), ("all", "all-token")];
    let callers = Callers::new(&tokens, &policy(rules));
    (callers.serve(database, &[]).await, callers)
}

fn policy(rules: &[String]) -> String {
    identity_with("own", rules) + &identity("all", &["*"], &[""])
}

async fn fund(client: &Client, account_ids: &[&str]) {
    for account_id in account_ids {
        open_funded(client, account_id, "1000").await;
    }
}

fn denied<Answer: std::fmt::Debug>(answer: Result<Answer, Status>, permission: &str) {
    let status = must_fail(answer, Reason::PermissionDenied);
    assert_eq!(metadata(&status, "permission"), permission, "{status:?}");
}

async fn an_exact_account_id_is_no_prefix(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rights = ["read", "credit", "debit"];
    let rules = [allow(&["shop:1", "fees:*"], &rights, "\"unlimited\"")];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["shop:1", "shop:10", "fees:1"]).await;

    own.withdraw(withdrawal("shop:1", "1")).await.expect("its own");
    own.withdraw(withdrawal("fees:1", "1")).await.expect("its own");
    denied(own.withdraw(withdrawal("shop:10", "1")).await, "account");
    denied(own.transfer(transfer("shop:1", "shop:10", "1")).await, "account");
    assert_eq!(balance(&all, "shop:10").await, "1000.00");
}

async fn a_denial_wins_over_what_other_rules_allow(kind: Kind) {
    let denial = deny(&["shop:vault"], &["debit"]);
    let rights = ["read", "credit", "debit"];
    let allowed = allow(&["shop:vault", "shop:*"], &rights, "\"unlimited\"");
    for rules in [[denial.clone(), allowed.clone()], [allowed, denial]] {
        let database = TestDatabase::create(kind).await;
        denies_debits_of_the_vault(&database, &rules).await;
    }
}

async fn denies_debits_of_the_vault(database: &TestDatabase, rules: &[String]) {
    let (server, _callers) = serve(database, rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["shop:1", "shop:vault"]).await;
    let transaction_id = deposited(&all, "shop:vault", "5").await.transaction_id;
    let hold_id = place(&all, hold("shop:vault", "5")).await.hold_id;

    own.transfer(transfer("shop:1", "shop:vault", "1")).await.expect("into the vault");
    denied(own.transfer(transfer("shop:vault", "shop:1", "1")).await, "account");
    denied(own.place_hold(hold("shop:vault", "1")).await, "account");
    denied(own.capture_hold(capture(&hold_id)).await, "account");
    denied(own.release_hold(release(&hold_id)).await, "account");
    denied(own.reverse_transaction(reversal(&transaction_id)).await, "account");
    let legs = [("shop:1", "1"), ("shop:vault", "-1")];
    denied(own.post_transaction(posting(&legs)).await, "account");
}

async fn the_amounts_of_one_request_add_up(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rules = [allow(&["l:*"], &["read", "credit", "debit"], "{ USD = \"10\" }")];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["l:1", "l:2"]).await;

    let many = |amount: &'static str| posting(&vec![("l:1", amount); 100]);
    let cases =
        [many("-10"), many("10"), many("-0.11"), posting(&[("l:1", "-6"), ("l:1", "-4.01")])];
    for request in &cases {
        denied(own.post_transaction(request.clone()).await, "amount");
        let dry = PostTransactionRequest { validate_only: true, ..request.clone() };
        denied(own.post_transaction(dry).await, "amount");
    }
    let requests = vec![cases[3].clone(), posting(&[("l:1", "-10")]), posting(&[("l:1", "-10")])];
    let batch = BatchPostTransactionsRequest { requests };
    let results = own.batch_post_transactions(batch).await.expect("results").results;
    denied(Err::<(), _>(error(&results[0])), "amount");
    made(&results[1]);
    made(&results[2]);
    own.post_transaction(many("-0.10")).await.expect("the limit");
    own.post_transaction(posting(&[("l:1", "10"), ("l:2", "-10")])).await.expect("each account");

    assert_eq!(balance(&all, "l:1").await, "980.00");
}

async fn every_amount_of_every_request_is_limited(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rights = ["read", "credit", "debit", "manage", "overdraft"];
    let rules = [allow(&["l:*"], &rights, "{ USD = \"10\" }")];
    let (server, callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["l:1"]).await;
    let new = |limit: &str, unlimited_overdraft| CreateAccountRequest {
        overdraft_limit: money(limit),
        unlimited_overdraft,
        ..account_of("l:new", "USD")
    };
    let update = |limit: &str, unlimited_overdraft| UpdateAccountRequest {
        overdraft_limit: money(limit),
        unlimited_overdraft,
        update_mask: mask(&["overdraft_limit", "unlimited_overdraft"]),
        ..update_of("l:1")
    };
    let hold_id = place(&all, hold("l:1", "20")).await.hold_id;
    let transaction_id = deposited(&all, "l:1", "20").await.transaction_id;

    denied(own.create_account(new("1000000000", false)).await, "amount");
    denied(own.create_account(new("0", true)).await, "amount");
    denied(own.create_account(account_of("l:new", "EUR")).await, "amount");
    denied(own.update_account(update("10.01", false)).await, "amount");
    denied(own.update_account(update("0", true)).await, "amount");
    denied(own.deposit(deposit("l:1", "10.01")).await, "amount");
    denied(own.place_hold(hold("l:1", "10.01")).await, "amount");
    denied(own.capture_hold(capture(&hold_id)).await, "amount");
    denied(own.capture_hold(capture_part(&hold_id, "10.01")).await, "amount");
    denied(own.release_hold(release(&hold_id)).await, "amount");
    denied(own.reverse_transaction(reversal(&transaction_id)).await, "amount");
    let account = own.update_account(update("10", false)).await.expect("the limit");
    assert_eq!(value(&account.account.expect("an account").overdraft_limit), "10.00");
    own.create_account(new("10", false)).await.expect("the limit");
    own.capture_hold(capture_part(&hold_id, "10")).await.expect("the limit");

    // Without the right to it, no overdraft at all. The rest of an account can be changed.
    callers.set_policy(&policy(&[allow(&["l:*"], &["read", "manage"], "\"unlimited\"")]));
    let is_denied = async || own.update_account(update("1", false)).await.is_err();
    eventually("the new policy counts", is_denied).await;
    denied(own.update_account(update("1", false)).await, "account");
    denied(own.update_account(update("0", true)).await, "account");
    let other = CreateAccountRequest { account_id: "l:other".to_owned(), ..new("1", false) };
    denied(own.create_account(other).await, "account");
    own.update_account(update("0", false)).await.expect("no overdraft");
    own.create_account(account_of("l:other", "EUR")).await.expect("no overdraft");
}

async fn lists_leave_out_what_is_denied(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rules = [
        deny(&["b:2", "c:*", "zz"], &["read"]),
        deny(&["a"], &["debit"]),
        allow(&["*"], &["read"], ""),
        allow(&["c:1"], &["debit"], "{}"),
    ];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    let ids = ["a", "b:", "b:1", "b:2", "b:20", "c", "c:", "c:1", "c;".trim_end_matches(';'), "z"];
    for account_id in ids.into_iter().chain(["zz", "zzz"]) {
        open(&all, account_id).await;
    }

    for page_size in [1, 2, 3, 100] {
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                ListAccountsRequest { page_size, page_token, ..ListAccountsRequest::default() };
            let page = own.list_accounts(request).await.expect("a page");
            listed.extend(page.accounts.into_iter().map(|account| account.account_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, ["a", "b:", "b:1", "b:20", "c", "z", "zzz"], "{page_size}");
    }
    for (prefix, count) in [("", 7), ("b:", 3), ("c:", 0)] {
        let account_id_prefix = prefix.to_owned();
        let request = SumBalancesRequest { account_id_prefix, ..SumBalancesRequest::default() };
        let sums = own.sum_balances(request).await.expect("sums").sums;
        assert_eq!(sums.iter().map(|sum| sum.account_count).sum::<i64>(), count, "{prefix:?}");
    }
    // Not all accounts: transactions are listed by account only.
    denied(own.list_transactions(ListTransactionsRequest::default()).await, "account");
}

async fn a_caller_without_the_right_to_read_sees_no_balance(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rules = [
        allow(&["till"], &["read", "credit", "debit"], "\"unlimited\""),
        allow(&["fees"], &["credit"], "\"unlimited\""),
        allow(&["safe"], &["debit"], "\"unlimited\""),
    ];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["till", "fees", "safe"]).await;
    all.update_account(UpdateAccountRequest { unlimited_overdraft: true, ..update_of("fees") })
        .await
        .expect("an overdraft");

    let request = transfer("till", "fees", "1");
    for expected in [false, true] {
        let answer = own.transfer(request.clone()).await.expect("applied");
        let entries = answer.transaction.expect("a transaction").entries;
        let accounts: Vec<_> = entries.iter().map(|it| it.account_id.as_str()).collect();
        assert_eq!((accounts, answer.replayed), (vec!["till"], expected));
    }
    let outcome = request_outcome(&own, &request.request_id).await;
    assert_eq!(outcome.transaction.expect("a transaction").entries.len(), 1);
    // In whole microseconds, as it is kept.
    let effective_time = Some(timestamp(microseconds(&Some(from_now(seconds(3600))))));
    let dated = DepositRequest { effective_time, ..deposit("fees", "1") };
    for _ in 0..2 {
        let transaction = own.deposit(dated.clone()).await.expect("applied").transaction;
        let transaction = transaction.expect("a transaction");
        assert_eq!((transaction.entries, transaction.effective_time), (vec![], effective_time));
    }

    // Questions about the balance: a dry run, and a condition.
    let dry = DepositRequest { validate_only: true, ..deposit("fees", "1") };
    denied(own.deposit(dry).await, "account");
    let condition = Some(Condition { max_balance_after: money("2000"), ..Condition::default() });
    denied(own.deposit(DepositRequest { condition, ..deposit("fees", "1") }).await, "account");
    // Rejections without figures, when they are made and later.
    let too_much = withdrawal("safe", "1000.01");
    for _ in 0..2 {
        let answer = own.withdraw(too_much.clone()).await;
        let status = must_fail(answer, Reason::InsufficientFunds);
        assert_eq!(metadata(&status, "required"), "1000.01");
        for figure in ["available", "version"] {
            assert_eq!(metadata(&status, figure), "", "{status:?}");
        }
        assert!(!status.message().contains("1000.00"), "{}", status.message());
    }
    let outcome = request_outcome(&own, &too_much.request_id).await;
    let error = status_of(&outcome.error.expect("an error"));
    assert_eq!(metadata(&error, "available"), "");
    let hold_id = place(&all, hold("safe", "400")).await.hold_id;
    let exceeding = capture_part(&hold_id, "400.01");
    for _ in 0..2 {
        let answer = own.capture_hold(exceeding.clone()).await;
        let status = must_fail(answer, Reason::HoldAmountExceeded);
        assert_eq!(metadata(&status, "required"), "400.01");
        for figure in ["held", "account_id"] {
            assert_eq!(metadata(&status, figure), "", "{status:?}");
        }
        assert!(!status.message().contains("400.00"), "{}", status.message());
    }
    released(&all, release(&hold_id)).await;
    let in_euros = DepositRequest { amount: money_of("EUR", "1"), ..deposit("fees", "") };
    let status = must_fail(own.deposit(in_euros).await, Reason::CurrencyMismatch);
    assert_eq!(metadata(&status, "account_currency_code"), "", "{status:?}");
    assert!(!status.message().contains("USD"), "{}", status.message());
    let most = &"9".repeat(26);
    let status = must_fail(own.deposit(deposit("fees", most)).await, Reason::BalanceOutOfRange);
    assert_eq!(metadata(&status, "balance"), "", "{status:?}");
    // Those who may read see them.
    let answer = all.withdraw(too_much).await;
    let status = must_fail(answer, Reason::InsufficientFunds);
    assert_eq!(metadata(&status, "available"), "1000.00");
}

async fn the_error_of_a_reversal_has_no_amount_of_an_entry_that_its_caller_may_not_read(
    kind: Kind,
) {
    let database = TestDatabase::create(kind).await;
    let rules = [allow(&["safe"], &["debit"], "\"unlimited\"")];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    open(&all, "safe").await;
    let transaction_id = deposited(&all, "safe", "77.77").await.transaction_id;
    withdrawn(&all, "safe", "77.77").await;
    let request = reversal(&transaction_id);
    for (client, required) in [(&own, ""), (&all, "77.77")] {
        let answer = client.reverse_transaction(request.clone()).await;
        let status = must_fail(answer, Reason::InsufficientFunds);
        assert_eq!(metadata(&status, "required"), required, "{status:?}");
        assert_eq!(status.message().contains("77.77"), !required.is_empty(), "{status:?}");
    }
    let outcome = request_outcome(&own, &request.request_id).await;
    let error = status_of(&outcome.error.expect("an error"));
    assert_eq!(metadata(&error, "required"), "", "{error:?}");
}

async fn a_balance_is_not_found_out_by_requests_that_move_no_money(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rules = [
        allow(&["fees"], &["credit"], "\"unlimited\""),
        allow(&["safe"], &["debit"], "\"unlimited\""),
        allow(&["empty"], &["read", "debit"], "\"unlimited\""),
        allow(&["both"], &["credit", "debit"], "\"unlimited\""),
    ];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["fees", "safe", "both"]).await;
    open(&all, "empty").await;
    place(&all, hold("safe", "400")).await;

    // Each amount is one cent below and at the limit of money, from the balance of 1000.00 or the
    // 400.00 on hold.
    for amount in ["99999999999999999999998999.99", "99999999999999999999999000.00"] {
        let legs = [("fees", amount), ("empty", "-0.01")];
        let status =
            must_fail(own.post_transaction(posting(&legs)).await, Reason::InsufficientFunds);
        assert_eq!(metadata(&status, "account_id"), "empty");
    }
    for second in ["-1000.00", "-1000.01"] {
        let first = format!("-{LARGEST}");
        let legs = [("safe", first.as_str()), ("safe", second)];
        must_fail(own.post_transaction(posting(&legs)).await, Reason::InsufficientFunds);
    }
    for amount in ["99999999999999999999999599.99", "99999999999999999999999600.00"] {
        must_fail(own.place_hold(hold("safe", amount)).await, Reason::InsufficientFunds);
    }
    for amount in ["99999999999999999999998999.99", "99999999999999999999999000.00"] {
        let back = format!("-{amount}");
        let legs = [("both", amount), ("both", back.as_str())];
        denied(own.post_transaction(posting(&legs)).await, "account");
    }
    let condition = Some(Condition { min_balance_after: money("0"), ..Condition::default() });
    for amount in ["99999999999999999999998999.99", "99999999999999999999999000.00"] {
        let mut request = posting(&[("fees", amount), ("empty", "-0.01")]);
        request.legs[1].condition = condition.clone();
        must_fail(own.post_transaction(request).await, Reason::ConditionFailed);
    }
}

async fn results_of_earlier_requests_show_what_the_policy_allows_now(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rights = ["read", "credit", "debit"];
    let with = |accounts: &str| policy(&[allow(&[accounts], &rights, "\"unlimited\"")]);
    let (server, callers) = serve(&database, &[]).await;
    callers.set_policy(&with("a:*"));
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["a:1", "b:1"]).await;
    let may_read = async || own.get_account(account_named("a:1")).await.is_ok();
    eventually("the policy counts", may_read).await;
    let paid = deposit("a:1", "5");
    let applied = own.deposit(paid.clone()).await.expect("applied");
    let placed = hold("a:1", "5");
    own.place_hold(placed.clone()).await.expect("placed");
    let too_much = withdrawal("a:1", "7777");
    must_fail(own.withdraw(too_much.clone()).await, Reason::InsufficientFunds);

    callers.set_policy(&with("b:*"));
    eventually("the new policy counts", async || !may_read().await).await;

    denied(own.deposit(paid.clone()).await, "account");
    denied(own.place_hold(placed.clone()).await, "account");
    for request_id in [paid.request_id.clone(), placed.request_id, too_much.request_id] {
        let outcome = request_outcome(&own, &request_id).await;
        let fenced = own.fence_request(FenceRequestRequest { request_id }).await;
        assert_eq!(as_outcome(fenced.expect("an outcome")), outcome);
        assert_ne!(outcome.outcome(), RequestOutcome::NotSeen);
        assert_eq!(outcome.hold, None);
        assert_eq!(outcome.transaction.map_or(0, |it| it.entries.len()), 0);
        if let Some(error) = outcome.error {
            assert_eq!(metadata(&status_of(&error), "available"), "");
        }
    }
    denied(own.get_transaction(transaction_by_request_id(&paid.request_id)).await, "account");
    let transaction_id = applied.transaction.expect("a transaction").transaction_id;
    denied(own.get_transaction(transaction_by_id(&transaction_id)).await, "account");
}

async fn a_repeat_gets_its_result_although_the_hold_has_grown(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let rules = [allow(&["a:*"], &["read", "credit", "debit"], "{ USD = \"50\" }")];
    let (server, _callers) = serve(&database, &rules).await;
    let (own, all) = (server.client_of("own-token"), server.client_of("all-token"));
    fund(&all, &["a:1"]).await;
    let hold_id = place(&own, hold("a:1", "40")).await.hold_id;
    let later = UpdateHoldRequest {
        amount: None,
        expire_time: Some(from_now(seconds(3600))),
        update_mask: mask(&["expire_time"]),
        ..hold_update(&hold_id, "")
    };
    let rest = CaptureHoldRequest { amount: None, keep_open: true, ..capture(&hold_id) };
    let applied = updated(&own, later.clone()).await;
    // Rejected for good, too: it expires in the past.
    let past = UpdateHoldRequest {
        request_id: new_request_id(),
        expire_time: Some(timestamp(1_000_000)),
        ..later.clone()
    };
    must_fail(own.update_hold(past.clone()).await, Reason::ExpireTimePassed);
    updated(&all, hold_update(&hold_id, "500")).await;

    let repeated = own.update_hold(later.clone()).await.expect("its result");
    assert_eq!((repeated.hold, repeated.replayed), (Some(applied), true));
    must_fail(own.update_hold(past).await, Reason::ExpireTimePassed);
    // New requests go by what the hold is now.
    denied(own.capture_hold(rest).await, "amount");
    denied(own.release_hold(release(&hold_id)).await, "amount");
    let new = UpdateHoldRequest { request_id: new_request_id(), ..later.clone() };
    denied(own.update_hold(new).await, "amount");
    // And the id of a record does not open the way for another request.
    let other = ReleaseHoldRequest { request_id: later.request_id, ..release(&hold_id) };
    must_fail(own.release_hold(other).await, Reason::RequestIdReused);
    assert_eq!(get(&all, "a:1").await.held, money("500.00"));
}

async fn a_fence_needs_the_right_to_move_money_of_some_account(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let fence = || FenceRequestRequest { request_id: new_request_id() };
    let rules: [&[String]; 3] = [
        &[],
        &[allow(&["*"], &["read"], "")],
        &[deny(&["*"], &["credit", "debit"]), allow(&["a"], &["credit"], "\"unlimited\"")],
    ];
    for rules in rules {
        let (server, _callers) = serve(&database, rules).await;
        denied(server.client_of("own-token").fence_request(fence()).await, "account");
    }
    assert_eq!(database.count("requests").await, 0);
    let (server, _callers) = serve(&database, &[allow(&["a"], &["credit"], "{}")]).await;
    server.client_of("own-token").fence_request(fence()).await.expect("fenced");
}
