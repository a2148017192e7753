//! Reading events: the commits in order of their numbers, and the content of their events.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult};

use crate::{
    domain::{
        account::{Account, AccountChange, NewAccount},
        command::UPDATE_HOLD,
        event::{CommitId, Event, EventPosition},
        hold::Hold,
        ids::{AccountId, HoldId, TransactionId},
        unit_of_work::{Effects, EventKey},
    },
    storage::{
        StorageError, Store,
        connect::store::Backend,
        dialect::{DatabaseKind, Sql},
        entity::{account_changes, accounts::account_of, commits::Model, requests},
        queries::{
            accounts, holds,
            opening_attributes::opening_attributes,
            page::fitting,
            requests::{BY_ID, with_effects},
        },
        tables::{ACCOUNT_CHANGES, COMMITS},
    },
};

/// The most events in a page.
const PAGE_EVENTS_MAX: usize = 500;
/// The most entries in a page, unless its first event alone has more.
const PAGE_ENTRIES_MAX: usize = 2000;
/// The most bytes of a page in memory, unless its first event alone has more. Large labels count only
/// here: events with them are read and cut off again.
const EVENTS_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The most numbers of commits that one statement looks at.
const NUMBERS_MAX: i64 = 10_000;

/// The commits after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCommits {
    /// The last of those whose numbers follow on it and on each other; the commit itself if there are
    /// none.
    pub consecutive: CommitId,
    /// The last one of all that one statement looks at; the commit itself if there are none.
    pub last: CommitId,
    /// Whether there may be more than one statement looks at.
    pub has_more: bool,
}

/// Events that follow on each other.
#[derive(Debug)]
pub struct EventPage {
    /// Each with the position behind it.
    pub events: Vec<(EventPosition, Event)>,
    /// The position behind the last event.
    pub end: EventPosition,
    /// Whether the page ends before the commit up to which it was to be read.
    pub has_more: bool,
}

impl EventPage {
    /// The bytes that its events take in memory, about.
    pub fn size(&self) -> usize {
        self.events.iter().map(|(_, event)| event.size()).sum()
    }

    /// A page of its first events: as many as have at most `size_max` bytes, and at least one. It shares
    /// these events, and keeps nothing of the others.
    pub fn beginning(&self, size_max: usize) -> Self {
        let count = fitting(self.events.iter().map(|(_, event)| event.size()), size_max);
        let events: Vec<_> = self.events.iter().take(count).cloned().collect();
        let is_cut = events.len() < self.events.len();
        let end = match events.last() {
            Some((last, _)) if is_cut => *last,
            _ => self.end,
        };
        Self { events, end, has_more: self.has_more || is_cut }
    }
}

pub static NEW_COMMITS: Sql = Sql::new(|_| {
    let time = |number| format!("(SELECT create_time_us FROM commits WHERE number = {number})");
    format!(
        "SELECT {} AS time_us, consecutive, {} AS consecutive_time_us, last, {} AS last_time_us \
         FROM (SELECT coalesce(max(number) FILTER (WHERE number = $1 + position), $1) AS consecutive, \
                 coalesce(max(number), $1) AS last \
             FROM (SELECT number, row_number() OVER (ORDER BY number) AS position FROM commits \
                 WHERE number > $1 ORDER BY number LIMIT {NUMBERS_MAX}) new) found",
        time("$1"),
        time("consecutive"),
        time("last"),
    )
});

pub static LAST_COMMIT: Sql = Sql::new(|_| {
    format!("SELECT {} FROM commits ORDER BY number DESC LIMIT 1", COMMITS.column_list(""))
});

// The first row is the commit of the position, and does not count. Others have at least one event
// each, of at least 16 bytes. The time of the last commit shows whether it is still the same. The number
// of bytes is in the row; that of characters would need the whole text of up to 501 commits.
pub static COMMITS_OF_PAGE: Sql = Sql::new(|_| {
    format!(
        "SELECT {columns}, (SELECT create_time_us FROM commits WHERE number = $2) AS until_time_us \
         FROM (\
             SELECT c.*, sum(c.size) OVER (ORDER BY c.number) - c.size AS size_before FROM (\
                 SELECT {columns}, CASE number WHEN $1 THEN 0 \
                     ELSE octet_length(transaction_ids) \
                         + coalesce(octet_length(other_events), 0) END AS size \
                 FROM commits WHERE number >= $1 AND number <= $2 \
                 ORDER BY number LIMIT {PAGE_EVENTS_MAX} + 1) c) c \
         WHERE size_before < {PAGE_EVENTS_MAX} * 16 ORDER BY number",
        columns = COMMITS.column_list("")
    )
});

pub static CHANGES_BY_KEY: Sql = Sql::new(|kind| {
    let columns = ACCOUNT_CHANGES.column_list("c.");
    let from = match kind {
        DatabaseKind::Sqlite => {
            "json_each(?) name JOIN account_changes c \
                 ON c.account_id = name.value->>0 AND c.version = name.value->>1 \
             JOIN accounts a ON a.account_id = c.account_id"
        }
        DatabaseKind::Postgres => {
            "UNNEST($1::text[], $2::bigint[]) AS name(account_id, version) \
             CROSS JOIN LATERAL (SELECT * FROM account_changes c \
                 WHERE c.account_id = name.account_id COLLATE \"C\" \
                 AND c.version = name.version LIMIT 1) c \
             CROSS JOIN LATERAL (SELECT a.currency_code, a.currency_scale FROM accounts a \
                 WHERE a.account_id = c.account_id LIMIT 1) a"
        }
    };
    format!("SELECT {columns}, a.currency_code, a.currency_scale FROM {from}")
});

impl Store {
    /// The commits after this one. None if the ledger does not have it, and it is not the beginning.
    pub async fn new_commits(&self, after: CommitId) -> Result<Option<NewCommits>, StorageError> {
        let statement = NEW_COMMITS.statement(self.kind(), [after.number.into()]);
        let row = self.readers.query_one_raw(statement).await?;
        let none = || StorageError::Corrupt("the statement for new commits has no row".to_owned());
        let row = row.ok_or_else(none)?;
        let time_us: Option<i64> = row.try_get("", "time_us")?;
        if after != CommitId::default() && time_us != Some(after.time_us) {
            return Ok(None);
        }
        let commit = |number: &str, time: &str| -> Result<_, StorageError> {
            let time_us: Option<i64> = row.try_get("", time)?;
            Ok(CommitId { number: row.try_get("", number)?, time_us: time_us.unwrap_or_default() })
        };
        let last = commit("last", "last_time_us")?;
        Ok(Some(NewCommits {
            consecutive: commit("consecutive", "consecutive_time_us")?,
            last,
            has_more: last.number.saturating_sub(after.number) >= NUMBERS_MAX,
        }))
    }

    /// The position behind the last commit that can be seen. Commits before it may still be on their
    /// way, in one of the [`Store::open_transactions`].
    pub async fn last_position(&self) -> Result<EventPosition, StorageError> {
        let row = self.readers.query_one_raw(LAST_COMMIT.statement(self.kind(), [])).await?;
        let Some(row) = row else { return Ok(EventPosition::default()) };
        let commit = Model::from_query_result(&row, "")?;
        position(&commit, commit.events()?.len())
    }

    /// Remembers the newest commit: a later session must not be with a server that lacks it. Does nothing on
    /// SQLite.
    pub async fn note_newest_commit(&self) -> Result<(), StorageError> {
        let Backend::Postgres { hosts, .. } = &*self.backend else { return Ok(()) };
        let asked_at = Instant::now();
        let row = self.readers.query_one_raw(LAST_COMMIT.statement(self.kind(), [])).await?;
        if let Some(row) = row {
            let Model { number, create_time_us: time_us, .. } = Model::from_query_result(&row, "")?;
            hosts.note_commit(CommitId { number, time_us }, asked_at);
        }
        Ok(())
    }

    /// The next events after a position, in commits up to this one, up to which the ledger is complete.
    /// None if the ledger does not have the commit of the position.
    ///
    /// # Errors
    /// `Aborted` if the ledger no longer has the commit `until`: what comes before it may be incomplete.
    pub async fn events(
        &self,
        after: EventPosition,
        until: CommitId,
    ) -> Result<Option<EventPage>, StorageError> {
        let values = [after.commit.into(), until.number.into()];
        let statement = COMMITS_OF_PAGE.statement(self.kind(), values);
        let rows = self.readers.query_all_raw(statement).await?;
        let commits = rows.iter().map(|row| Model::from_query_result(row, ""));
        let commits = commits.collect::<Result<Vec<_>, _>>()?;
        let is_known = after == EventPosition::default()
            || commits.first().is_some_and(|it| {
                (it.number, it.create_time_us) == (after.commit, after.commit_time_us)
            });
        if !is_known {
            return Ok(None);
        }
        let time_of = |row: &QueryResult| row.try_get("", "until_time_us");
        let until_time_us: Option<Option<i64>> = rows.first().map(time_of).transpose()?;
        if until != CommitId::default() && until_time_us.flatten() != Some(until.time_us) {
            let reason = format!("the ledger has lost commit {}", until.number);
            return Err(StorageError::Aborted(reason));
        }
        let (mut keys, mut end, mut has_more) = (Vec::new(), after, after.commit < until.number);
        for commit in &commits {
            let events = commit.events()?;
            let skipped =
                if commit.number == after.commit { after.event_count as usize } else { 0 };
            // As after commits were made anew, with one event each.
            if skipped > events.len() {
                return Ok(None);
            }
            for (index, key) in events.iter().enumerate().skip(skipped) {
                keys.push((position(commit, index + 1)?, key.clone()));
            }
            end = position(commit, events.len())?;
            has_more = commit.number < until.number;
        }
        if keys.len() > PAGE_EVENTS_MAX {
            keys.truncate(PAGE_EVENTS_MAX);
            has_more = true;
        }
        let requests = self.requests_by_id(&keys).await?;
        let whole = keys.len();
        let entry_counts = keys.iter().map(|(_, key)| entry_count(key, &requests));
        let fitting_keys = fitting(entry_counts, PAGE_ENTRIES_MAX);
        keys.truncate(fitting_keys);
        let mut events = self.contents(keys, requests).await?;
        events
            .truncate(fitting(events.iter().map(|(_, event)| event.size()), EVENTS_PAGE_BYTES_MAX));
        has_more |= events.len() < whole;
        if has_more && let Some((last, _)) = events.last() {
            end = *last;
        }
        Ok(Some(EventPage { events, end, has_more }))
    }

    async fn requests_by_id(
        &self,
        keys: &[(EventPosition, EventKey)],
    ) -> Result<HashMap<TransactionId, requests::Model>, StorageError> {
        let ids = keys.iter().filter_map(|(_, key)| match key {
            EventKey::Request(transaction_id) => Some(*transaction_id),
            EventKey::HoldExpired(_)
            | EventKey::AccountOpened(_)
            | EventKey::AccountChanged(..) => None,
        });
        let kind = self.kind();
        let statement = BY_ID.statement(kind, [kind.uuids(ids)]);
        let mut requests = HashMap::new();
        for row in self.readers.query_all_raw(statement).await? {
            let row = requests::Model::from_query_result(&row, "")?;
            requests.insert(row.transaction_id, row);
        }
        Ok(requests)
    }

    /// Reads what each event left behind. No row that this reads changes in what it reads of it, so
    /// several statements read the same state.
    async fn contents(
        &self,
        keys: Vec<(EventPosition, EventKey)>,
        mut requests: HashMap<TransactionId, requests::Model>,
    ) -> Result<Vec<(EventPosition, Event)>, StorageError> {
        let (mut rows, mut hold_ids, mut opened, mut changed) =
            (Vec::new(), BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (_, key) in &keys {
            match key {
                EventKey::Request(id) => rows.extend(requests.remove(id)),
                EventKey::HoldExpired(id) => {
                    hold_ids.insert(id.clone());
                }
                EventKey::AccountOpened(id) => {
                    opened.insert(id.clone());
                }
                EventKey::AccountChanged(id, version) => changed.push((id.to_string(), *version)),
            }
        }
        let contents = Contents {
            applied: self.applied_requests(rows).await?,
            holds: self.expired_holds(&hold_ids).await?,
            opened: self.opened_accounts(&opened).await?,
            changes: self.changes(changed).await?,
        };
        let event = |(position, key)| Ok((position, contents.event(&key)?));
        keys.into_iter().map(event).collect()
    }

    async fn applied_requests(
        &self,
        rows: Vec<requests::Model>,
    ) -> Result<HashMap<TransactionId, Event>, StorageError> {
        let are_updates: Vec<_> = rows.iter().map(|row| row.kind == UPDATE_HOLD).collect();
        let records = with_effects(&self.readers, rows).await?;
        let mut events = HashMap::new();
        for ((_, record), is_update) in records.into_iter().zip(are_updates) {
            let Ok(effects) = record.result else { continue };
            let event = match effects.hold {
                Some(hold) if is_update => Event::HoldUpdated(hold),
                hold => Event::Request(Effects { hold, ..effects }),
            };
            events.insert(record.transaction_id, event);
        }
        Ok(events)
    }

    async fn expired_holds(
        &self,
        hold_ids: &BTreeSet<HoldId>,
    ) -> Result<HashMap<HoldId, Arc<Hold>>, StorageError> {
        if hold_ids.is_empty() {
            return Ok(HashMap::new());
        }
        let (_, holds) = holds::by_key(&self.readers, hold_ids, &BTreeSet::new(), 0).await?;
        Ok(holds.into_iter().map(|hold| (hold.hold_id.clone(), Arc::new(hold))).collect())
    }

    /// These accounts as they were opened.
    async fn opened_accounts(
        &self,
        account_ids: &BTreeSet<AccountId>,
    ) -> Result<HashMap<AccountId, Arc<Account>>, StorageError> {
        if account_ids.is_empty() {
            return Ok(HashMap::new());
        }
        // The accounts first: a change in between has an opening, which is read afterwards.
        let accounts = accounts::by_id(&self.readers, account_ids).await?;
        let mut openings = opening_attributes(&self.readers, accounts.iter()).await?;
        let as_opened = |account: Account| {
            let attributes = openings.remove(&account.account_id);
            let attributes = attributes.unwrap_or_else(|| account.attributes());
            let new = NewAccount {
                account_id: account.account_id,
                currency: account.currency,
                overdraft_limit: attributes.overdraft_limit,
                unlimited_overdraft: attributes.unlimited_overdraft,
                labels: attributes.labels,
                created_by: account.created_by,
            };
            let opened = Account::open(&new, account.create_time_us);
            (opened.account_id.clone(), Arc::new(opened))
        };
        Ok(accounts.into_iter().map(as_opened).collect())
    }

    async fn changes(
        &self,
        keys: Vec<(String, i64)>,
    ) -> Result<HashMap<(AccountId, i64), Arc<AccountChange>>, StorageError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let kind = self.kind();
        let statement = CHANGES_BY_KEY.statement(kind, kind.pairs(keys.into_iter()));
        let mut changes = HashMap::new();
        for row in self.readers.query_all_raw(statement).await? {
            let change = account_changes::Model::from_query_result(&row, "")?;
            let change = change.into_change(&account_of(&row)?.1)?;
            changes.insert((change.account_id.clone(), change.version), Arc::new(change));
        }
        Ok(changes)
    }
}

/// What the events of a page left behind.
struct Contents {
    applied: HashMap<TransactionId, Event>,
    holds: HashMap<HoldId, Arc<Hold>>,
    opened: HashMap<AccountId, Arc<Account>>,
    changes: HashMap<(AccountId, i64), Arc<AccountChange>>,
}

impl Contents {
    fn event(&self, key: &EventKey) -> Result<Event, StorageError> {
        let event = match key {
            EventKey::Request(id) => self.applied.get(id).cloned(),
            EventKey::HoldExpired(id) => self.holds.get(id).cloned().map(Event::HoldExpired),
            EventKey::AccountOpened(id) => self.opened.get(id).cloned().map(Event::AccountOpened),
            EventKey::AccountChanged(id, version) => {
                let change = self.changes.get(&(id.clone(), *version));
                change.cloned().map(Event::AccountChanged)
            }
        };
        event.ok_or_else(|| StorageError::Corrupt(format!("no row has the event {key:?}")))
    }
}

/// The position behind so many events of a commit.
fn position(commit: &Model, event_count: usize) -> Result<EventPosition, StorageError> {
    let (number, commit_time_us) = (commit.number, commit.create_time_us);
    let too_many = |_| StorageError::Corrupt(format!("commit {number}: {event_count} events"));
    let event_count = u32::try_from(event_count).map_err(too_many)?;
    Ok(EventPosition { commit: number, commit_time_us, event_count })
}

/// The number of entries of an event.
fn entry_count(key: &EventKey, requests: &HashMap<TransactionId, requests::Model>) -> usize {
    match key {
        EventKey::Request(id) => requests.get(id).map_or(0, requests::Model::entry_count),
        EventKey::HoldExpired(_) | EventKey::AccountOpened(_) | EventKey::AccountChanged(..) => 0,
    }
}
