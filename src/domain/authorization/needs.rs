//! The rights that a command needs, on which accounts, and for how much.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::domain::{
    account::{AttributeChange, NewLimit},
    authorization::rule::Right,
    balancing::chosen_by_callers,
    command::{Action, Command, Condition, Request, Reversal},
    hold::{Capture, HoldRef, HoldUpdate},
    ids::AccountId,
    money::{Amount, Currency},
    transaction::Entry,
};

/// The rights that a command needs.
#[derive(Default)]
pub struct Needs<'a> {
    /// Rights on accounts, in the order of the command.
    pub rights: Vec<NeededRight<'a>>,
    /// What the command names and what does not exist. A caller may learn that who has the rights on
    /// all accounts.
    pub missing: Option<Missing>,
    /// The sums of the command's amounts, by account, right and currency. None: more than any limit.
    pub amounts: BTreeMap<(&'a AccountId, Right, &'a str), Option<Decimal>>,
    /// The account that gets an unlimited overdraft.
    pub unlimited_overdraft: Option<&'a AccountId>,
    /// The command needs the right to move money of some account.
    pub some_account: bool,
}

/// A right on one account.
pub struct NeededRight<'a> {
    /// The right.
    pub right: Right,
    /// The account.
    pub account_id: &'a AccountId,
    /// What the account was found by, if the command does not name the account itself.
    pub found_by: Option<&'static str>,
}

/// A hold or a transaction that does not exist.
pub struct Missing {
    /// `hold` or `transaction`.
    pub kind: &'static str,
    /// The rights that the command would need on its accounts.
    pub rights: &'static [Right],
}

impl<'a> Needs<'a> {
    /// The needs of a command. What it names must have been looked up.
    pub fn of(command: &'a Command) -> Self {
        let mut needs = Self::default();
        match command {
            Command::CreateAccount(new) => {
                let account_id = &new.account_id;
                // The response shows the account.
                needs.right(Right::Read, account_id);
                needs.amount(Right::Manage, account_id, &new.currency, new.currency.zero());
                if new.overdraft_limit.is_positive() {
                    let limit = new.overdraft_limit;
                    needs.amount(Right::Overdraft, account_id, &new.currency, limit);
                }
                if new.unlimited_overdraft {
                    needs.unlimited_overdraft(account_id);
                }
            }
            Command::UpdateAccount(update) => {
                needs.right(Right::Read, &update.account_id);
                needs.right(Right::Manage, &update.account_id);
                needs.change(&update.account_id, &update.change);
            }
            Command::Request(request) => needs.request(request),
            Command::ExpireHolds(_) => {}
        }
        needs
    }

    /// Whether the command itself names the account on which it needs this right.
    pub fn names(&self, right: Right, account_id: &AccountId) -> bool {
        let is_same = |it: &&NeededRight<'_>| it.right == right && it.account_id == account_id;
        self.rights.iter().filter(is_same).any(|it| it.found_by.is_none())
    }

    fn change(&mut self, account_id: &'a AccountId, change: &'a AttributeChange) {
        let AttributeChange::Update { overdraft_limit, unlimited_overdraft, .. } = change else {
            return;
        };
        if let Some(NewLimit::Amount(currency, limit)) = overdraft_limit
            && limit.is_positive()
        {
            self.amount(Right::Overdraft, account_id, currency, *limit);
        }
        if *unlimited_overdraft == Some(true) {
            self.unlimited_overdraft(account_id);
        }
    }

    fn request(&mut self, request: &'a Request) {
        match &request.action {
            Action::Post(_, legs) => {
                for leg in legs {
                    self.movement(&leg.account_id, &leg.currency, leg.amount);
                    // A dry run and a condition are questions about the balance.
                    if request.validate_only || leg.condition != Condition::default() {
                        self.right(Right::Read, &leg.account_id);
                    }
                }
            }
            Action::PlaceHold(new) => {
                self.amount(Right::Debit, &new.account_id, &new.currency, new.amount);
            }
            Action::UpdateHold(HoldUpdate { hold, amount, .. }) => {
                self.hold(hold, amount.as_ref().map(|(currency, amount)| (currency, *amount)));
            }
            Action::CaptureHold(capture) => self.capture(capture),
            Action::ReleaseHold(hold) => self.hold(hold, None),
            Action::Reverse(reversal) => self.reversal(reversal, request),
            Action::Fence => self.some_account = true,
        }
        self.read_of_both_ways();
        if request.force {
            self.force();
        }
        if let Action::Reverse(_) = request.action {
            self.rights.iter_mut().for_each(|it| it.found_by = Some("transaction"));
        }
    }

    /// Money that goes into an account and out of it again may move nothing, so whether it is rejected
    /// is a question about the balance.
    fn read_of_both_ways(&mut self) {
        let (these, next) = (self.amounts.keys(), self.amounts.keys().skip(1));
        let of_one_account = these.zip(next).filter(|(this, next)| this.0 == next.0);
        let both_ways = of_one_account.filter(|(this, next)| this.1 != next.1);
        let account_ids: Vec<_> = both_ways.map(|(this, _)| this.0).collect();
        account_ids.into_iter().for_each(|it| self.right(Right::Read, it));
    }

    /// Each forced debit needs both rights, `debit` and `force`.
    fn force(&mut self) {
        let debits = self.amounts.iter().filter(|((_, right, _), _)| *right == Right::Debit);
        let debits: Vec<_> = debits.map(|((id, _, code), sum)| (*id, *code, *sum)).collect();
        for (account_id, currency_code, sum) in debits {
            self.right(Right::Force, account_id);
            self.amounts.insert((account_id, Right::Force, currency_code), sum);
        }
    }

    fn reversal(&mut self, reversal: &'a Reversal, request: &'a Request) {
        let Some(transaction) = &reversal.transaction.resolved else {
            let rights: &[Right] = match request.force {
                true => &[Right::Credit, Right::Debit, Right::Force],
                false => &[Right::Credit, Right::Debit],
            };
            self.missing = Some(Missing { kind: "transaction", rights });
            return;
        };
        let contra_accounts = request.contra_accounts.as_deref().unwrap_or_default();
        let is_contra =
            |entry: &Entry| contra_accounts.iter().any(|it| it.account_id == entry.account_id);
        for entry in chosen_by_callers(&transaction.entries, is_contra) {
            let (currency, amount) = match &reversal.amount {
                Some((currency, amount)) => (currency, entry.opposite(*amount)),
                None => (&entry.currency, -entry.amount),
            };
            self.movement(&entry.account_id, currency, amount);
        }
    }

    fn capture(&mut self, capture: &'a Capture) {
        let Capture { hold, amount, destination_account_id, .. } = capture;
        let taken = amount.as_ref().map(|(currency, amount)| (currency, *amount));
        let whole = hold.resolved.as_ref().map(|hold| (&hold.currency, hold.held()));
        if let Some(account_id) = destination_account_id {
            match taken.or(whole) {
                Some((currency, amount)) => {
                    self.amount(Right::Credit, account_id, currency, amount);
                }
                None => self.right(Right::Credit, account_id),
            }
        }
        self.hold(hold, taken);
    }

    /// The debit of a hold: this amount of it, or all.
    fn hold(&mut self, named: &'a HoldRef, amount: Option<(&'a Currency, Amount)>) {
        let Some(hold) = &named.resolved else {
            self.missing = Some(Missing { kind: "hold", rights: &[Right::Debit] });
            return;
        };
        let (currency, amount) = amount.unwrap_or((&hold.currency, hold.held()));
        self.amount(Right::Debit, &hold.account_id, currency, amount);
        if let Some(needed) = self.rights.last_mut() {
            needed.found_by = Some("hold");
        }
    }

    /// A change of a balance by a signed amount.
    fn movement(&mut self, account_id: &'a AccountId, currency: &'a Currency, amount: Amount) {
        let right = if amount.is_negative() { Right::Debit } else { Right::Credit };
        self.amount(right, account_id, currency, amount);
    }

    fn right(&mut self, right: Right, account_id: &'a AccountId) {
        self.rights.push(NeededRight { right, account_id, found_by: None });
    }

    /// A right for an amount, whatever its sign. Amounts of the same account and currency add up.
    fn amount(
        &mut self,
        right: Right,
        account_id: &'a AccountId,
        currency: &'a Currency,
        amount: Amount,
    ) {
        self.right(right, account_id);
        let sum = self.amounts.entry((account_id, right, currency.code()));
        let sum = sum.or_insert(Some(Decimal::ZERO));
        *sum = sum.and_then(|sum| sum.checked_add(amount.decimal().abs()));
    }

    fn unlimited_overdraft(&mut self, account_id: &'a AccountId) {
        self.right(Right::Overdraft, account_id);
        self.unlimited_overdraft = Some(account_id);
    }
}
