//! The fold, without a database.

use std::{collections::BTreeSet, sync::Arc};

use uuid::Uuid;

use crate::domain::{
    account::{Account, AccountState, NewAccount},
    command::{Action, Command, Leg, Request},
    fixtures::{NOW, account, account_in, legs, new_account, posting, usd},
    ids::{ID_TIME_DISTANCE_MAX_US, RequestId, is_same_attempt, transaction_id_at},
    money::Currencies,
    rejection::Rejection,
    transaction::{Entry, Transaction},
    unit_of_work::{CommandResult, Effects, LockedState, UnitOfWork},
};

pub fn work(accounts: Vec<Account>) -> UnitOfWork {
    UnitOfWork::new(LockedState { accounts, now_us: NOW, ..LockedState::default() })
}

fn legs_of(request: &mut Request) -> &mut Vec<Leg> {
    let Action::Post(_, legs) = &mut request.action else { panic!("not a posting") };
    legs
}

pub fn make(work: &mut UnitOfWork, request: Request) -> Result<(Effects, bool), Rejection> {
    match work.apply(&Command::Request(Arc::new(request)))? {
        CommandResult::Request(it) => Ok((it.effects, it.replayed)),
        CommandResult::Account { .. } | CommandResult::Record(_) => {
            panic!("answered as something else")
        }
    }
}

fn apply(work: &mut UnitOfWork, request: Request) -> Result<(Arc<Transaction>, bool), Rejection> {
    let (made, replayed) = make(work, request)?;
    Ok((made.transaction.unwrap(), replayed))
}

#[test]
fn commands_see_what_the_commands_before_them_left() {
    let mut work = work(vec![account("a", "100.00"), account("b", "0.00")]);
    let (first, _) = apply(&mut work, posting("1", &[("a", "-30.00"), ("b", "30.00")])).unwrap();
    let (second, _) = apply(&mut work, posting("2", &[("b", "-10.00"), ("a", "10.00")])).unwrap();
    let balances = |made: &Transaction| -> Vec<String> {
        made.entries.iter().map(|entry| entry.balance_after.to_string()).collect()
    };
    assert_eq!(balances(&first), ["70.00", "30.00"]);
    assert_eq!(balances(&second), ["20.00", "80.00"]);
    let versions: Vec<_> = work.changed().map(|it| (it.sequence, it.version)).collect();
    assert_eq!(versions, [(2, 3), (2, 3)]);
    // Each entry is chained to the one before it on the same account.
    assert_eq!(second.entries[1].hash, second.entries[1].chained_hash(&first.entries[0].hash));
    assert_eq!(first.entries[0].hash, first.entries[0].chained_hash(&[0; 32]));
}

#[test]
fn a_rejection_changes_nothing_and_is_recorded() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    let too_much = posting("1", &[("a", "-10.01"), ("b", "10.01")]);
    let rejection = apply(&mut work, too_much.clone()).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
    assert_eq!(work.changed().count(), 0);
    apply(&mut work, posting("2", &[("a", "5.00")])).unwrap();
    assert_eq!(apply(&mut work, too_much).unwrap_err(), rejection, "a no never turns into a yes");
    assert_eq!(work.new_records().len(), 2);
}

#[test]
fn one_request_id_has_one_effect_within_a_batch() {
    let mut work = work(vec![account("a", "0.00")]);
    let (first, replayed) = apply(&mut work, posting("1", &[("a", "1.00")])).unwrap();
    assert!(!replayed);
    let (again, replayed) = apply(&mut work, posting("1", &[("a", "1.00")])).unwrap();
    assert!(replayed);
    assert_eq!(first, again);
    let other = apply(&mut work, posting("1", &[("a", "2.00")])).unwrap_err();
    assert!(matches!(other, Rejection::RequestIdReused { .. }));
    assert_eq!(work.new_records().len(), 1);
}

#[test]
fn a_second_attempt_at_the_same_request_is_no_replay() {
    let mut work = work(vec![account("a", "0.00")]);
    let request = posting("1", &[("a", "1.00")]);
    apply(&mut work, request.clone()).unwrap();
    let (_, replayed) = apply(&mut work, request).unwrap();
    assert!(!replayed, "its transaction_id is that of the very same request");
}

#[test]
fn a_dry_run_is_judged_alike_and_leaves_nothing() {
    let mut work = work(vec![account("a", "5.00")]);
    let dry = |amount| Request { validate_only: true, ..posting("1", &[("a", amount)]) };
    let (preview, _) = apply(&mut work, dry("-5.00")).unwrap();
    assert_eq!(preview.transaction_id, None);
    assert_eq!(preview.entries[0].balance_after.to_string(), "0.00");
    assert!(matches!(apply(&mut work, dry("-5.01")), Err(Rejection::InsufficientFunds { .. })));
    assert_eq!((work.changed().count(), work.new_records().len()), (0, 0));
}

#[test]
fn money_comes_in_even_where_the_account_is_below_its_limit() {
    let mut work = work(vec![account("a", "-50.00")]);
    let (made, _) = apply(&mut work, posting("1", &[("a", "20.00")])).unwrap();
    assert_eq!(made.entries[0].balance_after.to_string(), "-30.00");
}

#[test]
fn an_overdraft_is_used_to_its_limit_and_held_money_is_not() {
    let mut limited = account("a", "10.00");
    limited.overdraft_limit = usd().parse("5.00").unwrap();
    limited.held = usd().parse("3.00").unwrap();
    let mut unlimited = account("b", "0.00");
    unlimited.unlimited_overdraft = true;
    let mut work = work(vec![limited, unlimited]);
    let rejection = apply(&mut work, posting("1", &[("a", "-12.01")])).unwrap_err();
    let Rejection::InsufficientFunds { available, required, .. } = rejection else { panic!() };
    let (available, required) = (available.unwrap(), required.unwrap());
    assert_eq!((available.to_string(), required.to_string()), ("12.00".into(), "12.01".into()));
    apply(&mut work, posting("2", &[("a", "-12.00")])).unwrap();
    apply(&mut work, posting("3", &[("b", "-1000000.00")])).unwrap();
}

#[test]
fn several_legs_on_one_account_are_judged_by_where_they_end() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    let legs = [("a", "-25.00"), ("b", "5.00"), ("a", "20.00")];
    let (made, _) = apply(&mut work, posting("1", &legs)).unwrap();
    let entries: Vec<_> =
        made.entries.iter().map(|it| (it.sequence, it.balance_after.to_string())).collect();
    assert_eq!(entries, [(1, "-15.00".into()), (1, "5.00".into()), (2, "5.00".into())]);
    assert_eq!(made.entries[2].hash, made.entries[2].chained_hash(&made.entries[0].hash));
    let versions: Vec<_> = work.changed().map(|it| (it.sequence, it.version)).collect();
    assert_eq!(versions, [(2, 2), (1, 2)], "to each account it is one change");

    let rejection = apply(&mut work, posting("2", &[("a", "-4.00"), ("a", "-2.00")])).unwrap_err();
    let Rejection::InsufficientFunds { available, required, .. } = rejection else { panic!() };
    let (available, required) = (available.unwrap(), required.unwrap());
    assert_eq!((available.to_string(), required.to_string()), ("5.00".into(), "6.00".into()));
}

#[test]
fn legs_in_several_currencies_are_made_together_or_not_at_all() {
    let mut euros = account("euros", "0.00");
    euros.currency = Currencies::default().get("EUR").unwrap();
    let mut work = work(vec![account("dollars", "10.00"), euros.clone()]);
    let mut exchange = posting("1", &[("dollars", "-10.00"), ("euros", "9.00")]);
    legs_of(&mut exchange)[1].currency = euros.currency;
    apply(&mut work, exchange.clone()).unwrap();
    exchange.key.request_id = RequestId::parse("2").unwrap();
    assert!(matches!(apply(&mut work, exchange), Err(Rejection::InsufficientFunds { .. })));
    assert_eq!(work.changed().map(|it| it.sequence).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_clock_that_was_set_back_puts_no_entry_before_an_earlier_one() {
    let mut ahead = account("a", "0.00");
    ahead.update_time_us = NOW + 1_000_000;
    let mut work = work(vec![ahead]);
    let (made, _) = apply(&mut work, posting("1", &[("a", "1.00")])).unwrap();
    assert_eq!(made.create_time_us, NOW + 1_000_000);
}

/// Two things wrong at a time: the one earlier in this list is reported.
#[test]
fn rejections_come_in_one_fixed_order() {
    let closed = account_in(AccountState::Closed, "closed");
    let frozen = account_in(AccountState::Frozen, "frozen");
    let mut euros = account("euros", "0.00");
    euros.currency = Currencies::default().get("EUR").unwrap();
    let full = account("full", &format!("{}.00", "9".repeat(26)));
    let (empty, conditional) = (account("empty", "0.00"), account("conditional", "0.00"));
    let accounts = vec![closed, frozen, euros, full, empty, conditional];
    let wrong = |request: &mut Request, index: usize| {
        let account_id =
            ["missing", "closed", "frozen", "euros", "conditional", "empty", "full"][index];
        let amount = if account_id == "full" { "1.00" } else { "-1.00" };
        let mut leg = legs(&[(account_id, amount)]);
        leg[0].condition.expected_version = (index == 4).then_some(7);
        legs_of(request).extend(leg);
    };
    let name = |rejection: &Rejection| match rejection {
        Rejection::AccountNotFound { .. } => 0,
        Rejection::AccountClosed { .. } => 1,
        Rejection::AccountFrozen { .. } => 2,
        Rejection::CurrencyMismatch { .. } => 3,
        Rejection::BalanceOutOfRange { .. } => 6,
        Rejection::ConditionFailed { .. } => 4,
        Rejection::InsufficientFunds { .. } => 5,
        other => panic!("not expected here: {other}"),
    };
    for first in 0..7 {
        for second in first..7 {
            for order in [[first, second], [second, first]] {
                let mut request = posting("1", &[]);
                order.iter().for_each(|index| wrong(&mut request, *index));
                let rejection = apply(&mut work(accounts.clone()), request).unwrap_err();
                assert_eq!(name(&rejection), first, "{order:?}: {rejection}");
            }
        }
    }
}

#[test]
fn an_account_is_opened_once() {
    let mut work = work(vec![]);
    let open =
        |work: &mut UnitOfWork, new: &NewAccount| work.apply(&Command::CreateAccount(new.clone()));
    let first = new_account("a");
    assert!(open(&mut work, &first).is_ok());
    apply(&mut work, posting("1", &[("a", "1.00")])).unwrap();
    let Ok(CommandResult::Account { account: again, .. }) = open(&mut work, &first) else {
        panic!()
    };
    assert_eq!(again.balance.to_string(), "1.00");
    let other = NewAccount { unlimited_overdraft: true, ..first };
    assert!(matches!(open(&mut work, &other), Err(Rejection::AccountExists { .. })));
    let created: Vec<_> = work.created().map(|it| (it.sequence, it.version)).collect();
    assert_eq!((created, work.changed().count()), (vec![(1, 2)], 0));
}

#[test]
fn the_hash_is_the_one_that_is_written_down() {
    let mut work = work(vec![account("alice", "0.00")]);
    let (made, _) = apply(&mut work, posting("1", &[("alice", "100.50")])).unwrap();
    let entry = &made.entries[0];
    let text = format!(
        "passbook.entry.v1\n{}\nalice\n1\n{}\nUSD\n100.5\n100.5\n{NOW}\n",
        "0".repeat(64),
        entry.transaction_id
    );
    let expected: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        text.as_bytes(),
    ))
    .into();
    assert_eq!(entry.hash, expected);
}

#[test]
fn only_an_effective_time_of_its_own_is_in_the_hash_of_an_entry() {
    let mut work = work(vec![account("alice", "0.00")]);
    let at = |id: &str, time_us| Request {
        effective_time_us: Some(time_us),
        ..posting(id, &[("alice", "100.50")])
    };
    let (made, _) = apply(&mut work, at("1", NOW)).unwrap();
    assert_eq!(made.entries[0].effective_time_us, None, "it is the time of the transaction");
    let (made, _) = apply(&mut work, at("2", NOW - 1)).unwrap();
    let (entry, previous) = (&made.entries[0], work.accounts().next().unwrap());
    assert_eq!((entry.effective_time_us, previous.last_hash), (Some(NOW - 1), entry.hash));
    let without = Entry { effective_time_us: None, ..entry.clone() };
    let later = Entry { effective_time_us: Some(NOW - 2), ..entry.clone() };
    let previous = [7; 32];
    let hashes = [entry, &without, &later].map(|entry| entry.chained_hash(&previous));
    assert_eq!(BTreeSet::from(hashes).len(), 3);
    let text = format!(
        "passbook.entry.v2\n{}\nalice\n2\n{}\nUSD\n100.5\n201\n{NOW}\n{}\n",
        "07".repeat(32),
        entry.transaction_id,
        NOW - 1
    );
    let expected: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(text).into();
    assert_eq!(hashes[0], expected);
}

#[test]
fn an_effective_time_is_a_part_of_the_request() {
    let plain = posting("1", &[("a", "1.00")]);
    let dated = Request { effective_time_us: Some(NOW), ..plain.clone() };
    let other = Request { effective_time_us: Some(NOW + 1), ..plain.clone() };
    let fingerprints = [&plain, &dated, &other].map(Request::fingerprint);
    assert_eq!(BTreeSet::from(fingerprints).len(), 3);
}

const DAY: i64 = 86_400_000_000;

#[test]
fn an_effective_time_has_bounds_and_is_the_last_rule() {
    let (earliest, latest) = (NOW - 3660 * DAY, NOW + 366 * DAY);
    let cases = [
        (earliest - 1, false),
        (earliest, true),
        (latest, true),
        (latest + 1, false),
        (i64::MIN, false),
        (i64::MAX, false),
    ];
    for (time_us, is_allowed) in cases {
        let mut work = work(vec![account("a", "0.00")]);
        let request = |legs| Request { effective_time_us: Some(time_us), ..posting("1", legs) };
        let made = apply(&mut work, request(&[("a", "1.00")]));
        assert_eq!(made.is_ok(), is_allowed, "{time_us}: {made:?}");
        if is_allowed {
            continue;
        }
        let rejection = made.unwrap_err();
        let (earliest_us, latest_us) = (earliest, latest);
        let effective_time_us = time_us;
        let expected =
            Rejection::EffectiveTimeOutOfRange { effective_time_us, earliest_us, latest_us };
        assert_eq!(rejection, expected);
        let poor = Request { effective_time_us: Some(time_us), ..posting("2", &[("a", "-1.00")]) };
        let rejection = apply(&mut work, poor).unwrap_err();
        assert!(matches!(rejection, Rejection::InsufficientFunds { .. }), "{rejection}");
    }
}

#[test]
fn the_bounds_of_an_effective_time_are_counted_from_the_time_of_the_transaction() {
    // The clock was set back by a second.
    let mut ahead = account("a", "0.00");
    ahead.update_time_us = NOW + 1_000_000;
    let mut work = work(vec![ahead]);
    let at =
        |id, time_us| Request { effective_time_us: Some(time_us), ..posting(id, &[("a", "1.00")]) };
    let (made, _) = apply(&mut work, at("1", NOW + 1_000_000)).unwrap();
    assert_eq!(made.entries[0].effective_time_us, None, "it is the time of the transaction");
    apply(&mut work, at("2", NOW + 1_000_000 + 366 * DAY)).unwrap();
    let rejection = apply(&mut work, at("3", NOW - 3660 * DAY)).unwrap_err();
    assert!(matches!(rejection, Rejection::EffectiveTimeOutOfRange { .. }), "{rejection}");
}

#[test]
fn a_repeat_has_the_first_result_also_where_the_bounds_have_moved_since() {
    let request =
        |id, time_us| Request { effective_time_us: Some(time_us), ..posting(id, &[("a", "1.00")]) };
    let (in_time, too_early) = (request("1", NOW - 3660 * DAY), request("2", NOW + 366 * DAY + 1));
    let mut first = work(vec![account("a", "0.00")]);
    let (made, _) = apply(&mut first, in_time.clone()).unwrap();
    let rejection = apply(&mut first, too_early.clone()).unwrap_err();
    let records = first.new_records().iter().map(|it| (it.request.key.clone(), it.record.clone()));
    let mut later = UnitOfWork::new(LockedState {
        accounts: vec![account("a", "1.00")],
        records: records.collect(),
        now_us: NOW + DAY,
        ..LockedState::default()
    });
    assert_eq!(apply(&mut later, in_time.clone()).unwrap().0, made);
    assert_eq!(apply(&mut later, too_early.clone()).unwrap_err(), rejection);
    // Without their records, both would be judged the other way.
    let anew = |request: Request| {
        let mut later = UnitOfWork::new(LockedState {
            accounts: vec![account("a", "1.00")],
            now_us: NOW + DAY,
            ..LockedState::default()
        });
        apply(&mut later, request)
    };
    assert!(anew(in_time).is_err() && anew(too_early).is_ok());
}

#[test]
fn an_id_whose_time_is_far_from_the_transactions_gets_that_time_and_names_the_same_attempt() {
    let hour_us = ID_TIME_DISTANCE_MAX_US;
    let asked = Uuid::now_v7();
    let now_us = i64::try_from(asked.as_u128() >> 80).unwrap() * 1000;
    for near in [now_us - hour_us, now_us, now_us + hour_us] {
        assert_eq!(transaction_id_at(asked, near), asked);
    }
    for far in [now_us - hour_us - 1000, now_us + hour_us + 1000] {
        let id = transaction_id_at(asked, far);
        assert_eq!(i64::try_from(id.as_u128() >> 80).unwrap() * 1000, far);
        assert_eq!(id.get_version_num(), 7);
        assert!(is_same_attempt(id, asked) && !is_same_attempt(id, Uuid::now_v7()));
    }
}
