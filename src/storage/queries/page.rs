//! Bounds of what one page of a list reads.

use futures_util::TryStreamExt;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, EntityTrait, IdenStatic, Order, QueryOrder, QueryResult,
    QuerySelect, QueryTrait, Select, Statement, StreamTrait, TryGetable,
    sea_query::{Expr, Query},
};

use crate::{domain::ids::AccountId, storage::StorageError};

/// A value as it is by the clock: holds whose time has passed are expired, whether or not a row
/// says so.
///
/// A capture that was judged in time may still be committing. So the caller waits until
/// `expired_us` is settled and reads again, until no hold has expired later. `expire_until_us` is
/// [`i64::MAX`] for this. With a time that is settled, holds that have expired since count as open.
pub struct Expiring<T> {
    /// The value.
    pub value: T,
    /// When the last of the holds expired whose rows do not say so, in microseconds since the Unix
    /// epoch; None if there is none.
    pub expired_us: Option<i64>,
    /// The accounts with so many such holds that they should be recorded, because a read adds up all of
    /// them: more than `UNRECORDED_MAX`.
    pub many_unrecorded: Vec<AccountId>,
}

/// See [`Expiring::many_unrecorded`]. With fewer, reads would often cause a change. With more, they would take
/// longer: a thousand holds take some milliseconds.
pub const UNRECORDED_MAX: i64 = 1_000;

/// The most rows that one page of a filtered list examines. Where few rows match, the page ends
/// here and the next one goes on, so that no page takes longer than this many rows.
pub const EXAMINED_MAX: u64 = 10_000;

/// The matching rows among those that a page has examined.
pub struct Examined<Row, Cursor> {
    /// The matching rows.
    pub rows: Vec<Row>,
    /// The last row that was examined, if there may be more behind it.
    pub next: Option<Cursor>,
}

/// Bytes of callers' texts after which a page reads no more rows: far more than a page has room for. A row
/// has up to 20 KB of them.
pub const ROWS_SIZE_MAX: usize = 2 * 1024 * 1024;

/// The first rows of a statement, until their texts have more than `size_max` bytes, and whether there
/// are more. `read` returns a row and the length of its texts.
pub async fn rows_within<Row>(
    connection: &DatabaseConnection,
    statement: Statement,
    size_max: usize,
    mut read: impl FnMut(&QueryResult) -> Result<(Row, usize), StorageError>,
) -> Result<(Vec<Row>, bool), StorageError> {
    let mut found = connection.stream_raw(statement).await?;
    let (mut rows, mut size, mut is_cut) = (Vec::new(), 0, false);
    // To the end: the database sends the rest in any case, and the connection cannot be used before.
    while let Some(row) = found.try_next().await? {
        is_cut = size > size_max;
        if !is_cut {
            let (row, length) = read(&row)?;
            size += length;
            rows.push(row);
        }
    }
    Ok((rows, is_cut))
}

/// How many rows fit into a page by their sizes: the first ones with at most `size_max` in all, and at
/// least one.
pub fn fitting(sizes: impl Iterator<Item = usize>, size_max: usize) -> usize {
    let sums = sizes.scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= size_max).count().max(1)
}

/// The database's clock, which a statement reads into the column `now_us` of all its rows.
pub fn now_us(rows: &[QueryResult]) -> Result<i64, StorageError> {
    match rows.first() {
        Some(row) => Ok(row.try_get("", "now_us")?),
        None => Err(StorageError::Corrupt("the statement for the clock has no row".to_owned())),
    }
}

/// How many rows of a range there are in order of `key`, up to `limit`, and the key of the last.
pub async fn examine<E: EntityTrait, K: TryGetable>(
    connection: &impl ConnectionTrait,
    range: Select<E>,
    key: E::Column,
    order: Order,
    limit: u64,
) -> Result<(u64, Option<K>), StorageError> {
    let direction = if order == Order::Desc { "DESC" } else { "ASC" };
    let number = format!("row_number() OVER (ORDER BY {} {direction})", key.as_str());
    let rows = range
        .select_only()
        .column_as(key, "last")
        .expr_as(Expr::cust(number), "examined")
        .order_by(key, order)
        .limit(limit)
        .into_query();
    let last = Query::select()
        .columns(["last", "examined"])
        .from_subquery(rows, "rows")
        .order_by("examined", Order::Desc)
        .limit(1)
        .to_owned();
    let Some(row) = connection.query_one(&last).await? else { return Ok((0, None)) };
    let examined: i64 = row.try_get("", "examined")?;
    Ok((examined.unsigned_abs(), Some(row.try_get("", "last")?)))
}
