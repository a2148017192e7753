//! AdminService: what operators need to know of a running server.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    grpc::{error::invalid::Invalid, middleware::authentication},
    ledger::{Ledger, Summary},
    proto::{self, ErrorReason, admin_service_server::AdminService},
};

/// Contended accounts in a response if the request does not say: what fits on a screen.
const CONTENDED_DEFAULT: usize = 20;

/// Serves `passbook.v1.AdminService`.
pub struct AdminServiceImpl {
    pub ledger: Arc<Ledger>,
}

#[tonic::async_trait]
impl AdminService for AdminServiceImpl {
    async fn get_write_path_stats(
        &self,
        mut request: Request<proto::GetWritePathStatsRequest>,
    ) -> Result<Response<proto::GetWritePathStatsResponse>, Status> {
        const PER_SECOND: f64 = 1_000_000.0;
        authentication::caller_now(request.extensions_mut())?;
        let stats = self.ledger.write_path_stats();
        Ok(Response::new(proto::GetWritePathStatsResponse {
            batch_size: Some(encode(stats.batch_size, 1.0)),
            queue_time: Some(encode(stats.queue_time, PER_SECOND)),
            lock_wait: Some(encode(stats.lock_wait, PER_SECOND)),
            write_time: Some(encode(stats.write_time, PER_SECOND)),
            commit_time: Some(encode(stats.commit_time, PER_SECOND)),
        }))
    }

    async fn list_contended_accounts(
        &self,
        mut request: Request<proto::ListContendedAccountsRequest>,
    ) -> Result<Response<proto::ListContendedAccountsResponse>, Status> {
        authentication::caller_now(request.extensions_mut())?;
        let limit = match usize::try_from(request.into_inner().page_size) {
            Ok(0) => CONTENDED_DEFAULT,
            // The ledger keeps fewer contended accounts than the contract's largest page.
            Ok(size) => size,
            Err(_) => {
                let reason = ErrorReason::InvalidPageSize;
                return Err(Invalid::new(reason, "page_size", "must not be negative").into());
            }
        };
        let accounts = self.ledger.most_contended_accounts(limit).into_iter();
        let accounts = accounts.map(|account| proto::ContendedAccount {
            account_id: account.account_id.to_string(),
            waits: account.waits,
            waits_error: account.waits_error,
            seconds_waited: account.waited.as_secs_f64(),
        });
        Ok(Response::new(proto::ListContendedAccountsResponse { accounts: accounts.collect() }))
    }
}

fn encode(distribution: Summary, per_unit: f64) -> proto::Distribution {
    proto::Distribution {
        count: i64::try_from(distribution.count).unwrap_or(i64::MAX),
        sum: distribution.sum as f64 / per_unit,
        p50: distribution.p50 as f64 / per_unit,
        p99: distribution.p99 as f64 / per_unit,
        max: distribution.max as f64 / per_unit,
    }
}
