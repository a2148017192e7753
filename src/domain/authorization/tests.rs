//! Rights on accounts, without a database.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use crate::domain::{
    account::{AccountUpdate, AttributeChange, ContraAccount, Labels, NewAccount, NewLimit},
    authorization::{AccountPattern, AmountMax, Effect, Grant, PermissionDenied, Right, Rule},
    command::{Action, Command, Condition, Leg, Request, Reversal, TransactionRef},
    fixtures::{self, id},
    hold::{Capture, Hold, HoldRef, HoldState, HoldUpdate, NewHold},
    ids::{HoldId, Identity, RequestId, RequestKey},
    money::Currency,
    query::AccountRange,
    transaction::{Transaction, TransactionKind},
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

pub fn rule(accounts: &[&str], rights: &[Right], effect: Effect) -> Rule {
    let accounts = accounts.iter().map(|it| pattern(it)).collect();
    Rule { accounts, rights: rights.to_vec(), effect }
}

pub fn allow(accounts: &[&str], rights: &[Right]) -> Rule {
    rule(accounts, rights, Effect::Allow(AmountMax::Unlimited))
}

/// Allows rights up to this many euros, and no other currency.
pub fn allow_up_to(amount: &str, accounts: &[&str], rights: &[Right]) -> Rule {
    let limits = BTreeMap::from([("EUR".to_owned(), eur().parse(amount).unwrap())]);
    rule(accounts, rights, Effect::Allow(AmountMax::ByCurrency(limits)))
}

pub fn deny(accounts: &[&str], rights: &[Right]) -> Rule {
    rule(accounts, rights, Effect::Deny)
}

pub fn grant(rules: impl Into<Vec<Rule>>) -> Grant {
    Grant { rules: rules.into() }
}

pub fn command(action: Action) -> Command {
    let request_id = RequestId::parse("1").unwrap();
    let key = RequestKey { caller: Identity::anonymous(), request_id };
    Command::Request(Arc::new(Request::new(key, Uuid::nil(), action)))
}

pub fn forced(mut command: Command) -> Command {
    if let Command::Request(request) = &mut command {
        Arc::make_mut(request).force = true;
    }
    command
}

pub fn leg(account_id: &str, amount: &str) -> Leg {
    let (currency, condition) = (eur(), Condition::default());
    Leg { account_id: id(account_id), amount: currency.parse(amount).unwrap(), currency, condition }
}

pub fn posting(legs: &[(&str, &str)]) -> Command {
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
        placed: None,
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

pub fn place(account_id: &str, amount: &str) -> Command {
    let Hold { account_id, currency, amount, .. } = hold_on(account_id, amount);
    let (hold_id, expire_time_us) = (None, None);
    command(Action::PlaceHold(NewHold { hold_id, account_id, currency, amount, expire_time_us }))
}

pub fn capture(hold: Option<Hold>, amount: Option<&str>, to: Option<&str>) -> Command {
    command(Action::CaptureHold(Capture {
        hold: named(hold),
        amount: amount.map(|amount| (eur(), eur().parse(amount).unwrap())),
        destination_account_id: to.map(id),
        keep_open: false,
        allow_excess: false,
    }))
}

pub fn update_hold(hold: Option<Hold>, amount: Option<&str>) -> Command {
    let amount = amount.map(|amount| (eur(), eur().parse(amount).unwrap()));
    command(Action::UpdateHold(HoldUpdate { hold: named(hold), amount, expiry: None }))
}

pub fn release(hold: Option<Hold>) -> Command {
    command(Action::ReleaseHold(named(hold)))
}

pub fn transaction(entries: &[(&str, &str)]) -> Transaction {
    fixtures::transaction(TransactionKind::Posting, &eur(), entries)
}

pub fn reverse(transaction: Option<Transaction>) -> Command {
    reverse_part(transaction, None)
}

pub fn reverse_part(transaction: Option<Transaction>, amount: Option<&str>) -> Command {
    let resolved = transaction.map(Arc::new);
    let transaction = TransactionRef { transaction_id: Uuid::nil(), resolved };
    let amount = amount.map(|amount| (eur(), eur().parse(amount).unwrap()));
    command(Action::Reverse(Reversal { transaction, amount }))
}

pub fn create(account_id: &str, overdraft: &str, unlimited_overdraft: bool) -> Command {
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

pub fn limit(overdraft: &str) -> Command {
    let limit = Some(NewLimit::Amount(eur(), eur().parse(overdraft).unwrap()));
    change(AttributeChange::Update {
        labels: None,
        overdraft_limit: limit,
        unlimited_overdraft: None,
    })
}

pub fn unlimited(unlimited: bool) -> Command {
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
    use Right::{Credit, Debit, Force, Manage, Overdraft, Read};
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
        ("a forced withdrawal", forced(posting(&[("a", "-1")])), &[Debit, Force]),
        ("a forced deposit", forced(posting(&[("a", "1")])), &[Credit]),
        ("a new hold", place("a", "5"), &[Debit]),
        ("an update of a hold", update_hold(hold(), None), &[Debit]),
        ("a capture", capture(hold(), None, None), &[Debit]),
        ("a capture to itself", capture(hold(), None, Some("a")), &[Debit, Credit, Read]),
        ("a release", release(hold()), &[Debit]),
        ("the reversal of a deposit", reverse(Some(transaction(&[("a", "1")]))), &[Debit]),
        ("the reversal of a withdrawal", reverse(Some(transaction(&[("a", "-1")]))), &[Credit]),
        (
            "the forced reversal of a deposit",
            forced(reverse(Some(transaction(&[("a", "1")])))),
            &[Debit, Force],
        ),
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
fn a_reversal_needs_no_right_on_the_contra_account_that_the_server_chose() {
    let own = grant([allow_up_to("5", &["shop"], &[Right::Credit, Right::Debit])]);
    let with_contra_account = |entries: &[(&str, &str)]| {
        let mut command = reverse(Some(transaction(entries)));
        if let Command::Request(request) = &mut command {
            let contra = ContraAccount { currency_code: "EUR".to_owned(), account_id: id("world") };
            Arc::make_mut(request).contra_accounts = Some(vec![contra]);
        }
        command
    };
    let deposit = [("shop", "5"), ("world", "-5")];
    assert_eq!(own.check(&with_contra_account(&deposit)), Ok(()));
    let denied = Err(PermissionDenied::Named("transaction"));
    assert_eq!(
        own.check(&reverse(Some(transaction(&deposit)))),
        denied,
        "world is no contra account"
    );
    for others in [
        &[("shop", "5"), ("other", "-5")][..],
        &[("shop", "5"), ("other", "-2"), ("world", "-3")],
        // Nobody but its caller has chosen the accounts of such a posting.
        &[("world", "5"), ("world", "-5")],
    ] {
        assert_eq!(own.check(&with_contra_account(others)), denied, "{others:?}");
    }
    let more = own.check(&with_contra_account(&[("shop", "5.01"), ("world", "-5.01")]));
    assert!(matches!(more, Err(PermissionDenied::Amount { .. })), "{more:?}");
}

#[test]
fn what_a_request_names_looks_like_nothing_to_those_without_rights() {
    let own = [Right::Credit, Right::Debit];
    let limited = grant([allow_up_to("10", &["a*"], &own)]);
    let others = [
        (capture(None, None, None), capture(Some(hold_on("b", "99")), None, None), "hold"),
        (update_hold(None, None), update_hold(Some(hold_on("b", "99")), None), "hold"),
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
    // Without the right to force, it may exist or not.
    assert!(grant([allow(&["*"], &own)]).check(&forced(reverse(None))).is_err());
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
    let denied = Err(PermissionDenied::NoAccount("credit or debit"));
    assert_eq!(Grant::default().check(&fence()), denied);
    let all_denied = grant([deny(&["*"], &Right::ALL), allow(&["a"], &Right::ALL)]);
    assert_eq!(all_denied.check(&fence()), denied);
}

#[test]
fn a_watch_of_events_needs_the_right_to_read_some_account() {
    for right in Right::ALL {
        let answer = grant([allow(&["a"], &[right])]).check_read_of_some();
        assert_eq!(answer.is_ok(), right == Right::Read, "{right:?}");
    }
    let denied = grant([deny(&["a*"], &[Right::Read]), allow(&["a1", "a2*"], &[Right::Read])]);
    assert_eq!(denied.check_read_of_some(), Err(PermissionDenied::NoAccount("read")));
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
