//! Makes commits of all changes, for a ledger that has no commits.
//!
//! Changes are ordered by their times. Those of one time were made by one database transaction, or by
//! several within one tick of the clock. They become one commit. Their order was not kept. But each
//! account has an order: the sequences of its entries, and the versions of its changes. [`in_order`] finds
//! an order that agrees with those of all accounts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm_migration::sea_orm::{
    ConnectionTrait, DbBackend, DbErr, QueryResult, Statement,
    sea_query::{Alias, Query, Value},
};

use crate::statements;

/// Events that are read at a time.
const PAGE: usize = 10_000;
/// Events of a commit: as many as a server's largest batch has, because a commit is read as a whole.
const COMMIT_EVENTS_MAX: usize = 1000;
/// Commits that one statement inserts.
const INSERT_MAX: usize = 1000;

/// Makes `former_events` of all events, in order of their times: a cursor, or a table of this session.
const POSTGRES: &str = include_str!("postgres_history.sql");
const SQLITE: &str = include_str!("sqlite_history.sql");

const DONE_POSTGRES: &str = "CLOSE former_events";
const DONE_SQLITE: &str = "DROP TABLE former_events";

/// The accounts whose attributes were changed.
const CHANGED_ACCOUNTS: &str = "SELECT DISTINCT a.account_key \
    FROM account_changes c JOIN accounts a ON a.account_id = c.account_id";

/// What happened to accounts at one time.
struct Event {
    time_us: i64,
    /// The 16 bytes of the transaction's id, or JSON of another event.
    key: Result<Vec<u8>, String>,
    /// What the event does to each account, in order of the accounts' keys.
    touches: BTreeMap<i64, Touch>,
}

/// What an event does to one account: one change, with the next version.
#[derive(Clone, Copy, Default)]
struct Touch {
    /// That of the first of its entries on the account.
    sequence: Option<i64>,
    /// The version of the account afterwards. Only changes of attributes have kept it.
    version: Option<i64>,
}

impl Event {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        let mut touches = BTreeMap::<_, Touch>::new();
        if let Some(account_key) = row.try_get("", "account_key")? {
            touches.insert(
                account_key,
                Touch { sequence: None, version: row.try_get("", "version")? },
            );
        }
        let entry_keys: Option<String> = row.try_get("", "entry_keys")?;
        for (account_key, sequence) in keys(entry_keys.as_deref().unwrap_or_default()) {
            let touch = touches.entry(account_key).or_default();
            touch.sequence = Some(touch.sequence.map_or(sequence, |it| it.min(sequence)));
        }
        let other: Option<String> = row.try_get("", "other")?;
        let key = match other {
            Some(other) => Err(other),
            None => Ok(row.try_get("", "transaction_id")?),
        };
        Ok(Self { time_us: row.try_get("", "time_us")?, key, touches })
    }
}

/// The account keys and sequences of `requests.entry_keys`.
fn keys(text: &str) -> impl Iterator<Item = (i64, i64)> {
    text.split(' ').filter_map(|key| {
        let (account_key, sequence) = key.split_once(':')?;
        Some((account_key.parse().ok()?, sequence.parse().ok()?))
    })
}

/// A row of the table.
#[derive(Default)]
struct Commit {
    transaction_ids: Vec<u8>,
    other_events: Vec<String>,
}

impl Commit {
    fn push(&mut self, key: Result<Vec<u8>, String>) {
        match key {
            Ok(id) => self.transaction_ids.extend(id),
            Err(other) => {
                let before = self.transaction_ids.len() / 16;
                self.other_events.push(format!("[{before},{other}]"));
            }
        }
    }

    fn into_values(self, time_us: i64) -> [Value; 3] {
        let others = self.other_events.join(",");
        let others = (!others.is_empty()).then(|| format!("[{others}]"));
        [time_us.into(), self.transaction_ids.into(), others.into()]
    }
}

/// Writes the commits of all changes. The connection has one session, in a database transaction.
///
/// # Errors
/// Those of the database.
pub async fn write_commits(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let (open, done) = match connection.get_database_backend() {
        DbBackend::Postgres => (POSTGRES, DONE_POSTGRES),
        _ => (SQLITE, DONE_SQLITE),
    };
    for statement in statements(open) {
        connection.execute_unprepared(statement).await?;
    }
    let mut versions = Versions::read(connection).await?;
    let (mut of_one_time, mut rows, mut position) = (Vec::<Event>::new(), Vec::new(), 0);
    loop {
        let page = page(connection, position).await?;
        for row in &page {
            let event = Event::read(row)?;
            if of_one_time.first().is_some_and(|it| it.time_us != event.time_us) {
                rows.extend(commits_of(std::mem::take(&mut of_one_time), &mut versions));
            }
            of_one_time.push(event);
        }
        position += page.len();
        let is_last = page.len() < PAGE;
        if is_last {
            rows.extend(commits_of(std::mem::take(&mut of_one_time), &mut versions));
        }
        insert(connection, &mut rows).await?;
        if is_last {
            connection.execute_unprepared(done).await?;
            return Ok(());
        }
    }
}

/// The next events after those that were read.
async fn page(
    connection: &impl ConnectionTrait,
    position: usize,
) -> Result<Vec<QueryResult>, DbErr> {
    let backend = connection.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => format!("FETCH {PAGE} FROM former_events"),
        _ => format!(
            "SELECT * FROM former_events WHERE rowid > {position} ORDER BY rowid LIMIT {PAGE}"
        ),
    };
    connection.query_all_raw(Statement::from_string(backend, sql)).await
}

async fn insert(
    connection: &impl ConnectionTrait,
    rows: &mut Vec<[Value; 3]>,
) -> Result<(), DbErr> {
    while !rows.is_empty() {
        let chunk = rows.drain(..rows.len().min(INSERT_MAX));
        let mut insert = Query::insert();
        insert.into_table(Alias::new("commits"));
        insert.columns(["create_time_us", "transaction_ids", "other_events"].map(Alias::new));
        for row in chunk {
            insert.values_panic(row.map(Into::into));
        }
        connection.execute(&insert).await?;
    }
    Ok(())
}

/// The versions of accounts whose attributes were changed, as far as the events were read.
struct Versions(HashMap<i64, i64>);

impl Versions {
    async fn read(connection: &impl ConnectionTrait) -> Result<Self, DbErr> {
        let statement = Statement::from_string(connection.get_database_backend(), CHANGED_ACCOUNTS);
        let rows = connection.query_all_raw(statement).await?;
        let keys: Result<Vec<i64>, _> =
            rows.iter().map(|row| row.try_get("", "account_key")).collect();
        Ok(Self(keys?.into_iter().map(|key| (key, 0)).collect()))
    }

    /// The version of the account after its next event.
    fn next(&self, account_key: i64) -> i64 {
        self.0.get(&account_key).copied().unwrap_or_default() + 1
    }

    fn pass(&mut self, event: &Event) {
        for account_key in event.touches.keys() {
            if let Some(version) = self.0.get_mut(account_key) {
                *version += 1;
            }
        }
    }
}

/// The commits of the events of one time.
fn commits_of(mut events: Vec<Event>, versions: &mut Versions) -> Vec<[Value; 3]> {
    let order = in_order(&events, versions);
    let mut commits = Vec::new();
    for places in order.chunks(COMMIT_EVENTS_MAX) {
        let mut commit = Commit::default();
        for place in places {
            let event = &mut events[*place];
            versions.pass(event);
            commit.push(std::mem::replace(&mut event.key, Ok(Vec::new())));
        }
        commits.push(commit.into_values(events[places[0]].time_us));
    }
    commits
}

/// The places of the events of one time, in an order in which those of each account come as they changed
/// it. Where that leaves a choice, the lower place comes first.
fn in_order(events: &[Event], versions: &Versions) -> Vec<usize> {
    let mut accounts = BTreeMap::<_, Vec<_>>::new();
    for (place, event) in events.iter().enumerate() {
        for (account_key, touch) in &event.touches {
            accounts.entry(*account_key).or_default().push((place, *touch));
        }
    }
    // For each event, those that come next on one of its accounts, and on how many it is not the first.
    let mut next = vec![Vec::new(); events.len()];
    let mut waiting = vec![0; events.len()];
    for (account_key, touches) in accounts {
        if touches.len() == 1 {
            continue;
        }
        for pair in of_account(touches, versions.next(account_key)).windows(2) {
            next[pair[0]].push(pair[1]);
            waiting[pair[1]] += 1;
        }
    }
    let mut ordered = Vec::with_capacity(events.len());
    let mut ready: BTreeSet<_> = (0..events.len()).filter(|place| waiting[*place] == 0).collect();
    while let Some(place) = ready.pop_first() {
        ordered.push(place);
        for place in std::mem::take(&mut next[place]) {
            waiting[place] -= 1;
            if waiting[place] == 0 {
                ready.insert(place);
            }
        }
    }
    // Only in a ledger with a fault do events wait for each other.
    ordered.extend((0..events.len()).filter(|place| waiting[*place] > 0));
    ordered
}

/// The places of the events of one account at one time, as they changed it, if the first of them makes
/// this version. The touches are in the order of their places.
fn of_account(touches: Vec<(usize, Touch)>, next_version: i64) -> Vec<usize> {
    let (mut changes, others): (Vec<_>, Vec<_>) =
        touches.into_iter().partition(|(_, touch)| touch.version.is_some());
    let mut entries: Vec<_> = others.iter().filter(|(_, touch)| touch.sequence.is_some()).collect();
    entries.sort_by_key(|(_, touch)| touch.sequence);
    let mut entries = entries.into_iter();
    // Holds have no order of their own: they keep their places among the entries.
    let in_sequence = others.iter().map(|(place, touch)| match touch.sequence {
        Some(_) => entries.next().map_or(*place, |(place, _)| *place),
        None => *place,
    });
    let mut ordered: Vec<_> = in_sequence.collect();
    changes.sort_by_key(|(_, touch)| touch.version);
    for (place, touch) in changes {
        let before = touch.version.unwrap_or_default() - next_version;
        let index = usize::try_from(before).unwrap_or(0).min(ordered.len());
        ordered.insert(index, place);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The account, the sequence and the version of a touch.
    type AccountTouch = (i64, Option<i64>, Option<i64>);

    fn event(id: u8, touches: &[AccountTouch]) -> Event {
        let touch = |(account, sequence, version)| (account, Touch { sequence, version });
        let touches = touches.iter().copied().map(touch).collect();
        Event { time_us: 7, key: Ok(vec![id; 16]), touches }
    }

    /// The places of these events, which touch these accounts, in order. Account 1 had nine versions.
    fn places(events: &[&[AccountTouch]]) -> Vec<u8> {
        let events: Vec<_> = (1..).zip(events).map(|(id, touches)| event(id, touches)).collect();
        let order = in_order(&events, &Versions(HashMap::from([(1, 9)])));
        order.into_iter().map(|place| events[place].key.as_ref().unwrap()[0]).collect()
    }

    #[test]
    fn events_of_one_time_come_in_the_order_of_each_account() {
        let entry = |account, sequence| (account, Some(sequence), None);
        let change = |account, version| (account, None, Some(version));
        let other = |account| (account, None, None);
        let cases: [(&[&[_]], &[u8]); 7] = [
            (&[&[entry(1, 5)], &[entry(2, 3)]], &[1, 2]),
            (&[&[entry(1, 6)], &[entry(1, 5)]], &[2, 1]),
            // 3 is before 1 on account 1, and 1 before 2 on account 2.
            (
                &[&[entry(1, 6), entry(2, 8)], &[entry(2, 9)], &[entry(1, 5), entry(3, 1)]],
                &[3, 1, 2],
            ),
            // The first event of account 1 makes version 10.
            (&[&[entry(1, 5)], &[entry(1, 6)], &[change(1, 12)], &[change(1, 10)]], &[4, 1, 3, 2]),
            // A hold keeps its place among the entries.
            (&[&[entry(1, 6)], &[other(1)], &[entry(1, 5)], &[change(1, 11)]], &[3, 4, 2, 1]),
            // A fault: each is before the other.
            (&[&[entry(1, 5), entry(2, 9)], &[entry(1, 6), entry(2, 8)]], &[1, 2]),
            // An event of an account that is not there.
            (&[&[entry(1, 6)], &[], &[entry(1, 5)]], &[2, 3, 1]),
        ];
        for (events, expected) in cases {
            assert_eq!(places(events), expected, "{events:?}");
        }
    }

    #[test]
    fn events_of_one_time_are_commits_of_at_most_1000() {
        let mut versions = Versions(HashMap::from([(1, 9), (2, 0)]));
        let mut events: Vec<_> = (0..1001).map(|_| event(1, &[(1, None, None)])).collect();
        events[1].key = Err("{}".to_owned());
        events[1000].key = Err(r#"{"account_opened":"a"}"#.to_owned());
        let rows = commits_of(events, &mut versions);
        let row = |ids: usize, others: &str| -> [Value; 3] {
            [7_i64.into(), vec![1_u8; ids * 16].into(), others.to_owned().into()]
        };
        let expected = [row(999, "[[1,{}]]"), row(0, r#"[[0,{"account_opened":"a"}]]"#)];
        assert_eq!(rows, expected);
        assert_eq!((versions.next(1), versions.next(2)), (1011, 1));
    }

    #[test]
    fn keys_are_those_of_the_column() {
        assert_eq!(keys("17:1 18:4").collect::<Vec<_>>(), [(17, 1), (18, 4)]);
        assert_eq!(keys("").count(), 0);
    }
}
