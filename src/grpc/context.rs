//! Who calls, and until when.

use std::sync::Arc;

use prost::{Message, Name};
use tonic::Request;

use crate::{
    budget::Budgets,
    grpc::{
        error::StatusBuilder,
        middleware::{authentication, deadline::Deadline},
    },
    ledger::{CallContext, Error},
    proto,
};

/// A message of at most this many bytes is not measured: what a call can keep of it is little.
const UNMEASURED_BYTES_MAX: usize = 256;

/// The caller, with the rights of this moment, and the deadline of a call.
pub fn context<T>(request: &mut Request<T>) -> Result<CallContext, StatusBuilder> {
    let extensions = request.extensions_mut();
    Ok(CallContext {
        caller: authentication::caller_now(extensions)?,
        deadline: Deadline::of(extensions).at,
        audit: extensions.get().cloned(),
        share: None,
    })
}

/// Takes the only message of a call. What the call keeps of it is charged until the context is dropped.
///
/// # Errors
/// Also: there is no room for the message.
pub fn open<T: Message + Name>(
    budgets: &Budgets,
    mut request: Request<T>,
) -> Result<(CallContext, T), StatusBuilder> {
    let mut context = context(&mut request)?;
    let message = request.into_inner();
    if message.encoded_len() > UNMEASURED_BYTES_MAX {
        let bytes = proto::memory(&message);
        let share = budgets.request_share(&context.caller.identity, bytes);
        context.share = Some(Arc::new(share.map_err(Error::from)?));
    }
    Ok((context, message))
}
