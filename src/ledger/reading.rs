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

/// Calls of an identity that wait to read, from which on its reads take only half of their time beside
/// others: more than honest callers have. Lower, and a busy identity reads slower beside others; higher,
/// and one that asks for large pages leaves others less of the processors.
const PAUSED_FROM_WAITING: usize = 8;

/// How often a read is repeated by the clock because more holds have expired meanwhile. Two are the rule;
/// more are read where holds expire within milliseconds of each other. With fewer, the last read is more
/// often of an earlier time than its rows; with more, it may never end before the deadline.
const READS_BY_CLOCK_MAX: usize = 10;
/// The same for scans, which may take seconds, so that more holds may expire in each.
const SCANS_BY_CLOCK_MAX: usize = 3;

/// What a read examines.
#[derive(Clone, Copy)]
pub(super) enum ReadKind {
    /// Rows that it finds by their keys.
    ByKey,
    /// Maybe many rows, to find few.
    Scan,
}

impl ReadKind {
    /// A scan if this is so, such as that a filter may leave out most of the rows.
    pub(super) fn scan_if(is_scan: bool) -> Self {
        if is_scan { Self::Scan } else { Self::ByKey }
    }

    fn reads_by_clock_max(self) -> usize {
        match self {
            Self::ByKey => READS_BY_CLOCK_MAX,
            Self::Scan => SCANS_BY_CLOCK_MAX,
        }
    }
}

impl Ledger {
    /// Runs a read until its end, and returns its result if that comes before the deadline. Meanwhile it
    /// has a permit of its identity and one of all callers; a scan, which may examine many rows to find
    /// few, also one of each for scans. The identity's permit for scans rests for as long as the scan
    /// took: its scans take at most half of the time of one connection. So does that of any read while many
    /// others of the identity wait, if several identities read.
    pub(super) async fn read<T, Query>(
        &self,
        context: &CallContext,
        kind: ReadKind,
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
            let own_scan = match kind {
                ReadKind::Scan => Some(self.scan_gate.enter(identity).await),
                ReadKind::ByKey => None,
            };
            let own = self.read_gate.enter(identity).await;
            let scan = match kind {
                ReadKind::Scan => self.store.scan_permit().await,
                ReadKind::ByKey => None,
            };
            (own_scan, own, scan, self.store.read_permit().await)
        });
        let (own_scan, own, scan, permit) = permits.await.map_err(late)?;
        let (query, gate) = (query(self.store.clone()), self.read_gate.clone());
        let reading = tokio::spawn(async move {
            let start = Instant::now();
            let result = tokio::time::timeout(READ_TIME_MAX, query).await;
            drop((scan, permit));
            gate.leave(own, start.elapsed(), PAUSED_FROM_WAITING);
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
    /// that were in time and are not committed yet, and reads again. If holds go on expiring, those that
    /// have expired during the last wait count as open.
    pub(super) async fn with_expiry<T, Query>(
        &self,
        context: &CallContext,
        kind: ReadKind,
        query: impl Fn(Arc<Store>, i64) -> Query,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        Query: Future<Output = Result<Expiring<T>, StorageError>> + Send + 'static,
    {
        let query = &query;
        let ask = |until_us| self.read(context, kind, move |store| query(store, until_us));
        let mut settled_us = i64::MIN;
        for _ in 0..kind.reads_by_clock_max() {
            let Expiring { value, expired_us, many_unrecorded } = ask(i64::MAX).await?;
            let identity = &context.caller.identity;
            many_unrecorded.into_iter().for_each(|id| self.expiry.record(identity, id));
            let Some(expired_us) = expired_us.filter(|it| *it > settled_us) else {
                return Ok(value);
            };
            self.settle(expired_us, context.deadline).await?;
            settled_us = expired_us;
        }
        Ok(ask(settled_us).await?.value)
    }

    /// Waits until a time is settled, on the reserved connections.
    pub(super) async fn settle(&self, time_us: i64, deadline: Instant) -> Result<(), Error> {
        let settled = timeout_at(deadline, self.own_reads.settle(time_us)).await;
        settled.map_err(|_| Error::DeadlineExceeded(None))?.map_err(Error::from_read)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicI64, Ordering},
    };

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
        (ledger, CallContext { caller, deadline, audit: None, share: None })
    }

    /// Reads while holds expire: before each read one more, up to so many. Returns the number of the read
    /// whose value is the result, and until when holds expire in it.
    async fn read_while_holds_expire(kind: ReadKind, expiries: i64) -> (i64, i64) {
        let directory = TempDir::new().unwrap();
        let (ledger, context) = ledger_and_context(&directory).await;
        let reads = AtomicI64::new(0);
        let query = |_: Arc<Store>, until_us: i64| {
            let number = reads.fetch_add(1, Ordering::Relaxed) + 1;
            let expired_us = Some(number.min(expiries)).filter(|it| *it > 0);
            async move {
                Ok(Expiring { value: (number, until_us), expired_us, many_unrecorded: Vec::new() })
            }
        };
        ledger.with_expiry(&context, kind, query).await.unwrap()
    }

    #[tokio::test]
    async fn a_read_is_repeated_until_no_more_holds_have_expired() {
        for (expiries, expected) in [(0, 1), (1, 2), (2, 3), (5, 6)] {
            let read = read_while_holds_expire(ReadKind::ByKey, expiries).await;
            assert_eq!(read, (expected, i64::MAX), "all of it is of one time");
        }
    }

    #[tokio::test]
    async fn a_read_ends_though_more_holds_expire_all_the_time() {
        for (kind, max) in
            [(ReadKind::ByKey, READS_BY_CLOCK_MAX), (ReadKind::Scan, SCANS_BY_CLOCK_MAX)]
        {
            let max = max as i64;
            let read = read_while_holds_expire(kind, i64::MAX).await;
            assert_eq!(read, (max + 1, max), "the last time that is settled");
        }
    }

    #[tokio::test]
    async fn scans_of_an_identity_rest_for_as_long_as_they_took() {
        let directory = TempDir::new().unwrap();
        let (ledger, context) = ledger_and_context(&directory).await;
        let scan = |_| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        };
        ledger.read(&context, ReadKind::Scan, scan).await.unwrap();
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
        let mut scan = pin!(ledger.read(&context, ReadKind::Scan, |_| async { Ok(()) }));
        assert!((&mut scan).now_or_never().is_none());
        assert!(ledger.store.scan_permit().now_or_never().is_some());
        drop(reads);
        scan.await.unwrap();
    }
}
