//! What a request brings besides its message.

use tonic::Request;

use crate::{auth, grpc::middleware::deadline::Deadline, ledger::CallContext};

/// Takes a request apart: who calls and until when, and the message.
pub fn unpack<T>(request: Request<T>) -> (CallContext, T) {
    let extensions = request.extensions();
    let (caller, deadline) = (auth::caller(extensions), Deadline::of(extensions).at);
    (CallContext { caller, deadline }, request.into_inner())
}
