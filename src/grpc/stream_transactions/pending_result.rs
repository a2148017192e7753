//! The result of one request, already there or awaited.

use tonic_types::pb;

use crate::{
    domain::unit_of_work::RequestResult,
    grpc::{
        error::StatusBuilder,
        metrics::{self, RequestMode},
    },
    ledger::PendingRequest,
};

/// The result of one request, already there or awaited.
pub enum PendingResult {
    /// The request was submitted.
    Submitted(PendingRequest, RequestMode),
    /// The request is invalid, denied or shed. Boxed, because most requests are not.
    Failed(Box<pb::Status>),
}

impl PendingResult {
    /// The result of a request that was not submitted.
    pub fn failed(error: impl Into<StatusBuilder>, mode: RequestMode) -> Self {
        Self::Failed(Box::new(metrics::counted(error, mode).into_proto()))
    }

    /// Waits for the result.
    pub async fn wait(self) -> Result<RequestResult, pb::Status> {
        let (pending, mode) = match self {
            Self::Failed(error) => return Err(*error),
            Self::Submitted(pending, mode) => (pending, mode),
        };
        match pending.wait().await {
            Ok(result) => {
                metrics::count_applied(result.replayed, mode);
                Ok(result)
            }
            Err(error) => Err(metrics::counted(error, mode).into_proto()),
        }
    }
}
