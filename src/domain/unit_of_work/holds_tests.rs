//! Holds and fences in the fold, without a database.

use std::sync::Arc;

use crate::domain::{
    account::{Account, AccountState},
    command::{Action, Command, Request},
    fixtures::{NOW, account, account_in, id, posting, request, usd},
    hold::{Capture, Hold, HoldRef, HoldState, NewHold},
    ids::{HoldId, Identity},
    rejection::Rejection,
    unit_of_work::{
        CommandResult, LockedState, UnitOfWork,
        tests::{make, work},
    },
};

fn new_hold(account: &str, amount: &str) -> NewHold {
    NewHold {
        hold_id: None,
        account_id: id(account),
        currency: usd(),
        amount: usd().parse(amount).unwrap(),
        expire_time_us: None,
    }
}

fn place(work: &mut UnitOfWork, id: &str, new: NewHold) -> Result<Arc<Hold>, Rejection> {
    place_of(work, request(id, Action::PlaceHold(new)))
}

fn place_of(work: &mut UnitOfWork, request: Request) -> Result<Arc<Hold>, Rejection> {
    Ok(make(work, request)?.0.hold.unwrap())
}

fn named(hold: &Arc<Hold>) -> HoldRef {
    HoldRef { hold_id: hold.hold_id.clone(), resolved: Some(hold.clone()) }
}

fn capture(request_id: &str, hold: &Arc<Hold>, amount: Option<&str>, to: Option<&str>) -> Request {
    let amount = amount.map(|amount| (usd(), usd().parse(amount).unwrap()));
    let destination_account_id = to.map(id);
    request(
        request_id,
        Action::CaptureHold(Capture { hold: named(hold), amount, destination_account_id }),
    )
}

fn release(id: &str, hold: &Arc<Hold>) -> Request {
    request(id, Action::ReleaseHold(named(hold)))
}

/// Balance, held, version of each account that has changed.
fn changed(work: &UnitOfWork) -> Vec<(String, String, i64)> {
    let all = work.changed();
    all.map(|it| (it.balance.to_string(), it.held.to_string(), it.version)).collect()
}

fn has(balance: &str, held: &str, version: i64) -> (String, String, i64) {
    (balance.to_owned(), held.to_owned(), version)
}

#[test]
fn what_is_held_cannot_be_spent_or_held_again() {
    let mut work = work(vec![account("a", "10.00")]);
    place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    let rejection = make(&mut work, posting("2", &[("a", "-3.01")])).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
    let rejection = place(&mut work, "3", new_hold("a", "3.01")).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
    place(&mut work, "4", new_hold("a", "3.00")).unwrap();
    assert_eq!(changed(&work), [has("10.00", "10.00", 3)]);
}

#[test]
fn a_capture_takes_a_part_and_releases_the_rest() {
    let mut work = work(vec![account("a", "10.00"), account("b", "0.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    let (made, _) = make(&mut work, capture("2", &hold, Some("5.00"), Some("b"))).unwrap();
    let (captured, transaction) = (made.hold.unwrap(), made.transaction.unwrap());
    assert_eq!(captured.state, HoldState::Captured);
    assert_eq!(captured.captured.unwrap().amount.to_string(), "5.00");
    assert_eq!(captured.captured.unwrap().transaction_id, transaction.transaction_id.unwrap());
    assert_eq!(changed(&work), [has("5.00", "0.00", 3), has("5.00", "0.00", 2)]);
    // It was placed and ended in one batch: it is inserted as it is now.
    assert_eq!((work.placed().count(), work.ended().count()), (1, 0));
}

#[test]
fn a_hold_is_ended_once() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    make(&mut work, release("2", &hold)).unwrap();
    for again in [capture("3", &hold, None, None), release("4", &hold)] {
        let rejection = make(&mut work, again).unwrap_err();
        let Rejection::HoldNotOpen { state, .. } = rejection else { panic!("{rejection}") };
        assert_eq!(state, "released");
    }
    assert_eq!(changed(&work), [has("10.00", "0.00", 3)]);
    let (again, replayed) = make(&mut work, release("2", &hold)).unwrap();
    assert!(replayed && again.hold.unwrap().state == HoldState::Released);
}

#[test]
fn a_hold_that_has_expired_blocks_nothing_and_is_counted_once() {
    let mut owner = account("a", "10.00");
    owner.held = usd().parse("10.00").unwrap();
    let hold = |id: &str, expire_time_us| Hold {
        created_by: Identity::anonymous(),
        ended_by: Identity::anonymous(),
        hold_id: HoldId::parse(id).unwrap(),
        account_id: owner.account_id.clone(),
        currency: usd(),
        amount: usd().parse("5.00").unwrap(),
        state: HoldState::Open,
        expire_time_us: Some(expire_time_us),
        captured: None,
        request_id: crate::domain::ids::RequestId::parse("r").unwrap(),
        description: String::new(),
        labels: Default::default(),
        create_time_us: NOW - 10,
        update_time_us: NOW - 10,
    };
    let holds = vec![hold("due", NOW), hold("not-yet", NOW + 1)];
    let accounts = vec![owner.clone()];
    let mut work =
        UnitOfWork::new(LockedState { accounts, holds, now_us: NOW, ..LockedState::default() });
    assert_eq!(changed(&work), [has("10.00", "5.00", 2)]);
    let ended: Vec<_> = work.ended().map(|it| (it.hold_id.as_str(), it.state)).collect();
    assert_eq!(ended, [("due", HoldState::Expired)]);
    make(&mut work, posting("1", &[("a", "-5.00")])).unwrap();
    let due = Arc::new(hold("due", NOW));
    let rejection = make(&mut work, capture("2", &due, None, None)).unwrap_err();
    assert!(matches!(rejection, Rejection::HoldNotOpen { state, .. } if state == "expired"));
}

#[test]
fn a_frozen_account_keeps_its_promises_and_makes_no_new_ones() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    work.accounts.values_mut().for_each(|it| it.state = AccountState::Frozen);
    let rejection = place(&mut work, "2", new_hold("a", "1.00")).unwrap_err();
    assert!(matches!(rejection, Rejection::AccountFrozen { .. }));
    make(&mut work, capture("3", &hold, None, None)).unwrap();
    assert_eq!(changed(&work), [has("3.00", "0.00", 3)]);
}

#[test]
fn held_money_is_captured_although_the_account_is_below_its_limit() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    make(&mut work, Request { force: true, ..posting("2", &[("a", "-8.00")]) }).unwrap();
    let is_below = |work: &UnitOfWork| work.changed().any(|account| account.below_limit);
    assert!(is_below(&work));
    make(&mut work, capture("3", &hold, Some("1.00"), None)).unwrap();
    assert_eq!(changed(&work), [has("1.00", "0.00", 4)]);
    assert!(!is_below(&work), "the rest of the hold is available again");
}

/// Each request is wrong in all ways from its place in this list on.
#[test]
fn rejections_of_holds_come_in_one_fixed_order() {
    let named_hold = |hold_id: &str| NewHold {
        hold_id: Some(HoldId::parse(hold_id).unwrap()),
        expire_time_us: Some(NOW),
        currency: crate::domain::money::Currencies::default().get("EUR").unwrap(),
        ..new_hold("missing", "99.00")
    };
    let closed = account_in(AccountState::Closed, "closed");
    let frozen = account_in(AccountState::Frozen, "frozen");
    let held = usd().parse("1.00").unwrap();
    let unlimited = Account { held, unlimited_overdraft: true, ..account("unlimited", "0.00") };
    let mut work = work(vec![account("a", "1.00"), closed, frozen, unlimited]);
    let most = format!("{}.00", "9".repeat(26));
    let taken = NewHold { hold_id: named_hold("taken").hold_id, ..new_hold("a", "1.00") };
    place(&mut work, "0", taken).unwrap();
    let in_time = NewHold { expire_time_us: Some(NOW + 1), ..named_hold("free") };
    let news = [
        named_hold("taken"),
        named_hold("free"),
        in_time.clone(),
        NewHold { account_id: id("closed"), ..in_time.clone() },
        NewHold { account_id: id("frozen"), ..in_time.clone() },
        NewHold { account_id: id("a"), ..in_time },
        new_hold("a", &most),
        new_hold("unlimited", &most),
    ];
    let reasons: Vec<_> = (1..)
        .zip(news)
        .map(|(id, new)| {
            let rejection = place(&mut work, &id.to_string(), new).unwrap_err();
            serde_json::to_value(&rejection).unwrap()["reason"].as_str().unwrap().to_owned()
        })
        .collect();
    let expected = [
        "HOLD_EXISTS",
        "EXPIRE_TIME_PASSED",
        "ACCOUNT_NOT_FOUND",
        "ACCOUNT_CLOSED",
        "ACCOUNT_FROZEN",
        "CURRENCY_MISMATCH",
        "INSUFFICIENT_FUNDS",
        "BALANCE_OUT_OF_RANGE",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn what_was_fenced_is_never_made_whatever_its_body() {
    let mut work = work(vec![account("a", "10.00")]);
    let fence = |id: &str| Command::Request(Arc::new(request(id, Action::Fence)));
    for _ in 0..2 {
        let Ok(CommandResult::Record(record)) = work.apply(&fence("1")) else { panic!() };
        assert!(matches!(record.result, Err(Rejection::RequestFenced { .. })));
    }
    let rejection = make(&mut work, posting("1", &[("a", "1.00")])).unwrap_err();
    assert!(matches!(rejection, Rejection::RequestFenced { .. }));
    let (made, _) = make(&mut work, posting("2", &[("a", "1.00")])).unwrap();
    let Ok(CommandResult::Record(record)) = work.apply(&fence("2")) else { panic!() };
    assert_eq!(record.result, Ok(made), "what was applied stays so");
}

#[test]
fn the_name_of_a_hold_belongs_to_the_caller_who_gave_it() {
    let of = |caller: &str, id: &str, name: &str| {
        let hold_id = Some(HoldId::parse_new(name).unwrap());
        let new = NewHold { hold_id, ..new_hold("a", "1.00") };
        let mut request = request(id, Action::PlaceHold(new));
        request.key.caller = Identity::from_stored(caller);
        request
    };
    let mut locked = LockedState { now_us: NOW, ..LockedState::default() };
    locked.accounts.push(account("a", "10.00"));
    // Of an older version: the id is the name alone.
    let mut anonymous = work(vec![account("a", "10.00")]);
    let former = place_of(&mut anonymous, of("", "1", "former")).unwrap();
    let former = Hold { created_by: Identity::from_stored("east"), ..former.as_ref().clone() };
    assert_eq!(former.hold_id.as_str(), "former");
    locked.holds.push(former);
    let mut work = UnitOfWork::new(locked);

    let first = place_of(&mut work, of("east", "2", "order")).unwrap();
    assert_eq!(first.hold_id.as_str(), "order@east");
    let other = place_of(&mut work, of("west", "3", "order")).unwrap();
    assert_eq!(other.hold_id.as_str(), "order@west");
    place_of(&mut work, of("west", "4", "former")).unwrap();
    for (caller, id, name) in [("east", "5", "order"), ("east", "6", "former")] {
        let rejection = place_of(&mut work, of(caller, id, name)).unwrap_err();
        assert!(matches!(rejection, Rejection::HoldExists { .. }), "{name}: {rejection}");
    }
}
