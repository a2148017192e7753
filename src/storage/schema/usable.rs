//! Whether a server can work with the tables: their columns, the rights of the database's role, and the
//! keys and guards on which promises rest.

use sea_orm::ConnectionTrait;

use crate::storage::{StorageError, Store, dialect::DatabaseKind, tables::TABLES};

/// Tables whose rows are changed. To all of them rows are only added.
const UPDATED: [&str; 2] = ["accounts", "holds"];

/// The indexes beside the primary keys, with their tables. A repeated request is found by a unique index,
/// also one that comes with the end of a restore. A test drops each index and each trigger of the schema
/// once, and a server must not start.
const INDEXES: [(&str, &str); 6] = [
    ("entries", "entries_by_effective_time"),
    ("entries", "entries_with_effective_time"),
    ("holds", "holds_of_account"),
    ("holds", "holds_that_expire"),
    ("requests", "requests_reverses_transaction_id"),
    ("requests", "requests_transaction_id"),
];

/// Those of them that are unique.
const UNIQUE: [&str; 2] = ["requests_reverses_transaction_id", "requests_transaction_id"];

/// The triggers that guard rows which must not change.
const TRIGGERS_OF_POSTGRES: [(&str, &str); 12] = [
    ("account_changes", "account_changes_are_immutable"),
    ("accounts", "account_keys_are_kept"),
    ("accounts", "accounts_are_kept"),
    ("accounts", "opening_attributes_are_kept"),
    ("accounts", "scales_are_kept"),
    ("accounts", "who_opened_accounts_is_kept"),
    ("commits", "commits_are_immutable"),
    ("entries", "entries_are_immutable"),
    ("holds", "holds_are_ended_once"),
    ("holds", "holds_are_kept"),
    ("holds", "who_placed_holds_is_kept"),
    ("requests", "requests_are_immutable"),
];

/// The same on SQLite.
const TRIGGERS_OF_SQLITE: [(&str, &str); 23] = [
    ("account_changes", "account_changes_are_not_deleted"),
    ("account_changes", "account_changes_are_not_replaced"),
    ("account_changes", "account_changes_are_not_updated"),
    ("accounts", "account_keys_are_kept"),
    ("accounts", "accounts_are_not_deleted"),
    ("accounts", "accounts_are_not_replaced"),
    ("accounts", "opening_attributes_are_kept"),
    ("accounts", "scales_are_kept"),
    ("accounts", "scales_that_change_are_kept"),
    ("accounts", "who_opened_accounts_is_kept"),
    ("commits", "commits_are_not_deleted"),
    ("commits", "commits_are_not_replaced"),
    ("commits", "commits_are_not_updated"),
    ("entries", "entries_are_not_deleted"),
    ("entries", "entries_are_not_replaced"),
    ("entries", "entries_are_not_updated"),
    ("holds", "holds_are_ended_once"),
    ("holds", "holds_are_not_deleted"),
    ("holds", "holds_are_not_replaced"),
    ("holds", "who_placed_holds_is_kept"),
    ("requests", "requests_are_not_deleted"),
    ("requests", "requests_are_not_replaced"),
    ("requests", "requests_are_not_updated"),
];

/// The columns whose values come from a sequence. Logical replication copies rows, and leaves the
/// sequence of the copy where it was.
const NUMBERED: [(&str, &str); 2] = [("accounts", "account_key"), ("commits", "number")];

impl Store {
    /// Checks that a server of this program can read and write all tables.
    ///
    /// # Errors
    /// A table or a column is missing, as after a migration of a newer program, or a right of the
    /// database's role.
    pub async fn check_tables(&self) -> Result<(), StorageError> {
        let kind = self.kind();
        let no_rows = TABLES.iter().map(|table| {
            let (columns, name) = (table.column_list(""), table.name);
            format!("(SELECT count(*) FROM (SELECT {columns} FROM {name} LIMIT 0) t)")
        });
        let statement = format!("SELECT {}", no_rows.collect::<Vec<_>>().join(", "));
        self.readers.query_one_raw(kind.statement(statement, [])).await?;
        if kind == DatabaseKind::Sqlite {
            return Ok(());
        }
        let added = TABLES.iter().map(|table| (table.name, "INSERT"));
        let needed = values(added.chain(UPDATED.map(|name| (name, "UPDATE"))));
        let missing = format!(
            "SELECT table_name, table_right FROM (VALUES {needed}) AS needed(table_name, table_right) \
             WHERE NOT has_table_privilege(table_name, table_right) LIMIT 1"
        );
        let Some(row) = self.readers.query_one_raw(kind.statement(missing, [])).await? else {
            return Ok(());
        };
        let (table, right): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        Err(StorageError::Forbidden(format!("the database's role lacks {right} on table {table}")))
    }

    /// Finds a key or a guard of this program's schema that is not there or not in force, as after a
    /// restore that was broken off, and what makes PostgreSQL hide, drop or lose rows. Returns what it
    /// is and what to do.
    pub async fn missing_guard(&self) -> Result<Option<String>, StorageError> {
        self.fault(match self.kind() {
            DatabaseKind::Sqlite => missing_on_sqlite(),
            DatabaseKind::Postgres => missing_on_postgres(),
        })
        .await
    }

    /// Finds a sequence that is behind its rows. No row is hidden: see [`missing_guard`](Self::missing_guard).
    /// Returns what it is and what to do.
    pub async fn sequence_behind(&self) -> Result<Option<String>, StorageError> {
        match self.kind() {
            DatabaseKind::Sqlite => Ok(None),
            DatabaseKind::Postgres => self.fault(sequences_behind()).await,
        }
    }

    /// Finds a primary key that is not there, without which a request can be recorded twice. SQLite
    /// cannot lose one.
    pub async fn missing_key(&self) -> Result<Option<String>, StorageError> {
        match self.kind() {
            DatabaseKind::Sqlite => Ok(None),
            DatabaseKind::Postgres => self.fault(missing_indexes(&primary_keys())).await,
        }
    }

    async fn fault(&self, statement: String) -> Result<Option<String>, StorageError> {
        let statement = self.kind().statement(format!("{statement} LIMIT 1"), []);
        let row = self.readers.query_one_raw(statement).await?;
        Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
    }
}

fn missing_on_sqlite() -> String {
    let indexes = INDEXES.map(|(table, name)| {
        format!("('index', '{table}', '{name}', {})", u8::from(UNIQUE.contains(&name)))
    });
    let triggers =
        TRIGGERS_OF_SQLITE.map(|(table, name)| format!("('trigger', '{table}', '{name}', 0)"));
    format!(
        "WITH needed (kind, of_table, name, is_unique) AS (VALUES {}, {}) \
         SELECT 'table ' || of_table || ' has no ' || kind || ' ' || name || \
             ': restore the database again, as a whole' FROM needed \
         WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema s WHERE s.type = needed.kind \
             AND s.tbl_name = needed.of_table AND s.name = needed.name) \
         OR is_unique AND NOT EXISTS (SELECT 1 FROM pragma_index_list(of_table) list \
             WHERE list.name = needed.name AND list.\"unique\")",
        indexes.join(", "),
        triggers.join(", "),
    )
}

fn missing_on_postgres() -> String {
    let tables: Vec<_> = TABLES.iter().map(|table| format!("('{}')", table.name)).collect();
    let others = INDEXES.map(|(table, name)| {
        let is_unique = if UNIQUE.contains(&name) { "true" } else { "false" };
        format!("('{table}', '{name}', {is_unique}, '')")
    });
    let indexes = missing_indexes(&format!("{}, {}", primary_keys(), others.join(", ")));
    let triggers = values(TRIGGERS_OF_POSTGRES);
    format!(
        "WITH tables AS (SELECT of_table, to_regclass(of_table) AS id \
             FROM (VALUES {tables}) AS needed(of_table)), \
         triggers AS (SELECT of_table, name, to_regclass(of_table) AS id \
             FROM (VALUES {triggers}) AS needed(of_table, name)) \
         {indexes} \
         UNION ALL \
         SELECT 'the trigger ' || name || ' of table ' || of_table || ' is missing or disabled: ' || \
             'restore the database again, as a whole, or ALTER TABLE ' || of_table || \
             ' ENABLE TRIGGER ' || name \
         FROM triggers WHERE NOT EXISTS (SELECT 1 FROM pg_trigger \
             WHERE tgrelid = triggers.id AND tgname = name AND tgenabled IN ('O', 'A')) \
         UNION ALL \
         SELECT 'table ' || of_table || ' is not logged, so a crash of the database would empty it: ' || \
             'ALTER TABLE ' || of_table || ' SET LOGGED' \
         FROM tables JOIN pg_class ON pg_class.oid = id WHERE relpersistence <> 'p' \
         UNION ALL \
         SELECT 'row-level security may hide rows of table ' || of_table || ': ALTER TABLE ' || \
             of_table || ' DISABLE ROW LEVEL SECURITY, or ALTER ROLE ... BYPASSRLS' \
         FROM tables WHERE row_security_active(id) \
         UNION ALL \
         SELECT 'the trigger ' || tgname || ' of table ' || of_table || \
             ' may change or drop rows: only triggers that run AFTER an event may be added' \
         FROM tables JOIN pg_trigger ON tgrelid = id \
         WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 3 = 3 \
             AND (of_table, tgname) NOT IN (SELECT of_table, name FROM triggers) \
         UNION ALL \
         SELECT 'the rule ' || rulename || ' of table ' || of_table || \
             ' may change or drop rows: DROP RULE ' || rulename || ' ON ' || of_table \
         FROM tables JOIN pg_rewrite ON ev_class = id WHERE ev_enabled IN ('O', 'A') \
         UNION ALL \
         SELECT 'rows of table ' || of_table || ' come from the subscription ' || subname || \
             ' of logical replication, and changes would conflict with them: ALTER SUBSCRIPTION ' || \
             quote_ident(subname) || ' DISABLE' \
         FROM tables JOIN pg_subscription_rel ON srrelid = id JOIN pg_subscription s ON s.oid = srsubid \
         WHERE subenabled \
         UNION ALL \
         SELECT 'fsync is ' || current_setting('fsync') || ' and must be on: set it in ' || \
             'postgresql.conf, and reload the configuration' \
         WHERE current_setting('fsync') <> 'on'",
        tables = tables.join(", "),
    )
}

/// For a role that may not read a sequence, it is not compared.
fn sequences_behind() -> String {
    let numbered = NUMBERED.map(highest_number).join(" UNION ALL ");
    format!(
        "SELECT 'the sequence of ' || of_table || '.' || of_column || ' is behind the rows, as after \
             logical replication: SELECT setval(' || quote_literal(sequence) || ', ' || highest || ')' \
         FROM ({numbered}) numbered \
         WHERE CASE WHEN has_sequence_privilege(sequence, 'SELECT') \
             THEN coalesce(pg_sequence_last_value(sequence::regclass), 0) < highest END"
    )
}

/// A row with the highest number in this column.
fn highest_number((table, column): (&str, &str)) -> String {
    format!(
        "SELECT '{table}' AS of_table, '{column}' AS of_column, \
             pg_get_serial_sequence('{table}', '{column}') AS sequence, max({column}) AS highest \
         FROM {table}"
    )
}

/// Waits for no lock on a table, as `pg_get_indexdef` would: other programs may hold one for long.
/// `needed` are rows of a table, the name of an index, whether it is unique, and the columns of a key.
fn missing_indexes(needed: &str) -> String {
    format!(
        "SELECT 'table ' || of_table || ' has no valid ' || \
             CASE WHEN is_unique THEN 'unique ' ELSE '' END || 'index ' || name || \
             ': restore the database again, as a whole' || \
             CASE WHEN key_columns = '' THEN '' ELSE \
                 ', or ALTER TABLE ' || of_table || ' ADD PRIMARY KEY (' || key_columns || ')' END \
         FROM (VALUES {needed}) AS needed(of_table, name, is_unique, key_columns) \
         WHERE NOT EXISTS (SELECT 1 FROM pg_index JOIN pg_class c ON c.oid = indexrelid \
             WHERE indrelid = to_regclass(of_table) AND c.relname = name \
                 AND indisvalid AND indisready AND (indisunique OR NOT is_unique) \
                 AND (key_columns = '' OR indisprimary AND key_columns = ( \
                     SELECT string_agg(attname::text, ', ' ORDER BY place) \
                     FROM unnest(indkey::int2[]) WITH ORDINALITY AS keys(number, place) \
                     JOIN pg_attribute ON attrelid = indrelid AND attnum = number \
                     WHERE place <= indnkeyatts)))"
    )
}

/// The primary keys and the other key of PostgreSQL, as rows for [`missing_indexes`].
fn primary_keys() -> String {
    let keys = TABLES.iter().map(|table| {
        let columns: Vec<_> = table.key().iter().map(|column| column.name).collect();
        format!("('{0}', '{0}_pkey', true, '{1}')", table.name, columns.join(", "))
    });
    let other = "('accounts', 'accounts_account_key', true, '')".to_owned();
    keys.chain([other]).collect::<Vec<_>>().join(", ")
}

/// Pairs of names as rows.
fn values<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let rows = pairs.into_iter().map(|(left, right)| format!("('{left}', '{right}')"));
    rows.collect::<Vec<_>>().join(", ")
}
