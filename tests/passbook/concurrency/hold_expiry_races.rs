//! A hold is captured at the moment of its expiry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::harness::{
    checker,
    race::{Arena, ROUNDS, Round, assert_contested, at_once, name, settle},
    *,
};

on_both_databases! {
    the_earlier_of_a_capture_and_an_expiry_wins,
    parts_are_captured_before_the_expiry_or_not_at_all,
    the_earlier_of_an_update_and_an_expiry_wins,
    concurrent_servers_record_the_expiry_of_a_hold_once,
}

/// How long before the expiry the capture is sent, in microseconds. It shrinks by a part after each
/// capture in time and grows by the same part after each late one, so that half of them are in time,
/// however long a call takes on this machine.
struct Lead(AtomicI64);

impl Lead {
    const PART: i64 = 16;
    const MIN_US: i64 = 300;
    const MAX_US: i64 = 1_000_000;

    /// How long a hold lives that is captured with this lead. The more slowly calls are answered, the
    /// longer it takes to learn that the hold was placed, too.
    fn lifetime(&self) -> Duration {
        ms(300) + 3 * Duration::from_micros(self.0.load(Ordering::Relaxed) as u64)
    }

    async fn wait_for(&self, expire_time_us: i64) {
        let at_us = expire_time_us - self.0.load(Ordering::Relaxed) - fastrand::i64(0..2_000);
        wait_until(at_us).await;
    }

    fn learn(&self, is_captured: bool) {
        let lead_us = self.0.load(Ordering::Relaxed);
        let step_us = lead_us / Self::PART;
        let lead_us = if is_captured { lead_us - step_us } else { lead_us + step_us };
        self.0.store(lead_us.clamp(Self::MIN_US, Self::MAX_US), Ordering::Relaxed);
    }
}

/// Waits until this time, in microseconds since the Unix epoch.
async fn wait_until(time_us: i64) {
    let now_us = microseconds(&Some(from_now(ms(0))));
    tokio::time::sleep(Duration::from_micros((time_us - now_us).max(0) as u64)).await;
}

/// An arena with an account of 10.00 for each round.
async fn funded_arena(kind: Kind) -> Arena {
    let arena = Arena::open(kind).await;
    arena.accounts("a").await;
    arena.fund("a", "10").await;
    arena
}

/// The hold and the account of each round.
async fn holds_and_accounts(arena: &Arena) -> Vec<(Hold, [String; 4])> {
    let read = |client, round| async move {
        let hold = get_hold(&client, &name("h", round)).await;
        (hold, standing(&client, &name("a", round)).await)
    };
    arena.each(read).await
}

type Captured = Result<(Transaction, Hold), Status>;

/// Three servers withdraw everything at once, which needs the hold's money.
async fn three_withdrawals(round: &Round, amounts: [&str; 3]) {
    let mut calls = JoinSet::new();
    for (client, amount) in round.clients.clone().into_iter().zip(amounts) {
        let withdrawal = Change::Withdraw(withdrawal(&round.name("a"), amount));
        calls.spawn(async move { settle(&withdrawal, &client).await });
    }
    for made in calls.join_all().await {
        made.unwrap_or_else(|status| panic!("round {}: {status:?}", round.number));
    }
}

async fn capture_in_time(round: &Round, lead: &Lead) -> (i64, Captured) {
    let [placing, capturing, _] = &round.clients;
    let hold = hold_named(&round.name("h"), &round.name("a"), "7");
    let hold = place_for(placing, hold, lead.lifetime()).await;
    let expire_time_us = microseconds(&hold.expire_time);
    lead.wait_for(expire_time_us).await;
    let call = Change::CaptureHold(capture(&hold.hold_id));
    let observer = &round.clients[2];
    let observe = async {
        wait_until(expire_time_us).await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            let account = get(observer, &hold.account_id).await;
            seen.push((get_hold(observer, &hold.hold_id).await.state(), account.version));
        }
        seen
    };
    let (captured, seen) = tokio::join!(settle(&call, capturing), observe);
    let is_expired = seen.iter().any(|(state, _)| *state == HoldState::Expired);
    assert!(captured.is_err() || !is_expired, "captured, and was seen expired: {seen:?}");
    lead.learn(captured.is_ok());
    let captured =
        captured.map(|made| (made.transaction.expect("a transaction"), made.hold.expect("a hold")));
    (expire_time_us, captured)
}

async fn the_earlier_of_a_capture_and_an_expiry_wins(kind: Kind) {
    let arena = funded_arena(kind).await;
    let lead = Arc::new(Lead(AtomicI64::new(10_000)));

    let outcomes = arena.race(|round| {
        let lead = lead.clone();
        async move {
            let (expire_time_us, captured) = capture_in_time(&round, &lead).await;
            three_withdrawals(&round, if captured.is_ok() { ["1"; 3] } else { ["4", "3", "3"] })
                .await;
            (expire_time_us, captured)
        }
    });
    let outcomes = outcomes.await;

    for ((expire_time_us, captured), (seen, standing)) in
        outcomes.iter().zip(holds_and_accounts(&arena).await)
    {
        match captured {
            Ok((transaction, hold)) => {
                let time_us = microseconds(&transaction.create_time);
                assert!(time_us < *expire_time_us, "made {time_us}, expired {expire_time_us}");
                assert_eq!((seen.state(), &seen), (HoldState::Captured, hold));
                assert!(microseconds(&seen.update_time) < *expire_time_us);
            }
            Err(status) => {
                assert_eq!(reason(status), "HOLD_NOT_OPEN", "{status:?}");
                assert_eq!(metadata(status, "state"), "expired");
                assert_eq!(seen.state(), HoldState::Expired);
                assert_eq!(microseconds(&seen.update_time), *expire_time_us);
                assert!(seen.transaction_id.is_empty());
            }
        }
        // Created, funded, held, expired, and three withdrawals.
        assert_eq!(standing, ["0.00", "0.00", "0.00", "7"], "{captured:?}");
    }
    assert_eq!(arena.database.count("holds WHERE state = 'open'").await, 0, "all are recorded");
    checker::assert_consistent(&arena.database).await;
    let captures = outcomes.iter().filter(|(_, captured)| captured.is_ok()).count();
    let wins = [captures, outcomes.len() - captures];
    assert_contested(kind, "captures against expiries", &wins);
}

/// What came of two parts of a hold that were sent near its expiry.
struct Parts {
    expire_time_us: i64,
    captured: [Result<Answer, Status>; 2],
}

impl Parts {
    const AMOUNTS: [&str; 2] = ["2.00", "3.00"];

    /// All that was captured, and the withdrawals that empty an account with 10.00 then.
    fn taken(&self) -> (Option<Money>, [&'static str; 3]) {
        match self.captured.each_ref().map(Result::is_ok) {
            [true, true] => (money("5.00"), ["2", "2", "1"]),
            [true, false] => (money("2.00"), ["4", "3", "1"]),
            [false, true] => (money("3.00"), ["3", "3", "1"]),
            [false, false] => (None, ["4", "3", "3"]),
        }
    }
}

/// Two servers take parts of a hold of 7.00 and keep the rest held, and its time passes.
async fn take_parts_in_time(round: &Round, lead: &Lead) -> Parts {
    let [placing, one, other] = &round.clients;
    let hold = hold_named(&round.name("h"), &round.name("a"), "7");
    let hold = place_for(placing, hold, lead.lifetime()).await;
    let expire_time_us = microseconds(&hold.expire_time);
    lead.wait_for(expire_time_us).await;
    let part = |amount| Change::CaptureHold(capture_and_keep(&hold.hold_id, amount));
    let [first, second] = Parts::AMOUNTS.map(part);
    let observe = async {
        wait_until(expire_time_us).await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(get_hold(placing, &hold.hold_id).await);
        }
        seen
    };
    let captures = at_once(settle(&first, one), settle(&second, other));
    let ((first, second), seen) = tokio::join!(captures, observe);
    let parts = Parts { expire_time_us, captured: [first, second] };
    lead.learn(parts.captured.iter().any(Result::is_ok));
    let (taken, _) = parts.taken();
    for hold in seen {
        assert_eq!(hold.state(), HoldState::Expired, "{hold:?}");
        assert_eq!(hold.captured_amount, taken, "seen expired, and a part was captured later");
    }
    parts
}

async fn parts_are_captured_before_the_expiry_or_not_at_all(kind: Kind) {
    let arena = funded_arena(kind).await;
    let lead = Arc::new(Lead(AtomicI64::new(10_000)));

    let outcomes = arena.race(|round| {
        let lead = lead.clone();
        async move {
            let parts = take_parts_in_time(&round, &lead).await;
            three_withdrawals(&round, parts.taken().1).await;
            parts
        }
    });
    let outcomes = outcomes.await;

    for (parts, (seen, standing)) in outcomes.iter().zip(holds_and_accounts(&arena).await) {
        let mut transactions = Vec::new();
        for made in &parts.captured {
            match made {
                Ok(made) => {
                    let transaction = made.transaction.as_ref().expect("a transaction");
                    assert!(microseconds(&transaction.create_time) < parts.expire_time_us);
                    transactions.push(transaction.transaction_id.clone());
                }
                Err(status) => {
                    assert_eq!(reason(status), "HOLD_NOT_OPEN", "{status:?}");
                    assert_eq!(metadata(status, "state"), "expired");
                }
            }
        }
        assert_eq!(seen.state(), HoldState::Expired);
        assert_eq!(microseconds(&seen.update_time), parts.expire_time_us);
        assert_eq!((value(&seen.amount), &seen.captured_amount), ("7.00", &parts.taken().0));
        assert_eq!(transactions.is_empty(), seen.transaction_id.is_empty());
        assert!(transactions.is_empty() || transactions.contains(&seen.transaction_id));
        // Created, funded, held, expired, three withdrawals, and the parts.
        let version = (7 + transactions.len()).to_string();
        assert_eq!(standing, ["0.00", "0.00", "0.00", &version]);
    }
    assert_eq!(arena.database.count("holds WHERE state = 'open'").await, 0, "all are recorded");
    checker::assert_consistent(&arena.database).await;
    arena.database.passbook(&["verify"]).await.must_succeed();
    let none = outcomes.iter().filter(|it| it.taken().0.is_none()).count();
    assert_contested(kind, "parts against expiries", &[outcomes.len() - none, none]);
}

async fn the_earlier_of_an_update_and_an_expiry_wins(kind: Kind) {
    let arena = funded_arena(kind).await;
    let lead = Arc::new(Lead(AtomicI64::new(10_000)));

    let extended = arena.race(|round| {
        let lead = lead.clone();
        async move { extend_in_time(&round, &lead).await }
    });
    let wins = extended.await.into_iter().filter(|is_extended| *is_extended).count();

    checker::assert_consistent(&arena.database).await;
    arena.database.passbook(&["verify"]).await.must_succeed();
    assert_contested(kind, "updates against expiries", &[wins, ROUNDS - wins]);
}

/// Returns whether the update was in time.
async fn extend_in_time(round: &Round, lead: &Lead) -> bool {
    let [placing, updating, observer] = &round.clients;
    let account_id = round.name("a");
    let hold =
        place_for(placing, hold_named(&round.name("h"), &account_id, "7"), lead.lifetime()).await;
    let expire_time_us = microseconds(&hold.expire_time);
    lead.wait_for(expire_time_us).await;
    let later = Some(timestamp(expire_time_us + 3_600_000_000));
    let update = UpdateHoldRequest {
        request_id: new_request_id(),
        hold_id: hold.hold_id.clone(),
        expire_time: later,
        ..Default::default()
    };
    let update = Change::UpdateHold(update);
    let observe = async {
        let mut seen = Vec::new();
        loop {
            let is_last = microseconds(&Some(from_now(ms(0)))) > expire_time_us + 20_000;
            seen.push(get_hold(observer, &hold.hold_id).await);
            if is_last {
                return seen;
            }
        }
    };
    let (updated, seen) = tokio::join!(settle(&update, updating), observe);
    lead.learn(updated.is_ok());
    let last = seen.last().expect("it was read");
    match &updated {
        Ok(answer) => {
            assert!(seen.iter().all(|hold| hold.state() == HoldState::Open), "{seen:#?}");
            assert_eq!((last.expire_time, answer.hold.as_ref()), (later, Some(last)));
            assert_eq!(standing(observer, &account_id).await[..3], ["10.00", "7.00", "3.00"]);
        }
        Err(status) => {
            assert_eq!(reason(status), "HOLD_NOT_OPEN", "{status:?}");
            assert_eq!((last.state(), last.expire_time), (HoldState::Expired, hold.expire_time));
            assert_eq!(standing(observer, &account_id).await[..3], ["10.00", "0.00", "10.00"]);
        }
    }
    updated.is_ok()
}

async fn concurrent_servers_record_the_expiry_of_a_hold_once(kind: Kind) {
    let arena = funded_arena(kind).await;
    // All holds are placed first, so that they have expired when the first server meets one.
    arena
        .each(|client, round| async move {
            place_briefly(&client, hold_named(&name("h", round), &name("a", round), "7")).await
        })
        .await;
    let last = "SELECT CAST(max(expire_time_us) AS TEXT) FROM holds";
    let last: i64 = arena.database.text(last).await.parse().expect("a time");
    eventually("all holds expire", async || microseconds(&Some(from_now(ms(0)))) > last).await;

    let states = arena.race(|round| async move {
        // No read before the race, which would record the expiry.
        let account_id = round.name("a");
        let read = standing(&round.clients[0], &account_id);
        let ((), during) = tokio::join!(three_withdrawals(&round, ["4", "3", "3"]), read);
        let hold = get_hold(&round.clients[1], &round.name("h")).await;
        (during, hold.state(), standing(&round.clients[2], &account_id).await)
    });

    for (during, state, after) in states.await {
        assert_eq!(during[1], "0.00", "expired holds are not counted as held");
        assert_eq!(
            (state, after),
            (HoldState::Expired, ["0.00", "0.00", "0.00", "7"].map(String::from))
        );
    }
    let wrong = "holds WHERE state <> 'expired' OR update_time_us <> expire_time_us";
    assert_eq!(arena.database.count(wrong).await, 0);
    checker::assert_consistent(&arena.database).await;
}
