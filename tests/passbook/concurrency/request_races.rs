//! Mutually exclusive requests on several servers: one is applied, and the error of the other
//! agrees.

use crate::harness::{
    checker,
    race::{Arena, ROUNDS, Round, assert_contested, at_once, name, settle},
    *,
};

on_both_databases! {
    one_of_three_concurrent_reversals_succeeds,
    concurrent_reversals_of_parts_never_exceed_the_whole,
    either_a_deposit_or_the_closing_of_an_account_succeeds,
    a_freeze_and_a_withdrawal_agree_on_which_was_first,
    a_concurrently_fenced_request_is_applied_or_fenced_for_good,
    freezing_an_account_during_its_creation_is_in_its_history,
    each_account_of_two_batches_is_opened_by_one_of_them,
}

async fn accounts(arena: &Arena, what: &'static str) -> Vec<Account> {
    let read = |client, round| async move { get(&client, &name(what, round)).await };
    arena.each(read).await
}

async fn one_of_three_concurrent_reversals_succeeds(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    // Enough money for a second reversal.
    arena.fund("a", "20").await;
    let originals = arena.fund("a", "7").await;
    let ids: Vec<_> = originals.iter().map(|it| it.transaction_id.clone()).collect();

    let results = arena.race(|round| {
        let calls = [0, 1, 2].map(|_| Change::Reverse(reversal(&ids[round.number])));
        async move {
            let [one, other, last] = &round.clients;
            let both = at_once(settle(&calls[0], one), settle(&calls[1], other));
            let ((first, second), third) = at_once(both, settle(&calls[2], last)).await;
            [first, second, third]
        }
    });
    let results = results.await;

    let mut wins = [0; 3];
    let mut reversals = Vec::new();
    for (results, original) in results.iter().zip(&originals) {
        let made: Vec<_> = (0..3).filter(|call| results[*call].is_ok()).collect();
        assert_eq!(made.len(), 1, "{results:#?}");
        wins[made[0]] += 1;
        let made = results[made[0]].as_ref().expect("applied").transaction.clone();
        let made = made.expect("a transaction");
        assert_eq!(made.reverses_transaction_id, original.transaction_id);
        assert_eq!(value(&made.entries[0].amount), "-7.00");
        for status in results.iter().filter_map(|it| it.as_ref().err()) {
            assert_reason(status, Reason::AlreadyReversed);
            let reversed_by = metadata(status, "reversed_by_transaction_id");
            assert_eq!(reversed_by, made.transaction_id);
        }
        reversals.push(made.transaction_id);
    }
    let read = |client: Client, round: usize| {
        let request = transaction_by_id(&ids[round]);
        async move {
            let answer = client.get_transaction(request).await;
            answer.expect("it exists").transaction.expect("a transaction")
        }
    };
    for (seen, reversal) in arena.each(read).await.into_iter().zip(reversals) {
        assert_eq!(seen.reversed_by_transaction_id, reversal);
    }
    for account in accounts(&arena, "a").await {
        assert_eq!((value(&account.balance), account.version), ("20.00", 4));
    }
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "reversals", &wins);
}

async fn concurrent_reversals_of_parts_never_exceed_the_whole(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    // Enough money to reverse more than the whole.
    arena.fund("a", "20").await;
    let originals = arena.fund("a", "7").await;
    let ids: Vec<_> = originals.iter().map(|it| it.transaction_id.clone()).collect();

    let results = arena.race(|round| {
        // Two parts, and what is left.
        let calls = [money("3"), money("5"), None]
            .map(|amount| ReverseTransactionRequest { amount, ..reversal(&ids[round.number]) })
            .map(Change::Reverse);
        async move {
            let [one, other, last] = &round.clients;
            let both = at_once(settle(&calls[0], one), settle(&calls[1], other));
            let ((first, second), third) = at_once(both, settle(&calls[2], last)).await;
            [first, second, third]
        }
    });
    let results = results.await;

    let mut wins = [0; 3];
    for results in &results {
        let [small, large, rest] = results;
        match (small, large) {
            (Ok(_), Ok(_)) => panic!("more than the whole: {results:#?}"),
            (Ok(_), Err(_)) => wins[0] += 1,
            (Err(_), Ok(_)) => wins[1] += 1,
            (Err(_), Err(_)) => wins[2] += 1,
        }
        let made = rest.as_ref().expect("something is left").transaction();
        let left = match (small, large) {
            (Ok(_), _) => "-4.00",
            (_, Ok(_)) => "-2.00",
            _ => "-7.00",
        };
        assert_eq!(value(&made.entries[0].amount), left, "{results:#?}");
        for status in [small, large].into_iter().filter_map(|it| it.as_ref().err()) {
            let reason = reason(status);
            let reasons = ["ALREADY_REVERSED", "REVERSAL_AMOUNT_EXCEEDED"];
            assert!(reasons.contains(&reason.as_str()), "{status:?}");
        }
    }
    for account in accounts(&arena, "a").await {
        assert_eq!(value(&account.balance), "20.00");
    }
    checker::assert_consistent(&arena.database).await;
    arena.database.passbook(&["verify"]).await.must_succeed();
    assert_contested(kind, "reversals of parts", &wins);
}

async fn either_a_deposit_or_the_closing_of_an_account_succeeds(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;

    let outcomes = arena.race(|round| async move {
        let account_id = round.name("a");
        let deposit = Change::Deposit(deposit(&account_id, "7"));
        let [one, other, _] = &round.clients;
        at_once(close(one, &account_id), settle(&deposit, other)).await
    });
    let outcomes = outcomes.await;

    let mut wins = [0; 2];
    for (outcome, seen) in outcomes.iter().zip(accounts(&arena, "a").await) {
        match outcome {
            (Ok(closed), Err(status)) => {
                wins[0] += 1;
                assert_eq!(reason(status), "ACCOUNT_CLOSED", "{status:?}");
                assert_eq!((&seen, seen.state()), (closed, AccountState::Closed));
                assert_eq!((value(&seen.balance), seen.sequence, seen.version), ("0.00", 0, 2));
            }
            (Err(status), Ok(_)) => {
                wins[1] += 1;
                assert_eq!(reason(status), "ACCOUNT_NOT_EMPTY", "{status:?}");
                assert_eq!(metadata(status, "balance"), "7.00");
                assert_eq!(seen.state(), AccountState::Open);
                assert_eq!((value(&seen.balance), seen.sequence, seen.version), ("7.00", 1, 2));
            }
            both => panic!("{both:#?}"),
        }
    }
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "closings against deposits", &wins);
}

async fn a_freeze_and_a_withdrawal_agree_on_which_was_first(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;

    let outcomes = arena.race(|round| async move {
        let account_id = round.name("a");
        let withdrawal = Change::Withdraw(withdrawal(&account_id, "7"));
        let [one, other, _] = &round.clients;
        at_once(freeze(one, &account_id), settle(&withdrawal, other)).await
    });
    let outcomes = outcomes.await;

    let mut wins = [0; 2];
    for ((frozen, withdrawn), seen) in outcomes.iter().zip(accounts(&arena, "a").await) {
        // In either order the freeze is the last change of the account, so its answer is the final
        // state.
        assert_eq!((&seen, seen.state()), (frozen, AccountState::Frozen));
        match withdrawn {
            Err(status) => {
                wins[0] += 1;
                assert_eq!(reason(status), "ACCOUNT_FROZEN", "{status:?}");
                assert_eq!((value(&seen.balance), seen.sequence, seen.version), ("10.00", 1, 3));
            }
            Ok(made) => {
                wins[1] += 1;
                let entry = &made.transaction.as_ref().expect("a transaction").entries[0];
                assert_eq!((value(&entry.balance_after), entry.sequence), ("3.00", 2));
                assert_eq!((value(&seen.balance), seen.sequence, seen.version), ("3.00", 2, 4));
            }
        }
    }
    assert_eq!(arena.database.count("account_changes WHERE kind = 'frozen'").await, ROUNDS as i64);
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "freezes against withdrawals", &wins);
}

/// The answers to the two copies of a request, and to the fence.
type Fenced = (Change, [Result<Answer, Status>; 2], GetRequestOutcomeResponse);

async fn fence_against(round: &Round) -> Fenced {
    let account_id = round.name("a");
    let asked = match round.number % 3 {
        0 => Change::Withdraw(withdrawal(&account_id, "7")),
        1 => Change::PlaceHold(hold_named(&round.name("h"), &account_id, "7")),
        _ => Change::Transfer(transfer(&account_id, &round.name("b"), "7")),
    };
    let [one, other, last] = &round.clients;
    let copies = at_once(settle(&asked, one), settle(&asked, other));
    let ((first, second), fence) = at_once(copies, fence(last, asked.request_id())).await;
    (asked, [first, second], fence)
}

async fn a_concurrently_fenced_request_is_applied_or_fenced_for_good(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.accounts("b").await;
    arena.fund("a", "10").await;

    let outcomes = arena.race(|round| async move { fence_against(&round).await }).await;

    let asked: Vec<_> = outcomes.iter().map(|(asked, ..)| asked.clone()).collect();
    let again = |client: Client, round: usize| {
        let asked = asked[round].clone();
        async move {
            (settle(&asked, &client).await, request_outcome(&client, asked.request_id()).await)
        }
    };
    let mut wins = [0; 2];
    for ((_, copies, fence), (again, resolved)) in outcomes.iter().zip(arena.each(again).await) {
        assert_eq!(resolved, *fence, "the outcome is final");
        match fence.outcome() {
            RequestOutcome::Applied => {
                wins[0] += 1;
                let is_applied = |result: &Result<Answer, Status>, replayed| {
                    let expected = Answer {
                        transaction: fence.transaction.clone(),
                        hold: fence.hold.clone(),
                        replayed,
                    };
                    result.as_ref().expect("applied") == &expected
                };
                let is_first = [0, 1].map(|copy| is_applied(&copies[copy], false));
                let is_replayed = [0, 1].map(|copy| is_applied(&copies[copy], true));
                assert!(is_first[0] != is_first[1], "{copies:#?}");
                assert!(is_replayed[0] != is_replayed[1], "{copies:#?}");
                assert!(is_applied(&again, true), "{again:#?}");
            }
            RequestOutcome::NotSeen => {
                wins[1] += 1;
                assert!(fence.fenced);
                for result in copies.iter().chain([&again]) {
                    let status = result.as_ref().expect_err("it is fenced");
                    assert_reason(status, Reason::RequestFenced);
                }
            }
            other => panic!("{other:?}: {copies:#?}"),
        }
    }
    for (account, (_, _, fence)) in accounts(&arena, "a").await.iter().zip(&outcomes) {
        let left = if fence.outcome() == RequestOutcome::Applied { "3.00" } else { "10.00" };
        assert_eq!(value(&account.available), left);
    }
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "requests against fences", &wins);
}

/// On one server, so that both join one transaction.
async fn freezing_an_account_during_its_creation_is_in_its_history(kind: Kind) {
    let arena = Arena::open(kind).await;
    let client = arena.clients[0].clone();

    let freezes = arena.race(|round| {
        let (opening, freezing) = (client.clone(), client.clone());
        async move {
            let account_id = round.name("a");
            let freeze = set_state(&freezing, &account_id, AccountState::Frozen, "why", None);
            tokio::join!(open(&opening, &account_id), freeze).1
        }
    });
    let freezes = freezes.await;

    let frozen = (0..ROUNDS).filter(|round| freezes[*round].is_ok());
    let mut count = 0;
    for round in frozen {
        let account_id = name("a", round);
        let answer = client.list_account_changes(changes_of(&account_id)).await.expect("an answer");
        let kept: Vec<_> =
            answer.changes.iter().map(|it| (it.version, it.reason.as_str())).collect();
        assert_eq!(kept, [(2, "why")], "{}", name("a", round));
        count += 1;
    }
    println!("{kind:?}: {count} of {ROUNDS} accounts were frozen while they were opened");
    assert!(count >= ROUNDS / 20, "{count}: nothing was tried");
    checker::assert_consistent(&arena.database).await;
}

/// Opens these accounts, and repeats the batch while one of them gets ABORTED. Any other result is final.
async fn open_batch(client: &Client, requests: &[CreateAccountRequest]) -> Vec<Opened> {
    loop {
        let batch = BatchCreateAccountsRequest { requests: requests.to_vec() };
        let answer = client.batch_create_accounts(within(seconds(30), batch)).await;
        let opened: Vec<_> = answer.expect("results").results.into_iter().map(opened).collect();
        let is_aborted = |it: &Opened| it.as_ref().is_err_and(|it| it.code() == Code::Aborted);
        if !opened.iter().any(is_aborted) {
            return opened;
        }
    }
}

type Opened = Result<Account, Status>;

fn opened(result: CreateAccountResult) -> Opened {
    match result.result.expect("an account or an error") {
        create_account_result::Result::Account(account) => Ok(account),
        create_account_result::Result::Error(error) => Err(status_of(&error)),
    }
}

/// Both batches have the same ids with different attributes, in opposite order, on two servers.
async fn each_account_of_two_batches_is_opened_by_one_of_them(kind: Kind) {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let arena = Arena::open(kind).await;

    let results = arena.race(|round| async move {
        let left = NAMES.map(|what| CreateAccountRequest {
            labels: labels(&[("side", "left")]),
            ..account_of(&round.name(what), "USD")
        });
        let mut right = NAMES.map(|what| CreateAccountRequest {
            overdraft_limit: money_of("EUR", "5"),
            labels: labels(&[("side", "right"), ("limit", "5")]),
            ..account_of(&round.name(what), "EUR")
        });
        right.reverse();
        let [one, other, last] = &round.clients;
        let both = at_once(open_batch(one, &left), open_batch(other, &right)).await;
        let (left, mut right) = both;
        right.reverse();
        let mut seen = Vec::new();
        for what in NAMES {
            seen.push(get(last, &round.name(what)).await);
        }
        left.into_iter().zip(right).zip(seen).collect::<Vec<_>>()
    });
    let results = results.await;

    let mut wins = [0; 2];
    for round in &results {
        for (number, ((left, right), seen)) in round.iter().enumerate() {
            let (winner, account, status, currency, limit, own) = match (left, right) {
                (Ok(it), Err(status)) => (0, it, status, "USD", "0.00", &[("side", "left")][..]),
                (Err(status), Ok(it)) => {
                    (1, it, status, "EUR", "5.00", &[("side", "right"), ("limit", "5")][..])
                }
                both => panic!("{both:#?}"),
            };
            assert_reason(status, Reason::AccountExists);
            assert_eq!(account, seen);
            assert_eq!(seen.overdraft_limit, money_of(currency, limit));
            assert_eq!((seen.currency_code.as_str(), &seen.labels), (currency, &labels(own)));
            if number == 0 {
                wins[winner] += 1;
            }
        }
    }
    let expected = (NAMES.len() * ROUNDS) as i64;
    assert_eq!(arena.database.count("accounts").await, expected);
    assert_eq!(arena.database.count("accounts WHERE version = 1").await, expected);
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "batches of accounts", &wins);
}
