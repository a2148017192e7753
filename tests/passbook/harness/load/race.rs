//! Rounds of a race between servers. Several rounds run at once, each on its own accounts, so that
//! batches mix and no round waits for another.

use std::{future::Future, sync::Arc, time::Duration};

use passbook::proto::{
    BatchPostTransactionsRequest, Transaction, post_transaction_result::Result as Posted,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Code, Status};

use crate::harness::{
    Answer, Change, Client, Kind, Server, TestDatabase, leg, open, post, seconds, start_loaded,
    within,
};

/// Rounds of each race.
pub const ROUNDS: usize = 1_000;
/// Concurrent rounds. With more, calls wait in the servers' queues rather than meet in the
/// database.
const ROUNDS_AT_ONCE: usize = 32;
const SERVERS: usize = 3;
/// Upper bound of the delay between two calls.
const LEAD_MAX: Duration = Duration::from_millis(4);

/// A live server gives a result within two seconds.
const ATTEMPTS_MAX: usize = 5;

/// Several servers on one database.
pub struct Arena {
    pub database: TestDatabase,
    pub clients: Vec<Client>,
    _servers: Vec<Server>,
}

#[derive(Clone)]
pub struct Round {
    pub number: usize,
    /// One client per server, in random order.
    pub clients: [Client; SERVERS],
}

impl Round {
    /// A name that is unique to this round.
    pub fn name(&self, what: &str) -> String {
        name(what, self.number)
    }
}

pub fn name(what: &str, round: usize) -> String {
    format!("{what}-{round:04}")
}

impl Arena {
    pub async fn open(kind: Kind) -> Self {
        let (database, servers, clients) = start_loaded(kind, SERVERS).await;
        Self { database, clients, _servers: servers }
    }

    /// Opens one account a round, in US dollars.
    pub async fn accounts(&self, what: &str) {
        self.each(|client, round| {
            let account_id = name(what, round);
            async move { open(&client, &account_id).await }
        })
        .await;
    }

    /// Deposits to the account of each round, and returns the transactions in order.
    pub async fn fund(&self, what: &str, amount: &str) -> Vec<Transaction> {
        let request = |round| post(&[leg(&name(what, round), amount)]);
        let batch = BatchPostTransactionsRequest { requests: (0..ROUNDS).map(request).collect() };
        let client = self.clients[0].clone();
        let answer = client.batch_post_transactions(within(seconds(60), batch)).await;
        let results = answer.expect("the batch is answered").results;
        let posted = results.into_iter().map(|it| match it.result {
            Some(Posted::Transaction(transaction)) => transaction,
            other => panic!("{other:?}"),
        });
        posted.collect()
    }

    /// Runs `act` once per round, all concurrently, before or after the race.
    pub async fn each<T, Doing>(&self, act: impl Fn(Client, usize) -> Doing) -> Vec<T>
    where
        T: Send + 'static,
        Doing: Future<Output = T> + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for round in 0..ROUNDS {
            let call = act(self.clients[round % SERVERS].clone(), round);
            calls.spawn(async move { (round, call.await) });
        }
        in_order(calls).await
    }

    /// Runs all rounds, and returns what came of each.
    pub async fn race<T, Racing>(&self, act: impl Fn(Round) -> Racing) -> Vec<T>
    where
        T: Send + 'static,
        Racing: Future<Output = T> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(ROUNDS_AT_ONCE));
        let mut rounds = JoinSet::new();
        for number in 0..ROUNDS {
            let place = places.clone().acquire_owned().await.expect("never closed");
            let mut clients = [0, 1, 2].map(|server| self.clients[server].clone());
            fastrand::shuffle(&mut clients);
            let round = act(Round { number, clients });
            rounds.spawn(async move {
                let outcome = round.await;
                drop(place);
                (number, outcome)
            });
        }
        in_order(rounds).await
    }
}

async fn in_order<T: Send + 'static>(calls: JoinSet<(usize, T)>) -> Vec<T> {
    let mut outcomes = calls.join_all().await;
    outcomes.sort_by_key(|(round, _)| *round);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Sends a request, and repeats it after ABORTED. Any other answer is final, so that a repeat
/// cannot hide a defect.
pub async fn settle(asked: &Change, client: &Client) -> Result<Answer, Status> {
    let mut result = asked.send(client, seconds(30)).await;
    for _ in 1..ATTEMPTS_MAX {
        match &result {
            Err(status) if status.code() == Code::Aborted => {
                println!("{}: again after {status:?}", asked.request_id());
                result = asked.send(client, seconds(30)).await;
            }
            _ => break,
        }
    }
    result
}

/// Makes two calls concurrently, with a short random delay before one of them.
pub async fn at_once<Left: Future, Right: Future>(
    left: Left,
    right: Right,
) -> (Left::Output, Right::Output) {
    let lead = LEAD_MAX.mul_f64(fastrand::f64());
    let (left_at, right_at) = match fastrand::bool() {
        true => (Duration::ZERO, lead),
        false => (lead, Duration::ZERO),
    };
    tokio::join!(after(left_at, left), after(right_at, right))
}

/// Makes the call after a delay.
pub async fn after<Call: Future>(time: Duration, call: Call) -> Call::Output {
    tokio::time::sleep(time).await;
    call.await
}

/// Fails unless each side has won at least one round in twenty.
#[track_caller]
pub fn assert_contested(kind: Kind, what: &str, wins: &[usize]) {
    println!("{kind:?}: {what}: {wins:?} of {ROUNDS} rounds");
    assert_eq!(wins.iter().sum::<usize>(), ROUNDS, "{what}: one winner a round");
    assert!(wins.iter().all(|it| *it >= ROUNDS / 20), "{what}: no race, {wins:?}");
}
