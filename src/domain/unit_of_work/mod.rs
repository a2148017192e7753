//! The fold: commands applied in turn to locked accounts, in memory.
//!
//! A [`Book`] is made anew for every attempt at a database transaction, from rows read under
//! their locks in that very transaction, and thrown away with it. What it has changed when
//! all commands are applied is what the transaction writes, in a constant number of
//! statements.
//!
//! One file a kind of rule: `posting` (balances), `holds`, `attributes`.

mod attributes;
#[cfg(test)]
mod attributes_tests;
mod holds;
#[cfg(test)]
mod holds_tests;
mod posting;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::domain::{
    account::{Account, AccountChange, Attributes, NewAccount},
    command::{Action, Command, Request},
    hold::Hold,
    ids::{AccountId, HoldId, RequestKey, TransactionId, is_same_attempt},
    rejection::Rejection,
    transaction::Transaction,
};

/// What a database transaction has read under its locks.
#[derive(Default)]
pub struct Found {
    /// The accounts that are locked.
    pub accounts: Vec<Account>,
    /// The holds that the commands name, and all that have expired on those accounts.
    pub holds: Vec<Hold>,
    /// The verdicts that there are under the commands' request ids.
    pub decided: HashMap<RequestKey, Decided>,
    /// Of the transactions that are to be reversed, those that were, with their reversals.
    pub reversed_by: HashMap<TransactionId, TransactionId>,
    /// Of the accounts that are to be opened and are there, those whose attributes have changed, with
    /// what these were when they were opened.
    pub openings: HashMap<AccountId, Attributes>,
    /// The time by the database's clock, in microseconds since the Unix epoch.
    pub now_us: i64,
}

/// The accounts, holds and requests that a batch of commands touches, and what it changes in
/// them.
pub struct Book {
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<HoldId, Hold>,
    decided: HashMap<RequestKey, Decided>,
    reversed_by: HashMap<TransactionId, TransactionId>,
    openings: HashMap<AccountId, Attributes>,
    now_us: i64,
    created: BTreeSet<AccountId>,
    changed: BTreeSet<AccountId>,
    placed: BTreeSet<HoldId>,
    ended: BTreeSet<HoldId>,
    account_changes: Vec<AccountChange>,
    recorded: Vec<Recorded>,
}

/// A request that has its verdict, for ever.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Of the body that was judged.
    pub fingerprint: [u8; 32],
    /// Given to the request when it came in; names the transaction if it made one.
    pub transaction_id: TransactionId,
    /// What it made, or why nothing.
    pub verdict: Result<Made, Rejection>,
}

/// What a request made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// If it changed balances.
    pub transaction: Option<Arc<Transaction>>,
    /// If it placed or ended a hold: the hold right after.
    pub hold: Option<Arc<Hold>>,
}

/// A verdict that this batch reached first, to be stored.
pub struct Recorded {
    /// The request as it came in.
    pub request: Arc<Request>,
    /// When.
    pub create_time_us: i64,
    /// Its verdict.
    pub decided: Decided,
}

/// The answer to one command.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The account that was opened or changed, or was so already.
    Account(Account),
    /// What the request made.
    Made {
        /// All of it.
        made: Made,
        /// It had been made before, under the same request id.
        replayed: bool,
    },
    /// The verdict under a request id that was to be fenced; the fence itself, if there was none.
    Decided(Decided),
}

impl Book {
    /// Begins with what was found. Holds that have expired are so from here on, whoever comes
    /// across them first.
    #[must_use]
    pub fn new(found: Found) -> Self {
        let Found { accounts, holds, decided, reversed_by, openings, now_us } = found;
        let mut book = Self {
            accounts: accounts.into_iter().map(|it| (it.account_id.clone(), it)).collect(),
            holds: holds.into_iter().map(|it| (it.hold_id.clone(), it)).collect(),
            decided,
            reversed_by,
            openings,
            now_us,
            created: BTreeSet::new(),
            changed: BTreeSet::new(),
            placed: BTreeSet::new(),
            ended: BTreeSet::new(),
            account_changes: Vec::new(),
            recorded: Vec::new(),
        };
        book.expire_holds();
        book
    }

    /// Applies one command to what the commands before it left.
    ///
    /// # Errors
    /// The refusal; nothing was changed.
    pub fn apply(&mut self, command: &Command) -> Result<Answer, Rejection> {
        match command {
            Command::CreateAccount(new) => self.create_account(new).map(Answer::Account),
            Command::UpdateAccount(update) => self.update_account(update).map(Answer::Account),
            Command::Request(request) => self.request(request),
        }
    }

    /// The accounts that this batch opened, in order of their ids.
    pub fn created(&self) -> impl Iterator<Item = &Account> {
        self.created.iter().filter_map(|id| self.accounts.get(id))
    }

    /// The accounts that were there before and have changed, in order of their ids.
    pub fn changed(&self) -> impl Iterator<Item = &Account> {
        self.changed.difference(&self.created).filter_map(|id| self.accounts.get(id))
    }

    /// The holds that this batch placed, in order of their ids.
    pub fn placed(&self) -> impl Iterator<Item = &Hold> {
        self.placed.iter().filter_map(|id| self.holds.get(id))
    }

    /// The holds that were open before and are not any more, in order of their ids.
    pub fn ended(&self) -> impl Iterator<Item = &Hold> {
        self.ended.difference(&self.placed).filter_map(|id| self.holds.get(id))
    }

    /// The changes of what accounts are, in the order in which they were made.
    #[must_use]
    pub fn account_changes(&self) -> &[AccountChange] {
        &self.account_changes
    }

    /// The verdicts that this batch reached first, in the order in which it did.
    #[must_use]
    pub fn recorded(&self) -> &[Recorded] {
        &self.recorded
    }

    fn create_account(&mut self, new: &NewAccount) -> Result<Account, Rejection> {
        if let Some(account) = self.accounts.get(&new.account_id) {
            return if account.was_opened_by(&self.opening(account), new) {
                Ok(account.clone())
            } else {
                Err(Rejection::AccountExists { account_id: new.account_id.clone() })
            };
        }
        let account = Account::open(new, self.now_us);
        self.created.insert(account.account_id.clone());
        self.accounts.insert(account.account_id.clone(), account.clone());
        Ok(account)
    }

    fn opening(&self, account: &Account) -> Attributes {
        let found = self.openings.get(&account.account_id);
        let first = || self.account_changes.iter().find(|it| it.account_id == account.account_id);
        found
            .or_else(|| first().map(|change| &change.before))
            .cloned()
            .unwrap_or_else(|| account.attributes())
    }

    fn request(&mut self, request: &Arc<Request>) -> Result<Answer, Rejection> {
        let fingerprint = request.fingerprint();
        let is_fence = matches!(request.action, Action::Fence);
        if let Some(decided) = self.decided.get(&request.key) {
            return match is_fence {
                true => Ok(Answer::Decided(decided.clone())),
                false => replay(decided, request, &fingerprint),
            };
        }
        let verdict = match &request.action {
            Action::Post(kind, legs) => {
                let judged = self.judge(legs, None);
                if request.validate_only {
                    let transaction = Some(Arc::new(judged?.into_preview(request, *kind)));
                    let made = Made { transaction, hold: None };
                    return Ok(Answer::Made { made, replayed: false });
                }
                judged.map(|effects| Made {
                    transaction: Some(Arc::new(self.carry_out(request, *kind, effects))),
                    hold: None,
                })
            }
            Action::PlaceHold(new) => self.place_hold(request, new),
            Action::CaptureHold(capture) => self.capture_hold(request, capture),
            Action::ReleaseHold(named) => self.release_hold(request, named),
            Action::Reverse(named) => self.reverse(request, named),
            Action::Fence => {
                Err(Rejection::RequestFenced { request_id: request.key.request_id.clone() })
            }
        };
        let made = verdict.as_ref().ok().and_then(|made| made.transaction.as_ref());
        let transaction_id = made.and_then(|transaction| transaction.transaction_id);
        let transaction_id = transaction_id.unwrap_or(request.transaction_id);
        let decided = Decided { fingerprint, transaction_id, verdict };
        self.record(request, decided.clone());
        if is_fence {
            return Ok(Answer::Decided(decided));
        }
        Ok(Answer::Made { made: decided.verdict?, replayed: false })
    }

    fn record(&mut self, request: &Arc<Request>, decided: Decided) {
        let made = decided.verdict.as_ref().ok().and_then(|made| made.transaction.as_ref());
        let create_time_us = made.map_or(self.now_us, |transaction| transaction.create_time_us);
        self.decided.insert(request.key.clone(), decided.clone());
        self.recorded.push(Recorded { request: request.clone(), create_time_us, decided });
    }

    /// Counts one change of an account, and does it.
    fn change(&mut self, account_id: &AccountId, act: impl FnOnce(&mut Account)) {
        // Accounts never leave the book; those that are changed were judged a moment ago.
        if let Some(account) = self.accounts.get_mut(account_id) {
            act(account);
            account.version += 1;
            account.update_time_us = account.update_time_us.max(self.now_us);
            self.changed.insert(account_id.clone());
        }
    }

    fn account(&self, account_id: &AccountId) -> Result<&Account, Rejection> {
        let missing = || Rejection::AccountNotFound { account_id: account_id.clone() };
        self.accounts.get(account_id).ok_or_else(missing)
    }
}

/// A repeat gets the stored verdict; another body under the same id gets none. Under a fence
/// there is no body.
fn replay(
    decided: &Decided,
    request: &Request,
    fingerprint: &[u8; 32],
) -> Result<Answer, Rejection> {
    if let Err(fenced @ Rejection::RequestFenced { .. }) = &decided.verdict {
        return Err(fenced.clone());
    }
    if decided.fingerprint != *fingerprint {
        return Err(Rejection::RequestIdReused { request_id: request.key.request_id.clone() });
    }
    let made = decided.verdict.clone()?;
    // An earlier attempt at this same request, whose commit was not confirmed, is no replay.
    let replayed = !is_same_attempt(decided.transaction_id, request.transaction_id);
    Ok(Answer::Made { made, replayed })
}
