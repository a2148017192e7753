//! Postings of the model.

use std::collections::{BTreeMap, BTreeSet};

use passbook::proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::{
    checker::entry_hash,
    decimal::Decimal,
    ledger_dump::EntryRow,
    model::command::{Command, Rejection, Reply, Response},
    model::{LIMIT, Model, currency_mismatch, microseconds, money_in, text, units},
};

#[derive(Clone)]
pub(super) struct Leg {
    pub account_id: String,
    pub currency_code: String,
    pub units: i128,
    pub condition: Condition,
}

/// The fields of a transaction besides its legs.
pub(super) struct Frame {
    pub kind: TransactionKind,
    pub request_id: String,
    pub description: String,
    pub labels: BTreeMap<String, String>,
    pub reverses_transaction_id: String,
    pub forced: bool,
    pub effective_time: Option<Timestamp>,
}

/// The money that legs may take besides what is available.
#[derive(Clone, Copy)]
pub(super) enum Funds<'a> {
    Nothing,
    /// What is held on this account.
    Held(&'a str, i128),
    Any,
}

impl Funds<'_> {
    fn of(frame: &Frame) -> Self {
        if frame.forced { Self::Any } else { Self::Nothing }
    }

    fn on(self, account_id: &str) -> i128 {
        match self {
            Self::Held(of, units) if of == account_id => units,
            _ => 0,
        }
    }
}

/// Shape: rejections that need no lookup.
pub(super) fn malformed(command: &Command) -> Result<(), Rejection> {
    let refuse = |code, reason| Err(Rejection::new(code, reason, &[]));
    if let Command::Transfer(it) = command
        && it.source_account_id == it.destination_account_id
    {
        return refuse(Code::InvalidArgument, "INVALID_ACCOUNT_ID");
    }
    let mut command = command.clone();
    let (amounts, must_be_positive) = command.amounts();
    let amounts: Vec<i128> = amounts.into_iter().map(|money| units(money)).collect();
    let is_within = |it: &i128| it.abs() < LIMIT;
    let is_wrong = |it: &i128| *it == 0 || (*it < 0 && must_be_positive);
    if amounts.iter().any(|it| is_within(it) && is_wrong(it)) {
        return refuse(Code::InvalidArgument, "INVALID_AMOUNT");
    }
    if !amounts.iter().all(is_within) {
        return refuse(Code::OutOfRange, "BALANCE_OUT_OF_RANGE");
    }
    Ok(())
}

impl Model {
    pub(super) fn make(&mut self, command: &Command, reply: &Reply) -> Reply {
        let response = reply.as_ref().ok().cloned().unwrap_or_default();
        let made = match command {
            Command::PlaceHold(it) => {
                let hold = self.place_hold(it, reply)?;
                return Ok(Response { holds: vec![hold], ..Response::default() });
            }
            Command::UpdateHold(it) => {
                let hold = self.update_hold(it, reply)?;
                return Ok(Response { holds: vec![hold], ..Response::default() });
            }
            Command::ReleaseHold(it) => {
                let hold = self.release_hold(it, &response)?;
                return Ok(Response { holds: vec![hold], ..Response::default() });
            }
            Command::CaptureHold(it) => {
                let (transaction, hold) = self.capture_hold(it, reply)?;
                return Ok(Response {
                    transactions: vec![transaction],
                    holds: vec![hold],
                    ..Response::default()
                });
            }
            Command::Reverse(it) => self.reverse(it, reply)?,
            posting => {
                let (legs, frame) = posting_of(posting);
                self.is_balanced(posting, &legs)?;
                self.judge(&legs, Funds::of(&frame))?;
                self.takes_effect(&frame.effective_time, reply)?;
                for leg in legs.iter().filter(|_| frame.kind != TransactionKind::Transfer) {
                    self.comes_in(&leg.currency_code, leg.units);
                }
                self.carry_out(&legs, frame, &response)
            }
        };
        Ok(Response { transactions: vec![made], ..Response::default() })
    }

    pub(super) fn dry_run(&self, command: &Command, reply: &Reply) -> Reply {
        let (legs, frame) = posting_of(command);
        self.is_balanced(command, &legs)?;
        self.judge(&legs, Funds::of(&frame))?;
        self.takes_effect(&frame.effective_time, reply)?;
        let mut transaction = self.clone().carry_out(&legs, frame, &Response::default());
        transaction.create_time = None;
        for entry in &mut transaction.entries {
            entry.create_time = None;
            entry.hash.clear();
        }
        Ok(Response { transactions: vec![transaction], ..Response::default() })
    }

    pub(super) fn comes_in(&mut self, currency_code: &str, units: i128) {
        *self.from_outside.entry(currency_code.to_owned()).or_default() += units;
    }

    /// Checks the legs, in the order of `ErrorReason` and then of the legs.
    pub(super) fn judge(&self, legs: &[Leg], funds: Funds<'_>) -> Result<(), Rejection> {
        for leg in legs {
            self.account(&leg.account_id)?;
        }
        let each = || legs.iter().map(|leg| (leg, &self.accounts[&leg.account_id]));
        let is_forced = matches!(funds, Funds::Any);
        if let Some((leg, _)) = each().find(|(_, it)| it.state == AccountState::Closed) {
            return Err(precondition("ACCOUNT_CLOSED", &leg.account_id));
        }
        let is_blocked = |leg: &Leg| {
            let held = funds.on(&leg.account_id);
            let is_own = leg.currency_code == self.accounts[&leg.account_id].currency_code;
            !is_forced && leg.units + held < 0 && (held == 0 || is_own)
        };
        let frozen = each().find(|(leg, it)| it.state == AccountState::Frozen && is_blocked(leg));
        if let Some((leg, _)) = frozen {
            return Err(precondition("ACCOUNT_FROZEN", &leg.account_id));
        }
        if let Some((leg, account)) =
            each().find(|(leg, account)| leg.currency_code != account.currency_code)
        {
            return Err(currency_mismatch(&leg.account_id, account, &leg.currency_code));
        }
        let mut balances: BTreeMap<&str, i128> = BTreeMap::new();
        // The first leg of each account that goes beyond the limit.
        let mut beyond: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, (leg, account)) in each().enumerate() {
            let balance = balances.entry(&leg.account_id).or_insert(account.balance);
            *balance += leg.units;
            if balance.abs() >= LIMIT {
                beyond.entry(&leg.account_id).or_insert(index);
            }
        }
        for (leg, _) in each() {
            let account_id = leg.account_id.as_str();
            let within = (!beyond.contains_key(account_id)).then_some(balances[account_id]);
            self.meets(leg, within)?;
        }
        for (leg, account) in each() {
            let after = balances[leg.account_id.as_str()];
            let taken = account.balance - after - funds.on(&leg.account_id);
            let is_enough = taken <= self.available(&leg.account_id);
            if taken > 0 && !is_forced && !account.unlimited_overdraft && !is_enough {
                return Err(self.insufficient_funds(&leg.account_id, taken));
            }
        }
        match beyond.values().min() {
            Some(first) => Err(self.out_of_range(&legs[*first].account_id, legs[*first].units)),
            None => Ok(()),
        }
    }

    /// Checks the effective time. Only the server knows the time of the transaction.
    pub(super) fn takes_effect(
        &self,
        effective_time: &Option<Timestamp>,
        reply: &Reply,
    ) -> Result<(), Rejection> {
        const DAY_US: i64 = 86_400_000_000;
        let Some(effective_us) = effective_time.as_ref().map(microseconds) else { return Ok(()) };
        let days = (effective_us - self.now_us) / DAY_US;
        if (-3659..=365).contains(&days) {
            return Ok(());
        }
        let said = reply.as_ref().err().and_then(|it| it.metadata.get("earliest_us"));
        let earliest_us: i64 = said.and_then(|it| it.parse().ok()).unwrap_or_default();
        let ahead_us = earliest_us + 3660 * DAY_US - self.now_us;
        // Without a bound near this time the reply is another one, such as that of an expired hold.
        let metadata = (0..DAY_US).contains(&ahead_us).then(|| {
            [
                ("effective_time_us", effective_us.to_string()),
                ("earliest_us", earliest_us.to_string()),
                ("latest_us", (earliest_us + (3660 + 366) * DAY_US).to_string()),
            ]
        });
        let metadata = metadata.as_ref().map_or(&[][..], |it| it);
        Err(Rejection::new(Code::OutOfRange, "EFFECTIVE_TIME_OUT_OF_RANGE", metadata))
    }

    /// `balance_after` is None beyond the limit.
    fn meets(&self, leg: &Leg, balance_after: Option<i128>) -> Result<(), Rejection> {
        let account = &self.accounts[&leg.account_id];
        let failed = |condition: &str, required: String, actual: String| {
            let metadata = [
                ("account_id", leg.account_id.clone()),
                ("condition", condition.to_owned()),
                ("required", required),
                ("actual", actual),
                ("version", account.version.to_string()),
            ];
            Err(Rejection::new(Code::FailedPrecondition, "CONDITION_FAILED", &metadata))
        };
        let Condition { expected_version, min_balance_after, max_balance_after } = &leg.condition;
        if let Some(expected) = expected_version.filter(|it| *it != account.version) {
            return failed("expected_version", expected.to_string(), account.version.to_string());
        }
        let Some(balance_after) = balance_after else { return Ok(()) };
        let after = text(&account.currency_code, balance_after);
        if let Some(min) = min_balance_after.as_ref().filter(|it| balance_after < units(it)) {
            return failed("min_balance_after", min.value.clone(), after);
        }
        if let Some(max) = max_balance_after.as_ref().filter(|it| balance_after > units(it)) {
            return failed("max_balance_after", max.value.clone(), after);
        }
        Ok(())
    }

    pub(super) fn out_of_range(&self, account_id: &str, units: i128) -> Rejection {
        let account = &self.accounts[account_id];
        let metadata = [
            ("account_id", account_id.to_owned()),
            ("currency_code", account.currency_code.clone()),
            ("balance", text(&account.currency_code, account.balance)),
            ("amount", text(&account.currency_code, units)),
        ];
        Rejection::new(Code::OutOfRange, "BALANCE_OUT_OF_RANGE", &metadata)
    }

    pub(super) fn insufficient_funds(&self, account_id: &str, required: i128) -> Rejection {
        let account = &self.accounts[account_id];
        let metadata = [
            ("account_id", account_id.to_owned()),
            ("currency_code", account.currency_code.clone()),
            ("available", text(&account.currency_code, self.available(account_id))),
            ("required", text(&account.currency_code, required)),
            ("version", account.version.to_string()),
        ];
        Rejection::new(Code::FailedPrecondition, "INSUFFICIENT_FUNDS", &metadata)
    }

    pub(super) fn carry_out(
        &mut self,
        legs: &[Leg],
        frame: Frame,
        response: &Response,
    ) -> Transaction {
        let by_server = response.transactions.first();
        let transaction_id = by_server.map(|it| it.transaction_id.clone()).unwrap_or_default();
        let touched: BTreeSet<&str> = legs.iter().map(|leg| leg.account_id.as_str()).collect();
        let mut create_time = by_server.and_then(|it| it.create_time);
        for account_id in &touched {
            let latest = self.accounts[*account_id].update_time;
            // Times of an account never decrease.
            if latest.as_ref().map(microseconds) > create_time.as_ref().map(microseconds) {
                create_time = latest;
            }
        }
        let effective_time = frame.effective_time.filter(|it| Some(*it) != create_time);
        let mut entries = Vec::new();
        for leg in legs {
            let account = self.accounts.get_mut(&leg.account_id).expect("an account");
            account.balance += leg.units;
            account.below_limit |= frame.forced;
            let mut entry = Entry {
                account_id: leg.account_id.clone(),
                sequence: account.entries.len() as i64 + 1,
                transaction_id: transaction_id.clone(),
                amount: Some(money_in(&leg.currency_code, leg.units)),
                balance_after: Some(money_in(&leg.currency_code, account.balance)),
                create_time,
                effective_time,
                hash: Vec::new(),
            };
            account.last_hash = hash(&account.last_hash, &leg.currency_code, &entry);
            entry.hash = bytes(&account.last_hash);
            account.entries.push(entry.clone());
            entries.push(entry);
        }
        for account_id in touched {
            self.changed(account_id, create_time);
        }
        let transaction = Transaction {
            transaction_id: transaction_id.clone(),
            request_id: frame.request_id,
            kind: frame.kind.into(),
            entries,
            description: frame.description,
            labels: frame.labels,
            create_time,
            reverses_transaction_id: frame.reverses_transaction_id,
            reversed_by_transaction_id: String::new(),
            created_by: String::new(),
            reversed_amount: None,
            forced: frame.forced,
            effective_time,
        };
        self.transactions.insert(transaction_id, transaction.clone());
        transaction
    }
}

/// The legs of any posting.
fn posting_of(command: &Command) -> (Vec<Leg>, Frame) {
    let forced = match command {
        Command::Withdraw(it) => it.force,
        Command::Transfer(it) => it.force,
        Command::Post(it) => it.force,
        _ => false,
    };
    let effective_time = match command {
        Command::Deposit(it) => it.effective_time,
        Command::Withdraw(it) => it.effective_time,
        Command::Transfer(it) => it.effective_time,
        Command::Post(it) => it.effective_time,
        _ => None,
    };
    let (legs, kind, request_id, description, labels) = match command.clone() {
        Command::Deposit(it) => {
            let amount = it.amount.expect("an amount");
            let mut into = leg(&it.account_id, &amount.currency_code, units(&amount));
            into.condition = it.condition.unwrap_or_default();
            let kind = TransactionKind::Deposit;
            (vec![into], kind, it.request_id, it.description, it.labels)
        }
        Command::Withdraw(it) => {
            let amount = it.amount.expect("an amount");
            let mut out_of = leg(&it.account_id, &amount.currency_code, -units(&amount));
            out_of.condition = it.condition.unwrap_or_default();
            let kind = TransactionKind::Withdrawal;
            (vec![out_of], kind, it.request_id, it.description, it.labels)
        }
        Command::Transfer(it) => {
            let amount = it.amount.expect("an amount");
            let currency_code = &amount.currency_code;
            let mut source = leg(&it.source_account_id, currency_code, -units(&amount));
            source.condition = it.condition.unwrap_or_default();
            let destination = leg(&it.destination_account_id, currency_code, units(&amount));
            let kind = TransactionKind::Transfer;
            (vec![source, destination], kind, it.request_id, it.description, it.labels)
        }
        Command::Post(it) => {
            let legs = it.legs.into_iter().map(|it| {
                let amount = it.amount.expect("an amount");
                let leg = leg(&it.account_id, &amount.currency_code, units(&amount));
                Leg { condition: it.condition.unwrap_or_default(), ..leg }
            });
            let kind = TransactionKind::Posting;
            (legs.collect(), kind, it.request_id, it.description, it.labels)
        }
        other => panic!("not a posting: {other:?}"),
    };
    let reverses_transaction_id = String::new();
    let frame = Frame {
        kind,
        request_id,
        description,
        labels,
        reverses_transaction_id,
        forced,
        effective_time,
    };
    (legs, frame)
}

pub(super) fn leg(account_id: &str, currency_code: &str, units: i128) -> Leg {
    let (account_id, currency_code) = (account_id.to_owned(), currency_code.to_owned());
    Leg { account_id, currency_code, units, condition: Condition::default() }
}

pub(super) fn precondition(reason: &str, account_id: &str) -> Rejection {
    let metadata = [("account_id", account_id.to_owned())];
    Rejection::new(Code::FailedPrecondition, reason, &metadata)
}

fn hash(previous: &str, currency_code: &str, entry: &Entry) -> String {
    let exact = |money: &Option<Money>| Decimal::parse(&money.as_ref().expect("money").value);
    let row = EntryRow {
        sequence: entry.sequence,
        transaction_id: entry.transaction_id.clone(),
        amount: exact(&entry.amount),
        balance_after: exact(&entry.balance_after),
        create_time_us: entry.create_time.as_ref().map_or(0, microseconds),
        effective_time_us: entry.effective_time.as_ref().map(microseconds),
        hash: String::new(),
    };
    entry_hash(previous, &entry.account_id, currency_code, &row)
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("hexadecimal");
    (0..hexadecimal.len()).step_by(2).map(byte).collect()
}
