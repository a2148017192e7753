//! Compares the entries that requests name with the entries of the accounts. Both are read once, in any
//! order: requests first, then entries.
//!
//! Each name adds its hash to a sum, and each entry subtracts its own: a sum of zero proves that every
//! entry is named once, by the request of its transaction, and has its time. The hash has a key that nobody
//! knows, so different names and entries have a sum of zero with a probability of 2^-63.
//!
//! Amounts are known to entries only, and kinds to requests only. So the kinds of all transactions are
//! kept, in four bytes each.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use crate::domain::{
    ids::TransactionId,
    transaction::{Entry, TransactionKind},
    verification::totals::AmountRule,
};

/// Parts of all transactions, by the hash of their ids. A fault is then searched in its bucket only.
const BUCKETS: usize = 4096;
/// The bits of a hash that are a bucket.
const BUCKET_BITS: u32 = BUCKETS.ilog2();
/// The fewest kinds for which a bucket has room.
const ROOM_MIN: usize = 16;
/// The most kinds for which all buckets have room: 512 MiB.
const KINDS_MAX: usize = 1 << 27;

/// What transactions can be.
const CLASSES: [(TransactionKind, AmountRule); 9] = [
    (TransactionKind::Deposit, AmountRule::Positive),
    (TransactionKind::Deposit, AmountRule::PositiveFirst),
    (TransactionKind::Withdrawal, AmountRule::Negative),
    (TransactionKind::Withdrawal, AmountRule::NegativeFirst),
    (TransactionKind::Transfer, AmountRule::NegativeFirst),
    (TransactionKind::Posting, AmountRule::Any),
    (TransactionKind::Capture, AmountRule::Negative),
    (TransactionKind::Capture, AmountRule::NegativeFirst),
    (TransactionKind::Reversal, AmountRule::Any),
];
/// The bits of a kept kind that are a set of classes. The others are a part of the hash of the id.
const CLASS_BITS: u32 = (1 << CLASSES.len()) - 1;

/// Compares requests with entries. Several threads may add to it.
pub struct Comparison {
    hasher: RandomState,
    /// Zero in each bucket in which requests and entries agree.
    sums: Box<[AtomicU64]>,
    /// Buckets that have to be compared in another way.
    undecided: Box<[AtomicBool]>,
    /// Those of each bucket. Zero is free.
    kinds: Box<[Box<[AtomicU32]>]>,
}

impl Comparison {
    /// A comparison of about this many entries, which decides how much memory it takes. Buckets for
    /// whose kinds there is no memory are undecided.
    pub fn new(hasher: RandomState, entries: u64) -> Self {
        let expected = usize::try_from(entries).unwrap_or(usize::MAX) / BUCKETS;
        // Half of the room stays free, so that searches are short.
        let room = expected * 2 + ROOM_MIN;
        let decided = (KINDS_MAX / room).min(BUCKETS);
        let kinds = |bucket| match bucket < decided {
            true => (0..room).map(|_| AtomicU32::new(0)).collect(),
            false => Box::default(),
        };
        Self {
            hasher,
            sums: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            undecided: (0..BUCKETS).map(|bucket| AtomicBool::new(bucket >= decided)).collect(),
            kinds: (0..BUCKETS).map(kinds).collect(),
        }
    }

    /// Adds an applied request, with the names of its entries: the keys of their accounts, and their
    /// sequences. It has the time of its entries.
    pub fn add_request(
        &self,
        transaction_id: TransactionId,
        kind: TransactionKind,
        create_time_us: i64,
        names: &[(i64, i64)],
    ) {
        let key = self.key(transaction_id);
        let rule = kind.rule(names.len());
        match CLASSES.iter().position(|it| (it.0, Some(it.1)) == (kind, rule)) {
            Some(class) => self.keep(key, 1 << class),
            None => self.set_undecided(key),
        }
        let sum = names.iter().enumerate().fold(0_u64, |sum, (index, name)| {
            let is_above = match rule {
                Some(AmountRule::PositiveFirst) => Some(index == 0),
                Some(AmountRule::NegativeFirst) => Some(index != 0),
                _ => None,
            };
            sum.wrapping_add(self.name_hash(key, *name, create_time_us, is_above))
        });
        self.sums[key.bucket()].fetch_add(sum, Relaxed);
    }

    /// Adds an entry of the account with this key, after all requests. Returns the kind of its
    /// transaction; None if it is unknown or undecided.
    pub fn add_entry(&self, account_key: i64, entry: &Entry) -> Option<TransactionKind> {
        let amount = entry.amount;
        let key = self.key(entry.transaction_id);
        let class = self.kept(key);
        let (mut is_above, mut amounts) = (None, 0_u64);
        match class.map(|(_, rule)| rule) {
            Some(AmountRule::Positive) if !amount.is_positive() => self.set_undecided(key),
            Some(AmountRule::Negative) if !amount.is_negative() => self.set_undecided(key),
            // Opposite amounts cancel each other out.
            Some(AmountRule::PositiveFirst | AmountRule::NegativeFirst) => {
                is_above = Some(amount.is_positive());
                amounts = match amount.is_negative() {
                    true => self.amount_hash(key, entry).wrapping_neg(),
                    false => self.amount_hash(key, entry),
                };
            }
            _ => {}
        }
        let name = (account_key, entry.sequence);
        let name = self.name_hash(key, name, entry.create_time_us, is_above);
        self.sums[key.bucket()].fetch_add(amounts.wrapping_sub(name), Relaxed);
        class.map(|(kind, _)| kind)
    }

    /// Ends the comparison, after all entries: what is different is undecided, too. Returns whether
    /// there is a difference.
    pub fn finish(&self) -> bool {
        let mut is_different = false;
        for (sum, undecided) in self.sums.iter().zip(&self.undecided) {
            if sum.load(Relaxed) != 0 {
                undecided.store(true, Relaxed);
                is_different = true;
            }
        }
        is_different
    }

    /// Whether the entries of this transaction have to be compared in another way.
    pub fn is_undecided(&self, transaction_id: TransactionId) -> bool {
        self.undecided[self.key(transaction_id).bucket()].load(Relaxed)
    }

    /// The fraction of the transactions that is undecided.
    pub fn undecided(&self) -> f64 {
        let undecided = self.undecided.iter().filter(|it| it.load(Relaxed)).count();
        undecided as f64 / BUCKETS as f64
    }

    fn key(&self, transaction_id: TransactionId) -> Key {
        Key(self.hasher.hash_one(transaction_id))
    }

    /// The hash of an entry's name and time, and of the sign of its amount, if its place among the entries
    /// of the transaction says it.
    fn name_hash(
        &self,
        key: Key,
        name: (i64, i64),
        create_time_us: i64,
        is_above: Option<bool>,
    ) -> u64 {
        self.hasher.hash_one((key.0, name, create_time_us, is_above))
    }

    fn amount_hash(&self, key: Key, entry: &Entry) -> u64 {
        // The two accounts may have different decimals.
        let size = entry.amount.decimal().abs().normalize();
        self.hasher.hash_one((key.0, size.mantissa(), size.scale(), entry.currency.code()))
    }

    fn set_undecided(&self, key: Key) {
        self.undecided[key.bucket()].store(true, Relaxed);
    }

    /// Keeps the class of a transaction. Two transactions of different classes that look the same are
    /// undecided.
    fn keep(&self, key: Key, class: u32) {
        for slot in self.slots(key) {
            let mut found = slot.load(Relaxed);
            if found == 0 {
                match slot.compare_exchange(0, key.tag() | class, Relaxed, Relaxed) {
                    Ok(_) => return,
                    Err(of_another_thread) => found = of_another_thread,
                }
            }
            if found & !CLASS_BITS == key.tag() {
                if slot.fetch_or(class, Relaxed) & CLASS_BITS != class {
                    self.set_undecided(key);
                }
                return;
            }
        }
        self.set_undecided(key);
    }

    /// The class that was kept for a transaction.
    fn kept(&self, key: Key) -> Option<(TransactionKind, AmountRule)> {
        if self.undecided[key.bucket()].load(Relaxed) {
            return None;
        }
        let mut found = self.slots(key).map(|slot| slot.load(Relaxed)).take_while(|it| *it != 0);
        let found = found.find(|it| it & !CLASS_BITS == key.tag())?;
        CLASSES.get((found & CLASS_BITS).trailing_zeros() as usize).copied()
    }

    /// The slots in which a kind may be, in the order of a search: all of the bucket's.
    fn slots(&self, key: Key) -> impl Iterator<Item = &AtomicU32> {
        let slots = &self.kinds[key.bucket()];
        let (before, after) = slots.split_at(key.0 as usize % slots.len().max(1));
        after.iter().chain(before)
    }
}

/// The hash of a transaction's id.
#[derive(Clone, Copy)]
struct Key(u64);

impl Key {
    /// The highest bits.
    fn bucket(self) -> usize {
        (self.0 >> (u64::BITS - BUCKET_BITS)) as usize
    }

    /// The bits below those, which are in no other place: the lowest say where a search begins.
    fn tag(self) -> u32 {
        (self.0 >> (u32::BITS - BUCKET_BITS)) as u32 & !CLASS_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use uuid::Uuid;

    use super::Comparison;
    use crate::domain::{
        ids::AccountId,
        money::Currency,
        transaction::{Entry, TransactionKind},
    };

    const ID: Uuid = Uuid::from_u128(7);
    const TIME_US: i64 = 9;
    /// The keys of two accounts.
    const A: i64 = 1;
    const B: i64 = 2;

    /// The key of an account, and an entry of that account.
    fn entry(id: Uuid, key: i64, sequence: i64, amount: &str, code: &str) -> (i64, Entry) {
        let currency = Currency::from_parts(code, 2);
        let amount = currency.parse(amount).expect("an amount");
        let entry = Entry {
            account_id: AccountId::from_stored("joint"),
            sequence,
            transaction_id: id,
            currency,
            amount,
            balance_after: amount,
            create_time_us: TIME_US,
            effective_time_us: None,
            hash: [0; 32],
        };
        (key, entry)
    }

    /// Compares one request with entries of these amounts in dollars, named in their order. Returns
    /// whether all is right.
    fn compare(kind: TransactionKind, names: &[(i64, i64)], entries: &[(i64, Entry)]) -> bool {
        let comparison = Comparison::new(RandomState::new(), 10);
        comparison.add_request(ID, kind, TIME_US, names);
        for (account_key, entry) in entries {
            comparison.add_entry(*account_key, entry);
        }
        let is_different = comparison.finish();
        assert!(!is_different || comparison.is_undecided(ID), "its bucket is where to look");
        comparison.undecided() == 0.0
    }

    #[test]
    fn requests_and_entries_agree() {
        let usd = |account_key, amount| entry(ID, account_key, 1, amount, "USD");
        let (a, b) = ((A, 1), (B, 1));
        for (kind, names, entries) in [
            (TransactionKind::Deposit, vec![a], vec![usd(A, "1")]),
            (TransactionKind::Deposit, vec![a, b], vec![usd(A, "1"), usd(B, "-1")]),
            (TransactionKind::Withdrawal, vec![a], vec![usd(A, "-1")]),
            (TransactionKind::Withdrawal, vec![a, b], vec![usd(A, "-1"), usd(B, "1")]),
            (TransactionKind::Transfer, vec![a, b], vec![usd(B, "1"), usd(A, "-1")]),
            (TransactionKind::Capture, vec![a], vec![usd(A, "-1")]),
            (TransactionKind::Capture, vec![a, b], vec![usd(A, "-1"), usd(B, "1")]),
            (TransactionKind::Posting, vec![a, b], vec![usd(A, "-1"), usd(B, "5")]),
            (TransactionKind::Reversal, vec![a], vec![usd(A, "5")]),
        ] {
            assert!(compare(kind, &names, &entries), "{kind:?} {names:?} {entries:?}");
        }
    }

    #[test]
    fn every_difference_is_found() {
        let usd = |account_key, amount| entry(ID, account_key, 1, amount, "USD");
        let (a, b) = ((A, 1), (B, 1));
        let other_transaction = entry(Uuid::from_u128(8), A, 1, "1", "USD");
        let (key, of_other_time) = usd(A, "1");
        let of_other_time = (key, Entry { create_time_us: TIME_US + 1, ..of_other_time });
        for (kind, names, entries) in [
            (TransactionKind::Deposit, vec![a], vec![]),
            (TransactionKind::Deposit, vec![a], vec![other_transaction]),
            (TransactionKind::Deposit, vec![a], vec![of_other_time]),
            (TransactionKind::Deposit, vec![a], vec![entry(ID, A, 2, "1", "USD")]),
            (TransactionKind::Deposit, vec![a], vec![usd(B, "1")]),
            (TransactionKind::Deposit, vec![a], vec![usd(A, "-1")]),
            (TransactionKind::Deposit, vec![a], vec![usd(A, "0")]),
            (TransactionKind::Deposit, vec![a, b], vec![usd(A, "1"), usd(B, "1")]),
            (TransactionKind::Deposit, vec![a], vec![usd(A, "1"), usd(B, "1")]),
            (TransactionKind::Deposit, vec![a, b], vec![usd(A, "1"), usd(B, "-1.01")]),
            (TransactionKind::Deposit, vec![a, b], vec![usd(A, "-1"), usd(B, "1")]),
            (TransactionKind::Withdrawal, vec![a, b], vec![usd(A, "1"), usd(B, "-1")]),
            (TransactionKind::Transfer, vec![a, b], vec![usd(A, "1"), usd(B, "-1")]),
            (TransactionKind::Capture, vec![a, b], vec![usd(A, "1"), usd(B, "-1")]),
            (TransactionKind::Withdrawal, vec![a], vec![usd(A, "1")]),
            (TransactionKind::Withdrawal, vec![a, b], vec![usd(A, "-1"), usd(B, "-1")]),
            (TransactionKind::Transfer, vec![a], vec![usd(A, "1")]),
            (TransactionKind::Transfer, vec![a, b], vec![usd(A, "1"), usd(B, "-1.01")]),
            (TransactionKind::Transfer, vec![a, b], vec![usd(A, "1"), usd(B, "1")]),
            (TransactionKind::Transfer, vec![a, b], vec![usd(A, "1"), usd(B, "0")]),
            (
                TransactionKind::Transfer,
                vec![a, b],
                vec![usd(A, "1"), entry(ID, B, 1, "-1", "EUR")],
            ),
            (TransactionKind::Capture, vec![a], vec![usd(A, "1")]),
            (TransactionKind::Capture, vec![a, b], vec![usd(A, "-1"), usd(B, "2")]),
            (TransactionKind::Posting, vec![a, a], vec![usd(A, "1")]),
            (TransactionKind::Posting, vec![], vec![]),
        ] {
            assert!(!compare(kind, &names, &entries), "{kind:?} {names:?} {entries:?}");
        }
    }

    #[test]
    fn the_accounts_of_a_transfer_may_have_different_decimals() {
        let [cents, dollars] = [2, 0].map(|scale| Currency::from_parts("USD", scale));
        let with = |currency: Currency, (key, entry): (i64, Entry), amount: &str| {
            let amount = currency.parse(amount).expect("an amount");
            (key, Entry { currency, amount, ..entry })
        };
        let compare = |second: &str| {
            let taken = with(cents.clone(), entry(ID, A, 1, "0", "USD"), "-40.00");
            let given = with(dollars.clone(), entry(ID, B, 1, "0", "USD"), second);
            compare(TransactionKind::Transfer, &[(A, 1), (B, 1)], &[taken, given])
        };
        assert!(compare("40"));
        assert!(!compare("4"));
        assert!(!compare("4000"));
    }

    #[test]
    fn kinds_are_those_of_the_requests_or_undecided() {
        const COUNT: u128 = 50_000;
        // With room for all of them, for too few in some buckets, and for none.
        for entries in [50_000, 0, u64::MAX] {
            let comparison = Comparison::new(RandomState::new(), entries);
            let kind = |id: u128| TransactionKind::ALL[(id % 2) as usize];
            for id in 0..COUNT {
                comparison.add_request(Uuid::from_u128(id), kind(id), TIME_US, &[(A, 1)]);
            }
            for id in 0..COUNT {
                let amount = if kind(id) == TransactionKind::Deposit { "1" } else { "-1" };
                let (account_key, entry) = entry(Uuid::from_u128(id), A, 1, amount, "USD");
                match comparison.add_entry(account_key, &entry) {
                    Some(found) => assert_eq!(found, kind(id)),
                    None => assert!(comparison.is_undecided(Uuid::from_u128(id))),
                }
            }
            assert!(!comparison.finish(), "they agree");
            assert_eq!(comparison.undecided() > 0.0, entries != 50_000);
        }
    }
}
