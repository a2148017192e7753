//! The model: the contract as sequential code in integers. It shares no rule with `src/domain`.
//!
//! Values that only the server knows (generated ids, times) are taken from its reply, and must be
//! plausible. This file has accounts and requests; `money` has postings, `reversals` and `holds` what
//! their names say, `reads` has reads.

use std::collections::{BTreeMap, BTreeSet};

use passbook::proto::{Account as AccountMessage, Hold as HoldMessage, *};
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::model::command::{Command, Rejection, Reply, Response};

/// Upper bound of all amounts, in the currency's smallest unit.
pub const LIMIT: i128 = 10_i128.pow(28);

#[derive(Clone, Default)]
pub struct Model {
    pub accounts: BTreeMap<String, Account>,
    pub holds: BTreeMap<String, Hold>,
    /// By id, as they were answered.
    pub transactions: BTreeMap<String, Transaction>,
    /// What is reversed, by transaction.
    pub reversed: BTreeMap<String, Reversed>,
    /// The request and its first reply. None: fenced.
    pub requests: BTreeMap<String, Option<(Command, Reply)>>,
    /// Open holds by expire time.
    pub expiring: BTreeSet<(i64, String)>,
    /// By currency: the sum that entered the ledger less the sum that left it.
    pub from_outside: BTreeMap<String, i128>,
    /// Lower bound of the current time.
    pub now_us: i64,
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// All transactions are balanced.
    pub has_contra_accounts: bool,
}

#[derive(Clone)]
pub struct Account {
    pub currency_code: String,
    pub balance: i128,
    pub overdraft_limit: i128,
    pub unlimited_overdraft: bool,
    /// Only a forced transaction takes an account there.
    pub below_limit: bool,
    pub state: AccountState,
    pub version: i64,
    pub labels: BTreeMap<String, String>,
    pub entries: Vec<Entry>,
    pub changes: Vec<AccountChange>,
    pub open_holds: BTreeSet<String>,
    pub create_time: Option<Timestamp>,
    pub update_time: Option<Timestamp>,
    /// Of the latest entry, in hexadecimal.
    pub last_hash: String,
}

/// The reversals of a transaction.
#[derive(Clone)]
pub struct Reversed {
    /// The latest one.
    pub by: String,
    /// Their sum. None: all of the transaction.
    pub units: Option<i128>,
}

#[derive(Clone)]
pub struct Hold {
    pub amount: i128,
    pub captured: i128,
    pub message: HoldMessage,
}

impl Hold {
    /// While it is open.
    pub fn held(&self) -> i128 {
        self.amount - self.captured
    }
}

impl Model {
    /// Checks the reply of a call that was executed between these two times. If a hold expires in
    /// between, any time that explains the reply is accepted.
    pub fn expect(&mut self, command: &Command, from_us: i64, to_us: i64, reply: &Reply) -> Reply {
        let range = (from_us + 1, String::new())..(to_us + 1, String::new());
        let times: BTreeSet<i64> = self.expiring.range(range).map(|(time, _)| *time).collect();
        let mut now_us = from_us;
        for later_us in times {
            let mut trial = self.clone();
            if trial.apply(command, now_us, reply) == *reply {
                break;
            }
            now_us = later_us;
        }
        let expected = self.apply(command, now_us, reply);
        self.assert_sums();
        expected
    }

    pub fn expires_within(&self, from_us: i64, to_us: i64) -> bool {
        let range = (from_us + 1, String::new())..(to_us + 1, String::new());
        self.expiring.range(range).next().is_some()
    }

    fn apply(&mut self, command: &Command, now_us: i64, reply: &Reply) -> Reply {
        self.now_us = now_us;
        self.expire(now_us);
        let response = reply.as_ref().ok().cloned().unwrap_or_default();
        let time = response.accounts.first().and_then(|account| account.update_time);
        match command {
            Command::CreateAccount(it) => self.create(it, &response),
            Command::UpdateAccount(it) => self.update(it, time),
            Command::Freeze(it) => {
                let change = (AccountState::Frozen, AccountChangeKind::Frozen);
                self.set_state(&it.account_id, change, &it.reason, time)
            }
            Command::Unfreeze(it) => {
                let change = (AccountState::Open, AccountChangeKind::Unfrozen);
                self.set_state(&it.account_id, change, &it.reason, time)
            }
            Command::Close(it) => {
                let change = (AccountState::Closed, AccountChangeKind::Closed);
                self.set_state(&it.account_id, change, &it.reason, time)
            }
            Command::GetRequestOutcome(it) => Ok(self.outcome(&it.request_id)),
            Command::FenceRequest(it) => Ok(self.fence(&it.request_id)),
            request if request.request_id().is_some() => self.request(request, reply),
            read => self.read(read),
        }
    }

    /// The invariants.
    fn assert_sums(&mut self) {
        let account_ids: Vec<String> = self.accounts.keys().cloned().collect();
        for account_id in &account_ids {
            let available = self.available(account_id);
            let account = self.accounts.get_mut(account_id).expect("an account");
            account.below_limit &= available < 0;
            let may_be_below = account.unlimited_overdraft || account.below_limit;
            assert!(available >= 0 || may_be_below, "{account_id}: {available}");
        }
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        for account in self.accounts.values() {
            *sums.entry(&account.currency_code).or_default() += account.balance;
        }
        for (currency_code, sum) in sums {
            let from_outside = self.from_outside.get(currency_code).copied().unwrap_or(0);
            assert_eq!(sum, from_outside, "{currency_code} is made or lost");
        }
    }

    fn expire(&mut self, now_us: i64) {
        while let Some((time_us, hold_id)) = self.expiring.first().cloned() {
            if time_us > now_us {
                return;
            }
            let hold = &mut self.holds.get_mut(&hold_id).expect("a hold").message;
            let (account_id, time) = (hold.account_id.clone(), hold.expire_time);
            hold.set_state(passbook::proto::HoldState::Expired);
            hold.update_time = time;
            let expired = hold.clone();
            self.add_expiry(expired);
            self.end_hold(&hold_id);
            self.changed(&account_id, time);
        }
    }

    /// Ends a hold.
    pub(super) fn end_hold(&mut self, hold_id: &str) {
        let account_id = &self.holds[hold_id].message.account_id;
        self.accounts.get_mut(account_id).expect("an account").open_holds.remove(hold_id);
        self.expiring.retain(|(_, other)| other != hold_id);
    }

    pub(super) fn changed(&mut self, account_id: &str, time: Option<Timestamp>) {
        let account = self.accounts.get_mut(account_id).expect("an account");
        account.version += 1;
        let new = time.as_ref().map(microseconds);
        if new > account.update_time.as_ref().map(microseconds) {
            account.update_time = time;
        }
    }

    pub(super) fn account(&self, account_id: &str) -> Result<&Account, Rejection> {
        self.accounts.get(account_id).ok_or_else(|| {
            let metadata = [("account_id", account_id.to_owned())];
            Rejection::new(Code::NotFound, "ACCOUNT_NOT_FOUND", &metadata)
        })
    }

    pub fn held(&self, account_id: &str) -> i128 {
        let open = self.accounts[account_id].open_holds.iter();
        open.map(|hold_id| self.holds[hold_id].held()).sum()
    }

    pub fn available(&self, account_id: &str) -> i128 {
        let account = &self.accounts[account_id];
        account.balance - self.held(account_id) + account.overdraft_limit
    }

    /// The account as the service reports it.
    pub(super) fn account_message(&self, account_id: &str) -> Result<AccountMessage, Rejection> {
        let account = self.account(account_id)?;
        let money = |units| Some(money_in(&account.currency_code, units));
        Ok(AccountMessage {
            created_by: String::new(),
            account_id: account_id.to_owned(),
            currency_code: account.currency_code.clone(),
            balance: money(account.balance),
            held: money(self.held(account_id)),
            available: money(self.available(account_id)),
            overdraft_limit: money(account.overdraft_limit),
            unlimited_overdraft: account.unlimited_overdraft,
            state: account.state.into(),
            sequence: account.entries.len() as i64,
            version: account.version,
            labels: account.labels.clone(),
            create_time: account.create_time,
            update_time: account.update_time,
        })
    }

    pub(super) fn answer(&self, account_id: &str) -> Reply {
        Ok(Response { accounts: vec![self.account_message(account_id)?], ..Response::default() })
    }

    fn request(&mut self, command: &Command, reply: &Reply) -> Reply {
        crate::harness::model::money::malformed(command)?;
        let request_id = command.request_id().expect("a request id");
        let metadata = [("request_id", request_id.clone())];
        match self.requests.get(&request_id) {
            Some(None) => {
                Err(Rejection::new(Code::FailedPrecondition, "REQUEST_FENCED", &metadata))
            }
            Some(Some((body, _))) if *body != command.body() => {
                Err(Rejection::new(Code::InvalidArgument, "REQUEST_ID_REUSED", &[]))
            }
            Some(Some((_, first))) => {
                first.clone().map(|response| Response { replayed: true, ..response })
            }
            None if command.is_dry_run() => self.dry_run(command, reply),
            None => {
                let result = self.make(command, reply);
                if let Ok(response) = &result {
                    self.add_event(command, response);
                }
                self.requests.insert(request_id, Some((command.body(), result.clone())));
                result
            }
        }
    }

    fn fence(&mut self, request_id: &str) -> Response {
        if !self.requests.contains_key(request_id) {
            self.requests.insert(request_id.to_owned(), None);
        }
        self.outcome(request_id)
    }

    fn outcome(&self, request_id: &str) -> Response {
        let outcome = |outcome: RequestOutcome, fenced| Some((outcome.into(), fenced));
        match self.requests.get(request_id) {
            Some(Some((_, Ok(response)))) => {
                Response { outcome: outcome(RequestOutcome::Applied, false), ..response.clone() }
            }
            Some(Some((_, Err(rejection)))) => Response {
                outcome: outcome(RequestOutcome::Rejected, false),
                rejection: Some(rejection.clone()),
                ..Response::default()
            },
            fence => {
                let outcome = outcome(RequestOutcome::NotSeen, fence.is_some());
                Response { outcome, ..Response::default() }
            }
        }
    }
}

pub(super) fn currency_mismatch(account_id: &str, account: &Account, asked: &str) -> Rejection {
    let metadata = [
        ("account_id", account_id.to_owned()),
        ("currency_code", asked.to_owned()),
        ("account_currency_code", account.currency_code.clone()),
    ];
    Rejection::new(Code::FailedPrecondition, "CURRENCY_MISMATCH", &metadata)
}

fn scale(currency_code: &str) -> usize {
    if currency_code == "JPY" { 0 } else { 2 }
}

/// The amount in the currency's smallest unit. The value must have all its decimals.
pub fn units(money: &Money) -> i128 {
    let decimals = money.value.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    assert_eq!(decimals, scale(&money.currency_code), "{money:?}");
    money.value.replace('.', "").parse().expect("a number")
}

pub fn text(currency_code: &str, units: i128) -> String {
    let sign = if units < 0 { "-" } else { "" };
    match scale(currency_code) {
        0 => units.to_string(),
        _ => format!("{sign}{}.{:02}", units.abs() / 100, units.abs() % 100),
    }
}

pub fn money_in(currency_code: &str, units: i128) -> Money {
    Money { currency_code: currency_code.to_owned(), value: text(currency_code, units) }
}

/// Since the Unix epoch, rounded down.
pub fn microseconds(time: &Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos / 1000)
}
