//! What a pass over the feed of events has seen, and its comparison with the tables.

use std::collections::BTreeMap;

use passbook::proto::{Event, EventKind};

use crate::harness::{TestDatabase, ledger_dump::LedgerDump, microseconds};

/// What a pass over the feed has seen: accounts, transaction ids, the sequences of each account, changes of
/// holds and accounts as [`CHANGES`] has them, and by account their times, and whether a hold expired.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub opened: Vec<String>,
    pub transactions: Vec<String>,
    sequences: BTreeMap<String, Vec<i64>>,
    pub changes: Vec<String>,
    times: BTreeMap<String, Vec<(i64, bool)>>,
}

/// All changes of holds and accounts: what was done, to which, and the time or the version.
const CHANGES: &str = "
    SELECT kind || ' ' || hold_id || ' ' || create_time_us FROM requests WHERE hold_id IS NOT NULL
    UNION ALL SELECT state || ' ' || hold_id || ' ' || update_time_us FROM holds WHERE state = 'expired'
    UNION ALL SELECT kind || ' ' || account_id || ' ' || version FROM account_changes";
/// What [`CHANGES`] can have.
pub const CHANGE_KINDS: [&str; 8] = [
    "place_hold",
    "update_hold",
    "capture",
    "release_hold",
    "expired",
    "updated",
    "frozen",
    "unfrozen",
];

/// The change of a hold or an account, as [`CHANGES`] has it, with its account and its time.
fn change_of(event: &Event) -> Option<(String, String, i64)> {
    let kind = match event.kind() {
        EventKind::HoldPlaced => "place_hold",
        EventKind::HoldUpdated => "update_hold",
        EventKind::HoldCaptured => "capture",
        EventKind::HoldReleased => "release_hold",
        EventKind::HoldExpired => "expired",
        EventKind::AccountUpdated => "updated",
        EventKind::AccountFrozen => "frozen",
        EventKind::AccountUnfrozen => "unfrozen",
        _ => return None,
    };
    if let Some(change) = &event.account_change {
        let text = format!("{kind} {} {}", change.account_id, change.version);
        return Some((text, change.account_id.clone(), microseconds(&change.create_time)));
    }
    let hold = event.hold.as_ref().expect("a hold");
    let transaction = event.transaction.as_ref();
    let time = transaction.map_or(&hold.update_time, |transaction| &transaction.create_time);
    let time_us = microseconds(time);
    Some((format!("{kind} {} {time_us}", hold.hold_id), hold.account_id.clone(), time_us))
}

impl Seen {
    /// Adds a transaction.
    pub fn add(&mut self, transaction_id: &str, entries: impl Iterator<Item = (String, i64)>) {
        self.transactions.push(transaction_id.to_owned());
        for (account_id, sequence) in entries {
            self.sequences.entry(account_id).or_default().push(sequence);
        }
    }

    pub fn add_event(&mut self, event: &Event) {
        self.opened.extend(event.account.iter().map(|account| account.account_id.clone()));
        if let Some(transaction) = &event.transaction {
            let entries = transaction.entries.iter().map(|it| (it.account_id.clone(), it.sequence));
            self.add(&transaction.transaction_id, entries);
        }
        if let Some((change, account_id, time_us)) = change_of(event) {
            self.changes.push(change);
            let is_expiry = event.kind() == EventKind::HoldExpired;
            self.times.entry(account_id).or_default().push((time_us, is_expiry));
        }
    }

    /// Checks that the pass has all accounts, transactions and changes of the tables once, and the entries
    /// and the changes of each account in order.
    pub async fn assert_complete(mut self, database: &TestDatabase) {
        let dump = LedgerDump::read(database).await;
        self.opened.sort();
        assert!(
            self.opened.iter().eq(dump.accounts.keys()),
            "each account once: {:?}",
            self.opened
        );
        let applied = dump.requests.iter().filter(|it| it.is_applied && it.is_transaction);
        let mut expected: Vec<_> = applied.map(|it| it.transaction_id.clone()).collect();
        self.transactions.sort();
        expected.sort();
        assert!(self.transactions == expected, "each transaction once");
        for (account_id, entries) in dump.entries {
            let sequences: Vec<_> = entries.iter().map(|entry| entry.sequence).collect();
            assert_eq!(self.sequences.remove(&account_id), Some(sequences), "{account_id}");
        }
        assert!(self.sequences.is_empty(), "{:?}", self.sequences);
        for (account_id, times) in &mut self.times {
            // Expiries that one change records have no order.
            times.chunk_by_mut(|one, other| one.1 && other.1).for_each(<[_]>::sort_unstable);
            assert!(times.is_sorted_by_key(|(time_us, _)| *time_us), "{account_id}: {times:?}");
        }
        let mut changes = database.texts(CHANGES).await;
        changes.sort();
        self.changes.sort();
        let missing: Vec<_> = changes.iter().filter(|it| !self.changes.contains(it)).collect();
        assert!(self.changes == changes, "each change once; missing: {missing:?}");
    }
}
