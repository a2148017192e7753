//! Random requests that move or hold money, and repeats of them.

use passbook::proto::*;
use prost_types::{FieldMask, Timestamp};

use crate::harness::{
    model::command::Command,
    model::random::Generator,
    model::{LIMIT, Model, money_in, units},
    timestamp,
};

/// Future expire times are rounded to this grid, so that several holds expire at once.
const EXPIRE_GRID_US: i64 = 200_000;

impl Generator {
    pub(super) fn deposit(&mut self, model: &Model) -> Command {
        let account_id = self.account(model);
        let amount = self.amount(model, &account_id);
        let mut request = DepositRequest {
            request_id: self.new_id("request"),
            description: self.description(),
            labels: self.labels(),
            condition: self.condition(model, &account_id, units(&amount)),
            validate_only: self.one_in(12),
            effective_time: self.effective_time(model),
            amount: Some(amount),
            account_id,
        };
        drop_foreign(&mut request.condition, &request.amount);
        Command::Deposit(request)
    }

    pub(super) fn withdraw(&mut self, model: &Model) -> Command {
        let account_id = self.account(model);
        let amount = self.amount(model, &account_id);
        let mut request = WithdrawRequest {
            request_id: self.new_id("request"),
            description: self.description(),
            labels: self.labels(),
            condition: self.condition(model, &account_id, -units(&amount)),
            validate_only: self.one_in(12),
            effective_time: self.effective_time(model),
            force: self.one_in(12),
            amount: Some(amount),
            account_id,
        };
        drop_foreign(&mut request.condition, &request.amount);
        Command::Withdraw(request)
    }

    pub(super) fn transfer(&mut self, model: &Model) -> Command {
        let source_account_id = self.account(model);
        let amount = self.amount(model, &source_account_id);
        let has_currency = |id: &str| model.accounts[id].currency_code == amount.currency_code;
        let destination_account_id = self.account_that(model, |id| {
            has_currency(id) && model.accounts[id].state != AccountState::Closed
        });
        let mut request = TransferRequest {
            request_id: self.new_id("request"),
            description: self.description(),
            labels: self.labels(),
            condition: self.condition(model, &source_account_id, -units(&amount)),
            validate_only: self.one_in(12),
            effective_time: self.effective_time(model),
            force: self.one_in(12),
            amount: Some(amount),
            source_account_id,
            destination_account_id,
        };
        drop_foreign(&mut request.condition, &request.amount);
        Command::Transfer(request)
    }

    /// Up to six legs on up to three accounts.
    pub(super) fn post(&mut self, model: &Model) -> Command {
        let accounts = [self.account(model), self.account(model), self.account(model)];
        let mut legs = Vec::new();
        for _ in 0..self.random.u8(1..=6) {
            let account_id = self.pick(&accounts).clone();
            let mut amount = self.amount(model, &account_id);
            if self.random.bool() {
                amount = money_in(&amount.currency_code, -units(&amount));
            }
            legs.push(Leg { account_id, amount: Some(amount), condition: None });
        }
        let require_balanced = self.one_in(6);
        if (require_balanced || model.has_contra_accounts) && self.random.bool() {
            balance(&mut legs);
        }
        for index in 0..legs.len() {
            let account_id = legs[index].account_id.clone();
            let of_account = legs.iter().filter(|leg| leg.account_id == account_id);
            let change = of_account.filter_map(|leg| leg.amount.as_ref()).map(units).sum();
            let leg = &mut legs[index];
            leg.condition = self.condition(model, &account_id, change);
            drop_foreign(&mut leg.condition, &leg.amount);
        }
        Command::Post(PostTransactionRequest {
            request_id: self.new_id("request"),
            legs,
            description: self.description(),
            labels: self.labels(),
            validate_only: self.one_in(12),
            effective_time: self.effective_time(model),
            force: self.one_in(12),
            require_balanced,
        })
    }

    /// Usually none, or the midnight of a day that is not far away, so that several are equal.
    fn effective_time(&mut self, model: &Model) -> Option<Timestamp> {
        const DAY_US: i64 = 86_400_000_000;
        let today = model.now_us / DAY_US;
        let days = match self.random.u8(0..40) {
            0 => *self.pick(&[-4000, 400]),
            1..12 => *self.pick(&[-3650, -31, -2, -1, 0, 1, 2, 360]),
            _ => return None,
        };
        (today > 0).then(|| timestamp((today + days) * DAY_US))
    }

    pub(super) fn place_hold(&mut self, model: &Model, now_us: i64) -> Command {
        // An empty account with a hold cannot be closed. This makes the case frequent enough.
        let is_empty = |id: &str| {
            let account = &model.accounts[id];
            let can_hold = account.unlimited_overdraft || account.overdraft_limit > 0;
            account.balance == 0 && can_hold && account.state == AccountState::Open
        };
        let account_id = match self.one_in(3) {
            true => self.account_that(model, is_empty),
            false => self.account(model),
        };
        let amount = self.amount(model, &account_id);
        let hold_id = match self.random.u8(0..8) {
            0 => self.hold(model),
            1..4 => self.new_id("hold"),
            _ => String::new(),
        };
        Command::PlaceHold(PlaceHoldRequest {
            request_id: self.new_id("request"),
            hold_id,
            account_id,
            amount: Some(amount),
            expire_time: self.expire_time(now_us),
            description: self.description(),
            labels: self.labels(),
        })
    }

    fn expire_time(&mut self, now_us: i64) -> Option<Timestamp> {
        let soon = now_us + EXPIRE_GRID_US * self.random.i64(1..4);
        let expire_us = match self.random.u8(0..12) {
            0..5 => Some(soon - soon % EXPIRE_GRID_US),
            5 => Some(now_us + 86_400_000_000),
            6 if self.one_in(2) => Some(now_us - self.random.i64(100_000..9_000_000_000)),
            _ => None,
        };
        let mut expire_time = expire_us.map(timestamp);
        if let Some(time) = expire_time.as_mut().filter(|_| self.one_in(4)) {
            // The service rounds fractions of a microsecond up.
            time.nanos = (time.nanos - self.random.i32(1..1000)).max(0);
        }
        expire_time
    }

    pub(super) fn update_hold(&mut self, model: &Model, now_us: i64) -> Command {
        let hold_id = match self.one_in(3) {
            true => self.hold(model),
            false => self.partly_captured(model),
        };
        let hold = model.holds.get(&hold_id);
        let account_id = hold.map(|hold| hold.message.account_id.clone()).unwrap_or_default();
        let (amount, captured) = hold.map_or((100, 0), |hold| (hold.amount, hold.captured));
        let available = hold.map_or(0, |_| model.available(&account_id));
        let chosen = match self.random.u8(0..8) {
            _ if captured > 0 && self.one_in(2) => captured,
            0 | 1 => captured + 1,
            2 => amount + available,
            3 => amount + available + 1,
            4 => (amount + captured) / 2,
            _ => amount + i128::from(self.random.u32(0..300)),
        };
        let currency_code = self.currency_of(model, &account_id);
        let mut request = UpdateHoldRequest {
            request_id: self.new_id("request"),
            hold_id,
            amount: (chosen > 0 && chosen < LIMIT).then(|| money_in(&currency_code, chosen)),
            expire_time: if self.one_in(2) { self.expire_time(now_us) } else { None },
            update_mask: None,
        };
        if self.one_in(3) || (request.amount.is_none() && request.expire_time.is_none()) {
            let mut paths = vec!["expire_time".to_owned()];
            if request.amount.is_some() && self.one_in(2) {
                paths.push("amount".to_owned());
            }
            request.update_mask = Some(FieldMask { paths });
        }
        Command::UpdateHold(request)
    }

    /// Usually an open hold of which a part was captured.
    fn partly_captured(&mut self, model: &Model) -> String {
        let open = model.accounts.values().flat_map(|account| account.open_holds.iter());
        let ids: Vec<&String> = open.filter(|id| model.holds[*id].captured > 0).collect();
        if ids.is_empty() { self.hold(model) } else { (*self.pick(&ids)).clone() }
    }

    /// Usually an open one.
    pub(super) fn hold(&mut self, model: &Model) -> String {
        let open = model.accounts.values().flat_map(|account| account.open_holds.iter());
        let open: Vec<&String> = open.collect();
        let all: Vec<&String> = model.holds.keys().collect();
        match self.random.u8(0..20) {
            0 => format!("{}:nothing", self.caller),
            1..4 if !all.is_empty() => (*self.pick(&all)).clone(),
            _ if !open.is_empty() => (*self.pick(&open)).clone(),
            _ => format!("{}:none", self.caller),
        }
    }

    pub(super) fn capture_hold(&mut self, model: &Model) -> Command {
        let hold_id = self.hold(model);
        let hold = model.holds.get(&hold_id);
        let source = hold.map(|hold| hold.message.account_id.clone()).unwrap_or_default();
        let whole = hold.map_or(100, |hold| hold.held().max(1));
        let taken = match self.random.u8(0..6) {
            0 => Some(whole),
            1 => Some(whole + 1),
            2 | 3 => Some((whole - i128::from(self.random.u32(1..500))).max(1)),
            _ => None,
        };
        let currency_code = self.currency_of(model, &source);
        let destination_account_id = match self.random.u8(0..3) {
            0 => String::new(),
            1 => self.account(model),
            _ => self.account_that(model, |id| {
                let currency_code = model.accounts.get(&source).map(|it| &it.currency_code);
                Some(&model.accounts[id].currency_code) == currency_code
            }),
        };
        Command::CaptureHold(CaptureHoldRequest {
            request_id: self.new_id("request"),
            hold_id,
            amount: taken.map(|units| money_in(&currency_code, units)),
            destination_account_id,
            description: self.description(),
            labels: self.labels(),
            keep_open: self.one_in(2),
            allow_excess: self.one_in(3),
            effective_time: self.effective_time(model),
        })
    }

    pub(super) fn release_hold(&mut self, model: &Model) -> Command {
        let hold_id = self.hold(model);
        Command::ReleaseHold(ReleaseHoldRequest { request_id: self.new_id("request"), hold_id })
    }

    pub(super) fn transaction(&mut self, model: &Model) -> String {
        let ids: Vec<&String> = model.transactions.keys().collect();
        if ids.is_empty() || self.one_in(20) {
            return uuid::Uuid::from_u128(self.random.u128(..)).to_string();
        }
        let recent = ids.len().min(if self.one_in(3) { ids.len() } else { 12 });
        ids[ids.len() - 1 - self.random.usize(0..recent)].clone()
    }

    pub(super) fn reverse(&mut self, model: &Model) -> Command {
        let transaction_id = match self.one_in(3) {
            true => self.partly_reversed(model),
            false => self.transaction(model),
        };
        Command::Reverse(ReverseTransactionRequest {
            request_id: self.new_id("request"),
            amount: self.part_to_reverse(model, &transaction_id),
            transaction_id,
            description: self.description(),
            labels: self.labels(),
            force: self.one_in(6),
            effective_time: self.effective_time(model),
        })
    }

    /// Usually a transaction of which a part is reversed.
    fn partly_reversed(&mut self, model: &Model) -> String {
        let is_part = |it: &&String| model.reversed[*it].units.is_some();
        let ids: Vec<&String> = model.reversed.keys().filter(is_part).collect();
        if ids.is_empty() { self.transaction(model) } else { (*self.pick(&ids)).clone() }
    }

    /// Close to what is not reversed yet, or none.
    fn part_to_reverse(&mut self, model: &Model, transaction_id: &str) -> Option<Money> {
        let transaction = model.transactions.get(transaction_id)?;
        let entry = &transaction.entries[0];
        let whole = units(entry.amount.as_ref().expect("an amount")).abs();
        let before = model.reversed.get(transaction_id).and_then(|it| it.units).unwrap_or(0);
        let chosen = match self.random.u8(0..8) {
            0 => whole - before,
            1 => whole - before + 1,
            2 | 3 => (whole - before) / 2,
            _ => return None,
        };
        let currency_code = self.currency_of(model, &entry.account_id);
        (chosen > 0 && chosen < LIMIT).then(|| money_in(&currency_code, chosen))
    }

    pub(super) fn request_id_sent(&mut self) -> Option<String> {
        self.sent_before().and_then(|command| command.request_id())
    }

    /// One of the last hundred, or any.
    fn sent_before(&mut self) -> Option<Command> {
        let count = self.sent.len();
        if count == 0 {
            return None;
        }
        let back = if self.one_in(3) { count } else { count.min(100) };
        Some(self.sent[count - 1 - self.random.usize(0..back)].clone())
    }

    pub(super) fn outcome_or_fence(&mut self) -> Command {
        let sent = self.request_id_sent();
        let request_id = match sent.filter(|_| !self.one_in(4)) {
            Some(request_id) => request_id,
            None => self.new_id("request"),
        };
        if self.one_in(2) {
            return Command::GetRequestOutcome(GetRequestOutcomeRequest { request_id });
        }
        if let Some(like) = self.sent_before() {
            self.after_fence.push(like.with_request_id(&request_id));
        }
        Command::FenceRequest(FenceRequestRequest { request_id })
    }

    /// A repeat of an earlier request, with or without `validate_only`.
    pub(super) fn repeat(&mut self) -> Command {
        if let Some(late) = self.after_fence.pop() {
            return late;
        }
        let Some(mut command) = self.sent_before() else { return self.outcome_or_fence() };
        if self.one_in(2) {
            let is_dry_run = command.is_dry_run();
            command.set_dry_run(!is_dry_run);
        }
        command
    }

    pub(super) fn repeat_with_another_body(&mut self, model: &Model) -> Command {
        let Some(request_id) = self.request_id_sent() else { return self.outcome_or_fence() };
        let other = match self.random.u8(0..10) {
            0 => self.deposit(model),
            1 => self.withdraw(model),
            2 => self.post(model),
            3 => self.release_hold(model),
            4 => self.reverse(model),
            _ => return self.small_difference(),
        };
        other.with_request_id(&request_id)
    }

    /// An earlier request with one field changed. None if the field already had that value.
    fn small_difference(&mut self) -> Command {
        let Some(mut command) = self.sent_before() else { return self.outcome_or_fence() };
        let is_first = self.random.bool();
        match &mut command {
            Command::Deposit(it) if it.effective_time.is_some() => it.effective_time = None,
            Command::Deposit(it) if is_first => it.description.push('!'),
            Command::Deposit(it) => it.condition = None,
            Command::Withdraw(it) if is_first => it.labels.clear(),
            Command::Withdraw(it) => it.force = !it.force,
            Command::Transfer(it) if is_first => it.condition = None,
            Command::Transfer(it) => it.destination_account_id.push('1'),
            Command::Post(it) if it.require_balanced => it.require_balanced = false,
            Command::Post(it) if is_first => it.legs.truncate(1),
            Command::Post(it) => it.legs.reverse(),
            Command::PlaceHold(it) if is_first => it.hold_id.push('1'),
            Command::PlaceHold(it) => it.expire_time = None,
            // An update must still change something.
            Command::UpdateHold(it)
                if is_first && (it.amount.is_some() || it.update_mask.is_some()) =>
            {
                it.expire_time = None;
            }
            Command::UpdateHold(it) => it.hold_id.push('1'),
            Command::CaptureHold(it) if is_first => it.amount = None,
            Command::CaptureHold(it) => it.keep_open = !it.keep_open,
            Command::ReleaseHold(it) => it.hold_id.push('1'),
            Command::Reverse(it) if is_first => it.description.push('!'),
            Command::Reverse(it) => it.force = !it.force,
            _ => {}
        }
        command
    }
}

/// Bounds must be in the amount's currency.
fn drop_foreign(condition: &mut Option<Condition>, amount: &Option<Money>) {
    let currency_code = amount.as_ref().map(|amount| &amount.currency_code);
    let is_foreign = condition.as_ref().is_some_and(|condition| {
        let bounds = [&condition.min_balance_after, &condition.max_balance_after];
        bounds.into_iter().flatten().any(|bound| Some(&bound.currency_code) != currency_code)
    });
    if is_foreign {
        *condition = None;
    }
}

/// Lets the last leg take what the others of its currency leave, if that is something.
fn balance(legs: &mut [Leg]) {
    let Some((last, others)) = legs.split_last_mut() else { return };
    let Some(amount) = &mut last.amount else { return };
    let same = others.iter().filter_map(|leg| leg.amount.as_ref());
    let same = same.filter(|it| it.currency_code == amount.currency_code);
    let sum: i128 = same.map(units).sum();
    if sum != 0 && sum.abs() < LIMIT {
        *amount = money_in(&amount.currency_code, -sum);
    }
}
