//! What a result stores for good without moving money, or beside it.

use crate::{
    domain::{account::label_bytes, command::Command, unit_of_work::CommandResult},
    ledger::Error,
};

/// The records of this result: that of a rejection or of a changed or released hold, and one for each entry of
/// a transaction that leaves all balances as they were. The labels and the description of a request count one
/// for each KiB, even if it moves money. One for an account is taken before the command is queued; its labels
/// count one more for each KiB. In the audit log, also the `lines` of a result that moves no money.
pub fn count(command: &Command, result: &Result<CommandResult, Error>, lines: u32) -> u32 {
    match result {
        Err(Error::Rejected(_)) if command.is_recorded() => lines.max(1),
        Err(Error::Rejected(_)) => 0,
        Err(_) => lines,
        Ok(CommandResult::Request(result)) if result.replayed => lines,
        Ok(CommandResult::Request(_)) if command.is_dry_run() => 0,
        Ok(CommandResult::Request(result)) => {
            let transaction = result.effects.transaction.as_deref();
            let without_effect = transaction.filter(|it| !it.changes_a_balance());
            let entries = without_effect.map_or(0, |it| saturated(it.entries.len()) + lines);
            entries + u32::from(command.changes_a_hold()) + saturated(command.text_bytes() / 1024)
        }
        Ok(CommandResult::Account { account, has_changed: true }) => {
            // A change keeps those before it, too. As many are a good guess.
            let copies = if matches!(command, Command::UpdateAccount(_)) { 2 } else { 1 };
            copies * saturated(label_bytes(&account.labels) / 1024)
        }
        Ok(CommandResult::Account { .. } | CommandResult::Record(_)) => 0,
    }
}

/// The records of lines of this length in the audit log: one for each KiB that has begun.
pub fn of_lines(bytes: usize) -> u32 {
    saturated(bytes.div_ceil(1024))
}

/// At most an eighth of the highest number, so that some of them can be added.
fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).min(u32::MAX / 8)
}
