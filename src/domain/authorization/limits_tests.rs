//! Amounts that the policy allows, without a database.

use std::collections::BTreeMap;

use crate::domain::{
    account::{Labels, NewAccount},
    authorization::{
        AmountMax, Effect, PermissionDenied, Right,
        tests::{
            allow, allow_up_to, capture, command, create, deny, forced, grant, hold_on, leg, limit,
            place, posting, release, reverse, reverse_part, rule, transaction, unlimited,
            update_hold,
        },
    },
    command::{Action, Command, Condition, Leg},
    fixtures::id,
    ids::Identity,
    money::Currency,
    transaction::TransactionKind,
};

#[test]
fn amounts_of_one_request_add_up_by_account_and_direction() {
    let all = [Right::Read, Right::Credit, Right::Debit];
    let grant = grant([allow_up_to("10", &["a", "b"], &all), allow_up_to("99", &["c"], &all)]);
    let in_dollars = || {
        let (currency, condition) = (Currency::from_parts("USD", 2), Condition::default());
        let amount = currency.parse("1").unwrap();
        let leg = Leg { account_id: id("a"), currency, amount, condition };
        command(Action::Post(TransactionKind::Posting, vec![leg]))
    };
    let hold = || Some(hold_on("a", "11"));
    for (name, allowed) in [
        ("the limit", posting(&[("a", "-10")])),
        ("the sum is the limit", posting(&[("a", "-5"), ("a", "-5")])),
        ("each account for itself", posting(&[("a", "-10"), ("b", "10")])),
        ("each direction for itself", posting(&[("a", "-10"), ("a", "10")])),
        ("another account's limit", posting(&[("c", "99")])),
        ("a hold", place("a", "10")),
        ("a part of a hold", capture(hold(), Some("10"), Some("b"))),
        ("a hold that shrinks", update_hold(hold(), Some("10"))),
        ("a reversal", reverse(Some(transaction(&[("a", "10"), ("b", "-10")])))),
    ] {
        assert_eq!(grant.check(&allowed), Ok(()), "{name}");
    }
    for (name, denied) in [
        ("a debit", posting(&[("a", "-10.01")])),
        ("a credit", posting(&[("a", "10.01")])),
        ("a sum of debits", posting(&[("a", "-5"), ("b", "5"), ("a", "-5.01")])),
        ("a sum of credits", posting(&[("a", "5"), ("a", "-5"), ("a", "5.01")])),
        ("a hold", place("a", "10.01")),
        ("a whole hold", capture(hold(), None, None)),
        ("a hold that grows", update_hold(Some(hold_on("a", "1")), Some("10.01"))),
        ("a hold that remains", update_hold(hold(), None)),
        ("the destination", capture(Some(hold_on("c", "11")), None, Some("a"))),
        ("a release", release(hold())),
        ("a reversal", reverse(Some(transaction(&[("a", "5"), ("a", "5.01")])))),
        ("another currency", in_dollars()),
    ] {
        let denied = grant.check(&denied);
        assert!(matches!(denied, Err(PermissionDenied::Amount { .. })), "{name}: {denied:?}");
    }
}

#[test]
fn force_has_accounts_and_limits_of_its_own() {
    let money = [Right::Credit, Right::Debit, Right::Read];
    let grant = grant([
        allow(&["*"], &money),
        allow_up_to("10", &["a*"], &[Right::Force]),
        deny(&["a:vault"], &[Right::Force]),
    ]);
    for allowed in [
        forced(posting(&[("a", "-10"), ("b", "10")])),
        forced(posting(&[("a", "-5"), ("a", "20"), ("a", "-5")])),
        forced(posting(&[("b", "10")])),
        posting(&[("a", "-11")]),
        forced(reverse_part(Some(transaction(&[("a", "11"), ("b", "-11")])), Some("10"))),
    ] {
        assert_eq!(grant.check(&allowed), Ok(()), "{allowed:?}");
    }
    for denied in [
        forced(posting(&[("a", "-10.01"), ("b", "10.01")])),
        forced(posting(&[("a", "-5"), ("a", "-5.01")])),
        forced(posting(&[("b", "-1")])),
        forced(posting(&[("a:vault", "-1")])),
        forced(reverse(Some(transaction(&[("a", "11"), ("b", "-11")])))),
    ] {
        assert!(grant.check(&denied).is_err(), "{denied:?}");
    }
}

#[test]
fn a_part_of_a_reversal_counts_with_its_own_amount() {
    let grant = grant([allow_up_to("10", &["*"], &[Right::Credit, Right::Debit])]);
    let original = || Some(transaction(&[("a", "11"), ("b", "-11")]));
    assert_eq!(grant.check(&reverse_part(original(), Some("10"))), Ok(()));
    for denied in [reverse_part(original(), Some("10.01")), reverse(original())] {
        assert!(grant.check(&denied).is_err(), "{denied:?}");
    }
}

#[test]
fn a_sum_beyond_all_numbers_is_beyond_every_limit() {
    let yen = Currency::from_parts("JPY", 0);
    let amount = yen.parse(&"9".repeat(28)).unwrap();
    let limits = BTreeMap::from([("JPY".to_owned(), amount)]);
    let leg = Leg { currency: yen, amount, ..leg("a", "1") };
    // The eighth leg takes the sum beyond what a decimal can be.
    for (count, is_allowed) in [(1, true), (7, false), (8, false), (100, false)] {
        let legs = vec![leg.clone(); count];
        let posting = command(Action::Post(TransactionKind::Posting, legs));
        let effect = Effect::Allow(AmountMax::ByCurrency(limits.clone()));
        let limited = grant([rule(&["a"], &[Right::Credit], effect)]);
        assert_eq!(limited.check(&posting).is_ok(), is_allowed, "{count}");
        assert_eq!(grant([allow(&["a"], &[Right::Credit])]).check(&posting), Ok(()), "{count}");
    }
}

#[test]
fn an_overdraft_and_the_currency_of_an_account_are_limited() {
    let grant = grant([allow_up_to("10", &["a"], &Right::ALL)]);
    for allowed in [create("a", "10", false), limit("10"), unlimited(false)] {
        assert_eq!(grant.check(&allowed), Ok(()), "{allowed:?}");
    }
    let in_dollars = Command::CreateAccount(NewAccount {
        account_id: id("a"),
        currency: Currency::from_parts("USD", 2),
        overdraft_limit: Currency::from_parts("USD", 2).zero(),
        unlimited_overdraft: false,
        labels: Labels::new(),
        created_by: Identity::anonymous(),
    });
    for denied in [create("a", "10.01", false), limit("10.01"), in_dollars] {
        let answer = grant.check(&denied);
        assert!(matches!(answer, Err(PermissionDenied::Amount { .. })), "{denied:?}: {answer:?}");
    }
    for denied in [create("a", "0", true), unlimited(true)] {
        let answer = grant.check(&denied);
        assert_eq!(answer, Err(PermissionDenied::UnlimitedOverdraft(id("a"))), "{denied:?}");
    }
}

#[test]
fn of_several_rules_one_must_allow_the_whole_amount() {
    let low = allow_up_to("10", &["*"], &[Right::Debit]);
    for high in [allow_up_to("20", &["a"], &[Right::Debit]), allow(&["a"], &[Right::Debit])] {
        for rules in [vec![low.clone(), high.clone()], vec![high.clone(), low.clone()]] {
            let grant = grant(rules);
            assert_eq!(grant.check(&posting(&[("a", "-20")])), Ok(()));
            assert!(grant.check(&posting(&[("b", "-20")])).is_err());
        }
    }
    let sum = grant([low.clone(), low]).check(&posting(&[("a", "-20")]));
    assert!(sum.is_err(), "limits do not add up");
}
