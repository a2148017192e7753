//! The context of a call: its caller and its deadline.

use tonic::Request;

use crate::{auth, grpc::middleware::deadline::Deadline, ledger::CallContext};

/// Splits a request into its context and its message.
pub fn unpack<T>(request: Request<T>) -> (CallContext, T) {
    let extensions = request.extensions();
    let (caller, deadline) = (auth::caller(extensions), Deadline::of(extensions).at);
    (CallContext { caller, deadline }, request.into_inner())
}
