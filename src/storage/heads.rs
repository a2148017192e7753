//! Reads heads, and compares earlier heads with the ledger of today.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::{
    domain::{
        account::Account,
        ids::AccountId,
        verification::{AccountToday, Head},
    },
    storage::{
        Snapshot, StorageError, VerifyError,
        dialect::DatabaseKind,
        entity::accounts::{Column, Entity},
    },
};

/// The most heads of one page, read or compared by one statement.
pub const HEADS_PAGE: usize = 1000;

impl Snapshot {
    /// The heads of the next accounts above this id, in order of their ids. A page with fewer than
    /// [`HEADS_PAGE`] is the last one.
    ///
    /// # Errors
    /// The database does not answer, or an account cannot be read.
    pub async fn heads_after(&self, after: Option<&AccountId>) -> Result<Vec<Head>, StorageError> {
        let after = after.map_or("", AccountId::as_str);
        let rows = Entity::find()
            .filter(Column::AccountId.gt(after))
            .order_by_asc(Column::AccountId)
            .limit(HEADS_PAGE as u64)
            .all(&*self.connections()[0])
            .await?;
        rows.into_iter().map(|row| Ok(Head::of(&Account::try_from(row)?))).collect()
    }

    /// Checks that today's ledger continues from these heads.
    ///
    /// # Errors
    /// The fault of the first account that does not, or the database does not answer.
    pub async fn check_heads(&self, heads: &[Head]) -> Result<(), VerifyError> {
        let connection = &*self.connections()[0];
        let kind = DatabaseKind::of(connection);
        let (from, position) = match kind {
            DatabaseKind::Sqlite => (
                "FROM json_each($1) n \
                    JOIN accounts a ON a.account_id = n.value->>0 \
                    LEFT JOIN entries e \
                        ON e.account_key = a.account_key AND e.sequence = n.value->>1",
                "n.key",
            ),
            DatabaseKind::Postgres => (
                "FROM UNNEST($1::text[], $2::bigint[]) WITH ORDINALITY \
                        AS n(account_id, sequence, position) \
                    JOIN accounts a ON a.account_id = n.account_id COLLATE \"C\" \
                    LEFT JOIN entries e \
                        ON e.account_key = a.account_key AND e.sequence = n.sequence",
                "n.position - 1",
            ),
        };
        let hash = kind.bytes_text("e.hash");
        let sql = format!("SELECT {position}, a.sequence, lower({hash}) {from}");
        let names = heads.iter().map(|head| (head.account_id.to_string(), head.sequence));
        let statement = kind.statement(sql, kind.pairs(names));
        let mut today: Vec<Option<AccountToday>> = vec![None; heads.len()];
        for row in connection.query_all_raw(statement).await? {
            let position: i64 = row.try_get_by_index(0)?;
            let found =
                AccountToday { sequence: row.try_get_by_index(1)?, hash: row.try_get_by_index(2)? };
            if let Some(account) = usize::try_from(position).ok().and_then(|it| today.get_mut(it)) {
                *account = Some(found);
            }
        }
        for (head, today) in heads.iter().zip(&today) {
            head.check(today.as_ref())?;
        }
        Ok(())
    }
}
