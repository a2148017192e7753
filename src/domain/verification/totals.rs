//! Checks of the ledger as a whole: the entries of each kind of transaction, and the balances of each
//! currency against the sum of all entries.

use std::{collections::BTreeMap, fmt};

use crate::domain::{
    balancing::sums,
    command::{FENCE, PLACE_HOLD, RELEASE_HOLD, UPDATE_HOLD},
    ids::{AccountId, TransactionId},
    money::{Amount, Currency},
    transaction::TransactionKind,
    verification::Fault,
};

/// The first fault of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFault {
    /// An account is not what its entries and holds say.
    Account(Fault),
    /// An entry does not match the request that wrote it.
    Entry {
        /// The account.
        account_id: AccountId,
        /// The sequence of the entry.
        sequence: i64,
        /// The stored value and the expected one.
        description: String,
    },
    /// A transaction's entries are not what its kind says.
    Transaction {
        /// The transaction.
        transaction_id: TransactionId,
        /// The stored value and the expected one.
        description: String,
    },
    /// A hold does not match its account, its requests or its transaction.
    Hold {
        /// Its name.
        hold_id: String,
        /// The stored value and the expected one.
        description: String,
    },
    /// The attributes of an account are not what its history says.
    Attributes {
        /// The account.
        account_id: AccountId,
        /// The version of the change; zero for a fault of the account itself.
        version: i64,
        /// The stored value and the expected one.
        description: String,
    },
    /// An event is not in one commit.
    Event {
        /// Its name.
        name: String,
        /// The stored value and the expected one.
        description: String,
    },
    /// A row has a value that this service never wrote, so that no server can answer from it.
    Unreadable {
        /// The row and its column.
        row: String,
    },
    /// The balances of a currency are not the sum of its entries.
    Currency {
        /// Its name.
        currency_code: String,
        /// The stored value and the expected one.
        description: String,
    },
}

impl fmt::Display for LedgerFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(fault) => fault.fmt(formatter),
            Self::Entry { account_id, sequence, description } => {
                write!(formatter, "account {account_id}, entry {sequence}: {description}")
            }
            Self::Transaction { transaction_id, description } => {
                write!(formatter, "transaction {transaction_id}: {description}")
            }
            Self::Hold { hold_id, description } => {
                write!(formatter, "hold {hold_id}: {description}")
            }
            Self::Attributes { account_id, version: 0, description } => {
                write!(formatter, "account {account_id}: {description}")
            }
            Self::Attributes { account_id, version, description } => {
                write!(formatter, "account {account_id}, change {version}: {description}")
            }
            Self::Event { name, description } => write!(formatter, "event {name}: {description}"),
            Self::Unreadable { row } => write!(formatter, "{row} cannot be read"),
            Self::Currency { currency_code, description } => {
                write!(formatter, "currency {currency_code}: {description}")
            }
        }
    }
}

/// What the amounts of a transaction must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AmountRule {
    /// One above zero.
    Positive,
    /// One below zero.
    Negative,
    /// Two of one currency that sum to zero, the first above zero.
    PositiveFirst,
    /// Two of one currency that sum to zero, the first below zero.
    NegativeFirst,
    /// At least one.
    Any,
}

/// The kinds of requests that move no money.
const KINDS_WITHOUT_ENTRIES: [&str; 4] = [PLACE_HOLD, UPDATE_HOLD, RELEASE_HOLD, FENCE];

impl TransactionKind {
    /// The kind of transaction that requests of this kind make; None if they move no money.
    ///
    /// # Errors
    /// There is no such kind.
    pub fn of_kind(kind: &str) -> Result<Option<Self>, String> {
        let movement = Self::from_name(kind);
        if movement.is_none() && !KINDS_WITHOUT_ENTRIES.contains(&kind) {
            return Err(format!("its kind is {kind:?}, which is no kind of request"));
        }
        Ok(movement)
    }

    /// What the amounts of a transaction of this kind with so many entries must be. None: it never has
    /// so many.
    pub(super) fn rule(self, entries: usize) -> Option<AmountRule> {
        match (self, entries) {
            (Self::Deposit, 1) => Some(AmountRule::Positive),
            (Self::Withdrawal | Self::Capture, 1) => Some(AmountRule::Negative),
            // The second one can be that of a contra account.
            (Self::Deposit, 2) => Some(AmountRule::PositiveFirst),
            (Self::Withdrawal | Self::Transfer | Self::Capture, 2) => {
                Some(AmountRule::NegativeFirst)
            }
            (Self::Posting | Self::Reversal, 1..) => Some(AmountRule::Any),
            _ => None,
        }
    }

    /// Checks that a transaction of this kind may have entries of these amounts.
    pub fn check(self, amounts: &[(&Currency, Amount)]) -> Result<(), String> {
        let is_right = match (self.rule(amounts.len()), amounts) {
            (Some(AmountRule::Positive), [(_, amount)]) => amount.is_positive(),
            (Some(AmountRule::Negative), [(_, amount)]) => amount.is_negative(),
            (Some(AmountRule::PositiveFirst), [first, second]) => {
                first.1.is_positive() && are_opposite(first, second)
            }
            (Some(AmountRule::NegativeFirst), [first, second]) => {
                first.1.is_negative() && are_opposite(first, second)
            }
            (Some(AmountRule::Any), _) => true,
            _ => false,
        };
        if is_right {
            return Ok(());
        }
        let text =
            |(currency, amount): &(&Currency, Amount)| format!("{amount} {}", currency.code());
        let amounts: Vec<_> = amounts.iter().map(text).collect();
        let amounts = if amounts.is_empty() { "none".to_owned() } else { amounts.join(", ") };
        let expected = match self {
            Self::Deposit => "one above zero, alone or before its opposite",
            Self::Withdrawal | Self::Capture => "one below zero, alone or before its opposite",
            Self::Transfer => "two that sum to zero, the first below zero",
            Self::Posting | Self::Reversal => "at least one",
        };
        Err(format!(
            "it is a {} with the entries {amounts}; it should have {expected}",
            self.name()
        ))
    }
}

/// Whether two amounts of one currency sum to zero, whatever decimals their accounts have.
fn are_opposite(left: &(&Currency, Amount), right: &(&Currency, Amount)) -> bool {
    left.0.code() == right.0.code() && left.1.decimal() == -right.1.decimal()
}

/// The totals of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerTotals {
    /// The number of accounts.
    pub accounts: u64,
    /// The number of entries.
    pub entries: u64,
    /// The number of requests, rejected ones included.
    pub requests: u64,
    /// The number of accounts whose attributes at their opening are not recorded.
    pub unknown_openings: u64,
    /// The money, by currency code and scale.
    pub currencies: BTreeMap<(String, u32), CurrencyTotals>,
}

/// The money of one currency, in its smallest unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrencyTotals {
    /// The number of accounts.
    pub accounts: u64,
    /// Entries that transactions name.
    pub entries: u64,
    /// The sum of the accounts' balances.
    pub balances: i128,
    /// The sum of the entries of each kind of transaction, in the order of [`TransactionKind::ALL`].
    pub by_kind: [i128; TransactionKind::ALL.len()],
}

impl LedgerTotals {
    /// The totals of this currency.
    pub fn totals(&mut self, currency: &Currency) -> &mut CurrencyTotals {
        self.currencies.entry((currency.code().to_owned(), currency.scale())).or_default()
    }

    /// Adds the totals of another partition. Fails if a sum is beyond 2^127.
    pub fn add(&mut self, other: Self) -> Result<(), LedgerFault> {
        self.accounts += other.accounts;
        self.entries += other.entries;
        self.requests += other.requests;
        self.unknown_openings += other.unknown_openings;
        for (currency, totals) in other.currencies {
            let sum = self.currencies.entry(currency.clone()).or_default();
            sum.add(&totals).ok_or_else(|| too_large(&currency.0))?;
        }
        Ok(())
    }

    /// Checks that the balances of each currency are the sum of its entries.
    pub fn check(&self) -> Result<(), LedgerFault> {
        for ((code, scale), totals) in &self.currencies {
            let moved = totals.by_kind.iter().try_fold(0_i128, |sum, it| sum.checked_add(*it));
            let moved = moved.ok_or_else(|| too_large(code))?;
            if moved != totals.balances {
                let currency = Currency::from_parts(code, *scale);
                let description = format!(
                    "its balances sum to {}; its entries to {}",
                    currency.format_units(totals.balances),
                    currency.format_units(moved)
                );
                return Err(LedgerFault::Currency { currency_code: code.clone(), description });
            }
        }
        Ok(())
    }

    /// Checks that the balances of each currency sum to zero: that of accounts that were opened when it
    /// had other decimals, too.
    pub fn check_balanced(&self) -> Result<(), LedgerFault> {
        let of_scale = |((code, scale), totals): (&(String, u32), &CurrencyTotals)| {
            (Currency::from_parts(code, *scale), totals.balances)
        };
        let unbalanced =
            sums(self.currencies.iter().map(of_scale)).find(|(_, sum)| *sum != Some(0));
        let Some((currency, sum)) = unbalanced else { return Ok(()) };
        let sum = sum.ok_or_else(|| too_large(currency.code()))?;
        let description =
            format!("its balances sum to {}, not to zero", currency.format_units(sum));
        Err(LedgerFault::Currency { currency_code: currency.code().to_owned(), description })
    }
}

impl CurrencyTotals {
    /// None beyond 2^127, which takes more than ten billion accounts at their limits.
    fn add(&mut self, other: &Self) -> Option<()> {
        self.accounts += other.accounts;
        self.entries += other.entries;
        self.balances = self.balances.checked_add(other.balances)?;
        for (sum, part) in self.by_kind.iter_mut().zip(other.by_kind) {
            *sum = sum.checked_add(part)?;
        }
        Some(())
    }
}

fn too_large(code: &str) -> LedgerFault {
    let description = "its sums are too large to be added up".to_owned();
    LedgerFault::Currency { currency_code: code.to_owned(), description }
}

#[cfg(test)]
mod tests {
    use super::{LedgerTotals, TransactionKind};
    use crate::domain::money::Currency;

    #[test]
    fn each_kind_of_transaction_has_its_own_entries() {
        let (usd, jpy) = (Currency::from_parts("USD", 2), Currency::from_parts("JPY", 0));
        let all = |texts: &[&str]| {
            texts.iter().map(|text| (&usd, usd.parse(text).expect("an amount"))).collect::<Vec<_>>()
        };
        let right: [(TransactionKind, &[&str]); 10] = [
            (TransactionKind::Deposit, &["1"]),
            (TransactionKind::Deposit, &["1", "-1"]),
            (TransactionKind::Withdrawal, &["-1"]),
            (TransactionKind::Withdrawal, &["-1", "1"]),
            (TransactionKind::Transfer, &["-1", "1"]),
            (TransactionKind::Capture, &["-1"]),
            (TransactionKind::Capture, &["-1", "1"]),
            (TransactionKind::Posting, &["1", "2", "-5"]),
            (TransactionKind::Reversal, &["1"]),
            (TransactionKind::Reversal, &["-1", "1"]),
        ];
        for (movement, texts) in right {
            assert_eq!(movement.check(&all(texts)), Ok(()), "{movement:?} {texts:?}");
        }
        let wrong: [(TransactionKind, &[&str]); 16] = [
            (TransactionKind::Deposit, &["-1"]),
            (TransactionKind::Deposit, &["1", "1"]),
            (TransactionKind::Deposit, &["1", "-1.01"]),
            (TransactionKind::Deposit, &["-1", "1"]),
            (TransactionKind::Deposit, &["1", "-1", "1"]),
            (TransactionKind::Withdrawal, &["1"]),
            (TransactionKind::Withdrawal, &["1", "-1"]),
            (TransactionKind::Withdrawal, &["-1", "-1"]),
            (TransactionKind::Transfer, &["1", "-1"]),
            (TransactionKind::Capture, &["1", "-1"]),
            (TransactionKind::Transfer, &["-1"]),
            (TransactionKind::Transfer, &["-1", "1.01"]),
            (TransactionKind::Capture, &["1"]),
            (TransactionKind::Posting, &[]),
            (TransactionKind::Reversal, &[]),
            (TransactionKind::Transfer, &["-1", "1", "1"]),
        ];
        for (movement, texts) in wrong {
            let words = movement.check(&all(texts)).expect_err("wrong");
            assert!(words.contains(movement.name()), "{words}");
        }
        let other = [(&usd, usd.parse("-1").expect("one")), (&jpy, jpy.parse("1").expect("one"))];
        assert!(TransactionKind::Transfer.check(&other).is_err());
        let dollars = Currency::from_parts("USD", 0);
        let own = |last| [(&usd, usd.parse("-1").expect("one")), (&dollars, last)];
        let [one, two] = ["1", "2"].map(|text| dollars.parse(text).expect("an amount"));
        assert_eq!(TransactionKind::Transfer.check(&own(one)), Ok(()));
        assert!(TransactionKind::Transfer.check(&own(two)).is_err());
        assert_eq!(TransactionKind::of_kind("fence"), Ok(None));
        assert!(TransactionKind::of_kind("gift").is_err());
    }

    #[test]
    fn balances_are_what_came_in_and_did_not_go_out() {
        let usd = Currency::from_parts("USD", 2);
        let mut books = LedgerTotals::default();
        let totals = books.totals(&usd);
        totals.balances = 105;
        totals.by_kind = [300, -195, 0, 5, -5, 0];
        assert_eq!(books.check(), Ok(()));
        books.totals(&usd).balances = 106;
        let words = books.check().expect_err("a fault").to_string();
        assert_eq!(words, "currency USD: its balances sum to 1.06; its entries to 1.05");
        books.totals(&usd).balances = i128::MAX;
        assert!(books.clone().add(books).is_err());
    }

    #[test]
    fn balances_of_a_currency_sum_to_zero_whatever_decimals_its_accounts_have() {
        let [cents, mills] = [2, 3].map(|scale| Currency::from_parts("PTS", scale));
        let mut books = LedgerTotals::default();
        assert_eq!(books.check_balanced(), Ok(()));
        books.totals(&cents).balances = 105;
        let words = books.check_balanced().expect_err("a fault").to_string();
        assert_eq!(words, "currency PTS: its balances sum to 1.05, not to zero");
        books.totals(&mills).balances = -1_050;
        assert_eq!(books.check_balanced(), Ok(()));
        books.totals(&mills).balances = -1_051;
        let words = books.check_balanced().expect_err("a fault").to_string();
        assert_eq!(words, "currency PTS: its balances sum to -0.001, not to zero");
        books.totals(&cents).balances = i128::MAX;
        let words = books.check_balanced().expect_err("a fault").to_string();
        assert_eq!(words, "currency PTS: its sums are too large to be added up");
    }
}
