//! The service for operators.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    ledger::{Distribution, Ledger},
    proto::{self, admin_service_server::AdminService},
};

/// Serves `passbook.v1.AdminService`.
pub struct AdminServiceImpl {
    ledger: Arc<Ledger>,
}

impl AdminServiceImpl {
    /// A service over this ledger.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger }
    }
}

#[tonic::async_trait]
impl AdminService for AdminServiceImpl {
    async fn get_write_path_stats(
        &self,
        _: Request<proto::GetWritePathStatsRequest>,
    ) -> Result<Response<proto::GetWritePathStatsResponse>, Status> {
        const PER_SECOND: f64 = 1_000_000.0;
        let stats = self.ledger.write_path_stats();
        Ok(Response::new(proto::GetWritePathStatsResponse {
            batch_size: Some(encode(stats.batch_size, 1.0)),
            queue_time: Some(encode(stats.queue_time, PER_SECOND)),
            lock_wait: Some(encode(stats.lock_wait, PER_SECOND)),
            write_time: Some(encode(stats.write_time, PER_SECOND)),
            commit_time: Some(encode(stats.commit_time, PER_SECOND)),
        }))
    }
}

fn encode(distribution: Distribution, per_unit: f64) -> proto::Distribution {
    proto::Distribution {
        count: i64::try_from(distribution.count).unwrap_or(i64::MAX),
        sum: distribution.sum as f64 / per_unit,
        p50: distribution.p50 as f64 / per_unit,
        p99: distribution.p99 as f64 / per_unit,
        max: distribution.max as f64 / per_unit,
    }
}
