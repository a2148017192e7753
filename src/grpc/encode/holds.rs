//! Holds.

use crate::{
    domain::hold::{Hold, HoldState},
    grpc::encode::values::{id, money, time},
    proto,
};

/// Encodes a hold.
pub fn hold(hold: &Hold) -> proto::Hold {
    let captured = hold.captured.as_ref();
    proto::Hold {
        hold_id: hold.hold_id.to_string(),
        account_id: hold.account_id.to_string(),
        amount: Some(money(&hold.currency, hold.amount)),
        state: hold_state(hold.state).into(),
        expire_time: hold.expire_time_us.map(time),
        captured_amount: captured.map(|captured| money(&hold.currency, captured.amount)),
        transaction_id: id(captured.map(|captured| captured.transaction_id)),
        description: hold.description.clone(),
        labels: hold.labels.clone(),
        create_time: Some(time(hold.create_time_us)),
        update_time: Some(time(hold.update_time_us)),
        request_id: hold.request_id.to_string(),
        created_by: hold.created_by.to_string(),
        ended_by: hold.ended_by.to_string(),
    }
}

/// Encodes the state of a hold.
pub fn hold_state(state: HoldState) -> proto::HoldState {
    match state {
        HoldState::Open => proto::HoldState::Open,
        HoldState::Captured => proto::HoldState::Captured,
        HoldState::Released => proto::HoldState::Released,
        HoldState::Expired => proto::HoldState::Expired,
    }
}
