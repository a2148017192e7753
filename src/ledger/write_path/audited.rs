//! What the audit log says of the result of a command.

use crate::{
    audit,
    domain::{command::Command, ids::is_same_attempt, unit_of_work::CommandResult},
    ledger::{Error, Outcome},
};

/// The outcome of a command with this result.
pub fn outcome(command: &Command, result: &Result<CommandResult, Error>) -> audit::Outcome {
    match result {
        Ok(CommandResult::Account { .. }) => audit::Outcome::Applied(None),
        Ok(CommandResult::Request(result)) => {
            let transaction = result.effects.transaction.as_ref();
            let transaction_id = transaction.and_then(|it| it.transaction_id);
            match result.replayed {
                true => audit::Outcome::Replayed(transaction_id),
                false => audit::Outcome::Applied(transaction_id),
            }
        }
        // A fence that finds the record of another request changes nothing.
        Ok(CommandResult::Record(record)) => match command {
            Command::Request(fence)
                if !is_same_attempt(record.transaction_id, fence.transaction_id) =>
            {
                audit::Outcome::Replayed(None)
            }
            _ => audit::Outcome::Applied(None),
        },
        Err(Error::Rejected(rejection)) => audit::Outcome::Rejected(rejection.clone()),
        Err(error) => without_result(error),
    }
}

fn without_result(error: &Error) -> audit::Outcome {
    let (reason, outcome) = match error {
        Error::LockTimeout => ("lock_timeout", None),
        Error::Contention => ("contention", None),
        Error::ShuttingDown => ("shutting_down", None),
        Error::AuditUnavailable => ("audit_unavailable", None),
        Error::DeadlineExceeded(outcome) => ("deadline_exceeded", *outcome),
        Error::DatabaseUnavailable(outcome) => ("database_unavailable", *outcome),
        Error::SchemaNotMigrated(outcome) => ("schema_not_migrated", *outcome),
        Error::Internal(outcome) => ("internal", *outcome),
        // No error of a command in the queue.
        Error::Rejected(_)
        | Error::PermissionDenied(_)
        | Error::Overloaded(_)
        | Error::WatcherTooSlow { .. }
        | Error::SequenceNotReached { .. }
        | Error::EventTokenUnknown
        | Error::TooManyAccounts { .. }
        | Error::TooManyEntries { .. } => ("internal", Some(Outcome::Unknown)),
    };
    match outcome {
        Some(Outcome::Unknown) => audit::Outcome::Unknown(reason),
        Some(Outcome::NotApplied) | None => audit::Outcome::NotApplied(reason),
    }
}
