//! How long a read may take.

use std::time::Duration;

use tokio::time::timeout;

use crate::storage::StorageError;

/// How long one read may take before it is dropped and repeated. Less than a read of a caller may,
/// because every watcher waits for it.
const WATCH_READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Bounds a read in time. A dropped read leaks nothing.
pub async fn read<T>(
    query: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    let late = |_| StorageError::Unavailable(format!("no answer within {WATCH_READ_TIME_MAX:?}"));
    timeout(WATCH_READ_TIME_MAX, query).await.map_err(late)?
}
