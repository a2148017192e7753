//! Commands for holds: place, capture, release.

use crate::{
    domain::{
        command::{Action, Request},
        hold::{Capture, HoldRef, NewHold},
        ids::Identity,
        money::Currencies,
    },
    grpc::{
        decode::decoder::{Decoder, Sign, empty_request},
        error::invalid::Invalid,
    },
    proto::{self, ErrorReason},
};

/// A hold to place, on behalf of `caller`.
pub fn new_hold(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::PlaceHoldRequest,
) -> Result<Request, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", &request.request_id);
    let hold_id = (!request.hold_id.is_empty())
        .then(|| decoder.new_hold_id("hold_id", &request.hold_id))
        .flatten();
    let account_id = decoder.account_id("account_id", &request.account_id);
    let money = decoder.amount("amount", request.amount.as_ref(), Sign::Positive);
    let reason = ErrorReason::InvalidExpireTime;
    let expire_time = request.expire_time.as_ref();
    let expire_time_us = decoder.time_or("expire_time", expire_time, reason);
    decoder.description(&request.description);
    decoder.labels(&request.labels);
    let decoded = request_id.zip(account_id).zip(money);
    let decoded = decoded.map(|((request_id, account_id), (currency, amount))| Request {
        action: Action::PlaceHold(NewHold {
            hold_id,
            account_id,
            currency,
            amount,
            expire_time_us,
        }),
        description: request.description,
        labels: request.labels,
        ..empty_request(caller, request_id)
    });
    decoder.finish(decoded)
}

/// A hold to capture, on behalf of `caller`.
pub fn capture(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::CaptureHoldRequest,
) -> Result<Request, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", &request.request_id);
    let hold_id = decoder.hold_id("hold_id", &request.hold_id);
    let money = request.amount.as_ref();
    let amount = money.and_then(|money| decoder.amount("amount", Some(money), Sign::Positive));
    let destination = request.destination_account_id;
    let destination_account_id = (!destination.is_empty())
        .then(|| decoder.account_id("destination_account_id", &destination))
        .flatten();
    decoder.description(&request.description);
    decoder.labels(&request.labels);
    let decoded = request_id.zip(hold_id).map(|(request_id, hold_id)| {
        let hold = HoldRef { hold_id, resolved: None };
        Request {
            action: Action::CaptureHold(Capture { hold, amount, destination_account_id }),
            description: request.description,
            labels: request.labels,
            ..empty_request(caller, request_id)
        }
    });
    decoder.finish(decoded)
}

/// A hold to release, on behalf of `caller`.
pub fn release(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::ReleaseHoldRequest,
) -> Result<Request, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", &request.request_id);
    let hold_id = decoder.hold_id("hold_id", &request.hold_id);
    let decoded = request_id.zip(hold_id).map(|(request_id, hold_id)| Request {
        action: Action::ReleaseHold(HoldRef { hold_id, resolved: None }),
        ..empty_request(caller, request_id)
    });
    decoder.finish(decoded)
}
