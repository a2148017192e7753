//! What deposits, withdrawals, transfers and postings take.

use clap::Args;
use passbook_command::proto::Condition;

use crate::arguments::{Amount, ChangeArguments};

/// The arguments of a posting.
#[derive(Args)]
pub struct PostingArguments {
    #[command(flatten)]
    pub change: ChangeArguments,

    /// Check whether the request would be applied, and store nothing.
    #[arg(long)]
    pub validate_only: bool,
}

/// For what must be booked in any case, such as a chargeback or a court's order.
#[derive(Args)]
pub struct Force {
    /// Apply it although funds lack or an account is frozen. Needs the right `force`.
    #[arg(long)]
    pub force: bool,
}

/// What must be true of the account for a request to be applied.
#[derive(Args)]
#[command(next_help_heading = "Condition")]
pub struct ConditionArguments {
    /// Only if the account has this version before the change.
    #[arg(long, value_name = "N")]
    expected_version: Option<i64>,

    /// Only if the balance after the change is at least this.
    #[arg(long, allow_negative_numbers = true, value_name = "AMOUNT")]
    min_balance_after: Option<String>,

    /// Only if the balance after the change is at most this.
    #[arg(long, allow_negative_numbers = true, value_name = "AMOUNT")]
    max_balance_after: Option<String>,
}

impl ConditionArguments {
    /// The condition, whose amounts are in the currency of the request. None: there is none.
    pub fn condition(&self, amount: &Amount) -> Option<Condition> {
        let condition = Condition {
            expected_version: self.expected_version,
            min_balance_after: self.min_balance_after.as_deref().map(|it| amount.with_value(it)),
            max_balance_after: self.max_balance_after.as_deref().map(|it| amount.with_value(it)),
        };
        (condition != Condition::default()).then_some(condition)
    }
}
