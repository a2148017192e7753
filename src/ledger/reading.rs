//! Runs reads: with a permit, to their end, and after uncommitted changes where that matters.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    ledger::{CallContext, Error, Ledger},
    storage::{Expiring, StorageError, Store},
};

/// A read that takes longer hangs on a dead connection. Above the database's own timeout for a
/// statement of a reader, and well below the ten seconds within which the service recovers from a
/// partition.
const READ_TIME_MAX: Duration = Duration::from_secs(7);

impl Ledger {
    /// Runs a read until its end, and returns its result if that comes before the deadline. Meanwhile it
    /// has a permit of its identity and one of all callers; a scan, which may examine many rows to find
    /// few, also one of each for scans. The identity's permit for scans rests for as long as the scan
    /// took: its scans take at most half of the time of one connection.
    pub(super) async fn read<T, Query>(
        &self,
        context: &CallContext,
        is_scan: bool,
        query: impl FnOnce(Arc<Store>) -> Query,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        Query: Future<Output = Result<T, StorageError>> + Send + 'static,
    {
        let late = |_| Error::DeadlineExceeded(None);
        let (deadline, identity) = (context.deadline, &context.caller.identity);
        let permits = timeout_at(deadline, async {
            // First those of the identity: nobody waits for himself with a permit of all callers.
            let own_scan = match is_scan {
                true => Some(self.scan_gate.enter(identity).await),
                false => None,
            };
            let own = self.read_gate.enter(identity).await;
            let scan = if is_scan { self.store.scan_permit().await } else { None };
            (own_scan, own, scan, self.store.read_permit().await)
        });
        let (own_scan, own, scan, permit) = permits.await.map_err(late)?;
        let query = query(self.store.clone());
        let reading = tokio::spawn(async move {
            let start = Instant::now();
            let result = tokio::time::timeout(READ_TIME_MAX, query).await;
            drop((own, scan, permit));
            if let Some(own_scan) = own_scan {
                own_scan.drop_after(start.elapsed());
            }
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

    /// Runs a read that depends on holds, some of which may have expired without a record of it. A
    /// caller who has seen a hold expired must never see it captured, so the read waits for captures
    /// that were in time and are not committed yet.
    pub(super) async fn with_expiry<T, Query>(
        &self,
        context: &CallContext,
        is_scan: bool,
        query: impl Fn(Arc<Store>, i64) -> Query,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        Query: Future<Output = Result<Expiring<T>, StorageError>> + Send + 'static,
    {
        let query = &query;
        let ask = |until_us| self.read(context, is_scan, move |store| query(store, until_us));
        let Expiring { value, expired_us } = ask(i64::MAX).await?;
        let Some(expired_us) = expired_us else { return Ok(value) };
        self.settle(expired_us, context.deadline).await?;
        Ok(ask(expired_us).await?.value)
    }

    /// Waits until a time is settled, on the reserved connections.
    pub(super) async fn settle(&self, time_us: i64, deadline: Instant) -> Result<(), Error> {
        let settled = timeout_at(deadline, self.own_reads.settle(time_us)).await;
        settled.map_err(|_| Error::DeadlineExceeded(None))?.map_err(Error::from_read)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        budget::Budgets,
        domain::{authorization::Caller, ids::Identity},
    };

    /// A ledger, and a call of the identity `a`.
    async fn ledger_and_context(directory: &TempDir) -> (Ledger, CallContext) {
        let store = Arc::new(Store::for_tests(directory).await);
        let ledger = Ledger::start(store, Budgets::for_tests(1, true), 1, None).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let caller = Caller::unrestricted("a");
        (ledger, CallContext { caller, deadline, audit: None })
    }

    #[tokio::test]
    async fn scans_of_an_identity_rest_for_as_long_as_they_took() {
        let directory = TempDir::new().unwrap();
        let (ledger, context) = ledger_and_context(&directory).await;
        let scan = |_| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        };
        ledger.read(&context, true, scan).await.unwrap();
        let a = &context.caller.identity;
        assert!(ledger.scan_gate.enter(a).now_or_never().is_none(), "a scans at once again");
        ledger.read_gate.enter(a).now_or_never().expect("other reads of a");
        let b = Identity::from_stored("b");
        ledger.scan_gate.enter(&b).now_or_never().expect("scans of others");
        assert!(ledger.store.scan_permit().now_or_never().is_some());
        ledger.scan_gate.enter(a).await;
    }

    #[tokio::test]
    async fn a_scan_that_waits_for_reads_of_its_identity_keeps_no_scan_of_others_out() {
        let directory = TempDir::new().unwrap();
        let (ledger, context) = ledger_and_context(&directory).await;
        let mut reads = Vec::new();
        while let Some(read) = ledger.read_gate.enter(&context.caller.identity).now_or_never() {
            reads.push(read);
        }
        let mut scan = pin!(ledger.read(&context, true, |_| async { Ok(()) }));
        assert!((&mut scan).now_or_never().is_none());
        assert!(ledger.store.scan_permit().now_or_never().is_some());
        drop(reads);
        scan.await.unwrap();
    }
}
