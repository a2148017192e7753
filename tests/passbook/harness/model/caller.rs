//! One caller of the model test: asks the service and the model the same, one call after another,
//! and compares.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use passbook::proto::{
    BatchGetAccountsRequest, GetHoldRequest, ListAccountChangesRequest, ListEntriesRequest,
    ListHoldsRequest, ListTransactionsRequest, ResolveRequestRequest,
};

use crate::harness::{
    Client,
    model::command::{Command, Reply, Told},
    model::random::Generator,
    model::{Model, microseconds, units},
};

/// All accounts are compared after so many calls.
const CALLS_BETWEEN_LOOKS: usize = 50;
/// How far the database's clock may be from ours: SQLite's has milliseconds, and cuts off the
/// rest; both are on this machine.
const CLOCK_SLACK_US: i64 = 2_000;
/// Holds, and requests, that are looked up by their ids at the end.
const LOOKED_UP_AT_THE_END: usize = 60;

pub struct Caller {
    generator: Generator,
    model: Model,
    clients: Vec<Client>,
    /// How often there was each verdict, to see that none is rare.
    pub verdicts: BTreeMap<String, usize>,
}

impl Caller {
    /// A caller with accounts of its own, whose names start with its name. It sends each call to
    /// some of the servers.
    pub fn new(name: &str, seed: u64, clients: &[Client]) -> Self {
        Self {
            generator: Generator::new(name, seed),
            model: Model::default(),
            clients: clients.to_vec(),
            verdicts: BTreeMap::new(),
        }
    }

    /// So many random calls, then all that there is to read.
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
        loop {
            let client = self.generator.random.usize(0..self.clients.len());
            let from_us = now_us() - CLOCK_SLACK_US;
            let client = &self.clients[client];
            let reply = command.send(client, &mut self.generator.random).await;
            let to_us = now_us() + CLOCK_SLACK_US;
            // A read of several pages may have seen a hold on either side of its time.
            if is_read && self.model.expires_within(from_us, to_us) {
                continue;
            }
            let expected = self.model.expect(&command, from_us, to_us, &reply);
            assert!(
                reply == expected,
                "{command:#?}\nthe service: {reply:#?}\nthe model: {expected:#?}"
            );
            self.count(&command, &reply);
            return reply;
        }
    }

    fn count(&mut self, command: &Command, reply: &Reply) {
        let kind = format!("{command:?}");
        let kind = kind.split('(').next().unwrap_or_default();
        let verdict = match reply {
            Ok(told) if told.replayed => format!("{kind} replayed"),
            Ok(_) => kind.to_owned(),
            Err(refusal) => {
                let state = refusal.metadata.get("state").map(|state| format!(" {state}"));
                format!("{}{}", refusal.reason, state.unwrap_or_default())
            }
        };
        *self.verdicts.entry(verdict).or_default() += 1;
    }

    /// All accounts at one instant, and the sums of what the service says of them.
    async fn compare_accounts(&mut self) {
        let account_ids: Vec<String> = self.model.accounts.keys().cloned().collect();
        if account_ids.is_empty() {
            return;
        }
        let command = Command::BatchGetAccounts(BatchGetAccountsRequest { account_ids });
        let told = self.call(command).await.expect("all accounts are there");
        let mut sums: BTreeMap<String, i128> = BTreeMap::new();
        for account in told.accounts {
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
            let entries =
                ListEntriesRequest { account_id: account_id.clone(), ..Default::default() };
            let entries = self.call(Command::ListEntries(entries)).await.expect("entries");
            assert_balances(&entries);
            let holds = ListHoldsRequest { account_id: account_id.clone(), ..Default::default() };
            self.call(Command::ListHolds(holds)).await.expect("holds");
            let changes =
                ListAccountChangesRequest { account_id: account_id.clone(), ..Default::default() };
            self.call(Command::ListAccountChanges(changes)).await.expect("changes");
            let transactions = ListTransactionsRequest { account_id, ..Default::default() };
            self.call(Command::ListTransactions(transactions)).await.expect("transactions");
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
            let request = ResolveRequestRequest { request_id, fence: false };
            self.call(Command::Resolve(request)).await.expect("a verdict");
        }
    }
}

/// Each balance is the sum of the amounts so far, each sequence the number of them.
fn assert_balances(told: &Told) {
    let mut sum = 0;
    for (index, entry) in told.entries.iter().enumerate() {
        sum += units(entry.amount.as_ref().expect("an amount"));
        assert_eq!(entry.sequence, index as i64 + 1, "{entry:?}");
        assert_eq!(units(entry.balance_after.as_ref().expect("a balance")), sum, "{entry:?}");
    }
    let times = told.entries.iter().filter_map(|entry| entry.create_time.as_ref());
    assert!(times.map(microseconds).is_sorted(), "time goes back: {told:#?}");
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    now.as_micros() as i64
}
