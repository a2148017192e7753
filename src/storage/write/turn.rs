//! The turn: an advisory lock of PostgreSQL that servers take before they lock contended rows.
//!
//! It keeps them out of each other's way and nothing more: a change is right because of its row
//! locks, with the turn or without.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::storage::{StorageError, dialect::DatabaseKind};

/// How long a server waits for the turn before it goes on without: some fifty transactions of
/// others. Longer, and one server that hangs while it has the turn holds up all others for as
/// long; shorter, and servers that are only busy stop taking turns.
const TURN_WAIT_MAX: &str = "500ms";
/// How long a transaction that has the turn waits for one row. Long enough for the transaction of
/// a server that takes no turns yet, short enough that a stranger's lock, which may last for
/// hours, is not felt on other accounts.
const LOCK_TIMEOUT: &str = "20ms";

/// Takes the turn, waits for it if it is not free, and sets the lock timeout of the rest of the
/// transaction: one round trip either way. The answer is $1, as it is written there, if the turn was
/// free. PostgreSQL computes the arguments of a function in their order, though its manual does not
/// promise it; in another one, the turn would be waited for a shorter time. A ledger has one turn, named by the table
/// of its accounts ("pass" in ASCII keeps the name apart from other programs' locks).
const TAKE: &str = "\
    SELECT CASE WHEN pg_try_advisory_xact_lock(1885434739, 'accounts'::regclass::oid::integer) \
        THEN set_config('lock_timeout', $1, true) \
        ELSE concat(set_config('lock_timeout', $2, true), \
            pg_advisory_xact_lock(1885434739, 'accounts'::regclass::oid::integer), \
            set_config('lock_timeout', $1, true)) END AS answer";

/// Takes the turn until the transaction ends; returns whether it had to wait.
pub async fn take(transaction: &DatabaseTransaction) -> Result<bool, StorageError> {
    let values = [LOCK_TIMEOUT.into(), TURN_WAIT_MAX.into()];
    let statement = DatabaseKind::Postgres.statement(TAKE, values);
    let answer = transaction.query_one_raw(statement).await?;
    let Some(answer) = answer else {
        return Err(StorageError::Corrupt("the turn did not answer".to_owned()));
    };
    let answer: String = answer.try_get("", "answer")?;
    Ok(answer != LOCK_TIMEOUT)
}
