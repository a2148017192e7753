//! Concurrent callers: deposits, withdrawals, and transfers around a ring of accounts.

use std::sync::Arc;

use sea_orm::ConnectionTrait;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::harness::{
    Change, Client, TestDatabase, balance, checker::History, deposit, open, transfer, withdrawal,
};

#[derive(Clone)]
pub struct RingLoad {
    pub accounts: Vec<String>,
    pub callers: usize,
    pub stop: Stop,
    pub seed: u64,
    transfers_only: bool,
}

#[derive(Clone)]
pub enum Stop {
    /// After this number of changes by each caller.
    After(usize),
    /// When the test stops it.
    When(watch::Receiver<bool>),
}

impl Stop {
    fn is_due(&self, changes: usize) -> bool {
        match self {
            Self::After(count) => changes >= *count,
            Self::When(stopped) => *stopped.borrow(),
        }
    }
}

impl RingLoad {
    pub fn on(accounts: &[String], callers: usize, stop: Stop, seed: u64) -> Self {
        Self { accounts: accounts.to_vec(), callers, stop, seed, transfers_only: false }
    }

    /// Transfers only: the sum of all balances stays constant.
    pub fn transfers_on(accounts: &[String], callers: usize, stop: Stop, seed: u64) -> Self {
        Self { transfers_only: true, ..Self::on(accounts, callers, stop, seed) }
    }

    /// Runs all callers to completion. Each caller settles one change after another.
    pub async fn run(self, clients: &[Client]) -> History {
        let clients: Arc<[Client]> = clients.into();
        let mut callers = JoinSet::new();
        for caller in 0..self.callers {
            let (load, clients) = (self.clone(), Arc::clone(&clients));
            callers.spawn(async move { load.call(caller, &clients).await });
        }
        callers.join_all().await.into_iter().flatten().collect()
    }

    /// Starts `callers` callers in the background.
    pub fn start(accounts: &[String], callers: usize, clients: &[Client], seed: u64) -> UnderWay {
        let (stop, stopped) = watch::channel(false);
        let load = Self::on(accounts, callers, Stop::When(stopped), seed);
        let clients = clients.to_vec();
        UnderWay { stop, calling: tokio::spawn(async move { load.run(&clients).await }) }
    }

    async fn call(&self, caller: usize, clients: &[Client]) -> History {
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_add(caller as u64));
        let mut history = History::new();
        while !self.stop.is_due(history.len()) {
            let change = match self.transfers_only {
                true => random_transfer(&mut random, &self.accounts),
                false => random_change(&mut random, &self.accounts),
            };
            let result = change.settle(clients).await;
            history.push((change, result));
        }
        history
    }
}

/// A load in the background.
pub struct UnderWay {
    stop: watch::Sender<bool>,
    calling: JoinHandle<History>,
}

impl UnderWay {
    /// Stops the load after the results that its callers wait for.
    pub async fn stop(self) -> History {
        self.stop.send_replace(true);
        self.calling.await.expect("every caller gets a result")
    }
}

/// A deposit, a withdrawal that may be rejected, or a transfer to the next account of the ring.
pub fn random_change(random: &mut fastrand::Rng, accounts: &[String]) -> Change {
    let here = &accounts[random.usize(..accounts.len())];
    let change = match random.u8(0..4) {
        0 => Change::Deposit(deposit(here, &random_amount(random))),
        1 => Change::Withdraw(withdrawal(here, &random_amount(random))),
        _ => random_transfer(random, accounts),
    };
    if random.u8(0..4) == 0 { change.in_stream() } else { change }
}

fn random_transfer(random: &mut fastrand::Rng, accounts: &[String]) -> Change {
    let index = random.usize(..accounts.len());
    let next = &accounts[(index + 1) % accounts.len()];
    Change::Transfer(transfer(&accounts[index], next, &random_amount(random)))
}

fn random_amount(random: &mut fastrand::Rng) -> String {
    format!("{}.{:02}", random.u32(0..20), random.u32(1..100))
}

/// Opens `count` accounts with 100.00 each. The history starts with their deposits.
pub async fn open_ring(client: &Client, count: usize) -> (Vec<String>, History) {
    let mut accounts = Vec::new();
    let mut history = History::new();
    for number in 0..count {
        let account_id = format!("ring-{number}");
        open(client, &account_id).await;
        let change = Change::Deposit(deposit(&account_id, "100.00"));
        let result = change.settle(std::slice::from_ref(client)).await;
        history.push((change, result));
        accounts.push(account_id);
    }
    (accounts, history)
}

/// Other programs add to a balance by SQL while callers deposit through the service. Returns the
/// sum that is missing at the end.
pub async fn lost_to_foreign_updates(database: &TestDatabase, client: &Client) -> i64 {
    const SESSIONS: usize = 4;
    const UPDATES_EACH: usize = 100;
    const CALLERS: usize = 8;
    const DEPOSITS_EACH: usize = 40;
    open(client, "shared").await;
    let (mut programs, mut callers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..SESSIONS {
        let session = database.connect().await;
        programs.spawn(async move {
            let update = "UPDATE accounts SET balance = balance + 1 WHERE account_id = 'shared'";
            for _ in 0..UPDATES_EACH {
                session.execute_unprepared(update).await.expect("the balance is changed");
            }
        });
    }
    for _ in 0..CALLERS {
        let client = client.clone();
        callers.spawn(async move {
            for _ in 0..DEPOSITS_EACH {
                let change = Change::Deposit(deposit("shared", "1"));
                change.settle(std::slice::from_ref(&client)).await;
            }
        });
    }
    programs.join_all().await;
    callers.join_all().await;
    let balance = balance(client, "shared").await;
    let added = SESSIONS * UPDATES_EACH + CALLERS * DEPOSITS_EACH;
    added as i64 - balance.trim_end_matches(".00").parse::<i64>().expect("whole dollars")
}
