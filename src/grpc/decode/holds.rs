//! Commands for holds: place, update, capture, release.

use crate::{
    domain::{
        account::Labels,
        command::{Action, Request},
        hold::{Capture, HoldRef, HoldUpdate, NewExpiry, NewHold},
    },
    grpc::decode::decoder::{Decoder, Sign, given},
    proto::{self, ErrorReason},
};

/// A hold to place.
pub fn new_hold(decoder: &mut Decoder<'_>, request: proto::PlaceHoldRequest) -> Option<Request> {
    let hold_id = given(&request.hold_id).and_then(|it| decoder.new_hold_id(it));
    let account_id = decoder.account_id("account_id", &request.account_id);
    let money = decoder.amount("amount", request.amount.as_ref(), Sign::Positive);
    let expire_time = request.expire_time.as_ref();
    let expire_time_us = decoder.time(ErrorReason::InvalidExpireTime, "expire_time", expire_time);
    let action = account_id.zip(money).map(|(account_id, (currency, amount))| {
        Action::PlaceHold(NewHold { hold_id, account_id, currency, amount, expire_time_us })
    });
    decoder.request(&request.request_id, action, request.description, request.labels)
}

/// A hold to change.
pub fn hold_update(
    decoder: &mut Decoder<'_>,
    request: proto::UpdateHoldRequest,
) -> Option<Request> {
    let (money, expire_time) = (request.amount.as_ref(), request.expire_time.as_ref());
    let fields = [("amount", money.is_some()), ("expire_time", expire_time.is_some())];
    let mask = decoder.update_mask(request.update_mask.as_ref(), &fields);
    let hold_id = decoder.hold_id(&request.hold_id);
    let in_mask = |name| mask.contains(name);
    let is_needed = money.is_some() || in_mask("amount");
    let amount = is_needed.then(|| decoder.amount("amount", money, Sign::Positive)).flatten();
    let expire_time_us = decoder.time(ErrorReason::InvalidExpireTime, "expire_time", expire_time);
    let expiry = expire_time_us.map_or(NewExpiry::Never, NewExpiry::At);
    let action = hold_id.map(|hold_id| {
        Action::UpdateHold(HoldUpdate {
            hold: HoldRef { hold_id, resolved: None },
            amount: amount.filter(|_| in_mask("amount")),
            expiry: in_mask("expire_time").then_some(expiry),
        })
    });
    decoder.request(&request.request_id, action, String::new(), Labels::new())
}

/// A hold to capture.
pub fn capture(decoder: &mut Decoder<'_>, request: proto::CaptureHoldRequest) -> Option<Request> {
    let hold_id = decoder.hold_id(&request.hold_id);
    let money = request.amount.as_ref();
    let amount = money.and_then(|money| decoder.amount("amount", Some(money), Sign::Positive));
    let destination = given(&request.destination_account_id);
    let destination_account_id =
        destination.and_then(|it| decoder.account_id("destination_account_id", it));
    let action = hold_id.map(|hold_id| {
        let hold = HoldRef { hold_id, resolved: None };
        let (keep_open, allow_excess) = (request.keep_open, request.allow_excess);
        let capture = Capture { hold, amount, destination_account_id, keep_open, allow_excess };
        Action::CaptureHold(capture)
    });
    let effective_time_us = decoder.effective_time(request.effective_time.as_ref());
    let decoded =
        decoder.request(&request.request_id, action, request.description, request.labels)?;
    Some(Request { effective_time_us, ..decoded })
}

/// A hold to release.
pub fn release(decoder: &mut Decoder<'_>, request: proto::ReleaseHoldRequest) -> Option<Request> {
    let hold_id = decoder.hold_id(&request.hold_id);
    let action = hold_id.map(|hold_id| Action::ReleaseHold(HoldRef { hold_id, resolved: None }));
    decoder.request(&request.request_id, action, String::new(), Labels::new())
}
