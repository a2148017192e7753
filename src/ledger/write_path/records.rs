//! What a result stores for good although it moves no money.

use crate::{
    domain::{account::label_bytes, command::Command, unit_of_work::CommandResult},
    ledger::Error,
};

/// The records of this result: that of a rejection or of a changed or released hold. One for an account is
/// taken before the command is queued; its labels count one more for each KiB. In the audit log, also the
/// `lines` of a rejection, of a repeat or of a change without a result.
pub fn count(command: &Command, result: &Result<CommandResult, Error>, lines: u32) -> u32 {
    match result {
        Err(Error::Rejected(_)) if command.is_recorded() => lines.max(1),
        Err(Error::Rejected(_)) => 0,
        Err(_) => lines,
        Ok(CommandResult::Request(result)) if result.replayed => lines,
        Ok(CommandResult::Request(_)) => command.changes_a_hold().into(),
        Ok(CommandResult::Account { account, has_changed: true }) => {
            // A change keeps those before it, too. As many are a good guess.
            let copies = if matches!(command, Command::UpdateAccount(_)) { 2 } else { 1 };
            copies * u32::try_from(label_bytes(&account.labels) / 1024).unwrap_or(u32::MAX / 2)
        }
        Ok(CommandResult::Account { .. } | CommandResult::Record(_)) => 0,
    }
}

/// The records of lines of this length in the audit log: one for each KiB that has begun.
pub fn of_lines(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
