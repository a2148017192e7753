//! Holds of the model: placed, updated, captured, released. `state` expires them.

use passbook::proto::{
    AccountState, CaptureHoldRequest, Hold as HoldMessage, HoldState, PlaceHoldRequest,
    ReleaseHoldRequest, Transaction, TransactionKind, UpdateHoldRequest,
};
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::{
    model::command::{Rejection, Reply, Response},
    model::money::{Frame, Funds, leg, precondition},
    model::{Hold, LIMIT, Model, currency_mismatch, microseconds, money_in, text, units},
};

impl Model {
    pub(super) fn place_hold(
        &mut self,
        request: &PlaceHoldRequest,
        reply: &Reply,
    ) -> Result<HoldMessage, Rejection> {
        let by_server = reply.as_ref().ok().and_then(|response| response.holds.first());
        let hold_id = match request.hold_id.as_str() {
            "" => by_server.map(|hold| hold.hold_id.clone()).unwrap_or_default(),
            hold_id => hold_id.to_owned(),
        };
        if self.holds.contains_key(&hold_id) {
            let metadata = [("hold_id", hold_id)];
            return Err(Rejection::new(Code::AlreadyExists, "HOLD_EXISTS", &metadata));
        }
        let expire_time = request.expire_time.as_ref().map(rounded_up);
        let expire_us = expire_time.as_ref().map(microseconds);
        self.is_in_the_future(expire_us, reply)?;
        self.can_hold(request)?;
        let create_time = by_server.and_then(|hold| hold.create_time);
        if let (Some(create_time), Some(expire_us)) = (&create_time, expire_us) {
            assert!(microseconds(create_time) < expire_us, "placed after the expiry");
        }
        let message = HoldMessage {
            created_by: String::new(),
            ended_by: String::new(),
            hold_id: hold_id.clone(),
            account_id: request.account_id.clone(),
            amount: request.amount.clone(),
            state: HoldState::Open.into(),
            expire_time,
            captured_amount: None,
            transaction_id: String::new(),
            description: request.description.clone(),
            labels: request.labels.clone(),
            create_time,
            update_time: create_time,
            request_id: request.request_id.clone(),
        };
        self.changed(&request.account_id, create_time);
        let account = self.accounts.get_mut(&request.account_id).expect("an account");
        account.open_holds.insert(hold_id.clone());
        self.expiring.extend(expire_us.map(|time| (time, hold_id.clone())));
        let amount = units(request.amount.as_ref().expect("an amount"));
        self.holds.insert(hold_id, Hold { amount, captured: 0, message: message.clone() });
        Ok(message)
    }

    fn is_in_the_future(&self, expire_us: Option<i64>, reply: &Reply) -> Result<(), Rejection> {
        let now_us = match reply {
            Err(rejection) => rejection.metadata.get("now_us").cloned().unwrap_or_default(),
            Ok(_) => String::new(),
        };
        // The server's clock may be slightly ahead.
        let later_us = now_us.parse().unwrap_or(i64::MIN);
        let Some(expire_us) = expire_us.filter(|it| *it <= self.now_us.max(later_us)) else {
            return Ok(());
        };
        let metadata = [("now_us", now_us), ("expire_time_us", expire_us.to_string())];
        Err(Rejection::new(Code::FailedPrecondition, "EXPIRE_TIME_PASSED", &metadata))
    }

    pub(super) fn update_hold(
        &mut self,
        request: &UpdateHoldRequest,
        reply: &Reply,
    ) -> Result<HoldMessage, Rejection> {
        let hold = self.open_hold(&request.hold_id)?.clone();
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let takes = |name: &str, is_set| match paths.is_empty() {
            true => is_set,
            false => paths.iter().any(|path| path == name),
        };
        let expire_time = match takes("expire_time", request.expire_time.is_some()) {
            true => request.expire_time.as_ref().map(rounded_up),
            false => hold.message.expire_time,
        };
        let expire_us = expire_time.as_ref().map(microseconds);
        if expire_time != hold.message.expire_time {
            self.is_in_the_future(expire_us, reply)?;
        }
        let account_id = &hold.message.account_id;
        let account = &self.accounts[account_id];
        let amount = request.amount.as_ref().filter(|_| takes("amount", true));
        if let Some(amount) = amount.filter(|it| it.currency_code != account.currency_code) {
            return Err(currency_mismatch(account_id, account, &amount.currency_code));
        }
        let after = amount.map_or(hold.amount, units);
        let growth = after - hold.amount;
        if growth > 0 && account.state == AccountState::Frozen {
            return Err(precondition("ACCOUNT_FROZEN", account_id));
        }
        if hold.captured > 0 && after <= hold.captured {
            let metadata = [
                ("hold_id", request.hold_id.clone()),
                ("account_id", account_id.clone()),
                ("currency_code", account.currency_code.clone()),
                ("captured", text(&account.currency_code, hold.captured)),
                ("required", text(&account.currency_code, after)),
            ];
            let reason = "HOLD_AMOUNT_TOO_LOW";
            return Err(Rejection::new(Code::FailedPrecondition, reason, &metadata));
        }
        if growth > 0 && !account.unlimited_overdraft && growth > self.available(account_id) {
            return Err(self.insufficient_funds(account_id, growth));
        }
        if self.held(account_id) + growth >= LIMIT {
            return Err(self.out_of_range(account_id, growth));
        }
        let currency_code = account.currency_code.clone();
        self.expiring.retain(|(_, other)| *other != request.hold_id);
        self.expiring.extend(expire_us.map(|time| (time, request.hold_id.clone())));
        let by_server = reply.as_ref().ok().and_then(|response| response.holds.first());
        let hold = self.holds.get_mut(&request.hold_id).expect("a hold");
        hold.amount = after;
        hold.message.amount = Some(money_in(&currency_code, after));
        hold.message.expire_time = expire_time;
        hold.message.update_time = by_server.and_then(|hold| hold.update_time);
        let message = hold.message.clone();
        self.changed(&message.account_id, message.update_time);
        Ok(message)
    }

    fn can_hold(&self, request: &PlaceHoldRequest) -> Result<(), Rejection> {
        let account = self.account(&request.account_id)?;
        match account.state {
            AccountState::Closed => {
                return Err(precondition("ACCOUNT_CLOSED", &request.account_id));
            }
            AccountState::Frozen => {
                return Err(precondition("ACCOUNT_FROZEN", &request.account_id));
            }
            _ => {}
        }
        let amount = request.amount.clone().expect("an amount");
        if amount.currency_code != account.currency_code {
            return Err(currency_mismatch(&request.account_id, account, &amount.currency_code));
        }
        let units = units(&amount);
        if !account.unlimited_overdraft && units > self.available(&request.account_id) {
            return Err(self.insufficient_funds(&request.account_id, units));
        }
        if self.held(&request.account_id) + units >= LIMIT {
            return Err(self.out_of_range(&request.account_id, units));
        }
        Ok(())
    }

    pub(super) fn hold(&self, hold_id: &str) -> Result<&Hold, Rejection> {
        let metadata = [("hold_id", hold_id.to_owned())];
        let missing = || Rejection::new(Code::NotFound, "HOLD_NOT_FOUND", &metadata);
        self.holds.get(hold_id).ok_or_else(missing)
    }

    fn open_hold(&self, hold_id: &str) -> Result<&Hold, Rejection> {
        let hold = self.hold(hold_id)?;
        let state = match hold.message.state() {
            HoldState::Open => return Ok(hold),
            HoldState::Captured => "captured",
            HoldState::Released => "released",
            _ => "expired",
        };
        let metadata = [("hold_id", hold_id.to_owned()), ("state", state.to_owned())];
        Err(Rejection::new(Code::FailedPrecondition, "HOLD_NOT_OPEN", &metadata))
    }

    pub(super) fn capture_hold(
        &mut self,
        request: &CaptureHoldRequest,
        reply: &Reply,
    ) -> Result<(Transaction, HoldMessage), Rejection> {
        let response = &reply.as_ref().ok().cloned().unwrap_or_default();
        let hold = self.open_hold(&request.hold_id)?.clone();
        let currency_code = &hold.message.amount.as_ref().expect("an amount").currency_code;
        let whole = money_in(currency_code, hold.held());
        let amount = request.amount.clone().unwrap_or_else(|| whole.clone());
        let taken = units(&amount);
        let is_excess = amount.currency_code == whole.currency_code && taken > hold.held();
        if is_excess && !request.allow_excess {
            let metadata = [
                ("hold_id", request.hold_id.clone()),
                ("account_id", hold.message.account_id.clone()),
                ("currency_code", whole.currency_code.clone()),
                ("held", whole.value.clone()),
                ("required", text(&amount.currency_code, taken)),
            ];
            let reason = "HOLD_AMOUNT_EXCEEDED";
            return Err(Rejection::new(Code::FailedPrecondition, reason, &metadata));
        }
        let source = hold.message.account_id.as_str();
        let mut legs = vec![leg(source, &amount.currency_code, -taken)];
        if !request.destination_account_id.is_empty() {
            legs.push(leg(&request.destination_account_id, &amount.currency_code, taken));
        }
        self.judge(&legs, Funds::Held(source, hold.held()))?;
        self.takes_effect(&request.effective_time, reply)?;
        if request.destination_account_id.is_empty() {
            self.comes_in(&amount.currency_code, -taken);
        }
        let frame = Frame {
            kind: TransactionKind::Capture,
            request_id: request.request_id.clone(),
            description: request.description.clone(),
            labels: request.labels.clone(),
            reverses_transaction_id: String::new(),
            forced: false,
            effective_time: request.effective_time,
        };
        let transaction = self.carry_out(&legs, frame, response);
        let is_kept = request.keep_open && taken < hold.held();
        if !is_kept {
            self.end_hold(&request.hold_id);
        }
        let hold = self.holds.get_mut(&request.hold_id).expect("a hold");
        hold.captured += taken;
        hold.amount = hold.amount.max(hold.captured);
        let Hold { amount: whole, captured, message } = hold;
        message.set_state(if is_kept { HoldState::Open } else { HoldState::Captured });
        message.amount = Some(money_in(&amount.currency_code, *whole));
        message.captured_amount = Some(money_in(&amount.currency_code, *captured));
        message.transaction_id = transaction.transaction_id.clone();
        message.update_time = response.holds.first().and_then(|hold| hold.update_time);
        Ok((transaction, message.clone()))
    }

    pub(super) fn release_hold(
        &mut self,
        request: &ReleaseHoldRequest,
        response: &Response,
    ) -> Result<HoldMessage, Rejection> {
        self.open_hold(&request.hold_id)?;
        self.end_hold(&request.hold_id);
        let hold = &mut self.holds.get_mut(&request.hold_id).expect("a hold").message;
        hold.set_state(HoldState::Released);
        hold.update_time = response.holds.first().and_then(|hold| hold.update_time);
        let hold = hold.clone();
        self.changed(&hold.account_id, hold.update_time);
        Ok(hold)
    }
}

/// Rounded to whole microseconds, as the service stores it.
fn rounded_up(time: &Timestamp) -> Timestamp {
    let nanos = (time.nanos + 999) / 1000 * 1000;
    let (seconds, nanos) = (i64::from(nanos / 1_000_000_000), nanos % 1_000_000_000);
    Timestamp { seconds: time.seconds + seconds, nanos }
}
