//! What deposits, withdrawals, transfers and postings take.

use clap::Args;
use passbook_command::proto::{Condition, TimeBasis};
use prost_types::Timestamp;

use crate::arguments::{Amount, ChangeArguments, parse_time};

/// The arguments of a posting.
#[derive(Args)]
pub struct PostingArguments {
    #[command(flatten)]
    pub change: ChangeArguments,

    /// Check whether the request would be applied, and store nothing.
    #[arg(long)]
    pub validate_only: bool,

    #[command(flatten)]
    pub effective: EffectiveTime,
}

/// When a transaction counts for the owners of its accounts.
#[derive(Args)]
pub struct EffectiveTime {
    /// When the transaction takes effect (its value date), in the past or in the future: like
    /// 2026-11-26T09:42:23Z, or a date. Default: when it is applied.
    #[arg(long = "effective-time", value_name = "TIME", value_parser = parse_time)]
    pub time: Option<Timestamp>,
}

/// The time by which a command selects and sorts.
#[derive(Args)]
pub struct Basis {
    /// Go by the times at which entries take effect (their value dates), not by those at which they
    /// were written.
    #[arg(long)]
    by_effective_time: bool,
}

impl Basis {
    pub fn time_basis(&self) -> TimeBasis {
        match self.by_effective_time {
            true => TimeBasis::EffectiveTime,
            false => TimeBasis::CreateTime,
        }
    }
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
