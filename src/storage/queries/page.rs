//! What a read returns besides rows.

/// What was read, as it is by the clock: holds whose time has passed are expired, whether or not
/// anybody has recorded that.
///
/// A capture may be under way that was judged in time. So whoever tells of this waits until
/// `expired_us` is settled, and reads again with `expire_until_us` at that time: holds that have
/// expired since, of which it is not known, are open still. [`i64::MAX`] is for the first time.
pub struct Expiring<T> {
    /// What was read.
    pub value: T,
    /// When the last of the holds expired that are not recorded so, in microseconds since the
    /// Unix epoch; None if there is none.
    pub expired_us: Option<i64>,
}

/// Rows that one page of a list with a filter looks at. Where few of them match, it ends here and
/// the next page goes on, so that no page takes longer than reading so many.
pub const EXAMINED_MAX: u64 = 10_000;

/// The rows that were found among those that a page looks at.
pub struct Examined<Row, Cursor> {
    /// What was found.
    pub rows: Vec<Row>,
    /// The last that was looked at, if there may be more behind it.
    pub next: Option<Cursor>,
}
