//! Concurrent servers place and end a hold once.

use crate::harness::{
    checker,
    race::{Arena, ROUNDS, Round, assert_contested, at_once, name, settle},
    *,
};

on_both_databases! {
    either_a_capture_or_a_release_of_a_hold_succeeds,
    parts_an_update_and_a_release_of_a_hold_follow_each_other,
    one_of_two_holds_with_the_same_id_is_placed,
    one_of_two_holds_gets_the_last_money,
    either_a_hold_or_a_withdrawal_gets_the_last_money,
}

/// The winner of two calls, and the error of the other.
enum Winner {
    Left(Box<Answer>, Status),
    Right(Box<Answer>, Status),
}

/// Sends both to two servers. Fails unless exactly one of them is applied.
async fn one_of(round: &Round, left: Change, right: Change) -> Winner {
    let [one, other, _] = &round.clients;
    match at_once(settle(&left, one), settle(&right, other)).await {
        (Ok(made), Err(status)) => Winner::Left(Box::new(made), status),
        (Err(status), Ok(made)) => Winner::Right(Box::new(made), status),
        both => panic!("round {}: {both:#?}", round.number),
    }
}

fn wins(winners: &[Winner]) -> [usize; 2] {
    let left = winners.iter().filter(|it| matches!(it, Winner::Left(..))).count();
    [left, winners.len() - left]
}

/// The hold of a round, as every server reports it.
async fn seen(arena: &Arena) -> Vec<Hold> {
    let read = |client: Client, round| async move { get_hold(&client, &name("h", round)).await };
    arena.each(read).await
}

async fn assert_standing(arena: &Arena, what: &str, expected: impl Fn(usize) -> [&'static str; 4]) {
    let read = |client: Client, round| {
        let account_id = name(what, round);
        async move { standing(&client, &account_id).await }
    };
    for (round, standing) in arena.each(read).await.into_iter().enumerate() {
        assert_eq!(standing, expected(round), "{what} of round {round}");
    }
}

#[track_caller]
fn assert_not_open(status: &Status, state: &str) {
    assert_reason(status, Reason::HoldNotOpen);
    assert_eq!(metadata(status, "state"), state, "{status:?}");
}

async fn either_a_capture_or_a_release_of_a_hold_succeeds(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;
    let placing = |client, round| async move {
        place(&client, hold_named(&name("h", round), &name("a", round), "7")).await
    };
    arena.each(placing).await;

    let winners = arena.race(|round| async move {
        let hold_id = round.name("h");
        let (capture, release) = (capture(&hold_id), release(&hold_id));
        one_of(&round, Change::CaptureHold(capture), Change::ReleaseHold(release)).await
    });
    let winners = winners.await;

    for (winner, seen) in winners.iter().zip(seen(&arena).await) {
        match winner {
            Winner::Left(made, status) => {
                assert_not_open(status, "captured");
                let transaction = made.transaction.as_ref().expect("a transaction");
                assert_eq!(value(&transaction.entries[0].amount), "-7.00");
                assert_eq!(seen.transaction_id, transaction.transaction_id);
                assert_eq!((seen.state(), Some(&seen)), (HoldState::Captured, made.hold.as_ref()));
            }
            Winner::Right(made, status) => {
                assert_not_open(status, "released");
                assert_eq!((seen.state(), Some(&seen)), (HoldState::Released, made.hold.as_ref()));
            }
        }
    }
    assert_standing(&arena, "a", |round| match winners[round] {
        Winner::Left(..) => ["3.00", "0.00", "3.00", "4"],
        Winner::Right(..) => ["10.00", "0.00", "10.00", "4"],
    })
    .await;
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "captures against releases", &wins(&winners));
}

/// Three servers: one takes a part of a hold of 7, one lets it shrink to 5, one releases it.
async fn parts_an_update_and_a_release_of_a_hold_follow_each_other(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;
    let placing = |client, round| async move {
        place(&client, hold_named(&name("h", round), &name("a", round), "7")).await
    };
    arena.each(placing).await;

    let results = arena.race(|round| async move {
        let hold_id = round.name("h");
        let part = Change::CaptureHold(capture_and_keep(&hold_id, "6"));
        let shrink = Change::UpdateHold(hold_update(&hold_id, "5"));
        let release = Change::ReleaseHold(release(&hold_id));
        let [one, other, last] = &round.clients;
        let both = at_once(settle(&part, one), settle(&shrink, other));
        let ((part, shrink), release) = at_once(both, settle(&release, last)).await;
        (part, shrink, release)
    });
    let results = results.await;

    let mut wins = [0; 3];
    let mut balances = Vec::new();
    for ((part, shrink, release), seen) in results.iter().zip(seen(&arena).await) {
        let of_part = part.as_ref().err().map(reason);
        let of_shrink = shrink.as_ref().err().map(reason);
        let (index, amount) = match (of_part.as_deref(), of_shrink.as_deref()) {
            (None, Some("HOLD_AMOUNT_TOO_LOW" | "HOLD_NOT_OPEN")) => (0, "7.00"),
            (Some("HOLD_AMOUNT_EXCEEDED" | "HOLD_NOT_OPEN"), None) => (1, "5.00"),
            (Some("HOLD_NOT_OPEN"), Some("HOLD_NOT_OPEN")) => (2, "7.00"),
            _ => panic!("{part:#?} {shrink:#?} {release:#?}"),
        };
        wins[index] += 1;
        balances.push(if index == 0 { "4.00" } else { "10.00" });
        let made = release.as_ref().expect("something is left").hold.as_ref();
        assert_eq!((seen.state(), Some(&seen)), (HoldState::Released, made));
        assert_eq!(value(&seen.amount), amount);
        assert_eq!(seen.captured_amount, if index == 0 { money("6.00") } else { None });
    }
    let read = |client: Client, round| async move { standing(&client, &name("a", round)).await };
    for (standing, balance) in arena.each(read).await.into_iter().zip(balances) {
        assert_eq!(standing[..3], [balance, "0.00", balance]);
    }
    checker::assert_consistent(&arena.database).await;
    arena.database.passbook(&["verify"]).await.must_succeed();
    assert_contested(kind, "parts, updates and releases of holds", &wins);
}

async fn one_of_two_holds_with_the_same_id_is_placed(kind: Kind) {
    let arena = Arena::open(kind).await;
    for what in ["a", "b"] {
        arena.accounts(what).await;
        arena.fund(what, "10").await;
    }

    let winners = arena.race(|round| async move {
        let on =
            |what: &str| Change::PlaceHold(hold_named(&round.name("h"), &round.name(what), "7"));
        one_of(&round, on("a"), on("b")).await
    });
    let winners = winners.await;

    for (round, (winner, seen)) in winners.iter().zip(seen(&arena).await).enumerate() {
        let (what, Winner::Left(made, status) | Winner::Right(made, status)) = match winner {
            Winner::Left(..) => ("a", winner),
            Winner::Right(..) => ("b", winner),
        };
        assert_reason(status, Reason::HoldExists);
        assert_eq!(metadata(status, "hold_id"), name("h", round));
        assert_eq!(seen.account_id, name(what, round));
        assert_eq!((seen.state(), Some(&seen)), (HoldState::Open, made.hold.as_ref()));
    }
    let (held, free) = (["10.00", "7.00", "3.00", "3"], ["10.00", "0.00", "10.00", "2"]);
    let is_left = |round: usize| matches!(winners[round], Winner::Left(..));
    assert_standing(&arena, "a", |round| if is_left(round) { held } else { free }).await;
    assert_standing(&arena, "b", |round| if is_left(round) { free } else { held }).await;
    assert_eq!(arena.database.count("holds").await, ROUNDS as i64);
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "holds of one id", &wins(&winners));
}

#[track_caller]
fn assert_insufficient(status: &Status, available: &str) {
    assert_eq!(reason(status), "INSUFFICIENT_FUNDS", "{status:?}");
    assert_eq!(metadata(status, "available"), available, "{status:?}");
    assert_eq!(metadata(status, "required"), "7.00", "{status:?}");
}

async fn one_of_two_holds_gets_the_last_money(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;

    let winners = arena.race(|round| async move {
        let of =
            |what: &str| Change::PlaceHold(hold_named(&round.name(what), &round.name("a"), "7"));
        one_of(&round, of("left"), of("right")).await
    });
    let winners = winners.await;

    for (round, winner) in winners.iter().enumerate() {
        let (what, Winner::Left(made, status) | Winner::Right(made, status)) = match winner {
            Winner::Left(..) => ("left", winner),
            Winner::Right(..) => ("right", winner),
        };
        assert_insufficient(status, "3.00");
        assert_eq!(made.hold.as_ref().expect("a hold").hold_id, name(what, round));
    }
    assert_standing(&arena, "a", |_| ["10.00", "7.00", "3.00", "3"]).await;
    assert_eq!(arena.database.count("holds WHERE state = 'open'").await, ROUNDS as i64);
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "two holds", &wins(&winners));
}

async fn either_a_hold_or_a_withdrawal_gets_the_last_money(kind: Kind) {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;

    let winners = arena.race(|round| async move {
        let account_id = round.name("a");
        let hold = Change::PlaceHold(hold_named(&round.name("h"), &account_id, "7"));
        one_of(&round, hold, Change::Withdraw(withdrawal(&account_id, "7"))).await
    });
    let winners = winners.await;

    for Winner::Left(_, status) | Winner::Right(_, status) in &winners {
        assert_insufficient(status, "3.00");
    }
    assert_standing(&arena, "a", |round| match winners[round] {
        Winner::Left(..) => ["10.00", "7.00", "3.00", "3"],
        Winner::Right(..) => ["3.00", "0.00", "3.00", "3"],
    })
    .await;
    let [placed, _] = wins(&winners);
    assert_eq!(arena.database.count("holds").await, placed as i64);
    checker::assert_consistent(&arena.database).await;
    assert_contested(kind, "holds against withdrawals", &wins(&winners));
}
