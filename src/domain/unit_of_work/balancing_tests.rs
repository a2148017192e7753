//! Balanced transactions in the fold, without a database.

use crate::domain::{
    command::{Action, Leg, Request},
    fixtures::{account, legs, posting, request},
    money::Currency,
    rejection::Rejection,
    transaction::TransactionKind,
    unit_of_work::tests::{make, work},
};

fn balanced(request_id: &str, changes: &[(&str, &str)]) -> Request {
    Request { require_balanced: true, ..posting(request_id, changes) }
}

/// The currency and the sum of an unbalanced request.
fn unbalanced(rejection: &Rejection) -> (&str, Option<&str>) {
    let Rejection::Unbalanced { currency_code, sum } = rejection else { panic!("{rejection}") };
    (currency_code, sum.as_deref())
}

#[test]
fn a_posting_that_must_be_balanced_sums_to_zero_in_each_currency() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    make(&mut work, balanced("1", &[("a", "-3.00"), ("b", "1.00"), ("b", "2.00")])).unwrap();
    let rejection = make(&mut work, balanced("2", &[("a", "-3.00"), ("b", "2.99")])).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("USD", Some("-0.01")));
    // Before all rules about accounts.
    let rejection = make(&mut work, balanced("3", &[("missing", "1.00")])).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("USD", Some("1.00")));
    make(&mut work, posting("4", &[("a", "-1.00")])).unwrap();
}

#[test]
fn another_demand_under_the_same_id_is_another_request() {
    let request = posting("1", &[("a", "-1.00"), ("b", "1.00")]);
    let demanding = Request { require_balanced: true, ..request.clone() };
    assert_ne!(request.fingerprint(), demanding.fingerprint());
}

#[test]
fn other_decimals_of_one_currency_are_summed_exactly() {
    let of_scale = |account_id: &str, scale, amount: &str| {
        let currency = Currency::from_parts("PTS", scale);
        let amount = currency.parse(amount).unwrap();
        let [leg] = <[Leg; 1]>::try_from(legs(&[(account_id, "1.00")])).unwrap();
        Leg { currency, amount, ..leg }
    };
    let demand = |legs| {
        let action = Action::Post(TransactionKind::Posting, legs);
        Request { require_balanced: true, ..request("1", action) }
    };
    let mut work = work(vec![account("a", "10.00")]);
    let legs = vec![of_scale("a", 2, "1.00"), of_scale("b", 4, "-0.9999")];
    let rejection = make(&mut work, demand(legs)).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("PTS", Some("0.0001")));
}
