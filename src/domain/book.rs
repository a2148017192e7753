//! The fold: commands applied in turn to locked accounts, in memory.
//!
//! A [`Book`] is made anew for every attempt at a database transaction, from rows read under
//! their locks in that very transaction, and thrown away with it. What it has changed when
//! all commands are applied is what the transaction writes, in a constant number of
//! statements.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::domain::{
    account::{Account, AccountState, NewAccount},
    command::{Command, Condition, Leg, Posting},
    ids::{AccountId, RequestKey, TransactionId},
    money::Amount,
    rejection::Rejection,
    transaction::{Entry, Transaction},
};

/// The accounts and requests that a batch of commands touches, and what it changes in them.
pub struct Book {
    accounts: BTreeMap<AccountId, Account>,
    decided: HashMap<RequestKey, Decided>,
    now_us: i64,
    created: BTreeSet<AccountId>,
    changed: BTreeSet<AccountId>,
    recorded: Vec<Recorded>,
}

/// A request that has its verdict, for ever.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Of the body that was judged.
    pub fingerprint: [u8; 32],
    /// Given to the request when it came in; names the transaction if it was applied.
    pub transaction_id: TransactionId,
    /// The transaction, or why not.
    pub verdict: Result<Arc<Transaction>, Rejection>,
}

/// A verdict that this batch reached first, to be stored.
pub struct Recorded {
    /// The request as it came in.
    pub posting: Arc<Posting>,
    /// When.
    pub create_time_us: i64,
    /// Its verdict.
    pub decided: Decided,
}

/// The answer to one command.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The account that was opened, or was there already.
    Account(Account),
    /// The transaction that was made.
    Posted {
        /// With all its entries.
        transaction: Arc<Transaction>,
        /// It had been made before, under the same request id.
        replayed: bool,
    },
}

impl Book {
    /// Accounts read under their locks, the verdicts stored under the batch's request ids,
    /// and the time by the database's clock.
    #[must_use]
    pub fn new(accounts: Vec<Account>, decided: HashMap<RequestKey, Decided>, now_us: i64) -> Self {
        Self {
            accounts: accounts.into_iter().map(|it| (it.account_id.clone(), it)).collect(),
            decided,
            now_us,
            created: BTreeSet::new(),
            changed: BTreeSet::new(),
            recorded: Vec::new(),
        }
    }

    /// Applies one command to what the commands before it left.
    ///
    /// # Errors
    /// The refusal; nothing was changed.
    pub fn apply(&mut self, command: &Command) -> Result<Answer, Rejection> {
        match command {
            Command::CreateAccount(new) => self.create_account(new).map(Answer::Account),
            Command::Post(posting) => self.post(posting),
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

    /// The verdicts that this batch reached first, in the order in which it did.
    #[must_use]
    pub fn recorded(&self) -> &[Recorded] {
        &self.recorded
    }

    fn create_account(&mut self, new: &NewAccount) -> Result<Account, Rejection> {
        if let Some(account) = self.accounts.get(&new.account_id) {
            return if account.has_attributes(new) {
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

    fn post(&mut self, posting: &Arc<Posting>) -> Result<Answer, Rejection> {
        let fingerprint = posting.fingerprint();
        if let Some(decided) = self.decided.get(&posting.key) {
            return replay(decided, posting, &fingerprint);
        }
        let judged = self.judge(posting);
        if posting.validate_only {
            let transaction = Arc::new(judged?.into_preview(posting));
            return Ok(Answer::Posted { transaction, replayed: false });
        }
        let (verdict, create_time_us) = match judged {
            Ok(effects) => {
                let transaction = self.carry_out(posting, effects);
                let create_time_us = transaction.create_time_us;
                (Ok(Arc::new(transaction)), create_time_us)
            }
            Err(rejection) => (Err(rejection), self.now_us),
        };
        let decided = Decided { fingerprint, transaction_id: posting.transaction_id, verdict };
        self.decided.insert(posting.key.clone(), decided.clone());
        let verdict = decided.verdict.clone();
        self.recorded.push(Recorded { posting: posting.clone(), create_time_us, decided });
        Ok(Answer::Posted { transaction: verdict?, replayed: false })
    }

    /// What the posting would do, or the refusal that comes first in [`Effect::RULES`]; changes
    /// nothing.
    fn judge(&self, posting: &Posting) -> Result<Effects, Rejection> {
        // Where each account stands after the legs so far; None beyond the limit of an amount.
        let mut running: HashMap<&AccountId, (i64, Option<Amount>)> = HashMap::new();
        let mut effects = Vec::with_capacity(posting.legs.len());
        for leg in &posting.legs {
            let Some(account) = self.accounts.get(&leg.account_id) else {
                return Err(Rejection::AccountNotFound { account_id: leg.account_id.clone() });
            };
            let (sequence, balance) =
                running.entry(&leg.account_id).or_insert((account.sequence, Some(account.balance)));
            *sequence += 1;
            // Amounts of different scales are not added; `has_the_currency` refuses them.
            *balance = balance
                .filter(|_| account.currency == leg.currency)
                .and_then(|balance| account.currency.add(balance, leg.amount));
            let (sequence, balance_after) = (*sequence, *balance);
            effects.push(Effect { account, leg, sequence, balance_after, final_balance: None });
        }
        for effect in &mut effects {
            effect.final_balance = running.get(&effect.leg.account_id).and_then(|it| it.1);
        }
        for rule in Effect::RULES {
            effects.iter().try_for_each(rule)?;
        }
        let latest = effects.iter().map(|effect| effect.account.update_time_us).max();
        Ok(Effects {
            entries: effects.iter().map(Effect::entry).collect(),
            // A clock that was set back must not put an entry before an earlier one.
            create_time_us: self.now_us.max(latest.unwrap_or(self.now_us)),
        })
    }

    /// Writes judged effects into the accounts.
    fn carry_out(&mut self, posting: &Posting, effects: Effects) -> Transaction {
        let create_time_us = effects.create_time_us;
        let mut transaction = effects.into_preview(posting);
        transaction.transaction_id = Some(posting.transaction_id);
        transaction.create_time_us = create_time_us;
        let mut touched = BTreeSet::new();
        for entry in &mut transaction.entries {
            entry.transaction_id = posting.transaction_id;
            entry.create_time_us = create_time_us;
            // Judged on this account a moment ago, and accounts never leave the book.
            if let Some(account) = self.accounts.get_mut(&entry.account_id) {
                entry.hash = entry.chained_hash(&account.last_hash);
                account.balance = entry.balance_after;
                account.sequence = entry.sequence;
                account.last_hash = entry.hash;
                account.update_time_us = entry.create_time_us;
                // However many legs it has, to the account it is one change.
                if touched.insert(entry.account_id.clone()) {
                    account.version += 1;
                }
            }
        }
        // Not `append`, which rebuilds the set from both.
        self.changed.extend(touched);
        transaction
    }
}

/// A repeat gets the stored verdict; another body under the same id gets none.
fn replay(
    decided: &Decided,
    posting: &Posting,
    fingerprint: &[u8; 32],
) -> Result<Answer, Rejection> {
    if decided.fingerprint != *fingerprint {
        return Err(Rejection::RequestIdReused { request_id: posting.key.request_id.clone() });
    }
    let transaction = decided.verdict.clone()?;
    // An earlier attempt at this same request, whose commit was not confirmed, is no replay.
    let replayed = decided.transaction_id != posting.transaction_id;
    Ok(Answer::Posted { transaction, replayed })
}

/// What a posting would do: an entry a leg, without the parts that only a real one has.
struct Effects {
    entries: Vec<Entry>,
    create_time_us: i64,
}

impl Effects {
    fn into_preview(self, posting: &Posting) -> Transaction {
        Transaction {
            transaction_id: None,
            request_id: posting.key.request_id.clone(),
            kind: posting.kind,
            entries: self.entries,
            description: posting.description.clone(),
            labels: posting.labels.clone(),
            create_time_us: 0,
        }
    }
}

/// What must hold of an effect.
type Rule<'a> = fn(&Effect<'a>) -> Result<(), Rejection>;

/// One leg against its account.
struct Effect<'a> {
    account: &'a Account,
    leg: &'a Leg,
    sequence: i64,
    /// After this leg; None where it, or one before it, goes beyond the limit of an amount.
    balance_after: Option<Amount>,
    /// After all legs of the posting on this account.
    final_balance: Option<Amount>,
}

impl<'a> Effect<'a> {
    /// After the accounts' existence, in the order of precedence of `ErrorReason`: each rule is
    /// put to every leg before the next rule is.
    const RULES: [Rule<'a>; 6] = [
        Self::is_not_closed,
        Self::is_not_frozen,
        Self::has_the_currency,
        Self::is_within_the_limit,
        Self::meets_its_condition,
        Self::is_funded,
    ];

    fn is_not_closed(&self) -> Result<(), Rejection> {
        match self.account.state {
            AccountState::Open | AccountState::Frozen => Ok(()),
            AccountState::Closed => {
                Err(Rejection::AccountClosed { account_id: self.leg.account_id.clone() })
            }
        }
    }

    fn is_not_frozen(&self) -> Result<(), Rejection> {
        if self.account.state == AccountState::Frozen && self.leg.amount.is_negative() {
            return Err(Rejection::AccountFrozen { account_id: self.leg.account_id.clone() });
        }
        Ok(())
    }

    fn has_the_currency(&self) -> Result<(), Rejection> {
        if self.account.currency == self.leg.currency {
            return Ok(());
        }
        Err(Rejection::CurrencyMismatch {
            account_id: self.leg.account_id.clone(),
            currency_code: self.leg.currency.code().to_owned(),
            account_currency_code: self.account.currency.code().to_owned(),
        })
    }

    fn is_within_the_limit(&self) -> Result<(), Rejection> {
        if self.balance_after.is_some() {
            return Ok(());
        }
        Err(Rejection::BalanceOutOfRange {
            account_id: self.leg.account_id.clone(),
            currency_code: self.account.currency.code().to_owned(),
            balance: self.account.balance,
            amount: self.leg.amount,
        })
    }

    fn meets_its_condition(&self) -> Result<(), Rejection> {
        let Condition { expected_version, min_balance_after, max_balance_after } =
            self.leg.condition;
        let version = self.account.version;
        if let Some(expected) = expected_version.filter(|expected| *expected != version) {
            return Err(self.condition_failed("expected_version", expected, version));
        }
        let after = self.final_balance();
        if let Some(min) = min_balance_after.filter(|min| after < *min) {
            return Err(self.condition_failed("min_balance_after", min, after));
        }
        if let Some(max) = max_balance_after.filter(|max| after > *max) {
            return Err(self.condition_failed("max_balance_after", max, after));
        }
        Ok(())
    }

    /// Only what takes money out, all legs taken together, can lack it: a deposit goes through
    /// even where the account is below its limit already.
    fn is_funded(&self) -> Result<(), Rejection> {
        let taken = self.account.balance.plus(-self.final_balance());
        let available_after = self.account.available_at(self.final_balance());
        let unlimited = self.account.unlimited_overdraft;
        if !taken.is_positive() || unlimited || !available_after.is_negative() {
            return Ok(());
        }
        Err(Rejection::InsufficientFunds {
            account_id: self.leg.account_id.clone(),
            currency_code: self.account.currency.code().to_owned(),
            available: self.account.available(),
            required: taken,
            version: self.account.version,
        })
    }

    /// The balance after all legs, for the rules that come after `is_within_the_limit`.
    fn final_balance(&self) -> Amount {
        self.final_balance.unwrap_or(self.account.balance)
    }

    fn entry(&self) -> Entry {
        Entry {
            account_id: self.leg.account_id.clone(),
            sequence: self.sequence,
            transaction_id: TransactionId::nil(),
            currency: self.account.currency.clone(),
            amount: self.leg.amount,
            balance_after: self.balance_after.unwrap_or(self.account.balance),
            create_time_us: 0,
            hash: [0; 32],
        }
    }

    fn condition_failed(
        &self,
        condition: &str,
        required: impl ToString,
        actual: impl ToString,
    ) -> Rejection {
        Rejection::ConditionFailed {
            account_id: self.leg.account_id.clone(),
            condition: condition.to_owned(),
            required: required.to_string(),
            actual: actual.to_string(),
            version: self.account.version,
        }
    }
}
