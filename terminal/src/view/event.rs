//! Events.

use passbook_command::{
    proto::{Account, AccountChange, Event, Hold, Transaction},
    table::Column,
};
use prost_types::Timestamp;

use crate::{
    output::Row,
    view::{account::difference, enum_name, time, transaction::entries_text, value_and_currency},
};

/// When an event happened.
fn timestamp(event: &Event) -> Option<&Timestamp> {
    let of_transaction = event.transaction.as_ref().and_then(|it| it.create_time.as_ref());
    let of_hold = event.hold.as_ref().and_then(|it| it.update_time.as_ref());
    let of_account = event.account.as_ref().and_then(|it| it.create_time.as_ref());
    let of_change = event.account_change.as_ref().and_then(|it| it.create_time.as_ref());
    of_transaction.or(of_hold).or(of_account).or(of_change)
}

impl Row for Event {
    const COLUMNS: &'static [Column] =
        &[Column::text("time"), Column::text("kind"), Column::text("id"), Column::text("what")];

    fn cells(&self) -> Vec<String> {
        let (id, what) = match self {
            Self { transaction: Some(transaction), .. } => of_transaction(transaction),
            Self { hold: Some(hold), .. } => of_hold(hold),
            Self { account: Some(account), .. } => of_account(account),
            Self { account_change: Some(change), .. } => of_change(change),
            _ => Default::default(),
        };
        let kind = enum_name(self.kind().as_str_name(), "EVENT_KIND_");
        vec![time(timestamp(self)), kind, id, what]
    }
}

fn of_transaction(transaction: &Transaction) -> (String, String) {
    (transaction.transaction_id.clone(), entries_text(transaction))
}

fn of_hold(hold: &Hold) -> (String, String) {
    let amount = value_and_currency(hold.amount.as_ref());
    (hold.hold_id.clone(), format!("{} {amount}", hold.account_id))
}

fn of_account(account: &Account) -> (String, String) {
    (account.account_id.clone(), account.currency_code.clone())
}

fn of_change(change: &AccountChange) -> (String, String) {
    let difference = difference(change.before.as_ref(), change.after.as_ref());
    (change.account_id.clone(), difference)
}
