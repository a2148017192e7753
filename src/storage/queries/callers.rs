//! The identities of callers in recorded requests.

use std::collections::BTreeSet;

use sea_orm::ConnectionTrait;

use crate::storage::{StorageError, Store};

/// The names from this one on, up to as many as a page has. One search by key for each name, however
/// many requests it has.
const RECORDED_NAMES: &str = "\
    WITH RECURSIVE names (caller) AS ( \
        SELECT min(caller) FROM requests WHERE caller >= $1 \
        UNION ALL \
        SELECT (SELECT min(r.caller) FROM requests r WHERE r.caller > names.caller) \
        FROM names WHERE names.caller IS NOT NULL) \
    SELECT caller FROM names WHERE caller IS NOT NULL LIMIT $2";

/// The names in one page. Each takes an index search, so a page takes far less time than a statement
/// may.
const PAGE_NAMES: i64 = 5000;

impl Store {
    /// The identities under which requests were recorded; the empty one is of unauthenticated
    /// callers.
    pub async fn recorded_names(&self) -> Result<BTreeSet<String>, StorageError> {
        let kind = self.kind();
        let mut names = BTreeSet::new();
        loop {
            // The last name begins the next page: no name comes before the empty one.
            let last: String = names.last().cloned().unwrap_or_default();
            let statement = kind.statement(RECORDED_NAMES, [last.into(), PAGE_NAMES.into()]);
            let rows = self.readers.query_all_raw(statement).await?;
            for row in &rows {
                names.insert(row.try_get_by_index(0)?);
            }
            if i64::try_from(rows.len()) != Ok(PAGE_NAMES) {
                return Ok(names);
            }
        }
    }
}
