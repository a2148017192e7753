//! Holds of the model: placed, captured, released. `state` expires them.

use passbook::proto::{
    AccountState, CaptureHoldRequest, Hold as HoldMessage, HoldState, PlaceHoldRequest,
    ReleaseHoldRequest, Transaction, TransactionKind,
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
        let now_us = match reply {
            Err(rejection) => rejection.metadata.get("now_us").cloned().unwrap_or_default(),
            Ok(_) => String::new(),
        };
        // The server's clock may be slightly ahead.
        let later_us = now_us.parse().unwrap_or(i64::MIN);
        if let Some(expire_us) = expire_us.filter(|it| *it <= self.now_us.max(later_us)) {
            let metadata = [("now_us", now_us), ("expire_time_us", expire_us.to_string())];
            let reason = "EXPIRE_TIME_PASSED";
            return Err(Rejection::new(Code::FailedPrecondition, reason, &metadata));
        }
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
        self.holds.insert(hold_id, Hold { amount, message: message.clone() });
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
        response: &Response,
    ) -> Result<(Transaction, HoldMessage), Rejection> {
        let hold = self.open_hold(&request.hold_id)?.clone();
        let whole = hold.message.amount.clone().expect("an amount");
        let amount = request.amount.clone().unwrap_or_else(|| whole.clone());
        let taken = units(&amount);
        if amount.currency_code == whole.currency_code && taken > hold.amount {
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
        self.judge(&legs, Funds::Held(source, hold.amount))?;
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
        };
        let transaction = self.carry_out(&legs, frame, response);
        self.end_hold(&request.hold_id);
        let hold = &mut self.holds.get_mut(&request.hold_id).expect("a hold").message;
        hold.set_state(HoldState::Captured);
        hold.captured_amount = Some(money_in(&amount.currency_code, taken));
        hold.transaction_id = transaction.transaction_id.clone();
        hold.update_time = response.holds.first().and_then(|hold| hold.update_time);
        Ok((transaction, hold.clone()))
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
