//! Checks the attributes of an account against the history of their changes.

use crate::domain::{
    account::{Account, AccountChange, AccountChangeKind, AccountState, Attributes},
    verification::LedgerFault,
};

/// Verifies the attributes of an account against its changes, which are pushed in their order.
#[derive(Debug)]
pub struct AttributesVerifier {
    account: Account,
    /// The attributes at its opening, if they are known.
    opening: Option<Attributes>,
    latest: Option<AccountChange>,
}

impl AttributesVerifier {
    /// Starts before the first change.
    pub fn new(account: Account, opening: Option<Attributes>) -> Self {
        Self { account, opening, latest: None }
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Checks the next change: its kind is what it did, and it begins with the attributes that the change
    /// before it left, or with those of the opening, and not before it.
    ///
    /// # Errors
    /// The fault of the change.
    pub fn push(&mut self, change: AccountChange) -> Result<(), LedgerFault> {
        let version = self.account.version;
        let fault = |description| LedgerFault::Attributes {
            account_id: change.account_id.clone(),
            version: change.version,
            description,
        };
        // The opening is version 1.
        if change.version < 2 || change.version > version {
            let description = format!("its version is not one from 2 to {version}, the account's");
            return Err(fault(description));
        }
        if !is_of_kind(&change) {
            let description = format!(
                "its kind is {}, but it goes from state {} to {}, or changes more",
                change.kind.name(),
                change.before.state.name(),
                change.after.state.name()
            );
            return Err(fault(description));
        }
        let latest_us = self.latest.as_ref().map(|latest| latest.create_time_us);
        let times = latest_us.unwrap_or(self.account.create_time_us)..=self.account.update_time_us;
        if !times.contains(&change.create_time_us) {
            let description = format!(
                "its create_time is {} microseconds since 1970, and not within the {times:?} of the change \
                 before it and of the account",
                change.create_time_us
            );
            return Err(fault(description));
        }
        match &self.latest {
            None if change.before.state != AccountState::Open => {
                let state = change.before.state.name();
                return Err(fault(format!("it is the first change, and begins in state {state}")));
            }
            Some(latest) => {
                if let Some(name) = difference(&latest.after, &change.before) {
                    let before = latest.version;
                    let description =
                        format!("it begins with another {name} than change {before} left");
                    return Err(fault(description));
                }
            }
            None => {
                if let Some(name) = self.difference_to_opening(&change.before) {
                    let description =
                        format!("it begins with another {name} than the account was opened with");
                    return Err(fault(description));
                }
            }
        }
        self.latest = Some(change);
        Ok(())
    }

    /// Checks, after the last change was pushed, that the account has the attributes that it left.
    ///
    /// # Errors
    /// The fault of the account.
    pub fn finish(self) -> Result<(), LedgerFault> {
        let attributes = self.account.attributes();
        let description = match &self.latest {
            None if attributes.state != AccountState::Open => {
                let state = attributes.state.name();
                format!("its state is {state}, but no change made it so")
            }
            None => match self.difference_to_opening(&attributes) {
                None => return Ok(()),
                Some(name) => {
                    format!("its {name} is not that of its opening, but no change made it so")
                }
            },
            Some(latest) => match difference(&latest.after, &attributes) {
                None => return Ok(()),
                Some(name) => {
                    format!(
                        "its {name} is not what its last change left, change {}",
                        latest.version
                    )
                }
            },
        };
        let account_id = self.account.account_id;
        Err(LedgerFault::Attributes { account_id, version: 0, description })
    }

    /// The name of the first attribute that differs from the opening's.
    fn difference_to_opening(&self, attributes: &Attributes) -> Option<&'static str> {
        difference(self.opening.as_ref()?, attributes)
    }
}

/// Whether the change did what its kind says.
fn is_of_kind(change: &AccountChange) -> bool {
    let before = &change.before;
    let has_become = |state| Attributes { state, ..before.clone() } == change.after;
    match change.kind {
        AccountChangeKind::Updated => before.state == change.after.state,
        AccountChangeKind::Frozen => {
            before.state == AccountState::Open && has_become(AccountState::Frozen)
        }
        AccountChangeKind::Unfrozen => {
            before.state == AccountState::Frozen && has_become(AccountState::Open)
        }
        AccountChangeKind::Closed => {
            before.state != AccountState::Closed && has_become(AccountState::Closed)
        }
    }
}

/// The name of the first attribute that differs.
fn difference(left: &Attributes, right: &Attributes) -> Option<&'static str> {
    [
        ("state", left.state == right.state),
        ("overdraft_limit", left.overdraft_limit == right.overdraft_limit),
        ("unlimited_overdraft", left.unlimited_overdraft == right.unlimited_overdraft),
        ("labels", left.labels == right.labels),
    ]
    .into_iter()
    .find_map(|(name, is_equal)| (!is_equal).then_some(name))
}
