//! Partitions of the ledger: one task makes them, and each connection takes the next one.

use std::sync::Arc;

use sea_orm::DatabaseTransaction;
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinError, JoinSet},
};

use crate::storage::verify::error::VerifyError;
use crate::{domain::verification::LedgerTotals, storage::StorageError};

/// Above every id in the order of bytes: the last character of Unicode.
pub const LAST: &str = "\u{10ffff}";
/// Partitions made ahead for each connection: making them is cheap, and no connection should wait.
const PARTITIONS_AHEAD: usize = 2;

/// Runs `work` on every partition, one per idle connection, and sums the results. Of several faults
/// returns that of the first partition.
///
/// `partition` sends the partitions in order until the channel is closed.
pub async fn for_each<P, Partitioning, F, Fut>(
    connections: &[Arc<DatabaseTransaction>],
    partition: impl FnOnce(Arc<DatabaseTransaction>, mpsc::Sender<P>) -> Partitioning,
    work: F,
) -> Result<LedgerTotals, VerifyError>
where
    P: Send + 'static,
    Partitioning: Future<Output = Result<(), VerifyError>> + Send + 'static,
    F: Fn(Arc<DatabaseTransaction>, P) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<LedgerTotals, VerifyError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(connections.len() * PARTITIONS_AHEAD);
    // With the number of partitions taken so far.
    let receiver = Arc::new(Mutex::new((0_u64, receiver)));
    let partitioning = tokio::spawn(partition(connections[0].clone(), sender));
    let mut workers = JoinSet::new();
    for connection in connections {
        let (connection, receiver, work) = (connection.clone(), receiver.clone(), work.clone());
        workers.spawn(async move {
            let mut totals = LedgerTotals::default();
            loop {
                let (number, partition) = {
                    let mut receiver = receiver.lock().await;
                    receiver.0 += 1;
                    let Some(partition) = receiver.1.recv().await else { return Ok(totals) };
                    (receiver.0, partition)
                };
                let done = work(connection.clone(), partition).await;
                if let Err(error) = done.and_then(|found| Ok(totals.add(found)?)) {
                    // Other workers finish theirs: a partition before this one may have a fault.
                    receiver.lock().await.1.close();
                    return Err((number, error));
                }
            }
        });
    }
    let mut totals = LedgerTotals::default();
    let mut first: Option<(u64, VerifyError)> = None;
    while let Some(worker) = workers.join_next().await {
        match worker.map_err(task_failed)? {
            Ok(found) => totals.add(found)?,
            Err(error) if first.as_ref().is_none_or(|first| error.0 < first.0) => {
                first = Some(error);
            }
            Err(_) => {}
        }
    }
    let partitioned = partitioning.await.map_err(task_failed)?;
    first.map_or(Ok(()), |(_, error)| Err(error)).and(partitioned).map(|()| totals)
}

fn task_failed(error: JoinError) -> VerifyError {
    StorageError::Unavailable(format!("a task of the verification failed: {error}")).into()
}
