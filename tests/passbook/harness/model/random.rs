//! Random calls of the model test: few accounts and small amounts, so that rejections are common
//! and limits are often hit to the cent.

use std::collections::BTreeMap;

use fastrand::Rng;
use passbook::proto::*;
use prost_types::FieldMask;

use crate::harness::{
    model::command::Command,
    model::{LIMIT, Model, money_in, units},
};

/// The number of accounts in use. Closed ones are replaced.
const ACCOUNTS: usize = 7;

pub struct Generator {
    pub random: Rng,
    /// The prefix of all ids, unique to this caller, and the value of a label.
    pub caller: String,
    pub(super) sent: Vec<Command>,
    /// Requests with an id that was fenced or is to be.
    pub(super) after_fence: Vec<Command>,
    ids: usize,
}

impl Generator {
    pub fn new(caller: &str, seed: u64) -> Self {
        let random = Rng::with_seed(seed);
        Self {
            random,
            caller: caller.to_owned(),
            sent: Vec::new(),
            after_fence: Vec::new(),
            ids: 0,
        }
    }

    /// The next call, on resources that the model knows.
    pub fn next(&mut self, model: &Model, now_us: i64) -> Command {
        let in_use = model.accounts.values().filter(|it| it.state != AccountState::Closed);
        if in_use.count() < ACCOUNTS {
            return self.create(model);
        }
        let command = match self.random.u8(0..100) {
            0..2 => self.create(model),
            2..6 => self.update(model),
            6..12 => self.state_change(model),
            12..21 => self.deposit(model),
            21..30 => self.withdraw(model),
            30..38 => self.transfer(model),
            38..45 => self.post(model),
            45..50 => self.update_hold(model, now_us),
            50..60 => self.place_hold(model, now_us),
            60..67 => self.capture_hold(model),
            67..70 => self.release_hold(model),
            70..77 => self.reverse(model),
            77..80 => return self.outcome_or_fence(),
            80..85 => return self.repeat(),
            85..90 => return self.repeat_with_another_body(model),
            _ => return self.read(model),
        };
        let command = self.with_odd_amounts(command);
        if command.request_id().is_some() {
            self.sent.push(command.clone());
        }
        command
    }

    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.random.u32(0..count) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.random.usize(0..of.len())]
    }

    pub(super) fn new_id(&mut self, kind: &str) -> String {
        self.ids += 1;
        format!("{}:{kind}:{}", self.caller, self.ids)
    }

    /// Usually one that is not closed.
    pub(super) fn account(&mut self, model: &Model) -> String {
        let is_any = self.one_in(20);
        if self.one_in(40) || model.accounts.is_empty() {
            return format!("{}:nobody", self.caller);
        }
        let ids = model.accounts.iter();
        let ids = ids.filter(|(_, account)| is_any || account.state != AccountState::Closed);
        let ids: Vec<&String> = ids.map(|(account_id, _)| account_id).collect();
        if ids.is_empty() { "nobody".to_owned() } else { (*self.pick(&ids)).clone() }
    }

    pub(super) fn labels(&mut self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([("caller".to_owned(), self.caller.clone())]);
        if self.one_in(3) {
            labels.insert("n".to_owned(), self.random.u8(0..3).to_string());
        }
        labels
    }

    pub(super) fn description(&mut self) -> String {
        if self.one_in(4) { format!("because of {}", self.random.u8(0..9)) } else { String::new() }
    }

    fn currency(&mut self) -> String {
        (*self.pick(&["USD", "USD", "EUR", "JPY"])).to_owned()
    }

    /// Usually the account's currency.
    pub(super) fn currency_of(&mut self, model: &Model, account_id: &str) -> String {
        match model.accounts.get(account_id) {
            Some(account) if !self.one_in(40) => account.currency_code.clone(),
            _ => self.currency(),
        }
    }

    /// A positive amount close to what the account can pay.
    fn units(&mut self, model: &Model, account_id: &str) -> i128 {
        let Some(account) = model.accounts.get(account_id) else { return 1 };
        let available = model.available(account_id);
        let chosen = match self.random.u8(0..24) {
            0..3 => available,
            3..5 => available + 1,
            5..7 => account.balance,
            // Near the upper bound of amounts, on existing accounts.
            7..10 if account.unlimited_overdraft && self.caller.ends_with('0') => {
                LIMIT - 1 - i128::from(self.random.u32(0..300))
            }
            _ => 0,
        };
        let is_amount = chosen > 0 && chosen < LIMIT;
        if is_amount { chosen } else { i128::from(self.random.u32(1..1500)) }
    }

    pub(super) fn amount(&mut self, model: &Model, account_id: &str) -> Money {
        let currency_code = self.currency_of(model, account_id);
        money_in(&currency_code, self.units(model, account_id))
    }

    /// Sometimes an invalid one.
    fn with_odd_amounts(&mut self, mut command: Command) -> Command {
        if self.one_in(60) {
            let odd = *self.pick(&[0, LIMIT, -LIMIT, -5]);
            let amounts = command.amounts().0;
            if !amounts.is_empty() {
                let index = self.random.usize(0..amounts.len());
                for money in amounts.into_iter().skip(index).take(1) {
                    *money = money_in(&money.currency_code.clone(), odd);
                }
            }
        }
        command
    }

    pub(super) fn condition(
        &mut self,
        model: &Model,
        account_id: &str,
        change: i128,
    ) -> Option<Condition> {
        let account = model.accounts.get(account_id)?;
        let mut condition = Condition::default();
        match self.random.u8(0..20) {
            0 => condition.expected_version = Some(account.version),
            1 => condition.expected_version = Some((account.version - 1).max(1)),
            2 | 3 => {
                let min = account.balance + change + i128::from(self.random.i8(-2..=2));
                condition.min_balance_after = Some(money_in(&account.currency_code, min));
            }
            4 | 5 => {
                let max = account.balance + change + i128::from(self.random.i8(-2..=2));
                condition.max_balance_after = Some(money_in(&account.currency_code, max));
            }
            _ => return None,
        }
        // A bound above the largest amount would be malformed, and so would one in another
        // currency.
        let bounds = [&condition.min_balance_after, &condition.max_balance_after];
        let fits = |it: &Money| units(it).abs() < LIMIT;
        let is_sound = bounds.into_iter().flatten().all(fits);
        is_sound.then_some(condition)
    }

    fn create(&mut self, model: &Model) -> Command {
        let ids: Vec<&String> = model.accounts.keys().collect();
        let account_id = match self.random.u8(0..6) {
            0 => String::new(),
            1 | 2 if !ids.is_empty() => (*self.pick(&ids)).clone(),
            _ => self.new_id("account"),
        };
        let currency_code = self.currency();
        let unlimited_overdraft = self.one_in(5);
        let mut request = CreateAccountRequest {
            account_id,
            unlimited_overdraft,
            overdraft_limit: (!unlimited_overdraft && self.one_in(3))
                .then(|| money_in(&currency_code, i128::from(self.random.u32(0..800)))),
            currency_code,
            labels: self.labels(),
        };
        if let Some(account) = model.accounts.get(&request.account_id)
            && self.one_in(2)
        {
            let limit = money_in(&account.currency_code, account.overdraft_limit);
            request.currency_code = account.currency_code.clone();
            request.overdraft_limit = Some(limit);
            request.unlimited_overdraft = account.unlimited_overdraft;
            request.labels = account.labels.clone();
        }
        Command::CreateAccount(request)
    }

    fn update(&mut self, model: &Model) -> Command {
        let account_id = self.account(model);
        let account = model.accounts.get(&account_id);
        let version = account.map_or(1, |account| account.version);
        let mut request = UpdateAccountRequest { account_id, ..Default::default() };
        let unlimited = self.one_in(4);
        if self.one_in(2) {
            request.labels = self.labels();
        }
        if !unlimited && self.one_in(2) {
            let currency_code = self.currency_of(model, &request.account_id);
            // Exactly the used amount.
            let used = account.map_or(0, |account| {
                account.overdraft_limit - model.available(&request.account_id)
            });
            let some = i128::from(self.random.u32(0..800));
            let chosen = *self.pick(&[0, some, some, used, used - 1]);
            let limit = if (0..LIMIT).contains(&chosen) { chosen } else { some };
            request.overdraft_limit = Some(money_in(&currency_code, limit));
        }
        request.unlimited_overdraft = unlimited;
        let is_blank = request.labels.is_empty() && request.overdraft_limit.is_none();
        if self.one_in(2) || (is_blank && !unlimited) {
            let names = ["labels", "overdraft_limit", "unlimited_overdraft"];
            let mut paths: Vec<String> = names.map(str::to_owned).into();
            self.random.shuffle(&mut paths);
            paths.truncate(self.random.usize(1..=3));
            request.update_mask = Some(FieldMask { paths });
        }
        if self.one_in(2) {
            request.expected_version = Some((version - self.random.i64(0..2)).max(1));
        }
        Command::UpdateAccount(request)
    }

    fn state_change(&mut self, model: &Model) -> Command {
        let reason = self.description();
        match self.random.u8(0..6) {
            0 | 1 => Command::Freeze(FreezeAccountRequest {
                account_id: self.account(model),
                reason,
                ..Default::default()
            }),
            2..5 => {
                let is_frozen = |id: &str| model.accounts[id].state == AccountState::Frozen;
                let account_id = self.account_that(model, is_frozen);
                Command::Unfreeze(UnfreezeAccountRequest {
                    account_id,
                    reason,
                    ..Default::default()
                })
            }
            _ => {
                let is_empty = |id: &str| {
                    let account = &model.accounts[id];
                    account.balance == 0 && account.state != AccountState::Closed
                };
                let has_hold = |id: &str| is_empty(id) && !model.accounts[id].open_holds.is_empty();
                let account_id = match self.random.bool() {
                    true => self.account_that(model, has_hold),
                    false => self.account_that(model, is_empty),
                };
                Command::Close(CloseAccountRequest { account_id, reason, ..Default::default() })
            }
        }
    }

    /// Usually an item for which this is true.
    pub(super) fn account_that(&mut self, model: &Model, is_one: impl Fn(&str) -> bool) -> String {
        let ids: Vec<&String> = model.accounts.keys().filter(|id| is_one(id)).collect();
        match ids.is_empty() || self.one_in(4) {
            true => self.account(model),
            false => (*self.pick(&ids)).clone(),
        }
    }
}
