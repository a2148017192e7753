//! Forced requests in the fold, without a database.

use crate::domain::{
    account::{Account, AccountState},
    command::{Action, Leg, Request},
    fixtures::{account, account_in, posting, usd},
    rejection::Rejection,
    unit_of_work::{
        UnitOfWork,
        tests::{make, work},
    },
};

fn forced(id: &str, legs: &[(&str, &str)]) -> Request {
    Request { force: true, ..posting(id, legs) }
}

/// What is available on the account, whether it is below its limit, and whether that is written.
fn standing(work: &UnitOfWork) -> (String, bool, bool) {
    let account = work.changed().next().unwrap();
    let is_marked = work.is_marked(&account.account_id);
    (account.available().to_string(), account.below_limit, is_marked)
}

#[test]
fn a_forced_withdrawal_takes_what_is_not_there() {
    let mut work = work(vec![account("a", "10.00")]);
    let made = make(&mut work, forced("1", &[("a", "-10.00")])).unwrap().0.transaction.unwrap();
    assert!(made.forced);
    assert_eq!(standing(&work), ("0.00".to_owned(), false, false), "nothing was lacking");
    make(&mut work, forced("2", &[("a", "-3.00")])).unwrap();
    assert_eq!(standing(&work), ("-3.00".to_owned(), true, true));
    let rejection = make(&mut work, posting("3", &[("a", "-0.01")])).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }), "{rejection}");
    make(&mut work, posting("4", &[("a", "2.99")])).unwrap();
    assert_eq!(standing(&work), ("-0.01".to_owned(), true, true), "still below");
    make(&mut work, posting("5", &[("a", "1.01")])).unwrap();
    assert_eq!(standing(&work), ("1.00".to_owned(), false, true));
    make(&mut work, posting("6", &[("a", "-1.00")])).unwrap();
}

#[test]
fn no_other_request_takes_an_account_below_its_limit() {
    let below = Account { below_limit: true, ..account("a", "-3.00") };
    for legs in [&[("a", "-1.00")][..], &[("a", "5.00"), ("a", "-6.00")]] {
        let mut work = work(vec![below.clone()]);
        let rejection = make(&mut work, posting("1", legs)).unwrap_err();
        assert!(matches!(rejection, Rejection::InsufficientFunds { .. }), "{legs:?}: {rejection}");
    }
}

#[test]
fn an_account_is_below_its_limit_after_all_legs_together() {
    let below = Account { below_limit: true, ..account("a", "-3.00") };
    let mut work = work(vec![below]);
    make(&mut work, posting("1", &[("a", "5.00"), ("a", "-4.00")])).unwrap();
    assert_eq!(standing(&work), ("-2.00".to_owned(), true, false));
    make(&mut work, forced("2", &[("a", "-4.00"), ("a", "9.00")])).unwrap();
    assert_eq!(standing(&work), ("3.00".to_owned(), false, true));
}

#[test]
fn an_unlimited_overdraft_has_no_limit_to_be_below() {
    let unlimited = Account { unlimited_overdraft: true, ..account("a", "0.00") };
    let mut work = work(vec![unlimited]);
    make(&mut work, forced("1", &[("a", "-10.00")])).unwrap();
    assert_eq!(standing(&work), ("-10.00".to_owned(), false, false));
}

#[test]
fn a_frozen_account_is_forced_and_a_closed_one_is_not() {
    let frozen = account_in(AccountState::Frozen, "frozen");
    let closed = account_in(AccountState::Closed, "closed");
    let mut work = work(vec![frozen, closed]);
    make(&mut work, forced("1", &[("frozen", "-1.00")])).unwrap();
    let rejection = make(&mut work, forced("2", &[("closed", "-1.00")])).unwrap_err();
    assert!(matches!(rejection, Rejection::AccountClosed { .. }), "{rejection}");
}

#[test]
fn conditions_and_limits_of_amounts_are_never_forced() {
    let least = format!("-{}.00", "9".repeat(26));
    let unlimited = Account { unlimited_overdraft: true, ..account("least", &least) };
    let mut work = work(vec![account("a", "0.00"), unlimited]);
    let mut conditional = forced("1", &[("a", "-1.00")]);
    let Action::Post(_, legs) = &mut conditional.action else { panic!() };
    let [Leg { condition, .. }] = &mut legs[..] else { panic!() };
    condition.min_balance_after = Some(usd().zero());
    let rejection = make(&mut work, conditional).unwrap_err();
    assert!(matches!(rejection, Rejection::ConditionFailed { .. }), "{rejection}");
    let rejection = make(&mut work, forced("2", &[("least", "-1.00")])).unwrap_err();
    assert!(matches!(rejection, Rejection::BalanceOutOfRange { .. }), "{rejection}");
}

#[test]
fn force_is_a_part_of_the_request() {
    let mut work = work(vec![account("a", "10.00")]);
    make(&mut work, posting("1", &[("a", "-1.00")])).unwrap();
    let rejection = make(&mut work, forced("1", &[("a", "-1.00")])).unwrap_err();
    assert!(matches!(rejection, Rejection::RequestIdReused { .. }), "{rejection}");
}
