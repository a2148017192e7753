//! Concurrent servers spend the last money of an account: holds that grow and captures of more than is
//! held, forced and other withdrawals.

use crate::harness::{
    checker,
    race::{Arena, assert_contested, at_once, name, settle},
    *,
};

on_both_databases! {
    a_growing_hold_and_a_capture_of_more_than_is_held_share_the_last_money,
    a_forced_withdrawal_is_applied_and_leaves_nothing_to_others,
}

/// Balance, held and available of the account of each round.
async fn standings(arena: &Arena) -> Vec<[String; 3]> {
    let read = |client: Client, round| async move {
        let [balance, held, available, _] = standing(&client, &name("a", round)).await;
        [balance, held, available]
    };
    arena.each(read).await
}

/// Two holds of 2: one is to grow by 5, and 5 more are captured than the other one holds. The money that
/// is left suffices for one of them, in every fourth round for both.
async fn a_growing_hold_and_a_capture_of_more_than_is_held_share_the_last_money(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;
    let placing = |client, round| async move {
        let account_id = name("a", round);
        for hold in ["grown", "taken"] {
            place(&client, hold_named(&name(hold, round), &account_id, "2")).await;
        }
        if round % 4 == 0 {
            deposited(&client, &account_id, "4").await;
        }
    };
    arena.each(placing).await;

    let results = arena.race(|round| async move {
        let grow = Change::UpdateHold(hold_update(&round.name("grown"), "7"));
        let part = capture_part(&round.name("taken"), "7");
        let take = Change::CaptureHold(CaptureHoldRequest { allow_excess: true, ..part });
        let [one, other, last] = &round.clients;
        let account_id = round.name("a");
        let read = get(last, &account_id);
        let (results, seen) =
            at_once(at_once(settle(&grow, one), settle(&take, other)), read).await;
        assert!(!value(&seen.available).starts_with('-'), "below the limit: {seen:?}");
        results
    });
    let results = results.await;

    let mut wins = [0; 3];
    for (round, (results, standing)) in results.iter().zip(standings(&arena).await).enumerate() {
        let (winner, expected) = match results {
            (Ok(_), Err(status)) => {
                assert_reason(status, Reason::InsufficientFunds);
                (0, ["10.00", "9.00", "1.00"])
            }
            (Err(status), Ok(_)) => {
                assert_reason(status, Reason::InsufficientFunds);
                (1, ["3.00", "2.00", "1.00"])
            }
            (Ok(_), Ok(_)) => (2, ["7.00", "7.00", "0.00"]),
            (Err(_), Err(_)) => panic!("round {round}: {results:#?}"),
        };
        assert_eq!(winner == 2, round % 4 == 0, "round {round}: {results:#?}");
        assert_eq!(standing, expected, "round {round}");
        wins[winner] += 1;
    }
    checker::assert_consistent(&arena.database).await;
    arena.database.passbook(&["verify"]).await.must_succeed();
    assert_contested(kind, "growing holds, captures, and both", &wins);
}

/// Of two withdrawals of 7 from 10, one is applied if it comes before a forced one of 12, and none
/// afterwards.
async fn a_forced_withdrawal_is_applied_and_leaves_nothing_to_others(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;

    let results = arena.race(|round| async move {
        let account_id = round.name("a");
        let forced = WithdrawRequest { force: true, ..withdrawal(&account_id, "12") };
        let forced = Change::Withdraw(forced);
        let [first, second] = [0, 1].map(|_| Change::Withdraw(withdrawal(&account_id, "7")));
        let [one, other, last] = &round.clients;
        let both = at_once(settle(&first, one), settle(&second, other));
        let ((first, second), forced) = at_once(both, settle(&forced, last)).await;
        (forced.expect("a forced withdrawal is applied"), [first, second])
    });
    let results = results.await;

    let mut wins = [0; 3];
    for ((forced, others), standing) in results.iter().zip(standings(&arena).await) {
        let applied = others.iter().position(Result::is_ok);
        assert!(forced.transaction().forced);
        let sequence = |answer: &Answer| answer.transaction().entries[0].sequence;
        assert_eq!(sequence(forced), if applied.is_some() { 3 } else { 2 }, "the last one");
        for other in others {
            match other {
                Ok(other) => assert_eq!((other.transaction().forced, sequence(other)), (false, 2)),
                Err(status) => assert_reason(status, Reason::InsufficientFunds),
            }
        }
        let left = if applied.is_some() { "-9.00" } else { "-2.00" };
        assert_eq!(standing, [left, "0.00", left]);
        wins[applied.unwrap_or(2)] += 1;
    }
    checker::assert_consistent(&arena.database).await;
    arena.database.passbook(&["verify"]).await.must_succeed();
    assert_contested(kind, "withdrawals before a forced one", &wins);
}
