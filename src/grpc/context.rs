//! What every call brings: who calls, and until when.

use tonic::Request;

use crate::{auth, domain::authorization::Caller, grpc::middleware::deadline::Deadline};

/// Who calls, until when it must be answered, and what is asked.
pub fn open<T>(request: Request<T>) -> (Caller, Deadline, T) {
    let extensions = request.extensions();
    (auth::caller(extensions), Deadline::of(extensions), request.into_inner())
}
