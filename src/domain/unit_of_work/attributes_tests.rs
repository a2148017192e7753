//! Changes of accounts in the fold, without a database.

use crate::domain::{
    account::{Account, AccountState, AccountUpdate, AttributeChange, NewLimit},
    command::Command,
    fixtures::{account, id, usd},
    ids::Identity,
    rejection::Rejection,
    unit_of_work::{CommandResult, UnitOfWork, tests::work},
};

fn change(work: &mut UnitOfWork, of: &str, change: AttributeChange) -> Result<Account, Rejection> {
    change_at(work, of, change, None)
}

fn change_at(
    work: &mut UnitOfWork,
    of: &str,
    change: AttributeChange,
    expected_version: Option<i64>,
) -> Result<Account, Rejection> {
    let update = AccountUpdate {
        account_id: id(of),
        change,
        expected_version,
        reason: "why".to_owned(),
        created_by: Identity::anonymous(),
    };
    match work.apply(&Command::UpdateAccount(update))? {
        CommandResult::Account { account, .. } => Ok(account),
        CommandResult::Request(_) | CommandResult::Record(_) => {
            panic!("answered as something else")
        }
    }
}

fn limit(amount: &str) -> AttributeChange {
    AttributeChange::Update {
        labels: None,
        overdraft_limit: Some(NewLimit::Amount(usd(), usd().parse(amount).unwrap())),
        unlimited_overdraft: None,
    }
}

fn unlimited(unlimited: bool) -> AttributeChange {
    AttributeChange::Update {
        labels: None,
        overdraft_limit: None,
        unlimited_overdraft: Some(unlimited),
    }
}

#[test]
fn a_change_counts_only_if_it_changes_something() {
    let mut work = work(vec![account("a", "0.00")]);
    let frozen = change(&mut work, "a", AttributeChange::Freeze).unwrap();
    assert_eq!((frozen.state, frozen.version), (AccountState::Frozen, 2));
    let again = change(&mut work, "a", AttributeChange::Freeze).unwrap();
    assert_eq!(again, frozen);
    let kept = work.account_changes();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].before.state, kept[0].after.state, kept[0].version), {
        (AccountState::Open, AccountState::Frozen, 2)
    });
}

#[test]
fn only_an_empty_account_is_closed_and_then_permanently() {
    let mut held = account("held", "0.00");
    held.held = usd().parse("0.01").unwrap();
    let accounts = vec![account("full", "0.01"), held, account("owes", "-1.00")];
    let mut work = work([accounts, vec![account("a", "0.00")]].concat());
    for id in ["full", "held", "owes"] {
        let rejection = change(&mut work, id, AttributeChange::Close).unwrap_err();
        assert!(matches!(rejection, Rejection::AccountNotEmpty { .. }), "{id}: {rejection}");
    }
    change(&mut work, "a", AttributeChange::Freeze).unwrap();
    change(&mut work, "a", AttributeChange::Close).unwrap();
    assert!(change(&mut work, "a", AttributeChange::Close).is_ok());
    for later in [AttributeChange::Freeze, AttributeChange::Unfreeze, limit("1.00")] {
        let rejection = change(&mut work, "a", later).unwrap_err();
        assert!(matches!(rejection, Rejection::AccountClosed { .. }));
    }
}

#[test]
fn an_overdraft_that_is_used_cannot_be_taken_back() {
    let mut owes = account("a", "-50.00");
    owes.overdraft_limit = usd().parse("80.00").unwrap();
    owes.held = usd().parse("10.00").unwrap();
    let mut work = work(vec![owes]);
    let rejection = change(&mut work, "a", limit("59.99")).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
    assert_eq!(change(&mut work, "a", limit("60.00")).unwrap().available().to_string(), "0.00");
    let free = change(&mut work, "a", unlimited(true)).unwrap();
    assert_eq!((free.unlimited_overdraft, free.overdraft_limit), (true, usd().zero()));
    let rejection = change(&mut work, "a", unlimited(false)).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
    let limited = change(&mut work, "a", limit("60.00")).unwrap();
    assert!(!limited.unlimited_overdraft, "a limit ends what is unlimited");
}

#[test]
fn an_account_below_its_limit_takes_every_change_that_does_not_lower_it() {
    let below = Account { below_limit: true, ..account("a", "-50.00") };
    let mut work = work(vec![below]);
    change(&mut work, "a", AttributeChange::Freeze).unwrap();
    assert!(change(&mut work, "a", limit("20.00")).unwrap().below_limit, "still below");
    let rejection = change(&mut work, "a", limit("19.99")).unwrap_err();
    assert!(matches!(rejection, Rejection::InsufficientFunds { .. }));
    assert!(!work.is_marked(&id("a")), "nothing has changed");
    assert!(!change(&mut work, "a", limit("50.00")).unwrap().below_limit);
    assert!(work.is_marked(&id("a")));
}

#[test]
fn a_version_that_is_not_expected_is_refused() {
    let mut work = work(vec![account("a", "0.00")]);
    let expecting = |version: i64| AttributeChange::Update {
        labels: Some([("k".to_owned(), version.to_string())].into()),
        overdraft_limit: None,
        unlimited_overdraft: None,
    };
    assert_eq!(change_at(&mut work, "a", expecting(1), Some(1)).unwrap().version, 2);
    let rejection = change_at(&mut work, "a", expecting(1), Some(1)).unwrap_err();
    assert!(matches!(
        rejection,
        Rejection::VersionMismatch { version: 2, expected_version: 1, .. }
    ));
}
