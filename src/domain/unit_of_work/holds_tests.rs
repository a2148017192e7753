//! Holds and fences in the fold, without a database.

use std::sync::Arc;

use crate::domain::{
    account::{Account, AccountState},
    command::{Action, Command, Request},
    fixtures::{NOW, account, account_in, id, posting, request, usd},
    hold::{Capture, Hold, HoldRef, HoldState, HoldUpdate, NewExpiry, NewHold},
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
    let (hold, keep_open, allow_excess) = (named(hold), false, false);
    let capture = Capture { hold, amount, destination_account_id, keep_open, allow_excess };
    request(request_id, Action::CaptureHold(capture))
}

/// The same capture with these flags.
fn with(mut request: Request, keep_open: bool, allow_excess: bool) -> Request {
    let Action::CaptureHold(capture) = &mut request.action else { panic!("not a capture") };
    (capture.keep_open, capture.allow_excess) = (keep_open, allow_excess);
    request
}

fn update(id: &str, hold: &Arc<Hold>, amount: Option<&str>, expiry: Option<NewExpiry>) -> Request {
    let amount = amount.map(|amount| (usd(), usd().parse(amount).unwrap()));
    request(id, Action::UpdateHold(HoldUpdate { hold: named(hold), amount, expiry }))
}

fn reason(result: Result<impl std::fmt::Debug, Rejection>) -> String {
    let rejection = result.unwrap_err();
    serde_json::to_value(&rejection).unwrap()["reason"].as_str().unwrap().to_owned()
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
    assert_eq!((work.placed().count(), work.changed_holds().count()), (1, 0));
}

#[test]
fn a_hold_is_captured_in_parts_until_nothing_is_left() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    let part = |id: &str, amount| with(capture(id, &hold, amount, None), true, false);
    let first = make(&mut work, part("2", Some("2.00"))).unwrap().0.hold.unwrap();
    assert_eq!((first.state, first.held().to_string()), (HoldState::Open, "5.00".to_owned()));
    assert_eq!(changed(&work), [has("8.00", "5.00", 3)]);
    assert_eq!(reason(make(&mut work, part("3", Some("5.01")))), "HOLD_AMOUNT_EXCEEDED");
    make(&mut work, part("4", Some("4.00"))).unwrap();
    let (last, _) = make(&mut work, part("5", Some("1.00"))).unwrap();
    let (last, transaction) = (last.hold.unwrap(), last.transaction.unwrap());
    assert_eq!(last.state, HoldState::Captured, "nothing is left");
    let captured = last.captured.unwrap();
    assert_eq!(captured.amount.to_string(), "7.00", "of all parts");
    assert_eq!(Some(captured.transaction_id), transaction.transaction_id);
    assert_eq!(changed(&work), [has("3.00", "0.00", 5)]);
    assert_eq!(first.as_ref().clone().as_placed(), *hold);
}

#[test]
fn what_is_left_of_a_hold_is_released_or_expires() {
    for is_released in [true, false] {
        let mut work = work(vec![account("a", "10.00")]);
        let new = NewHold { expire_time_us: Some(NOW + 1), ..new_hold("a", "7.00") };
        let hold = place(&mut work, "1", new).unwrap();
        make(&mut work, with(capture("2", &hold, Some("2.00"), None), true, false)).unwrap();
        match is_released {
            true => drop(make(&mut work, release("3", &hold)).unwrap()),
            false => {
                work.now_us += 1;
                work.expire_holds();
            }
        }
        let ended = &work.holds[&hold.hold_id];
        let state = if is_released { HoldState::Released } else { HoldState::Expired };
        assert_eq!((ended.state, ended.captured.unwrap().amount.to_string()), {
            (state, "2.00".to_owned())
        });
        assert_eq!(changed(&work), [has("8.00", "0.00", 4)]);
    }
}

#[test]
fn more_than_a_hold_is_captured_where_it_is_allowed_and_available() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    let tip = |id: &str, amount| with(capture(id, &hold, Some(amount), None), false, true);
    let rejection = make(&mut work, tip("2", "10.01")).unwrap_err();
    let Rejection::InsufficientFunds { available, required, .. } = rejection else { panic!() };
    let available = available.unwrap();
    assert_eq!(
        (available.to_string(), required.unwrap().to_string()),
        ("3.00".into(), "3.01".into())
    );
    work.accounts.values_mut().for_each(|it| it.state = AccountState::Frozen);
    assert_eq!(reason(make(&mut work, tip("3", "7.01"))), "ACCOUNT_FROZEN");
    let mut euros = tip("5", "7.01");
    if let Action::CaptureHold(capture) = &mut euros.action {
        let currency = crate::domain::money::Currency::from_parts("EUR", 2);
        capture.amount = Some((currency.clone(), currency.parse("7.01").unwrap()));
    }
    assert_eq!(reason(make(&mut work, euros)), "CURRENCY_MISMATCH");
    work.accounts.values_mut().for_each(|it| it.state = AccountState::Open);
    let captured = make(&mut work, tip("4", "10.00")).unwrap().0.hold.unwrap();
    assert_eq!(captured.amount.to_string(), "10.00", "it grows to what is taken");
    assert_eq!(captured.captured.unwrap().amount, captured.amount);
    assert_eq!(changed(&work), [has("0.00", "0.00", 3)]);
    assert_eq!(captured.as_ref().clone().as_placed(), *hold);
}

#[test]
fn a_hold_grows_and_shrinks_and_expires_at_another_time() {
    let mut work = work(vec![account("a", "10.00")]);
    let new = NewHold { expire_time_us: Some(NOW + 5), ..new_hold("a", "7.00") };
    let hold = place(&mut work, "1", new).unwrap();
    let updated = |work: &mut UnitOfWork, request| make(work, request).unwrap().0.hold.unwrap();
    let grown = updated(&mut work, update("2", &hold, Some("10.00"), None));
    assert_eq!((grown.amount.to_string(), grown.expire_time_us), ("10.00".into(), Some(NOW + 5)));
    assert_eq!(changed(&work), [has("10.00", "10.00", 3)]);
    assert_eq!(reason(make(&mut work, update("3", &hold, Some("10.01"), None))), {
        "INSUFFICIENT_FUNDS"
    });
    work.accounts.values_mut().for_each(|it| it.state = AccountState::Frozen);
    let later = Some(NewExpiry::At(NOW + 9));
    let shrunk = updated(&mut work, update("4", &hold, Some("4.00"), later));
    assert_eq!((shrunk.amount.to_string(), shrunk.expire_time_us), ("4.00".into(), Some(NOW + 9)));
    assert_eq!(reason(make(&mut work, update("5", &hold, Some("4.01"), None))), "ACCOUNT_FROZEN");
    let endless = updated(&mut work, update("6", &hold, None, Some(NewExpiry::Never)));
    assert_eq!(endless.expire_time_us, None);
    assert_eq!(changed(&work), [has("10.00", "4.00", 5)]);
    assert_eq!(endless.as_ref().clone().as_placed(), *hold);
    let now = Some(NewExpiry::At(NOW));
    assert_eq!(reason(make(&mut work, update("7", &hold, None, now))), "EXPIRE_TIME_PASSED");
    make(&mut work, release("8", &hold)).unwrap();
    assert_eq!(reason(make(&mut work, update("9", &hold, Some("1.00"), None))), "HOLD_NOT_OPEN");
}

#[test]
fn a_hold_stays_above_what_was_captured_of_it() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    make(&mut work, with(capture("2", &hold, Some("2.00"), None), true, false)).unwrap();
    let rejection = make(&mut work, update("3", &hold, Some("2.00"), None)).unwrap_err();
    let Rejection::HoldAmountTooLow { captured, required, .. } = rejection else { panic!() };
    assert_eq!(
        (captured.unwrap().to_string(), required.to_string()),
        ("2.00".into(), "2.00".into())
    );
    make(&mut work, update("4", &hold, Some("2.01"), None)).unwrap();
    assert_eq!(changed(&work), [has("8.00", "0.01", 4)]);
}

#[test]
fn what_was_captured_of_a_hold_stays_within_the_limit_of_an_amount() {
    // The limit is 10^26.
    let (most, half) = ("99999999999999999999999999.99", "60000000000000000000000000.00");
    let mut work = work(vec![account("a", most)]);
    let hold = place(&mut work, "1", new_hold("a", half)).unwrap();
    let tipped = |id, amount| with(capture(id, &hold, Some(amount), None), true, true);
    make(&mut work, tipped("2", "50000000000000000000000000.00")).unwrap();
    make(&mut work, posting("3", &[("a", "50000000000000000000000000.00")])).unwrap();
    let balance = work.changed().next().unwrap().balance;

    let beyond = tipped("4", "50000000000000000000000000.00");
    assert_eq!(reason(make(&mut work, beyond)), "BALANCE_OUT_OF_RANGE");

    assert_eq!(work.changed().next().unwrap().balance, balance);
    let within = tipped("5", "49999999999999999999999999.99");
    let captured = make(&mut work, within).unwrap().0.hold.unwrap();
    assert_eq!(captured.captured.unwrap().amount.to_string(), most);
}

#[test]
fn a_capture_without_amount_takes_no_more_than_was_held_when_it_arrived() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "5.00")).unwrap();
    make(&mut work, update("2", &hold, Some("9.00"), None)).unwrap();
    let captured = make(&mut work, capture("3", &hold, None, None)).unwrap().0.hold.unwrap();
    assert_eq!(captured.captured.unwrap().amount.to_string(), "5.00");
    assert_eq!(changed(&work), [has("5.00", "0.00", 4)]);
}

#[test]
fn a_hold_is_ended_once() {
    let mut work = work(vec![account("a", "10.00")]);
    let hold = place(&mut work, "1", new_hold("a", "7.00")).unwrap();
    make(&mut work, release("2", &hold)).unwrap();
    let again = update("5", &hold, Some("1.00"), None);
    for again in [capture("3", &hold, None, None), release("4", &hold), again] {
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
        placed: None,
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
    let ended: Vec<_> = work.changed_holds().map(|it| (it.hold_id.as_str(), it.state)).collect();
    assert_eq!(ended, [("due", HoldState::Expired)]);
    make(&mut work, posting("1", &[("a", "-5.00")])).unwrap();
    let due = Arc::new(hold("due", NOW));
    let rejection = make(&mut work, capture("2", &due, None, None)).unwrap_err();
    assert!(matches!(rejection, Rejection::HoldNotOpen { state, .. } if state == "expired"));

    // A request may name a hold on an account that is not locked. That cannot be recorded.
    let elsewhere = Hold { account_id: id("b"), ..hold("elsewhere", NOW) };
    let holds = vec![elsewhere, hold("due", NOW), hold("not-yet", NOW + 1)];
    let accounts = vec![owner.clone()];
    let locked = LockedState { accounts, holds, now_us: NOW, ..LockedState::default() };
    assert!(locked.accounts_with_expired_holds(1).contains(&owner.account_id));
    assert!(locked.accounts_with_expired_holds(2).is_empty());
    assert_eq!(UnitOfWork::new(locked).changed_holds().count(), 1);
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

#[test]
fn the_end_of_a_hold_takes_the_mark_from_an_account_that_was_below_its_limit() {
    for is_released in [true, false] {
        let mut work = work(vec![account("a", "10.00")]);
        let new = NewHold { expire_time_us: Some(NOW + 1), ..new_hold("a", "7.00") };
        let hold = place(&mut work, "1", new).unwrap();
        make(&mut work, Request { force: true, ..posting("2", &[("a", "-8.00")]) }).unwrap();
        work.marked.clear();
        match is_released {
            true => drop(make(&mut work, release("3", &hold)).unwrap()),
            false => {
                work.now_us += 1;
                work.expire_holds();
            }
        }
        assert!(!work.changed().any(|account| account.below_limit));
        assert!(work.is_marked(&id("a")), "{is_released}");
    }
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
