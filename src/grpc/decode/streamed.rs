//! Requests of a stream: those of all kinds.

use crate::{
    domain::command,
    grpc::decode::{
        decoder::Decoder,
        holds::{capture, hold_update, new_hold, release},
        postings::{deposit, reversal, transaction, transfer, withdraw},
    },
    proto::streamed_request::Request,
};

/// A request of any kind.
pub fn streamed(decoder: &mut Decoder<'_>, request: Request) -> Option<command::Request> {
    match request {
        Request::Deposit(request) => deposit(decoder, request),
        Request::Withdraw(request) => withdraw(decoder, request),
        Request::Transfer(request) => transfer(decoder, request),
        Request::PostTransaction(request) => transaction(decoder, request),
        Request::ReverseTransaction(request) => reversal(decoder, request),
        Request::PlaceHold(request) => new_hold(decoder, request),
        Request::UpdateHold(request) => hold_update(decoder, request),
        Request::CaptureHold(request) => capture(decoder, request),
        Request::ReleaseHold(request) => release(decoder, request),
    }
}
