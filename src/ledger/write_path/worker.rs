//! Workers: one transaction after another, each with all waiting jobs whose accounts are free.
//!
//! A worker takes the jobs after BEGIN, and after the wait for the turn if there is one, so jobs that
//! arrive meanwhile are in the same transaction. Jobs of the same accounts that arrive before the rows
//! are locked join it, too. While one worker is busy, another one starts only if enough jobs wait.
//! A batch that failed delays no other: [`super::retry`] takes it over.

use std::sync::Arc;

use crate::{
    domain::account::Account,
    ledger::write_path::{
        executor::Executor,
        shared::WritePath,
        transaction::{Batch, ExecuteError, Lookup, OpenTransaction, WaitFor},
    },
    restart::spawn_restarting,
    storage::{DatabaseKind, LockMode, StorageError},
};

/// After a request that turned out to have a record, the records of so many batches are looked up
/// first: repeats seldom come alone, and a batch that finds one on insert is executed twice.
const LOOKUP_BATCHES_AFTER_REPEAT: usize = 64;

/// See the module.
struct Worker {
    path: Arc<WritePath>,
    executor: Executor,
    /// Batches whose records are still to be looked up first.
    lookups: usize,
    /// How the next batch treats locked rows.
    next_mode: LockMode,
}

impl WritePath {
    /// Starts the workers and keeps them running.
    pub(super) fn spawn_workers(self: &Arc<Self>) {
        let workers = match self.store.kind() {
            DatabaseKind::Sqlite => 1,
            DatabaseKind::Postgres => self.store.connection_counts().workers,
        };
        for _ in 0..workers {
            let path = self.clone();
            spawn_restarting("worker", move || {
                let (path, executor) = (path.clone(), path.executor());
                Worker { path, executor, lookups: 0, next_mode: LockMode::Wait }.run()
            });
        }
    }
}

impl Worker {
    async fn run(mut self) {
        // Before reads can take all connections.
        self.executor.connect().await;
        let path = self.path.clone();
        loop {
            let busy = path.queue.ready().await;
            let turn = path.turns.claim().await;
            // Another worker may have taken all jobs during the wait.
            if !path.queue.is_ready() {
                continue;
            }
            let first = if turn.is_some() { WaitFor::Turn } else { WaitFor::Nothing };
            let has_taken = match self.executor.begin(first).await {
                Ok(transaction) => {
                    if turn.is_some() {
                        path.turns.record_turn();
                    }
                    self.process(transaction, turn.is_some()).await
                }
                // On SQLite BEGIN takes the lock; the only cure is to try again.
                Err(StorageError::LockTimeout(_)) if turn.is_none() => {
                    path.queue.expire();
                    true
                }
                // The server that has the turn may hang. Lock what is free without it.
                Err(StorageError::LockTimeout(_)) => {
                    path.turns.stop();
                    self.next_mode = LockMode::SkipLocked;
                    true
                }
                Err(error) => match path.queue.try_dequeue(path.cost_max) {
                    Some(mut taken) => {
                        let jobs = std::mem::take(&mut taken.jobs);
                        let batch =
                            Batch::new(jobs, LockMode::Wait, Lookup::Before, path.expired_max());
                        path.retry(batch, error.into());
                        true
                    }
                    None => false,
                },
            };
            drop(turn);
            drop(busy);
            if !has_taken {
                // The waiting jobs are reserved, or another worker has just taken them.
                path.queue.changed().await;
            }
        }
    }

    /// Executes all waiting jobs; returns whether there were any.
    async fn process(&mut self, transaction: OpenTransaction, has_turn: bool) -> bool {
        let Self { path, executor, lookups, next_mode } = self;
        let Some(mut taken) = path.queue.try_dequeue(path.cost_max) else {
            executor.abandon(transaction).await;
            return false;
        };
        let lookup = if *lookups > 0 { Lookup::Before } else { Lookup::OnConflict };
        *lookups = lookups.saturating_sub(1);
        let mode = std::mem::replace(next_mode, LockMode::Wait);
        let mut batch =
            Batch::new(std::mem::take(&mut taken.jobs), mode, lookup, path.expired_max());
        let join = |locked: &[Account]| taken.join(locked);
        match executor.execute(transaction, &mut batch, join).await {
            Ok(left_out) => {
                if mode == LockMode::Wait {
                    path.turns.record_granted();
                }
                path.set_aside(left_out, Some(taken));
            }
            Err(ExecuteError::NotApplied(StorageError::LockTimeout(_)))
                if mode == LockMode::Wait =>
            {
                path.turns.record_collision();
                *next_mode = LockMode::SkipLocked;
                taken.put_back_in_time(batch.jobs);
            }
            // Another transaction has written a key of this one, or is in a deadlock with it. In a turn
            // there is no such transaction of a peer.
            Err(ExecuteError::NotApplied(
                StorageError::LockTimeout(_) | StorageError::Aborted(_),
            )) if !has_turn && path.store.kind() == DatabaseKind::Postgres => {
                path.turns.start();
                taken.put_back_in_time(batch.jobs);
            }
            Err(ExecuteError::NotApplied(StorageError::RepeatedRequest(_)))
                if lookup == Lookup::OnConflict =>
            {
                *lookups = LOOKUP_BATCHES_AFTER_REPEAT;
                *next_mode = mode;
                taken.put_back(batch.jobs);
            }
            Err(error) => path.retry(batch, error),
        }
        true
    }
}
