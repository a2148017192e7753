//! Each kind of fault, in rows written by hand.

use crate::domain::{
    ids::AccountId,
    money::{Amount, Currency},
    transaction::Entry,
    verification::{AccountVerifier, Fault, FaultKind, StoredAccount},
};

fn dollars(text: &str) -> Amount {
    Currency::from_parts("USD", 2).parse(text).expect("an amount")
}

/// An account with three entries: +10, -3, +5; nothing is held.
fn account() -> (StoredAccount, Vec<Entry>) {
    let currency = Currency::from_parts("USD", 2);
    let account_id = AccountId::from_stored("alice");
    let (mut balance, mut hash) = (currency.zero(), [0; 32]);
    let mut entries = Vec::new();
    for (sequence, amount) in [(1, "10"), (2, "-3"), (3, "5")] {
        balance = balance.plus(dollars(amount));
        let mut entry = Entry {
            account_id: account_id.clone(),
            sequence,
            transaction_id: uuid::Uuid::from_u128(sequence as u128),
            currency: currency.clone(),
            amount: dollars(amount),
            balance_after: balance,
            create_time_us: sequence,
            effective_time_us: None,
            hash,
        };
        hash = entry.chained_hash(&hash);
        entry.hash = hash;
        entries.push(entry);
    }
    let held = currency.zero();
    let stored = StoredAccount {
        account_id,
        account_key: 1,
        currency,
        balance,
        held,
        sequence: 3,
        last_hash: hash,
        open_holds: 0,
        available: Some(balance),
        below_limit: false,
        is_closed: false,
        create_time_us: 1,
        update_time_us: 3,
    };
    (stored, entries)
}

fn verify(stored: StoredAccount, entries: &[Entry]) -> Result<i64, Fault> {
    let mut verification = AccountVerifier::new(stored);
    entries.iter().try_for_each(|entry| verification.push(entry))?;
    verification.finish()?;
    Ok(verification.sequence())
}

#[track_caller]
fn assert_fault(
    change: impl FnOnce(&mut StoredAccount, &mut Vec<Entry>),
    sequence: i64,
    kind: FaultKind,
    words: &str,
) {
    let (mut stored, mut entries) = account();
    change(&mut stored, &mut entries);
    let fault = verify(stored, &entries).expect_err("a fault");
    assert_eq!((fault.sequence, fault.kind), (sequence, kind), "{fault}");
    assert!(fault.description.contains(words), "{fault}");
}

#[test]
fn an_account_that_is_what_its_entries_say_has_no_fault() {
    let (stored, entries) = account();
    assert_eq!(verify(stored.clone(), &entries), Ok(3));
    let mut rest = AccountVerifier::after(stored, &entries[1]);
    assert_eq!(rest.push(&entries[2]).and_then(|()| rest.finish()), Ok(()));
}

#[test]
fn a_gap_and_an_early_end_are_missing_entries() {
    let missing = FaultKind::MissingEntry;
    assert_fault(|_, entries| drop(entries.remove(0)), 1, missing, "next one there is 2");
    assert_fault(|_, entries| drop(entries.remove(1)), 2, missing, "next one there is 3");
    assert_fault(|_, entries| entries.truncate(2), 3, missing, "sequence is 3");
    assert_fault(|stored, _| stored.sequence = 4, 4, missing, "sequence is 4");
    // What is beyond the account's sequence does not hide what is missing before it.
    let far = |_: &mut StoredAccount, entries: &mut Vec<Entry>| entries[2].sequence = 9;
    assert_fault(far, 3, missing, "sequence is 3");
}

#[test]
fn an_entry_that_the_account_does_not_count_is_surplus() {
    let surplus = FaultKind::SurplusEntry;
    assert_fault(|stored, _| stored.sequence = 2, 3, surplus, "sequence is 2");
    assert_fault(|_, entries| entries[0].sequence = 0, 0, surplus, "surplus");
    let twice = |_: &mut StoredAccount, entries: &mut Vec<Entry>| entries[2] = entries[1].clone();
    assert_fault(twice, 2, surplus, "surplus");
}

#[test]
fn a_time_that_goes_back_is_found_though_the_hashes_are_right() {
    let (mut stored, mut entries) = account();
    entries[2].create_time_us = 1;
    entries[2].hash = entries[2].chained_hash(&entries[1].hash);
    stored.last_hash = entries[2].hash;
    let fault = verify(stored.clone(), &entries).expect_err("a fault");
    assert_eq!((fault.sequence, fault.kind), (3, FaultKind::WrongTime), "{fault}");
    let mut rest = AccountVerifier::after(stored, &entries[1]);
    assert_eq!(
        rest.push(&entries[2]),
        Err(fault),
        "a verifier that starts in the middle finds it, too"
    );
}

#[test]
fn a_sum_that_is_not_its_parts_is_found() {
    let sum = FaultKind::WrongSum;
    assert_fault(|_, it| it[1].amount = dollars("-3.01"), 2, sum, "7.00; 10.00 before");
    assert_fault(|_, it| it[1].balance_after = dollars("7.01"), 2, sum, "are 7.00");
    let largest = dollars(&"9".repeat(26));
    assert_fault(|_, it| it[1].amount = largest, 2, sum, "beyond the limit");
}

#[test]
fn a_change_that_adds_up_breaks_the_hash() {
    let hash = FaultKind::WrongHash;
    assert_fault(|_, it| it[2].create_time_us += 1, 3, hash, "changed or moved");
    assert_fault(|_, it| it[0].transaction_id = uuid::Uuid::nil(), 1, hash, "changed or moved");
    assert_fault(|_, it| it[1].hash[31] ^= 1, 2, hash, "changed or moved");
    let shift = |_: &mut StoredAccount, it: &mut Vec<Entry>| {
        it[0].amount = dollars("11");
        it[0].balance_after = dollars("11");
    };
    assert_fault(shift, 1, hash, "changed or moved");
}

#[test]
fn a_row_that_is_not_what_its_last_entry_says_is_found() {
    let wrong = FaultKind::WrongBalance;
    assert_fault(|stored, _| stored.balance = dollars("12.01"), 0, wrong, "12.01; its 3 entries");
    assert_fault(|stored, _| stored.last_hash[0] ^= 1, 0, wrong, "last_hash");
}

#[test]
fn an_account_is_below_its_limit_if_and_only_if_it_is_marked() {
    let wrong = FaultKind::WrongLimit;
    let below = |it: &mut StoredAccount| it.available = Some(dollars("-0.01"));
    assert_fault(|it, _| below(it), 0, wrong, "-0.01, but it is not marked");
    assert_fault(|it, _| it.below_limit = true, 0, wrong, "12.00, but it is marked");
    let unlimited = |it: &mut StoredAccount, _: &mut Vec<Entry>| {
        (it.available, it.below_limit) = (None, true);
    };
    assert_fault(unlimited, 0, wrong, "without a limit, but it is marked");
    let (mut stored, entries) = account();
    below(&mut stored);
    stored.below_limit = true;
    assert_eq!(verify(stored, &entries), Ok(3));
}

#[test]
fn a_closed_account_has_no_money() {
    let closed = |it: &mut StoredAccount, _: &mut Vec<Entry>| it.is_closed = true;
    assert_fault(closed, 0, FaultKind::WrongBalance, "it is closed, but its balance is 12.00");
    let empty = |held: &str| {
        let (stored, _) = account();
        let (balance, open_holds) = (stored.currency.zero(), dollars(held).units());
        let (sequence, last_hash, available) = (0, [0; 32], None);
        let held = dollars(held);
        let is_closed = true;
        let stored = StoredAccount {
            balance,
            held,
            sequence,
            last_hash,
            open_holds,
            available,
            is_closed,
            ..stored
        };
        verify(stored, &[])
    };
    assert_eq!(empty("0"), Ok(0));
    let fault = empty("1.05").expect_err("a fault");
    assert_eq!(fault.kind, FaultKind::WrongHeld, "{fault}");
    assert!(fault.description.contains("it is closed, but its held is 1.05"), "{fault}");
}

#[test]
fn an_account_is_not_older_than_its_last_entry() {
    let wrong = FaultKind::WrongTime;
    assert_fault(|it, _| it.update_time_us = 2, 0, wrong, "before the 3 of its last entry");
    let (stored, entries) = account();
    assert_eq!(verify(StoredAccount { update_time_us: 4, ..stored }, &entries), Ok(3));
}

#[test]
fn an_account_is_not_younger_than_its_first_entry() {
    let wrong = FaultKind::WrongTime;
    assert_fault(|it, _| it.create_time_us = 2, 1, wrong, "before the 2 of the account");
    let (mut stored, _) = account();
    (stored.balance, stored.sequence, stored.last_hash) = (stored.currency.zero(), 0, [0; 32]);
    (stored.available, stored.create_time_us) = (None, 4);
    let fault = verify(stored, &[]).expect_err("a fault");
    assert!(fault.description.contains("before the 4 of its create_time"), "{fault}");
}

#[test]
fn held_must_be_the_sum_of_the_open_holds() {
    let wrong = FaultKind::WrongHeld;
    assert_fault(|stored, _| stored.held = dollars("2"), 0, wrong, "held is 2.00; its open");
    assert_fault(|stored, _| stored.open_holds = -105, 0, wrong, "sum to -1.05");
}

#[test]
fn times_that_no_server_writes_are_faults() {
    const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
    let at = |create_time_us: i64, effective_time_us: Option<i64>| {
        let (mut stored, mut entries) = account();
        let last = entries.last_mut().expect("an entry");
        (last.create_time_us, last.effective_time_us) = (create_time_us, effective_time_us);
        let before = entries[1].hash;
        let last = &mut entries[2];
        last.hash = last.chained_hash(&before);
        (stored.last_hash, stored.update_time_us) = (last.hash, create_time_us);
        verify(stored, &entries)
    };
    let now_us = 1_700_000_000_000_000;
    let year_10000_us = 253_402_300_800_000_000;
    for right in [
        (now_us, None),
        (now_us, Some(now_us - 3660 * DAY_US)),
        (now_us, Some(now_us + 366 * DAY_US)),
        (year_10000_us - 1, None),
    ] {
        assert_eq!(at(right.0, right.1), Ok(3), "{right:?}");
    }
    for wrong in [
        (year_10000_us, None),
        (i64::MAX, None),
        (now_us, Some(now_us)),
        (now_us, Some(now_us - 3660 * DAY_US - 1)),
        (now_us, Some(now_us + 366 * DAY_US + 1)),
        (now_us, Some(i64::MIN)),
        (year_10000_us - 1, Some(year_10000_us)),
    ] {
        let fault = at(wrong.0, wrong.1).expect_err("a fault");
        assert_eq!((fault.sequence, fault.kind), (3, FaultKind::WrongTime), "{wrong:?}: {fault}");
    }
}
