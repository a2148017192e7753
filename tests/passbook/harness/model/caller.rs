//! One caller of the model test. Sends each call to the service and to the model, and compares the
//! replies.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use passbook::proto::*;

use crate::harness::{
    Client, changes_of, entries_of, holds_of,
    model::command::{Command, Reply, Response},
    model::double_entry::take_contra_entries,
    model::events::Received,
    model::random::Generator,
    model::{Model, microseconds, units},
    transactions_of,
};

/// The number of calls between comparisons of all accounts.
const CALLS_BETWEEN_LOOKS: usize = 50;
/// Upper bound of the difference between the database's clock and this process's. Both are on this
/// machine, but SQLite truncates to milliseconds.
const CLOCK_SLACK_US: i64 = 2_000;
/// The number of holds and requests that are looked up at the end.
const LOOKED_UP_AT_THE_END: usize = 60;

pub struct Caller {
    pub(super) generator: Generator,
    pub(super) model: Model,
    pub(super) clients: Vec<Client>,
    pub(super) received: Received,
    /// How often each kind of result was received, to show that none is rare.
    pub results: BTreeMap<String, usize>,
}

impl Caller {
    /// A caller whose accounts start with its name. It sends each call to one of these servers.
    pub fn new(name: &str, seed: u64, clients: &[Client]) -> Self {
        Self {
            generator: Generator::new(name, seed),
            model: Model::default(),
            clients: clients.to_vec(),
            received: Received::default(),
            results: BTreeMap::new(),
        }
    }

    /// The servers have contra accounts.
    pub fn with_contra_accounts(mut self) -> Self {
        self.model.has_contra_accounts = true;
        self
    }

    /// Makes `count` random calls, then reads everything.
    pub async fn run(mut self, calls: usize) -> Self {
        for number in 1..=calls {
            let command = self.generator.next(&self.model, now_us());
            let _ = self.call(command).await;
            if number % CALLS_BETWEEN_LOOKS == 0 {
                self.compare_accounts().await;
            }
        }
        self.compare_all().await;
        self
    }

    async fn call(&mut self, command: Command) -> Reply {
        let is_read = command.is_read();
        let in_stream = command.request_id().is_some() && self.generator.one_in(3);
        loop {
            let client = self.generator.random.usize(0..self.clients.len());
            let from_us = now_us() - CLOCK_SLACK_US;
            let client = &self.clients[client];
            let mut reply = command.send(client, &mut self.generator.random, in_stream).await;
            if let Ok(response) = &mut reply
                && self.model.has_contra_accounts
            {
                response.transactions.iter_mut().for_each(take_contra_entries);
            }
            let to_us = now_us() + CLOCK_SLACK_US;
            // A read of several pages may have met a hold before and after its expiry.
            if is_read && self.model.expires_within(from_us, to_us) {
                continue;
            }
            let expected = self.model.expect(&command, from_us, to_us, &reply);
            assert!(
                reply == expected,
                "{command:#?}\nthe service: {reply:#?}\nthe model: {expected:#?}"
            );
            self.count(&command, &reply, in_stream);
            return reply;
        }
    }

    fn count(&mut self, command: &Command, reply: &Reply, in_stream: bool) {
        let kind = format!("{command:?}");
        let kind = kind.split('(').next().unwrap_or_default();
        let result = match reply {
            Ok(response) if response.replayed => format!("{kind} replayed"),
            Ok(response) => format!("{kind}{}", detail(command, response, in_stream)),
            Err(rejection) => {
                let state = rejection.metadata.get("state").map(|state| format!(" {state}"));
                format!("{}{}", rejection.reason, state.unwrap_or_default())
            }
        };
        *self.results.entry(result).or_default() += 1;
    }

    /// Compares all accounts in one snapshot, and checks the sums.
    async fn compare_accounts(&mut self) {
        let account_ids: Vec<String> = self.model.accounts.keys().cloned().collect();
        if account_ids.is_empty() {
            return;
        }
        let command = Command::BatchGetAccounts(BatchGetAccountsRequest { account_ids });
        let response = self.call(command).await.expect("all accounts are there");
        let mut sums: BTreeMap<String, i128> = BTreeMap::new();
        for account in response.accounts {
            let balance = units(&account.balance.expect("a balance"));
            *sums.entry(account.currency_code).or_default() += balance;
        }
        for (currency_code, sum) in sums {
            let from_outside = self.model.from_outside.get(&currency_code).copied().unwrap_or(0);
            assert_eq!(sum, from_outside, "{currency_code} was made or lost");
        }
    }

    async fn compare_all(&mut self) {
        self.compare_accounts().await;
        for account_id in self.model.accounts.keys().cloned().collect::<Vec<_>>() {
            let entries = Command::ListEntries(entries_of(&account_id));
            assert_balances(&self.call(entries).await.expect("entries"));
            let holds = Command::ListHolds(holds_of(&account_id));
            self.call(holds).await.expect("holds");
            let changes = Command::ListAccountChanges(changes_of(&account_id));
            self.call(changes).await.expect("changes");
            let transactions = Command::ListTransactions(transactions_of(&account_id));
            self.call(transactions).await.expect("transactions");
        }
        let labels = BTreeMap::from([("caller".to_owned(), self.generator.caller.clone())]);
        let transactions = ListTransactionsRequest { labels, ..Default::default() };
        self.call(Command::ListTransactions(transactions)).await.expect("transactions");
        for hold_id in
            self.model.holds.keys().take(LOOKED_UP_AT_THE_END).cloned().collect::<Vec<_>>()
        {
            self.call(Command::GetHold(GetHoldRequest { hold_id })).await.expect("a hold");
        }
        let mut request_ids: Vec<String> = self.model.requests.keys().cloned().collect();
        self.generator.random.shuffle(&mut request_ids);
        for request_id in request_ids.into_iter().take(LOOKED_UP_AT_THE_END) {
            let request = GetRequestOutcomeRequest { request_id };
            self.call(Command::GetRequestOutcome(request)).await.expect("a result");
        }
        self.compare_events().await;
    }
}

/// What a history must contain besides the plain result.
fn detail(command: &Command, response: &Response, in_stream: bool) -> &'static str {
    let is_forced = response.transactions.iter().any(|it| it.forced);
    match command {
        Command::ListAccounts(it) if !it.account_id_prefix.is_empty() => {
            if response.accounts.is_empty() { " without a match" } else { " by prefix" }
        }
        _ if in_stream && is_forced && !command.is_dry_run() => " forced in a stream",
        _ => "",
    }
}

/// Checks that each balance is the sum of the amounts so far, and each sequence their count.
fn assert_balances(response: &Response) {
    let mut sum = 0;
    for (index, entry) in response.entries.iter().enumerate() {
        sum += units(entry.amount.as_ref().expect("an amount"));
        assert_eq!(entry.sequence, index as i64 + 1, "{entry:?}");
        assert_eq!(units(entry.balance_after.as_ref().expect("a balance")), sum, "{entry:?}");
    }
    let times = response.entries.iter().filter_map(|entry| entry.create_time.as_ref());
    assert!(times.map(microseconds).is_sorted(), "time goes back: {response:#?}");
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    now.as_micros() as i64
}
