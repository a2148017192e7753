//! The identities of callers in recorded requests.

use std::collections::BTreeSet;

use sea_orm::ConnectionTrait;

use crate::storage::{StorageError, Store};

/// One search by key for each name, however many requests it has.
const RECORDED_NAMES: &str = "\
    WITH RECURSIVE names (caller) AS ( \
        SELECT min(caller) FROM requests \
        UNION ALL \
        SELECT (SELECT min(r.caller) FROM requests r WHERE r.caller > names.caller) \
        FROM names WHERE names.caller IS NOT NULL) \
    SELECT caller FROM names WHERE caller IS NOT NULL LIMIT 10000";

impl Store {
    /// The identities under which requests were recorded; the empty one is of unauthenticated
    /// callers.
    pub async fn recorded_names(&self) -> Result<BTreeSet<String>, StorageError> {
        let kind = self.kind();
        let statement = kind.statement(RECORDED_NAMES, []);
        let rows = self.readers.query_all_raw(statement).await?;
        let names = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(names.collect::<Result<_, _>>()?)
    }
}
