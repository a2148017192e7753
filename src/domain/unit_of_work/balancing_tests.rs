//! Balanced transactions in the fold, without a database.

use std::{collections::BTreeMap, sync::Arc};

use rust_decimal::Decimal;

use crate::domain::{
    account::{Account, AccountState, NewAccount},
    balancing::ContraAccounts,
    command::{Action, Command, Leg, Request, Reversal, TransactionRef},
    fixtures::{NOW, account, id, legs, new_account, posting, request, usd},
    hold::{Capture, Hold, HoldRef, NewHold},
    money::Currency,
    rejection::Rejection,
    transaction::{Transaction, TransactionKind},
    unit_of_work::{
        UnitOfWork,
        tests::{make, work},
    },
};

fn contra() -> Account {
    Account::open(&NewAccount { unlimited_overdraft: true, ..new_account("World") }, NOW)
}

/// As the ledger completes it, on a server with a contra account for dollars.
fn completed(request: Request) -> Request {
    completed_in("USD", request)
}

fn completed_in(currency_code: &str, request: Request) -> Request {
    let all = ContraAccounts(BTreeMap::from([(currency_code.to_owned(), id("World"))]));
    Request { contra_accounts: Some(all.of(&request.action)), ..request }
}

fn deposit(request_id: &str, account_id: &str, amount: &str) -> Request {
    post(request_id, TransactionKind::Deposit, &[(account_id, amount)])
}

/// In this currency, not in dollars.
fn leg_in(account_id: &str, currency: Currency, amount: &str) -> Leg {
    let amount = currency.parse(amount).unwrap();
    Leg { currency, amount, ..legs(&[(account_id, "1.00")]).remove(0) }
}

fn post(request_id: &str, kind: TransactionKind, changes: &[(&str, &str)]) -> Request {
    request(request_id, Action::Post(kind, legs(changes)))
}

fn balanced(request_id: &str, changes: &[(&str, &str)]) -> Request {
    Request { require_balanced: true, ..posting(request_id, changes) }
}

fn reversal(request_id: &str, of: &Arc<Transaction>, amount: Option<&str>) -> Request {
    let (transaction_id, resolved) = (of.transaction_id.unwrap(), Some(of.clone()));
    let amount = amount.map(|amount| (usd(), usd().parse(amount).unwrap()));
    let transaction = TransactionRef { transaction_id, resolved };
    request(request_id, Action::Reverse(Reversal { transaction, amount }))
}

fn hold(work: &mut UnitOfWork, request_id: &str, account_id: &str, amount: &str) -> Arc<Hold> {
    let new = NewHold {
        hold_id: None,
        account_id: id(account_id),
        currency: usd(),
        amount: usd().parse(amount).unwrap(),
        expire_time_us: None,
    };
    make(work, request(request_id, Action::PlaceHold(new))).unwrap().0.hold.unwrap()
}

fn capture(request_id: &str, hold: &Arc<Hold>, amount: Option<(Currency, &str)>) -> Request {
    request(
        request_id,
        Action::CaptureHold(Capture {
            hold: HoldRef { hold_id: hold.hold_id.clone(), resolved: Some(hold.clone()) },
            amount: amount.map(|(currency, amount)| {
                let amount = currency.parse(amount).unwrap();
                (currency, amount)
            }),
            destination_account_id: None,
            keep_open: false,
            allow_excess: false,
        }),
    )
}

fn made(work: &mut UnitOfWork, request: Request) -> Arc<Transaction> {
    make(work, request).unwrap().0.transaction.unwrap()
}

fn assert_amounts(of: &Transaction, expected: &[(&str, &str)]) {
    let found = of.entries.iter().map(|it| (it.account_id.to_string(), it.amount.to_string()));
    let expected = expected.iter().map(|(it, amount)| ((*it).to_owned(), (*amount).to_owned()));
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

fn reason(result: Result<impl std::fmt::Debug, Rejection>) -> String {
    let rejection = serde_json::to_value(result.unwrap_err()).unwrap();
    rejection["reason"].as_str().unwrap().to_owned()
}

/// The currency and the sum of an unbalanced request.
fn unbalanced(rejection: &Rejection) -> (&str, Option<&str>) {
    let Rejection::Unbalanced { currency_code, sum } = rejection else { panic!("{rejection}") };
    (currency_code, sum.as_deref())
}

#[test]
fn a_posting_that_must_be_balanced_sums_to_zero_in_each_currency() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    made(&mut work, balanced("1", &[("a", "-3.00"), ("b", "1.00"), ("b", "2.00")]));
    let rejection = make(&mut work, balanced("2", &[("a", "-3.00"), ("b", "2.99")])).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("USD", Some("-0.01")));
    // Before all rules about accounts.
    let rejection = make(&mut work, balanced("3", &[("missing", "1.00")])).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("USD", Some("1.00")));
    made(&mut work, posting("4", &[("a", "-1.00")]));
}

#[test]
fn another_demand_under_the_same_id_is_another_request() {
    let request = posting("1", &[("a", "-1.00"), ("b", "1.00")]);
    let demanding = Request { require_balanced: true, ..request.clone() };
    assert_ne!(request.fingerprint(), demanding.fingerprint());
    let deposit = deposit("1", "a", "1.00");
    assert_eq!(deposit.fingerprint(), completed(deposit.clone()).fingerprint());
}

#[test]
fn a_contra_account_takes_the_other_side() {
    let mut work = work(vec![account("a", "0.00"), account("b", "0.00"), contra()]);
    let first = made(&mut work, completed(deposit("1", "a", "9.00")));
    assert_amounts(&first, &[("a", "9.00"), ("World", "-9.00")]);
    assert_eq!(first.entries[1].balance_after.to_string(), "-9.00");
    let withdrawal = post("2", TransactionKind::Withdrawal, &[("a", "-1.00")]);
    let second = made(&mut work, completed(withdrawal));
    assert_amounts(&second, &[("a", "-1.00"), ("World", "1.00")]);
    let hold = hold(&mut work, "3", "a", "3.00");
    let third = made(&mut work, completed(capture("4", &hold, Some((usd(), "2.00")))));
    assert_amounts(&third, &[("a", "-2.00"), ("World", "2.00")]);
    // Transfers and postings name both sides themselves.
    let transfer = post("5", TransactionKind::Transfer, &[("a", "-1.00"), ("b", "1.00")]);
    assert_amounts(&made(&mut work, completed(transfer)), &[("a", "-1.00"), ("b", "1.00")]);
    let named = [("World", "-2.00"), ("b", "2.00")];
    assert_amounts(&made(&mut work, completed(posting("6", &named))), &named);
    let rejection = make(&mut work, completed(posting("7", &[("a", "1.00")]))).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("USD", Some("1.00")));
}

#[test]
fn a_reversal_sums_to_zero_whether_its_transaction_did_or_not() {
    let mut work = work(vec![account("a", "0.00"), contra()]);
    let alone = made(&mut work, deposit("1", "a", "9.00"));
    let with_contra_account = made(&mut work, completed(deposit("2", "a", "7.00")));
    for (request_id, original) in [("3", &alone), ("4", &with_contra_account)] {
        let part = made(&mut work, completed(reversal(request_id, original, Some("2.00"))));
        assert_amounts(&part, &[("a", "-2.00"), ("World", "2.00")]);
    }
    let rest = made(&mut work, completed(reversal("5", &alone, None)));
    assert_amounts(&rest, &[("a", "-7.00"), ("World", "7.00")]);
    let rest = made(&mut work, completed(reversal("6", &with_contra_account, None)));
    assert_amounts(&rest, &[("a", "-5.00"), ("World", "5.00")]);
}

#[test]
fn a_closed_contra_account_takes_nothing() {
    let mut closed = vec![account("a", "5.00"), contra()];
    closed[1].state = AccountState::Closed;
    let mut work = work(closed);
    let rejection = make(&mut work, completed(deposit("1", "a", "1.00"))).unwrap_err();
    let Rejection::AccountClosed { account_id } = rejection else { panic!("{rejection}") };
    assert_eq!(account_id, id("World"));
    // Its balance has not changed.
    assert_eq!(work.changed().count(), 0);
}

#[test]
fn nothing_is_taken_by_force_from_an_account_that_the_server_has_chosen() {
    let limited = Account { unlimited_overdraft: false, ..contra() };
    for (world, expected) in [
        (Account { state: AccountState::Frozen, ..contra() }, "ACCOUNT_FROZEN"),
        (limited, "INSUFFICIENT_FUNDS"),
    ] {
        let mut work = work(vec![account("a", "7.00"), contra()]);
        let withdrawn =
            made(&mut work, completed(post("1", TransactionKind::Withdrawal, &[("a", "-7.00")])));
        work.accounts.insert(id("World"), Account { balance: usd().zero(), ..world });
        let forced = Request { force: true, ..completed(reversal("2", &withdrawn, None)) };
        assert_eq!(reason(make(&mut work, forced)), expected);

        // A caller that names the account has chosen it.
        let named = Request { force: true, ..posting("3", &[("World", "-7.00"), ("a", "7.00")]) };
        made(&mut work, completed(named));
    }
}

#[test]
fn what_no_contra_account_can_take_is_rejected() {
    let mut work = work(vec![account("a", "5.00"), contra()]);
    // It cannot be the other side of its own change.
    let rejection = make(&mut work, completed(deposit("1", "World", "1.00"))).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("USD", Some("1.00")));
    let euros = || Currency::from_parts("EUR", 2);
    let legs = vec![leg_in("a", euros(), "1.00")];
    let foreign = request("2", Action::Post(TransactionKind::Deposit, legs));
    let rejection = make(&mut work, completed(foreign)).unwrap_err();
    assert_eq!(unbalanced(&rejection), ("EUR", Some("1.00")));
    // The amount may be that of the hold, which not every caller may know.
    let hold = hold(&mut work, "3", "a", "3.00");
    let rejection = make(&mut work, completed(capture("4", &hold, Some((euros(), "1.00")))));
    assert_eq!(unbalanced(&rejection.unwrap_err()), ("EUR", None));
}

#[test]
fn the_contra_account_is_locked() {
    let locked = |request: Request| {
        let command = Command::Request(completed(request).into());
        command.account_ids().cloned().collect::<Vec<_>>()
    };
    assert_eq!(locked(deposit("1", "a", "5.00")), [id("a"), id("World")]);
    assert_eq!(locked(posting("2", &[("a", "5.00")])), [id("a")]);
    let mut work = work(vec![account("a", "5.00"), contra()]);
    let hold = hold(&mut work, "3", "a", "3.00");
    assert_eq!(locked(capture("4", &hold, None)), [id("a"), id("World")]);
    let alone = made(&mut work, deposit("5", "a", "9.00"));
    assert_eq!(locked(reversal("6", &alone, None)), [id("a"), id("World")]);
}

#[test]
fn other_decimals_of_one_currency_are_summed_exactly() {
    let of_scale = |account_id: &str, scale, amount: &str| {
        leg_in(account_id, Currency::from_parts("PTS", scale), amount)
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

#[test]
fn each_account_keeps_its_own_decimals() {
    let opened_with = |account_id: &str, scale| {
        let currency = Currency::from_parts("PTS", scale);
        let (overdraft_limit, unlimited_overdraft) = (currency.zero(), true);
        let new = new_account(account_id);
        let new = NewAccount { currency, overdraft_limit, unlimited_overdraft, ..new };
        Account::open(&new, NOW)
    };
    let deposit = |request_id: &str, scale, amount: &str| {
        let legs = vec![leg_in("a", Currency::from_parts("PTS", scale), amount)];
        completed_in("PTS", request(request_id, Action::Post(TransactionKind::Deposit, legs)))
    };
    for (own, contra) in [(2, 4), (4, 2), (4, 4)] {
        let mut work = work(vec![opened_with("a", own), opened_with("World", contra)]);
        let done = made(&mut work, deposit("1", 4, "1.5"));
        let scales: Vec<_> = done.entries.iter().map(|it| it.currency.scale()).collect();
        assert_eq!(scales, [own, contra]);
        let sum: Decimal = done.entries.iter().map(|it| it.amount.decimal()).sum();
        assert_eq!(sum, Decimal::ZERO);
        // Never rounded.
        let rejection = make(&mut work, deposit("2", 4, "1.0001"));
        assert_eq!(rejection.is_err(), (own, contra) != (4, 4));
    }
}
