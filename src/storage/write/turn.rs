//! The turn: an advisory lock of PostgreSQL that servers take before they lock contended rows.
//!
//! The turn is for throughput only. Correctness rests on the row locks.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::storage::{StorageError, dialect::DatabaseKind};

/// How long a server waits for the turn before it goes on without: the time of about fifty
/// transactions. Longer, and a server that hangs with the turn holds up all others; shorter, and
/// busy servers stop taking turns.
const TURN_WAIT_MAX: &str = "500ms";
/// How long a transaction with the turn waits for one row. Long enough for the transaction of a
/// server that takes no turns yet, short enough that a foreign lock, which may last for hours, does
/// not slow down other accounts.
const LOCK_TIMEOUT: &str = "20ms";

/// Takes the turn, waiting if it is not free, and sets the lock timeout of the rest of the
/// transaction, all in one round trip. The answer is $1 if the turn was free, else a longer text.
/// PostgreSQL evaluates the arguments of a function in order, though its manual does not promise
/// it; in another order, the wait for the turn would be shorter. A ledger's turn is named by the
/// table of its accounts, and by "pass" in ASCII, unlike other programs' locks.
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
        return Err(StorageError::Corrupt("the statement for the turn has no row".to_owned()));
    };
    let answer: String = answer.try_get("", "answer")?;
    Ok(answer != LOCK_TIMEOUT)
}
