//! The column `details` of the table `requests`: what only few requests have.

use serde::{Deserialize, Serialize};

use crate::domain::{money::Amount, transaction::Reversed, unit_of_work::NewRequestRecord};

/// The details of a request, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoredDetails {
    /// The request was forced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
    /// What is reversed of the transaction with this reversal. None: all of it, by this one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    reversed: Option<StoredReversed>,
}

/// [`Reversed`], as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredReversed {
    count: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amount: Option<Amount>,
}

impl StoredDetails {
    /// The details of a new request.
    pub fn of(new: &NewRequestRecord) -> Self {
        let Ok(effects) = &new.record.result else { return Self::default() };
        let Some(transaction) = &effects.transaction else { return Self::default() };
        let reversed = transaction.reverses.map(|(_, reversed)| reversed);
        let reversed = reversed.filter(|reversed| *reversed != Reversed::AT_ONCE);
        Self {
            forced: transaction.forced,
            reversed: reversed.map(|Reversed { count, amount }| StoredReversed { count, amount }),
        }
    }

    /// What is reversed with a reversal.
    pub fn reversed(&self) -> Reversed {
        let reversed = self.reversed.as_ref();
        reversed.map_or(Reversed::AT_ONCE, |it| Reversed { count: it.count, amount: it.amount })
    }

    /// Whether the request was forced.
    pub fn forced(&self) -> bool {
        self.forced
    }
}
