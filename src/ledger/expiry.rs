//! Records expired holds in the background, where a read has found very many on one account.
//!
//! The next change of an account records them anyway, but an account may have none for long, and each read
//! adds up all that are not recorded. One account at a time, and a pause after each database transaction
//! for as long as it took: changes have at least half of the time of the database.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    budget::Budgets,
    domain::{
        command::Command,
        ids::{AccountId, Identity},
    },
    ledger::{
        Error,
        write_path::{
            job::{self, Permits},
            queue::CommandQueue,
        },
    },
    lock::lock,
};

/// Accounts that wait. Further ones wait for their next read.
const ACCOUNTS_DUE_MAX: usize = 16;
/// How long the holds of one account are recorded before it is the turn of the next one. Reads ask for the
/// rest.
const ACCOUNT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a database transaction is waited for: another program may have locked the row.
const JOB_TIME_MAX: Duration = Duration::from_secs(2);

/// See the module.
pub struct ExpiryRecorder {
    wanted: mpsc::Sender<(Identity, AccountId)>,
    /// The accounts that wait, and the one whose holds are recorded.
    accounts: Arc<Mutex<HashSet<AccountId>>>,
    task: AbortHandle,
}

impl ExpiryRecorder {
    pub fn start(queue: Arc<CommandQueue>, budgets: Arc<Budgets>) -> Self {
        let (wanted, mut receiver) = mpsc::channel::<(Identity, AccountId)>(ACCOUNTS_DUE_MAX);
        let accounts: Arc<Mutex<HashSet<AccountId>>> = Arc::default();
        let recorded = accounts.clone();
        let task = tokio::spawn(async move {
            while let Some((identity, account_id)) = receiver.recv().await {
                record(&queue, &budgets, &identity, &account_id).await;
                lock(&recorded).remove(&account_id);
            }
        });
        Self { wanted, accounts, task: task.abort_handle() }
    }

    /// Has the expired holds of an account recorded, with places of this identity in the queue.
    pub fn record(&self, identity: &Identity, account_id: AccountId) {
        let mut accounts = lock(&self.accounts);
        if !accounts.contains(&account_id)
            && self.wanted.try_send((identity.clone(), account_id.clone())).is_ok()
        {
            accounts.insert(account_id);
        }
    }

    /// Whether such an account waits for it.
    pub fn is_due(&self, is_wanted: impl Fn(&AccountId) -> bool) -> bool {
        lock(&self.accounts).iter().any(is_wanted)
    }

    /// Records no more.
    pub fn stop(&self) {
        self.task.abort();
    }
}

/// Records the expired holds of an account, until there are no more or the time is over. Its failures are
/// those of the changes of callers, who see them.
async fn record(
    queue: &CommandQueue,
    budgets: &Budgets,
    identity: &Identity,
    account_id: &AccountId,
) {
    let end = Instant::now() + ACCOUNT_TIME_MAX;
    while Instant::now() < end {
        let start = Instant::now();
        let Ok(share) = budgets.queue.take_one(identity) else { return };
        let permits = Permits {
            queue: share,
            records: budgets.records.clone(),
            _message: None,
            _resolved: None,
        };
        let command = Command::ExpireHolds(account_id.clone());
        let (job, completion) = job::new(command, start + JOB_TIME_MAX, permits);
        queue.enqueue(job);
        // With this error there are more.
        if !matches!(completion.wait().await, Err(Error::Contention)) {
            return;
        }
        sleep(start.elapsed()).await;
    }
}
