//! How a read is made: with a permit, to its end, and with what is under way.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use crate::{
    ledger::{Error, Ledger},
    storage::{Expiring, StorageError, Store},
};

/// A read that takes longer hangs on a connection to nowhere: above the database's own time-out for
/// a statement of a reader, and well below the ten seconds in which the service is to be back
/// after a partition.
const READ_TIME_MAX: Duration = Duration::from_secs(7);

impl Ledger {
    /// A read, for as long as its caller waits.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        deadline: Instant,
        query: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, Error> {
        let late = |_| Error::DeadlineExceeded(None);
        let permit = timeout_at(deadline, self.store.read_permit()).await.map_err(late)?;
        let reading = tokio::spawn(async move {
            let result = tokio::time::timeout(READ_TIME_MAX, query).await;
            drop(permit);
            result.unwrap_or_else(|_| {
                let seconds = READ_TIME_MAX.as_secs();
                let text = format!("no answer from the database within {seconds} s");
                Err(StorageError::Unavailable(text))
            })
        });
        match timeout_at(deadline, reading).await.map_err(late)? {
            Ok(result) => result.map_err(Error::from_read),
            Err(panic) => Err(Error::from_read(StorageError::Corrupt(panic.to_string()))),
        }
    }

    /// A permit for a read that looks at many rows, if this is one. It goes with the query, to its
    /// end.
    pub(super) async fn scan_permit(
        &self,
        is_scan: bool,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if !is_scan {
            return Ok(None);
        }
        let permit = timeout_at(deadline, self.store.scan_permit()).await;
        permit.map_err(|_| Error::DeadlineExceeded(None))
    }

    /// Reads what depends on holds, some of which may have expired without that anybody has
    /// recorded it. Whoever is told that a hold has expired must never see it captured: so a
    /// capture that was judged in time, and may be under way, is waited for.
    pub(super) async fn with_expiry<Question, T, Query>(
        &self,
        deadline: Instant,
        is_scan: bool,
        question: Question,
        query: impl Fn(Arc<Store>, Question, i64) -> Query,
    ) -> Result<T, Error>
    where
        Question: Clone,
        T: Send + 'static,
        Query: Future<Output = Result<Expiring<T>, StorageError>> + Send + 'static,
    {
        let ask = async |until_us| {
            let scan = self.scan_permit(is_scan, deadline).await?;
            let query = query(self.store.clone(), question.clone(), until_us);
            let query = async move {
                let _scan = scan;
                query.await
            };
            self.read(deadline, query).await
        };
        let Expiring { value, expired_us } = ask(i64::MAX).await?;
        let Some(expired_us) = expired_us else { return Ok(value) };
        self.settle(expired_us, deadline).await?;
        Ok(ask(expired_us).await?.value)
    }

    /// Waits until a time is settled, on the service's own connections.
    pub(super) async fn settle(&self, time_us: i64, deadline: Instant) -> Result<(), Error> {
        let settled = timeout_at(deadline, self.own_reads.settle(time_us)).await;
        settled.map_err(|_| Error::DeadlineExceeded(None))?.map_err(Error::from_read)
    }
}
