//! Accounts and requests for tests.

use uuid::Uuid;

use crate::domain::{
    account::{Account, AccountState, Labels, NewAccount},
    command::{Action, Condition, Leg, Request},
    ids::{AccountId, Identity, RequestId, RequestKey},
    money::{Currencies, Currency},
    transaction::{Entry, Transaction, TransactionKind},
};

/// The time of all tests.
pub const NOW: i64 = 1_700_000_000_000_000;

pub fn usd() -> Currency {
    Currencies::default().get("USD").unwrap()
}

pub fn id(account_id: &str) -> AccountId {
    AccountId::parse(account_id).unwrap()
}

pub fn new_account(account_id: &str) -> NewAccount {
    NewAccount {
        created_by: Identity::anonymous(),
        account_id: id(account_id),
        currency: usd(),
        overdraft_limit: usd().zero(),
        unlimited_overdraft: false,
        labels: Labels::new(),
    }
}

pub fn account(account_id: &str, balance: &str) -> Account {
    let mut account = Account::open(&new_account(account_id), NOW);
    account.balance = usd().parse(balance).unwrap();
    account
}

pub fn account_in(state: AccountState, account_id: &str) -> Account {
    Account { state, ..account(account_id, "0.00") }
}

pub fn request(request_id: &str, action: Action) -> Request {
    let request_id = RequestId::parse(request_id).unwrap();
    let key = RequestKey { caller: Identity::anonymous(), request_id };
    Request::new(key, Uuid::now_v7(), action)
}

pub fn legs(legs: &[(&str, &str)]) -> Vec<Leg> {
    let leg = |(account_id, amount): &(&str, &str)| Leg {
        account_id: id(account_id),
        currency: usd(),
        amount: usd().parse(amount).unwrap(),
        condition: Condition::default(),
    };
    legs.iter().map(leg).collect()
}

pub fn posting(request_id: &str, changes: &[(&str, &str)]) -> Request {
    request(request_id, Action::Post(TransactionKind::Posting, legs(changes)))
}

/// A transaction with entries on these accounts.
pub fn transaction(
    kind: TransactionKind,
    currency: &Currency,
    entries: &[(&str, &str)],
) -> Transaction {
    let entry = |(account_id, amount): &(&str, &str)| Entry {
        account_id: id(account_id),
        sequence: 1,
        transaction_id: Uuid::nil(),
        currency: currency.clone(),
        amount: currency.parse(amount).unwrap(),
        balance_after: currency.zero(),
        create_time_us: 0,
        effective_time_us: None,
        hash: [0; 32],
    };
    Transaction {
        transaction_id: Some(Uuid::nil()),
        created_by: Identity::anonymous(),
        request_id: RequestId::parse("1").unwrap(),
        kind,
        entries: entries.iter().map(entry).collect(),
        description: String::new(),
        labels: Labels::new(),
        create_time_us: 0,
        effective_time_us: None,
        forced: false,
        reverses: None,
        reversed_by: None,
    }
}
