//! Events as JSON.

use passbook::proto::{
    Account, AccountChange, AccountChangeKind, AccountState, Entry, Event, EventKind, Hold,
    HoldState, Money, Transaction, TransactionKind,
};
use serde_json::{Map, Value, json};

/// An event with what it has.
pub fn event(event: &Event) -> Value {
    let Event { transaction, hold, account, account_change, .. } = event;
    let parts = [
        ("kind", Some(EventKind::try_from(event.kind).unwrap_or_default().as_str_name().into())),
        ("transaction", transaction.as_ref().map(transaction_of)),
        ("hold", hold.as_ref().map(hold_of)),
        ("account", account.as_ref().map(account_of)),
        ("account_change", account_change.as_ref().map(change_of)),
    ];
    let given = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
    Value::Object(given.collect::<Map<_, _>>())
}

fn transaction_of(transaction: &Transaction) -> Value {
    json!({
        "transaction_id": transaction.transaction_id,
        "request_id": transaction.request_id,
        "created_by": transaction.created_by,
        "kind": TransactionKind::try_from(transaction.kind).unwrap_or_default().as_str_name(),
        "entries": transaction.entries.iter().map(entry_of).collect::<Vec<_>>(),
        "description": transaction.description,
        "labels": transaction.labels,
        "forced": transaction.forced,
        "reverses_transaction_id": transaction.reverses_transaction_id,
        "create_time": transaction.create_time.map(|time| time.to_string()),
    })
}

fn entry_of(entry: &Entry) -> Value {
    json!({
        "account_id": entry.account_id,
        "sequence": entry.sequence,
        "amount": money(entry.amount.as_ref()),
        "balance_after": money(entry.balance_after.as_ref()),
    })
}

fn hold_of(hold: &Hold) -> Value {
    json!({
        "hold_id": hold.hold_id,
        "account_id": hold.account_id,
        "amount": money(hold.amount.as_ref()),
        "state": HoldState::try_from(hold.state).unwrap_or_default().as_str_name(),
        "captured_amount": money(hold.captured_amount.as_ref()),
        "expire_time": hold.expire_time.map(|time| time.to_string()),
        "update_time": hold.update_time.map(|time| time.to_string()),
    })
}

fn account_of(account: &Account) -> Value {
    json!({
        "account_id": account.account_id,
        "currency_code": account.currency_code,
        "overdraft_limit": money(account.overdraft_limit.as_ref()),
        "unlimited_overdraft": account.unlimited_overdraft,
        "labels": account.labels,
        "create_time": account.create_time.map(|time| time.to_string()),
    })
}

fn change_of(change: &AccountChange) -> Value {
    let after = change.after.clone().unwrap_or_default();
    json!({
        "account_id": change.account_id,
        "version": change.version,
        "kind": AccountChangeKind::try_from(change.kind).unwrap_or_default().as_str_name(),
        "reason": change.reason,
        "state": AccountState::try_from(after.state).unwrap_or_default().as_str_name(),
        "overdraft_limit": money(after.overdraft_limit.as_ref()),
        "unlimited_overdraft": after.unlimited_overdraft,
        "labels": after.labels,
        "create_time": change.create_time.map(|time| time.to_string()),
    })
}

fn money(money: Option<&Money>) -> Value {
    money.map_or(Value::Null, |money| format!("{} {}", money.currency_code, money.value).into())
}
