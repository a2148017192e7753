//! The column `details` of the table `requests`: what only few requests have.

use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        command::Action,
        hold::{Captured, Hold, HoldState},
        ids::TransactionId,
        money::{Amount, Currency},
        transaction::Reversed,
        unit_of_work::NewRequestRecord,
    },
    storage::entity::holds::StoredTerms,
};

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
    /// The hold as the request left it, if it has changed the hold and left it open.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<StoredHold>,
}

/// An open hold, as it was after a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHold {
    terms: StoredTerms,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    captured: Option<StoredCaptured>,
    update_time_us: i64,
}

/// [`Captured`], as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCaptured {
    amount: Amount,
    transaction_id: TransactionId,
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
        let transaction = effects.transaction.as_deref();
        let reversed = transaction.and_then(|it| it.reverses).map(|(_, reversed)| reversed);
        let reversed = reversed.filter(|reversed| *reversed != Reversed::AT_ONCE);
        let is_change =
            matches!(new.request.action, Action::UpdateHold(_) | Action::CaptureHold(_));
        let hold = effects.hold.as_deref();
        let hold = hold.filter(|hold| is_change && hold.state == HoldState::Open);
        Self {
            forced: transaction.is_some_and(|transaction| transaction.forced),
            reversed: reversed.map(|Reversed { count, amount }| StoredReversed { count, amount }),
            hold: hold.map(StoredHold::of),
        }
    }

    /// The hold as it was after the request. None: a column cannot be read.
    pub fn hold(&self, hold: Hold) -> Option<Hold> {
        let Some(StoredHold { terms, captured, update_time_us }) = &self.hold else {
            return Some(hold);
        };
        let terms = terms.terms(&hold.currency)?;
        let captured = match captured {
            Some(StoredCaptured { amount, transaction_id }) => {
                let amount = hold.currency.amount(amount.decimal())?;
                Some(Captured { amount, transaction_id: *transaction_id })
            }
            None => None,
        };
        let hold = hold.as_changed(terms, captured, *update_time_us);
        hold.impossible_field().is_none().then_some(hold)
    }

    /// What is reversed with a reversal, if that is all of its transaction.
    pub fn reversed_whole(&self) -> Option<Reversed> {
        match &self.reversed {
            None => Some(Reversed::AT_ONCE),
            Some(StoredReversed { count, amount: None }) => {
                Some(Reversed { count: *count, amount: None })
            }
            Some(StoredReversed { amount: Some(_), .. }) => None,
        }
    }

    /// What is reversed with a reversal whose first entry has this currency. None: an amount cannot be
    /// read.
    pub fn reversed(&self, currency: &Currency) -> Option<Reversed> {
        let Some(StoredReversed { count, amount: Some(amount) }) = &self.reversed else {
            return self.reversed_whole();
        };
        let amount = currency.amount(amount.decimal()).filter(|amount| amount.is_positive())?;
        Some(Reversed { count: *count, amount: Some(amount) })
    }

    /// Whether it says what is reversed.
    pub fn has_reversed(&self) -> bool {
        self.reversed.is_some()
    }

    /// Whether it says how the request left its hold.
    pub fn has_hold(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether the request was forced.
    pub fn forced(&self) -> bool {
        self.forced
    }
}

impl StoredHold {
    fn of(hold: &Hold) -> Self {
        let captured = hold
            .captured
            .map(|Captured { amount, transaction_id }| StoredCaptured { amount, transaction_id });
        let (terms, update_time_us) = (hold.terms().into(), hold.update_time_us);
        Self { terms, captured, update_time_us }
    }
}
