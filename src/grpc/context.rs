//! Who calls, and until when.

use tonic::Request;

use crate::{
    grpc::{
        error::StatusBuilder,
        middleware::{authentication, deadline::Deadline},
    },
    ledger::CallContext,
};

/// The caller, with the rights of this moment, and the deadline of a call.
pub fn context<T>(request: &mut Request<T>) -> Result<CallContext, StatusBuilder> {
    let extensions = request.extensions_mut();
    Ok(CallContext {
        caller: authentication::caller_now(extensions)?,
        deadline: Deadline::of(extensions).at,
        audit: extensions.get().cloned(),
    })
}
