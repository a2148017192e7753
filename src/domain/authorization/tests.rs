//! Rights on accounts, without a database.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use crate::domain::{
    account::{AccountUpdate, AttributeChange, Labels, NewAccount, NewLimit},
    authorization::{AccountPattern, AmountMax, Effect, Grant, PermissionDenied, Right, Rule},
    command::{Action, Command, Condition, Leg, Request, TransactionRef},
    fixtures::id,
    hold::{Capture, Hold, HoldRef, HoldState, NewHold},
    ids::{HoldId, Identity, RequestId, RequestKey},
    money::Currency,
    query::AccountRange,
    transaction::{Entry, Transaction, TransactionKind},
};

pub fn eur() -> Currency {
    Currency::from_parts("EUR", 2)
}

fn pattern(text: &str) -> AccountPattern {
    match text.strip_suffix('*') {
        Some(prefix) => AccountPattern::Prefix(prefix.to_owned()),
        None => AccountPattern::Exact(id(text)),
    }
}

fn rule(accounts: &[&str], rights: &[Right], effect: Effect) -> Rule {
    let accounts = accounts.iter().map(|it| pattern(it)).collect();
    Rule { accounts, rights: rights.to_vec(), effect }
}

pub fn allow(accounts: &[&str], rights: &[Right]) -> Rule {
    rule(accounts, rights, Effect::Allow(AmountMax::Unlimited))
}

/// Allows rights up to this many euros, and no other currency.
fn allow_up_to(amount: &str, accounts: &[&str], rights: &[Right]) -> Rule {
    let limits = BTreeMap::from([("EUR".to_owned(), eur().parse(amount).unwrap())]);
    rule(accounts, rights, Effect::Allow(AmountMax::ByCurrency(limits)))
}

fn deny(accounts: &[&str], rights: &[Right]) -> Rule {
    rule(accounts, rights, Effect::Deny)
}

pub fn grant(rules: impl Into<Vec<Rule>>) -> Grant {
    Grant { rules: rules.into() }
}

fn command(action: Action) -> Command {
    Command::Request(Arc::new(Request {
        key: RequestKey {
            caller: Identity::anonymous(),
            request_id: RequestId::parse("1").unwrap(),
        },
        transaction_id: Uuid::nil(),
        action,
        description: String::new(),
        labels: Labels::new(),
        validate_only: false,
    }))
}

fn leg(account_id: &str, amount: &str) -> Leg {
    let (currency, condition) = (eur(), Condition::default());
    Leg { account_id: id(account_id), amount: currency.parse(amount).unwrap(), currency, condition }
}

fn posting(legs: &[(&str, &str)]) -> Command {
    let legs = legs.iter().map(|(account_id, amount)| leg(account_id, amount)).collect();
    command(Action::Post(TransactionKind::Posting, legs))
}

pub fn hold_on(account_id: &str, amount: &str) -> Hold {
    Hold {
        hold_id: HoldId::parse("h").unwrap(),
        account_id: id(account_id),
        currency: eur(),
        amount: eur().parse(amount).unwrap(),
        state: HoldState::Open,
        expire_time_us: None,
        captured: None,
        created_by: Identity::anonymous(),
        ended_by: Identity::anonymous(),
        request_id: RequestId::parse("1").unwrap(),
        description: String::new(),
        labels: Labels::new(),
        create_time_us: 0,
        update_time_us: 0,
    }
}

fn named(hold: Option<Hold>) -> HoldRef {
    HoldRef { hold_id: HoldId::parse("h").unwrap(), resolved: hold.map(Arc::new) }
}

fn place(account_id: &str, amount: &str) -> Command {
    let Hold { account_id, currency, amount, .. } = hold_on(account_id, amount);
    let (hold_id, expire_time_us) = (None, None);
    command(Action::PlaceHold(NewHold { hold_id, account_id, currency, amount, expire_time_us }))
}

fn capture(hold: Option<Hold>, amount: Option<&str>, to: Option<&str>) -> Command {
    command(Action::CaptureHold(Capture {
        hold: named(hold),
        amount: amount.map(|amount| (eur(), eur().parse(amount).unwrap())),
        destination_account_id: to.map(id),
    }))
}

fn release(hold: Option<Hold>) -> Command {
    command(Action::ReleaseHold(named(hold)))
}

pub fn transaction(entries: &[(&str, &str)]) -> Transaction {
    let entry = |(account_id, amount): &(&str, &str)| Entry {
        account_id: id(account_id),
        sequence: 1,
        transaction_id: Uuid::nil(),
        currency: eur(),
        amount: eur().parse(amount).unwrap(),
        balance_after: eur().zero(),
        create_time_us: 0,
        hash: [0; 32],
    };
    Transaction {
        transaction_id: Some(Uuid::nil()),
        created_by: Identity::anonymous(),
        request_id: RequestId::parse("1").unwrap(),
        kind: TransactionKind::Posting,
        entries: entries.iter().map(entry).collect(),
        description: String::new(),
        labels: Labels::new(),
        create_time_us: 0,
        reverses_transaction_id: None,
        reversed_by_transaction_id: None,
    }
}

fn reverse(transaction: Option<Transaction>) -> Command {
    let resolved = transaction.map(Arc::new);
    command(Action::Reverse(TransactionRef { transaction_id: Uuid::nil(), resolved }))
}

fn create(account_id: &str, overdraft: &str, unlimited_overdraft: bool) -> Command {
    Command::CreateAccount(NewAccount {
        account_id: id(account_id),
        currency: eur(),
        overdraft_limit: eur().parse(overdraft).unwrap(),
        unlimited_overdraft,
        labels: Labels::new(),
        created_by: Identity::anonymous(),
    })
}

fn change(change: AttributeChange) -> Command {
    Command::UpdateAccount(AccountUpdate {
        account_id: id("a"),
        change,
        expected_version: None,
        reason: String::new(),
        created_by: Identity::anonymous(),
    })
}

fn limit(overdraft: &str) -> Command {
    let limit = Some(NewLimit::Amount(eur(), eur().parse(overdraft).unwrap()));
    change(AttributeChange::Update {
        labels: None,
        overdraft_limit: limit,
        unlimited_overdraft: None,
    })
}

fn unlimited(unlimited: bool) -> Command {
    change(AttributeChange::Update {
        labels: None,
        overdraft_limit: Some(NewLimit::Zero),
        unlimited_overdraft: Some(unlimited),
    })
}

#[test]
fn an_exact_id_is_one_account_and_a_prefix_many() {
    let shop = grant([allow(&["shop:1", "fees:*"], &[Right::Read])]);
    for own in ["shop:1", "fees:", "fees:1"] {
        assert_eq!(shop.check_read(&id(own)), Ok(()), "{own}");
    }
    for other in ["shop:10", "shop:", "Shop:1", "fees", "xfees:1"] {
        let denied = PermissionDenied::Account(Right::Read, id(other));
        assert_eq!(shop.check_read(&id(other)), Err(denied), "{other}");
    }
    assert!(Grant::default().check_read(&id("a")).is_err());
    assert!(grant([allow(&["*"], &[Right::Read])]).check_read(&id("a")).is_ok());
}

#[test]
fn a_denial_wins_over_every_other_rule() {
    let rights = [Right::Read, Right::Credit, Right::Debit];
    for accounts in [["vault"], ["v*"], ["*"]] {
        let rules =
            [deny(&accounts, &[Right::Debit]), allow(&["vault"], &rights), allow(&["*"], &rights)];
        let grant = grant(rules);
        assert!(grant.check(&posting(&[("vault", "1")])).is_ok(), "{accounts:?}");
        let denied = Err(PermissionDenied::Account(Right::Debit, id("vault")));
        assert_eq!(grant.check(&posting(&[("vault", "-1")])), denied, "{accounts:?}");
    }
}

#[test]
fn each_command_needs_its_rights_and_no_others() {
    use Right::{Credit, Debit, Manage, Overdraft, Read};
    let mut dry_run = posting(&[("a", "1")]);
    if let Command::Request(request) = &mut dry_run {
        Arc::make_mut(request).validate_only = true;
    }
    let condition = Condition { expected_version: Some(1), ..Condition::default() };
    let conditional =
        command(Action::Post(TransactionKind::Posting, vec![Leg { condition, ..leg("a", "1") }]));
    let hold = || Some(hold_on("a", "5"));
    let cases: &[(&str, Command, &[Right])] = &[
        ("deposit", posting(&[("a", "1")]), &[Credit]),
        ("withdrawal", posting(&[("a", "-1")]), &[Debit]),
        ("both ways", posting(&[("a", "1"), ("a", "-1")]), &[Credit, Debit, Read]),
        ("a dry run", dry_run, &[Credit, Read]),
        ("a condition", conditional, &[Credit, Read]),
        ("a new hold", place("a", "5"), &[Debit]),
        ("a capture", capture(hold(), None, None), &[Debit]),
        ("a capture to itself", capture(hold(), None, Some("a")), &[Debit, Credit, Read]),
        ("a release", release(hold()), &[Debit]),
        ("the reversal of a deposit", reverse(Some(transaction(&[("a", "1")]))), &[Debit]),
        ("the reversal of a withdrawal", reverse(Some(transaction(&[("a", "-1")]))), &[Credit]),
        (
            "the reversal of both ways",
            reverse(Some(transaction(&[("a", "1"), ("a", "-2")]))),
            &[Credit, Debit, Read],
        ),
        ("a new account", create("a", "0", false), &[Manage, Read]),
        ("a new account with overdraft", create("a", "1", false), &[Manage, Read, Overdraft]),
        ("a new account without limit", create("a", "0", true), &[Manage, Read, Overdraft]),
        ("freezing", change(AttributeChange::Freeze), &[Manage, Read]),
        ("an overdraft", limit("1"), &[Manage, Read, Overdraft]),
        ("no overdraft", limit("0"), &[Manage, Read]),
        ("an unlimited overdraft", unlimited(true), &[Manage, Read, Overdraft]),
        ("the end of an unlimited overdraft", unlimited(false), &[Manage, Read]),
    ];
    for (name, command, needed) in cases {
        assert_eq!(grant([allow(&["a"], needed)]).check(command), Ok(()), "{name}");
        for missing in *needed {
            let others: Vec<_> = Right::ALL.into_iter().filter(|it| it != missing).collect();
            let denied = grant([allow(&["a"], &others)]).check(command);
            assert!(denied.is_err(), "{name} without {missing:?}");
        }
        let elsewhere = grant([allow(&["b"], &Right::ALL)]).check(command);
        assert!(elsewhere.is_err(), "{name} with rights on another account");
    }
}

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

#[test]
fn what_a_request_names_looks_like_nothing_to_those_without_rights() {
    let own = [Right::Credit, Right::Debit];
    let limited = grant([allow_up_to("10", &["a*"], &own)]);
    let others = [
        (capture(None, None, None), capture(Some(hold_on("b", "99")), None, None), "hold"),
        (release(None), release(Some(hold_on("b", "99"))), "hold"),
        (reverse(None), reverse(Some(transaction(&[("a", "99"), ("b", "-99")]))), "transaction"),
        (reverse(None), reverse(Some(transaction(&[("a", "9"), ("a", "-8")]))), "transaction"),
    ];
    for (missing, foreign, kind) in others {
        let denied = Err(PermissionDenied::Named(kind));
        assert_eq!(limited.check(&missing), denied, "{missing:?}");
        assert_eq!(limited.check(&foreign), denied, "{foreign:?}");
        assert_eq!(grant([allow(&["*"], &own)]).check(&missing), Ok(()), "{missing:?}");
        let but_one = grant([deny(&["z"], &own), allow(&["*"], &own)]);
        assert_eq!(but_one.check(&missing), denied, "{missing:?}");
    }
    // Its account is not named to those who may change it, but not by so much.
    let reversed = reverse(Some(transaction(&[("a1", "99"), ("a2", "-99")])));
    let hold = || Some(hold_on("a1", "99"));
    for denied in [capture(hold(), None, Some("a2")), release(hold()), reversed] {
        let message = limited.check(&denied).unwrap_err().to_string();
        assert!(message.contains("EUR 10") && !message.contains("a1"), "{message}");
    }
    let reader = grant([allow_up_to("10", &["a*"], &[Right::Read, Right::Credit, Right::Debit])]);
    let message = reader.check(&capture(hold(), Some("11"), Some("a1"))).unwrap_err().to_string();
    assert!(message.contains("credit on account a1"), "{message}");
    assert_eq!(limited.hidden("hold"), Some(PermissionDenied::Named("hold")));
    assert_eq!(grant([allow(&["*"], &[Right::Read])]).hidden("hold"), None);
}

#[test]
fn a_fence_needs_the_right_to_move_money_of_some_account() {
    let fence = || command(Action::Fence);
    for right in Right::ALL {
        let answer = grant([allow(&["a"], &[right])]).check(&fence());
        assert_eq!(answer.is_ok(), matches!(right, Right::Credit | Right::Debit), "{right:?}");
    }
    assert_eq!(Grant::default().check(&fence()), Err(PermissionDenied::NoAccount));
    let denied = grant([deny(&["*"], &Right::ALL), allow(&["a"], &Right::ALL)]);
    assert_eq!(denied.check(&fence()), Err(PermissionDenied::NoAccount));
}

#[test]
fn readable_ranges_are_disjoint_and_without_what_is_denied() {
    let range = |start: &str, end: &str| AccountRange { start: start.into(), end: end.into() };
    let ranges = |rules: &[Rule]| grant(rules).readable();
    let read = &[Right::Read];
    assert_eq!(ranges(&[]), []);
    assert_eq!(ranges(&[allow(&["a"], &[Right::Debit])]), []);
    assert_eq!(ranges(&[allow(&["*"], read)]), [range("", "{")]);
    let nested = allow(&["b*", "a", "b:1", "b", "bc*"], read);
    assert_eq!(ranges(&[nested]), [range("a", "a!"), range("b", "b{")]);
    let but = [deny(&["b:1", "d*", "c"], read), allow(&["*"], read)];
    assert_eq!(
        ranges(&but),
        [range("", "b:1"), range("b:1!", "c"), range("c!", "d"), range("d{", "{")]
    );
    assert_eq!(ranges(&[deny(&["*"], read), allow(&["a", "b*"], read)]), []);
    assert_eq!(ranges(&[deny(&["*"], &[Right::Debit]), allow(&["a"], read)]), [range("a", "a!")]);
    for account_id in ["-", "a", "b", "b:0", "b:1", "b:10", "bz", "c", "c:", "d", "d1", "e", "z"] {
        let grant = grant(but.clone());
        let is_in = |it: &AccountRange| *it.start <= *account_id && *account_id < *it.end;
        let is_listed = grant.readable().iter().any(is_in);
        assert_eq!(is_listed, grant.may_read(&id(account_id)), "{account_id}");
    }
}
