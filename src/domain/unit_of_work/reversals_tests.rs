//! Reversals in the fold, without a database.

use std::sync::Arc;

use crate::domain::{
    command::{Action, Request, Reversal, TransactionRef},
    fixtures::{account, posting, request, usd},
    money::Currency,
    rejection::Rejection,
    transaction::Transaction,
    unit_of_work::{
        UnitOfWork,
        tests::{make, work},
    },
};

fn reversal(id: &str, of: &Arc<Transaction>, amount: Option<&str>) -> Request {
    let (transaction_id, resolved) = (of.transaction_id.unwrap(), Some(of.clone()));
    let amount = amount.map(|amount| (usd(), usd().parse(amount).unwrap()));
    let transaction = TransactionRef { transaction_id, resolved };
    request(id, Action::Reverse(Reversal { transaction, amount }))
}

fn made(work: &mut UnitOfWork, request: Request) -> Arc<Transaction> {
    make(work, request).unwrap().0.transaction.unwrap()
}

fn amounts(of: &Transaction) -> Vec<String> {
    of.entries.iter().map(|it| it.amount.to_string()).collect()
}

#[test]
fn a_transaction_is_reversed_once_by_its_mirror_image() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    let original = made(&mut work, posting("1", &[("a", "-4.00"), ("b", "4.00")]));
    let reversed = made(&mut work, reversal("2", &original, None));
    assert_eq!(reversed.reverses.map(|it| it.0), original.transaction_id);
    assert_eq!(amounts(&reversed), ["4.00", "-4.00"]);
    for again in [None, Some("0.01")] {
        let rejection = make(&mut work, reversal("3", &original, again)).unwrap_err();
        let Rejection::AlreadyReversed { reversed_by_transaction_id, .. } = rejection else {
            panic!("{rejection}")
        };
        assert_eq!(Some(reversed_by_transaction_id), reversed.transaction_id);
        work.records.clear();
    }
    // Money that is spent cannot be taken back.
    let original = made(&mut work, posting("4", &[("b", "4.00")]));
    make(&mut work, posting("5", &[("b", "-1.00")])).unwrap();
    let rejection = make(&mut work, reversal("6", &original, None)).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
}

#[test]
fn parts_of_a_transaction_are_reversed_up_to_the_whole() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    let original = made(&mut work, posting("1", &[("a", "-4.00"), ("b", "4.00")]));
    let first = made(&mut work, reversal("2", &original, Some("1.50")));
    assert_eq!(amounts(&first), ["1.50", "-1.50"]);
    let (_, reversed) = first.reverses.unwrap();
    assert_eq!((reversed.count, reversed.amount), (1, Some(usd().parse("1.50").unwrap())));
    let rejection = make(&mut work, reversal("3", &original, Some("2.51"))).unwrap_err();
    let Rejection::ReversalAmountExceeded { reversible, required, .. } = rejection else {
        panic!("{rejection}")
    };
    assert_eq!((reversible.unwrap().to_string(), required.to_string()), {
        ("2.50".to_owned(), "2.51".to_owned())
    });
    made(&mut work, reversal("4", &original, Some("0.50")));
    // Without an amount: the rest.
    let last = made(&mut work, reversal("5", &original, None));
    assert_eq!(amounts(&last), ["2.00", "-2.00"]);
    let (_, reversed) = last.reverses.unwrap();
    assert_eq!((reversed.count, reversed.amount), (3, None), "all of it");
    let rejection = make(&mut work, reversal("6", &original, Some("0.01"))).unwrap_err();
    assert!(matches!(rejection, Rejection::AlreadyReversed { .. }), "{rejection}");
    let balances: Vec<_> = work.changed().map(|it| it.balance.to_string()).collect();
    assert_eq!(balances, ["10.00", "0.00"]);
}

#[test]
fn only_a_transaction_of_one_amount_has_parts() {
    let mut work = work(vec![account("a", "90.00"), account("b", "90.00")]);
    let mut number = 0;
    for (legs, is_divisible) in [
        (&[("a", "1.00")][..], true),
        (&[("a", "-1.00")], true),
        (&[("a", "1.00"), ("b", "-1.00")], true),
        (&[("a", "1.00"), ("b", "-1.01")], false),
        (&[("a", "1.00"), ("b", "1.00")], false),
        (&[("a", "1.00"), ("b", "-2.00"), ("a", "1.00")], false),
    ] {
        let mut next = || {
            number += 1;
            number.to_string()
        };
        let original = made(&mut work, posting(&next(), legs));
        let part = make(&mut work, reversal(&next(), &original, Some("0.50")));
        assert_eq!(part.is_ok(), is_divisible, "{legs:?}");
        if let Err(rejection) = part {
            assert!(matches!(rejection, Rejection::TransactionNotDivisible { .. }), "{rejection}");
        }
        made(&mut work, reversal(&next(), &original, None));
    }
}

#[test]
fn a_part_has_the_currency_of_its_transaction() {
    let mut work = work(vec![account("a", "10.00")]);
    let original = made(&mut work, posting("1", &[("a", "4.00")]));
    let euros = Currency::from_parts("EUR", 2);
    let mut request = reversal("2", &original, None);
    if let Action::Reverse(reversal) = &mut request.action {
        reversal.amount = Some((euros.clone(), euros.parse("99.00").unwrap()));
    }
    let rejection = make(&mut work, request).unwrap_err();
    assert!(matches!(rejection, Rejection::CurrencyMismatch { .. }), "{rejection}");
}
