//! Checks an account against its entries and holds.
//!
//! An [`AccountVerifier`] takes the entries of an account in their order and stops at the first
//! [`Fault`]. It computes sums, sequence and hashes again from the first entry on.

use std::fmt;

use crate::domain::{
    effective_time,
    hex::to_hex,
    ids::AccountId,
    money::{Amount, Currency},
    transaction::Entry,
};

/// The outcome of recomputing an account.
#[derive(Debug)]
pub struct VerifiedAccount {
    /// How many entries were recomputed and found right.
    pub entries_verified: i64,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

/// What is wrong with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The sequence has a gap, or ends before the account's does.
    MissingEntry,
    /// An entry that the account's sequence does not count.
    SurplusEntry,
    /// The balance after an entry is not the sum of the balance before it and its amount.
    WrongSum,
    /// The hash is not that of the entry and of the one before it.
    WrongHash,
    /// The balance or hash in the account's row is not that of its last entry.
    WrongBalance,
    /// `held` is not the sum of the open holds.
    WrongHeld,
    /// More was taken than was available, but not by a forced transaction; or the other way round.
    WrongLimit,
    /// An entry has an earlier time than the entry before it or than its account, or an account than its last
    /// entry, on which searches by time rely. Or an entry has a time that no ledger has, or an effective time that its
    /// transaction cannot have had.
    WrongTime,
    /// A row has a value that this service never wrote.
    Unreadable,
}

/// The first thing that is wrong with an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The account.
    pub account_id: AccountId,
    /// The sequence of the entry; zero for a fault of the account itself.
    pub sequence: i64,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The stored value and the expected one.
    pub description: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "account {}", self.account_id)?;
        if self.sequence != 0 {
            write!(formatter, ", entry {}", self.sequence)?;
        }
        write!(formatter, ": {}", self.description)
    }
}

/// The row of an account, as far as its entries and holds determine it.
#[derive(Clone, Debug)]
pub struct StoredAccount {
    /// The account.
    pub account_id: AccountId,
    /// Its key in the database.
    pub account_key: i64,
    /// The currency of every amount here.
    pub currency: Currency,
    /// The sum of the entries.
    pub balance: Amount,
    /// The sum of the open holds.
    pub held: Amount,
    /// The number of entries.
    pub sequence: i64,
    /// The hash of the latest entry.
    pub last_hash: [u8; 32],
    /// The sum of the rows of open holds, in the currency's smallest unit.
    pub open_holds: i128,
    /// What is available, if that is limited.
    pub available: Option<Amount>,
    /// Whether it is marked as below its limit.
    pub below_limit: bool,
    /// Whether it is closed.
    pub is_closed: bool,
    /// When it was opened; microseconds since the Unix epoch.
    pub create_time_us: i64,
    /// The time of its last change; microseconds since the Unix epoch.
    pub update_time_us: i64,
}

/// Verifies an account against its entries, which are pushed in their order.
pub struct AccountVerifier {
    stored: StoredAccount,
    sequence: i64,
    balance: Amount,
    hash: [u8; 32],
    /// The time of the last entry, or of the opening.
    time_us: i64,
}

impl AccountVerifier {
    /// Starts before the first entry.
    pub fn new(stored: StoredAccount) -> Self {
        let (balance, time_us) = (stored.currency.zero(), stored.create_time_us);
        Self { stored, sequence: 0, balance, hash: [0; 32], time_us }
    }

    /// Starts after this entry, which another verifier checks.
    pub fn after(stored: StoredAccount, entry: &Entry) -> Self {
        let Entry { sequence, balance_after: balance, hash, create_time_us: time_us, .. } = *entry;
        Self { stored, sequence, balance, hash, time_us }
    }

    /// The account.
    pub fn stored(&self) -> &StoredAccount {
        &self.stored
    }

    /// The number of entries that were pushed.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Checks the next entry.
    ///
    /// # Errors
    /// The fault of the entry, or the gap before it.
    pub fn push(&mut self, entry: &Entry) -> Result<(), Fault> {
        let expected = self.sequence + 1;
        if entry.sequence > self.stored.sequence {
            self.require_through(self.stored.sequence)?;
        }
        if entry.sequence > self.stored.sequence || entry.sequence < expected {
            return Err(self.surplus(entry.sequence));
        }
        if entry.sequence > expected {
            return Err(self.missing(format!("the next one there is {}", entry.sequence)));
        }
        let sum = self.stored.currency.add(self.balance, entry.amount);
        if sum != Some(entry.balance_after) {
            let sum = sum.map_or("beyond the limit".to_owned(), |sum| sum.to_string());
            let description = format!(
                "its balance_after is {}; {} before it and its amount of {} are {sum}",
                entry.balance_after, self.balance, entry.amount
            );
            return Err(self.fault(entry.sequence, FaultKind::WrongSum, description));
        }
        let hash = entry.chained_hash(&self.hash);
        if hash != entry.hash {
            let description = format!(
                "its hash is {}; with the entry before it, its content has {}: one of them was \
                 changed or moved",
                to_hex(&entry.hash),
                to_hex(&hash)
            );
            return Err(self.fault(entry.sequence, FaultKind::WrongHash, description));
        }
        if entry.create_time_us < self.time_us {
            let description = format!(
                "its create_time is {} microseconds since 1970, before the {} of the {}",
                entry.create_time_us,
                self.time_us,
                if self.sequence == 0 { "account" } else { "entry before it" }
            );
            return Err(self.fault(entry.sequence, FaultKind::WrongTime, description));
        }
        if !effective_time::is_possible(entry.effective_time_us, entry.create_time_us) {
            let create_time_us = entry.create_time_us;
            let effective = entry.effective_time_us.map_or("none".to_owned(), |it| it.to_string());
            let description = format!(
                "its create_time is {create_time_us} microseconds since 1970, and its effective_time \
                 {effective}: no server has written these"
            );
            return Err(self.fault(entry.sequence, FaultKind::WrongTime, description));
        }
        self.time_us = entry.create_time_us;
        self.sequence = expected;
        self.balance = entry.balance_after;
        self.hash = hash;
        Ok(())
    }

    /// Checks that no entry up to this one is missing, after the last one up to it was pushed.
    pub fn require_through(&self, sequence: i64) -> Result<(), Fault> {
        if self.sequence >= sequence {
            return Ok(());
        }
        Err(self.missing(format!("the account's sequence is {}", self.stored.sequence)))
    }

    /// Checks, after the last entry was pushed, that none is missing, and that the account's row has the
    /// sums of its entries and holds.
    pub fn finish(&self) -> Result<(), Fault> {
        self.require_through(self.stored.sequence)?;
        let StoredAccount { balance, held, last_hash, open_holds, .. } = self.stored;
        if balance != self.balance {
            let description = format!(
                "its balance is {balance}; its {} entries sum to {}",
                self.sequence, self.balance
            );
            return Err(self.fault(0, FaultKind::WrongBalance, description));
        }
        if last_hash != self.hash {
            let description = format!(
                "its last_hash is {}; that of entry {} is {}",
                to_hex(&last_hash),
                self.sequence,
                to_hex(&self.hash)
            );
            return Err(self.fault(0, FaultKind::WrongBalance, description));
        }
        if held.decimal().mantissa() != open_holds {
            let sum = self.stored.currency.format_units(open_holds);
            let description = format!("its held is {held}; its open holds sum to {sum}");
            return Err(self.fault(0, FaultKind::WrongHeld, description));
        }
        let StoredAccount { available, below_limit, .. } = self.stored;
        if available.is_some_and(Amount::is_negative) != below_limit {
            let available = available.map_or("without a limit".to_owned(), |it| it.to_string());
            let mark = if below_limit { "it is" } else { "it is not" };
            let description = format!(
                "its available amount is {available}, but {mark} marked as below its limit, which only \
                 a forced transaction takes it"
            );
            return Err(self.fault(0, FaultKind::WrongLimit, description));
        }
        self.require_empty_if_closed()?;
        let update_time_us = self.stored.update_time_us;
        if update_time_us < self.time_us {
            let description = format!(
                "its update_time is {update_time_us} microseconds since 1970, before the {} of its {}",
                self.time_us,
                if self.sequence == 0 { "create_time" } else { "last entry" }
            );
            return Err(self.fault(0, FaultKind::WrongTime, description));
        }
        Ok(())
    }

    /// Checks that a closed account has no money, whose balance and holds were checked before.
    fn require_empty_if_closed(&self) -> Result<(), Fault> {
        let StoredAccount { balance, held, is_closed, .. } = self.stored;
        if is_closed && balance.units() != 0 {
            let description = format!("it is closed, but its balance is {balance}");
            return Err(self.fault(0, FaultKind::WrongBalance, description));
        }
        if is_closed && held.units() != 0 {
            let description = format!("it is closed, but its held is {held}");
            return Err(self.fault(0, FaultKind::WrongHeld, description));
        }
        Ok(())
    }

    /// The fault of an entry that the account's sequence does not count.
    pub fn surplus(&self, sequence: i64) -> Fault {
        let description =
            format!("it is surplus: the account's sequence is {}", self.stored.sequence);
        self.fault(sequence, FaultKind::SurplusEntry, description)
    }

    /// The fault of a row that cannot be read: this entry, or else the one that should come next.
    pub fn unreadable(&self, sequence: Option<i64>, column: &str) -> Fault {
        let sequence = sequence.unwrap_or(self.sequence + 1);
        let description = format!("its column {column} cannot be read");
        self.fault(sequence, FaultKind::Unreadable, description)
    }

    fn missing(&self, why: String) -> Fault {
        let description = format!("it is missing: {why}");
        self.fault(self.sequence + 1, FaultKind::MissingEntry, description)
    }

    fn fault(&self, sequence: i64, kind: FaultKind, description: String) -> Fault {
        Fault { account_id: self.stored.account_id.clone(), sequence, kind, description }
    }
}
