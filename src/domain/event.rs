//! Events: what happened in the ledger, in the order in which it was committed.

use std::sync::Arc;

use crate::domain::{
    account::{Account, AccountChange, AccountChangeKind, Labels},
    hold::{Hold, HoldState},
    ids::AccountId,
    money::Currency,
    unit_of_work::Effects,
};

/// The bytes of an event, of an entry and of a label in memory, with their ids, without the texts of
/// callers.
const EVENT_SIZE: usize = 512;
const ENTRY_SIZE: usize = 256;
const LABEL_SIZE: usize = 64;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Balances changed.
    Transaction,
    /// A hold was placed.
    HoldPlaced,
    /// A hold was captured, all or a part of it, and balances changed.
    HoldCaptured,
    /// A hold was released.
    HoldReleased,
    /// A hold has expired.
    HoldExpired,
    /// An account was opened.
    AccountOpened,
    /// The labels or the overdraft of an account changed.
    AccountUpdated,
    /// An account was frozen.
    AccountFrozen,
    /// An account was unfrozen.
    AccountUnfrozen,
    /// An account was closed.
    AccountClosed,
    /// An open hold was updated.
    HoldUpdated,
}

all_values!(EventKind {
    Transaction,
    HoldPlaced,
    HoldCaptured,
    HoldReleased,
    HoldExpired,
    AccountOpened,
    AccountUpdated,
    AccountFrozen,
    AccountUnfrozen,
    AccountClosed,
    HoldUpdated,
});

/// Something that happened, with what it left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request was applied, but for one that updated a hold.
    Request(Effects),
    /// An open hold was updated.
    HoldUpdated(Arc<Hold>),
    /// A hold expired.
    HoldExpired(Arc<Hold>),
    /// An account was opened.
    AccountOpened(Arc<Account>),
    /// The attributes of an account changed.
    AccountChanged(Arc<AccountChange>),
}

impl Event {
    /// What happened.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Request(Effects { transaction, hold }) => match (transaction, hold) {
                (_, None) => EventKind::Transaction,
                (Some(_), Some(_)) => EventKind::HoldCaptured,
                (None, Some(hold)) if hold.state == HoldState::Open => EventKind::HoldPlaced,
                (None, Some(_)) => EventKind::HoldReleased,
            },
            Self::HoldUpdated(_) => EventKind::HoldUpdated,
            Self::HoldExpired(_) => EventKind::HoldExpired,
            Self::AccountOpened(_) => EventKind::AccountOpened,
            Self::AccountChanged(change) => match change.kind {
                AccountChangeKind::Updated => EventKind::AccountUpdated,
                AccountChangeKind::Frozen => EventKind::AccountFrozen,
                AccountChangeKind::Unfrozen => EventKind::AccountUnfrozen,
                AccountChangeKind::Closed => EventKind::AccountClosed,
            },
        }
    }

    fn is_of(&self, kind: EventKind) -> bool {
        let own = self.kind();
        own == kind || (own, kind) == (EventKind::HoldCaptured, EventKind::Transaction)
    }

    /// The accounts of the event with their currencies. One can come twice.
    fn accounts(&self) -> Vec<(&AccountId, &Currency)> {
        match self {
            Self::Request(Effects { transaction, hold }) => {
                let entries = transaction.iter().flat_map(|it| &it.entries);
                let of_entries = entries.map(|it| (&it.account_id, &it.currency));
                of_entries.chain(hold.iter().map(|it| (&it.account_id, &it.currency))).collect()
            }
            Self::HoldUpdated(hold) | Self::HoldExpired(hold) => {
                vec![(&hold.account_id, &hold.currency)]
            }
            Self::AccountOpened(account) => vec![(&account.account_id, &account.currency)],
            Self::AccountChanged(change) => vec![(&change.account_id, &change.currency)],
        }
    }

    /// The bytes that the event takes in memory, about. The texts of callers are exact.
    pub fn size(&self) -> usize {
        let of_labels = |labels: &Labels| -> usize {
            labels.iter().map(|(key, value)| key.len() + value.len() + LABEL_SIZE).sum()
        };
        let of_hold = |hold: &Hold| hold.description.len() + of_labels(&hold.labels);
        let texts = match self {
            Self::Request(Effects { transaction, hold }) => {
                let of_transaction = transaction.as_ref().map_or(0, |it| {
                    let entries = it.entries.len() * ENTRY_SIZE;
                    entries + it.description.len() + of_labels(&it.labels)
                });
                of_transaction + hold.as_deref().map_or(0, of_hold)
            }
            Self::HoldUpdated(hold) | Self::HoldExpired(hold) => of_hold(hold),
            Self::AccountOpened(account) => of_labels(&account.labels),
            Self::AccountChanged(change) => {
                let labels = of_labels(&change.before.labels) + of_labels(&change.after.labels);
                change.reason.len() + labels
            }
        };
        EVENT_SIZE + texts
    }

    /// The labels: of the transaction, or of the hold without one, or of the account afterwards.
    fn labels(&self) -> Option<&Labels> {
        match self {
            Self::Request(Effects { transaction: Some(transaction), .. }) => {
                Some(&transaction.labels)
            }
            Self::Request(Effects { hold, .. }) => hold.as_ref().map(|hold| &hold.labels),
            Self::HoldUpdated(hold) | Self::HoldExpired(hold) => Some(&hold.labels),
            Self::AccountOpened(account) => Some(&account.labels),
            Self::AccountChanged(change) => Some(&change.after.labels),
        }
    }
}

/// Selects events; all that is given must match.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// One of the accounts of an event has an id that begins with one of these. None: all accounts.
    pub account_id_prefixes: Option<Prefixes>,
    /// The kinds that an event may have. Empty: all.
    pub kinds: Vec<EventKind>,
    /// The currency of an amount or an account of an event. None: all.
    pub currency_code: Option<String>,
    /// Labels that an event must have, all of them.
    pub labels: Labels,
}

/// Beginnings of ids.
#[derive(Clone, Debug)]
pub struct Prefixes {
    /// Ascending, and none begins with another one.
    prefixes: Vec<String>,
}

impl Prefixes {
    /// None if there are none.
    pub fn new(mut prefixes: Vec<String>) -> Option<Self> {
        prefixes.sort_unstable();
        prefixes.dedup_by(|later, kept| later.starts_with(kept.as_str()));
        (!prefixes.is_empty()).then_some(Self { prefixes })
    }

    /// Whether an id begins with one of them.
    pub fn has(&self, account_id: &AccountId) -> bool {
        let id = account_id.as_str();
        // All that lies between a prefix and an id with this prefix begins with it, too.
        let behind = self.prefixes.partition_point(|prefix| prefix.as_str() <= id);
        behind.checked_sub(1).is_some_and(|last| id.starts_with(&self.prefixes[last]))
    }
}

impl EventFilter {
    /// Whether the filter selects this event, of which the caller sees all.
    pub fn selects(&self, event: &Event) -> bool {
        let is_empty = self.account_id_prefixes.is_none() && self.currency_code.is_none();
        let has_kind = || self.kinds.is_empty() || self.kinds.iter().any(|it| event.is_of(*it));
        let has_account = || {
            let accounts = event.accounts();
            let is_one = |prefixes: &Prefixes| accounts.iter().any(|(id, _)| prefixes.has(id));
            let is_in = |code: &String| accounts.iter().any(|(_, it)| it.code() == code);
            self.account_id_prefixes.as_ref().is_none_or(is_one)
                && self.currency_code.as_ref().is_none_or(is_in)
        };
        let has_labels = || {
            let labels = event.labels();
            self.labels.iter().all(|(key, value)| labels.and_then(|it| it.get(key)) == Some(value))
        };
        has_kind() && (is_empty || has_account()) && has_labels()
    }
}

/// A commit. After a failover or a restore that has lost it, another commit may have its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitId {
    /// 0 before the first commit.
    pub number: i64,
    /// In microseconds since the Unix epoch.
    pub time_us: i64,
}

/// A place between two events. In one ledger, the order of places is that of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The number of a commit; 0 before the first.
    pub commit: i64,
    /// The time of that commit, in microseconds since the Unix epoch. A commit of another ledger has
    /// another time.
    pub commit_time_us: i64,
    /// How many events of that commit lie before the position.
    pub event_count: u32,
}

impl EventPosition {
    /// The commit of the position.
    #[must_use]
    pub fn commit_id(&self) -> CommitId {
        CommitId { number: self.commit, time_us: self.commit_time_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_by_any_of_its_prefixes() {
        assert!(Prefixes::new(Vec::new()).is_none());
        let all = ["shop:", "shop:1", "a", "ab", "b:2", "b:10", "b:1", "c", "é"];
        let prefixes = Prefixes::new(all.map(str::to_owned).to_vec()).unwrap();
        for (id, is_found) in [
            ("a", true),
            ("abc", true),
            ("b:1", true),
            ("b:19", true),
            ("b:2", true),
            ("c9", true),
            ("shop:1", true),
            ("shop:9", true),
            ("é1", true),
            ("A", false),
            ("b:", false),
            ("b:3", false),
            ("bc", false),
            ("d", false),
            ("shop", false),
            ("shoq", false),
            ("z", false),
        ] {
            assert_eq!(prefixes.has(&AccountId::from_stored(id)), is_found, "{id}");
            assert_eq!(all.iter().any(|it| id.starts_with(it)), is_found, "{id}");
        }
    }
}
