//! Makes a commit of each change that has none, which is right for a ledger without commits.
//!
//! Changes are ordered by their times. Those of one time were made by one database transaction, or by
//! several within one tick of the clock, and their order was not kept. But each account has an order: the
//! sequences of its entries, and the versions of its changes. [`in_order`] finds an order that agrees with
//! those of all accounts.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use crate::statements;

/// Touches that are read at a time.
const PAGE: usize = 10_000;
/// Moves that one statement inserts.
const MOVES_MAX: usize = 1000;

/// Tables of this session: all events by their times, with a place for each; what the events of a time
/// with several do to accounts; and which of them get another place.
const POSTGRES: &str = include_str!("postgres_history.sql");
const SQLITE: &str = include_str!("sqlite_history.sql");

const WRITE: &str = "
INSERT INTO commits (create_time_us, transaction_ids, other_events)
    SELECT f.time_us, f.ids, f.other
    FROM former_events f LEFT JOIN former_moves m ON m.place = f.place
    ORDER BY coalesce(m.new_place, f.place);
DROP TABLE former_events;
DROP TABLE former_touches;
DROP TABLE former_moves;
";

/// What an event does to one account: one change, with the next version.
struct Touch {
    time_us: i64,
    /// The place of the event.
    place: i64,
    account_key: i64,
    /// That of the first of its entries on the account.
    sequence: Option<i64>,
    /// The version of the account afterwards. Only changes of attributes have kept it.
    version: Option<i64>,
    /// The version of the account after its first event of this time.
    next_version: i64,
}

impl Touch {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            time_us: row.try_get("", "time_us")?,
            place: row.try_get("", "place")?,
            account_key: row.try_get("", "account_key")?,
            sequence: row.try_get("", "sequence")?,
            version: row.try_get("", "version")?,
            next_version: row.try_get("", "next_version")?,
        })
    }
}

/// Writes the commits of all changes. The connection has one session, in a database transaction.
///
/// # Errors
/// Those of the database.
pub async fn write_commits(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let tables = match connection.get_database_backend() {
        DbBackend::Postgres => POSTGRES,
        _ => SQLITE,
    };
    for statement in statements(tables) {
        connection.execute_unprepared(statement).await?;
    }
    move_events(connection).await?;
    for statement in statements(WRITE) {
        connection.execute_unprepared(statement).await?;
    }
    Ok(())
}

/// Gives the events of each time places in the order of their accounts.
async fn move_events(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let (mut moves, mut of_one_time, mut position) = (Vec::new(), Vec::<Touch>::new(), 0_i64);
    loop {
        let sql = format!(
            "SELECT * FROM former_touches WHERE position > {position} ORDER BY position LIMIT {PAGE}"
        );
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let rows = connection.query_all_raw(statement).await?;
        for row in &rows {
            let touch = Touch::read(row)?;
            if of_one_time.first().is_some_and(|it| it.time_us != touch.time_us) {
                moves.extend(moves_of(&std::mem::take(&mut of_one_time)));
            }
            of_one_time.push(touch);
            position = row.try_get("", "position")?;
        }
        let is_last = rows.len() < PAGE;
        if is_last {
            moves.extend(moves_of(&of_one_time));
        }
        for moves in moves.chunks(MOVES_MAX) {
            let values: Vec<_> = moves.iter().map(|(from, to)| format!("({from}, {to})")).collect();
            let values = values.join(", ");
            let sql = format!("INSERT INTO former_moves (place, new_place) VALUES {values}");
            connection.execute_unprepared(&sql).await?;
        }
        moves.clear();
        if is_last {
            return Ok(());
        }
    }
}

/// The events of one time that get another place, each with the new one.
fn moves_of(touches: &[Touch]) -> impl Iterator<Item = (i64, i64)> {
    let places: BTreeSet<_> = touches.iter().map(|it| it.place).collect();
    in_order(touches).into_iter().zip(places).filter(|(from, to)| from != to)
}

/// The places of the events of one time, in an order in which those of each account come as they changed
/// it. Where that leaves a choice, the lower place comes first.
fn in_order(touches: &[Touch]) -> Vec<i64> {
    let mut accounts = BTreeMap::<_, Vec<_>>::new();
    for touch in touches {
        accounts.entry(touch.account_key).or_default().push(touch);
    }
    // For each event, those that come next on one of its accounts, and on how many it is not the first.
    let mut next = BTreeMap::<_, Vec<_>>::new();
    let mut waiting: BTreeMap<_, _> = touches.iter().map(|it| (it.place, 0)).collect();
    for touches in accounts.into_values() {
        for pair in of_account(touches).windows(2) {
            next.entry(pair[0]).or_default().push(pair[1]);
            *waiting.entry(pair[1]).or_default() += 1;
        }
    }
    let (mut ordered, mut ready) = (Vec::new(), BTreeSet::new());
    ready.extend(waiting.iter().filter(|(_, count)| **count == 0).map(|(place, _)| *place));
    while let Some(place) = ready.pop_first() {
        waiting.remove(&place);
        ordered.push(place);
        for place in next.remove(&place).unwrap_or_default() {
            let count = waiting.entry(place).or_default();
            *count -= 1;
            if *count == 0 {
                ready.insert(place);
            }
        }
    }
    // Only in a ledger with a fault do events wait for each other.
    ordered.extend(waiting.into_keys());
    ordered
}

/// The places of the events of one account at one time, as they changed it. The touches are in the order
/// of their places.
fn of_account(touches: Vec<&Touch>) -> Vec<i64> {
    let (mut changes, others): (Vec<_>, Vec<_>) =
        touches.into_iter().partition(|it| it.version.is_some());
    let mut entries: Vec<_> = others.iter().filter(|it| it.sequence.is_some()).collect();
    entries.sort_by_key(|it| it.sequence);
    let mut entries = entries.into_iter();
    // Holds have no order of their own: they keep their places among the entries.
    let in_sequence = others.iter().map(|it| match it.sequence {
        Some(_) => entries.next().map_or(it.place, |entry| entry.place),
        None => it.place,
    });
    let mut ordered: Vec<_> = in_sequence.collect();
    changes.sort_by_key(|it| it.version);
    for change in changes {
        let before = change.version.unwrap_or_default() - change.next_version;
        let index = usize::try_from(before).unwrap_or(0).min(ordered.len());
        ordered.insert(index, change.place);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The account, the sequence and the version of a touch.
    type AccountTouch = (i64, Option<i64>, Option<i64>);

    /// The places of these events, which touch these accounts, in order.
    fn places(events: &[&[AccountTouch]]) -> Vec<i64> {
        let touch = |place, (account_key, sequence, version)| Touch {
            time_us: 7,
            place,
            account_key,
            sequence,
            version,
            next_version: 10,
        };
        let mut touches = Vec::new();
        for (place, event) in (1..).zip(events) {
            touches.extend(event.iter().map(|it| touch(place, *it)));
        }
        in_order(&touches)
    }

    #[test]
    fn events_of_one_time_come_in_the_order_of_each_account() {
        let entry = |account, sequence| (account, Some(sequence), None);
        let change = |account, version| (account, None, Some(version));
        let other = |account| (account, None, None);
        let cases: [(&[&[_]], &[i64]); 6] = [
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
        ];
        for (events, expected) in cases {
            assert_eq!(places(events), expected, "{events:?}");
        }
    }
}
