//! Changes under a `request_id`: every command that makes one is `send` with its request.

use passbook_command::{
    CliError,
    proto::{
        CaptureHoldResponse, DepositResponse, PlaceHoldResponse, PostTransactionResponse,
        ReleaseHoldResponse, ReverseTransactionResponse, TransferResponse, UpdateHoldResponse,
        WithdrawResponse,
    },
};
use prost::Name;
use tonic::{Request, Response, Status};

use crate::{
    arguments::RequestId,
    server::{CallKind, Server},
    view::{hold_text, transaction_text},
};

/// The response to a change.
pub trait ChangeResponse: Name {
    /// Whether the request was applied before, and not by this call.
    fn replayed(&self) -> bool;

    /// Whether the request was only validated.
    fn is_validated(&self) -> bool;

    /// The effects of the request, as people read them.
    fn effects(&self) -> String;
}

macro_rules! responses {
    ($text:ident of $effect:ident, $id:ident: $($response:ty),+) => {
        $(impl ChangeResponse for $response {
            fn replayed(&self) -> bool {
                self.replayed
            }

            fn is_validated(&self) -> bool {
                self.$effect.as_ref().is_some_and(|it| it.$id.is_empty())
            }

            fn effects(&self) -> String {
                self.$effect.as_ref().map($text).unwrap_or_default()
            }
        })+
    };
}

responses! {
    transaction_text of transaction, transaction_id: DepositResponse, WithdrawResponse, TransferResponse,
    PostTransactionResponse, ReverseTransactionResponse, CaptureHoldResponse
}
responses! {
    hold_text of hold, hold_id: PlaceHoldResponse, UpdateHoldResponse, ReleaseHoldResponse
}

/// Prints the id of a change, sends the request with this id, and prints the response.
pub async fn send<Q: Clone, R: ChangeResponse>(
    server: &Server,
    request_id: RequestId,
    request: impl FnOnce(String) -> Q,
    call: impl AsyncFn(Request<Q>) -> Result<Response<R>, Status>,
) -> Result<(), CliError> {
    let request_id = request_id.announce(server.format());
    let request = request(request_id.clone());
    let response = server.call(CallKind::Change(&request_id), request, call).await?;
    server.format().print(&response, || {
        let note = match response.replayed() {
            true => "replayed: this request was applied before, and was not applied again\n\n",
            false if response.is_validated() => {
                "validated: the request would be applied now; nothing was stored\n\n"
            }
            false => "",
        };
        format!("{note}{}", response.effects())
    })
}
