//! Transactions and their entries, which are hashed into a chain per account.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::domain::{
    account::Labels,
    effective_time::EffectivePosition,
    hex::push_hex,
    ids::{AccountId, Identity, RequestId, TransactionId},
    money::{Amount, Currency},
};

/// The RPC that created a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionKind {
    /// Deposit.
    Deposit,
    /// Withdraw.
    Withdrawal,
    /// Transfer.
    Transfer,
    /// PostTransaction, alone, in a batch or in a stream.
    Posting,
    /// CaptureHold.
    Capture,
    /// ReverseTransaction.
    Reversal,
}

names!(TransactionKind {
    Deposit = "deposit",
    Withdrawal = "withdrawal",
    Transfer = "transfer",
    Posting = "posting",
    Capture = "capture",
    Reversal = "reversal",
});

/// A change of balances: all of its entries or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// None if the transaction was only validated.
    pub transaction_id: Option<TransactionId>,
    /// The caller; anonymous without authentication.
    pub created_by: Identity,
    /// The caller's id of the request.
    pub request_id: RequestId,
    /// The RPC that created it.
    pub kind: TransactionKind,
    /// In the order of the request's legs.
    pub entries: Vec<Entry>,
    /// The request's description, at most 1,024 bytes.
    pub description: String,
    /// The request's labels.
    pub labels: Labels,
    /// Microseconds since the Unix epoch.
    pub create_time_us: i64,
    /// When it takes effect, if that is not its `create_time_us`. The same for all of its entries, also
    /// those that its reader does not see.
    pub effective_time_us: Option<i64>,
    /// The request was to be applied although funds lack or an account is frozen.
    pub forced: bool,
    /// The transaction that this one reverses, and what is reversed of it with this one.
    pub reverses: Option<(TransactionId, Reversed)>,
    /// The latest reversal of this one, and what is reversed with it, where that was looked up.
    pub reversed_by: Option<(TransactionId, Reversed)>,
}

/// What is reversed of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reversed {
    /// The number of its reversals.
    pub count: i64,
    /// The sum of its reversals. None: all of the transaction.
    pub amount: Option<Amount>,
}

impl Reversed {
    /// The only reversal, of all of the transaction.
    pub const AT_ONCE: Self = Self { count: 1, amount: None };
}

/// One line of an account's statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The account that the entry belongs to.
    pub account_id: AccountId,
    /// 1, 2, 3 ... per account.
    pub sequence: i64,
    /// The transaction that wrote it.
    pub transaction_id: TransactionId,
    /// The currency of both amounts.
    pub currency: Currency,
    /// Signed.
    pub amount: Amount,
    /// The account's balance after it.
    pub balance_after: Amount,
    /// Microseconds since the Unix epoch; never goes back within an account.
    pub create_time_us: i64,
    /// When it counts for its account's owner. None: at its `create_time_us`.
    pub effective_time_us: Option<i64>,
    /// Over this entry and the one before it.
    pub hash: [u8; 32],
}

impl Transaction {
    /// Its amount, if it has one: that of its only entry, or of two that sum to zero, whatever decimals
    /// their accounts have.
    pub fn amount(&self) -> Option<(&Currency, Amount)> {
        let size = |amount: Amount| if amount.is_negative() { -amount } else { amount };
        match &self.entries[..] {
            [entry] => Some((&entry.currency, size(entry.amount))),
            [left, right] if left.is_opposite_of(right) => {
                Some((&left.currency, size(left.amount)))
            }
            _ => None,
        }
    }

    /// Whether it leaves an account with another balance than before.
    pub fn changes_a_balance(&self) -> bool {
        let sum_of = |account_id: &AccountId| {
            let own = self.entries.iter().filter(|entry| entry.account_id == *account_id);
            own.map(|entry| entry.amount.units()).sum::<i128>()
        };
        self.entries.iter().any(|entry| sum_of(&entry.account_id) != 0)
    }

    /// The sequence of its last entry on this account; 0 if it has none there.
    pub fn last_sequence_of(&self, account_id: &AccountId) -> i64 {
        let own = self.entries.iter().filter(|entry| entry.account_id == *account_id);
        own.map(|entry| entry.sequence).max().unwrap_or_default()
    }
}

impl Entry {
    /// Its currency and its amount.
    pub fn money(&self) -> (&Currency, Amount) {
        (&self.currency, self.amount)
    }

    /// Whether both amounts sum to zero, whatever decimals their accounts have.
    fn is_opposite_of(&self, other: &Self) -> bool {
        self.currency.code() == other.currency.code() && self.amount == -other.amount
    }

    /// An amount of this size in the other direction.
    pub fn opposite(&self, size: Amount) -> Amount {
        if self.amount.is_negative() { size } else { -size }
    }

    /// Its place in a statement by effective time.
    pub fn effective_position(&self) -> EffectivePosition {
        let time_us = self.effective_time_us.unwrap_or(self.create_time_us);
        EffectivePosition { time_us, sequence: self.sequence }
    }

    /// The hash that belongs to this entry after one with the hash `previous` (zeros before
    /// the first): SHA-256 over the text written down in `docs/entry-hash.md`. Only an entry with an
    /// effective time has the text of version 2.
    pub fn chained_hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut text = String::with_capacity(HASHED_TEXT_CAPACITY);
        text.push_str(match self.effective_time_us {
            None => "passbook.entry.v1\n",
            Some(_) => "passbook.entry.v2\n",
        });
        push_hex(&mut text, previous);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.account_id,
            self.sequence,
            self.transaction_id,
            self.currency.code(),
            self.amount.shortest(),
            self.balance_after.shortest(),
            self.create_time_us,
        );
        if let Some(effective_time_us) = self.effective_time_us {
            let _ = writeln!(text, "{effective_time_us}");
        }
        Sha256::digest(text).into()
    }
}

/// Bytes of nearly all texts of entries.
const HASHED_TEXT_CAPACITY: usize = 320;
