//! The reads of the model: how they are sent, page by page, and their expected replies.

use std::collections::BTreeMap;

use passbook::proto::{get_transaction_request::Lookup, *};
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::harness::{
    Client,
    model::command::{Command, Rejection, Reply, Response, timed},
    model::random::Generator,
    model::{Account, Model, microseconds, money_in, units},
    timestamp,
};

/// Reads all pages of a list.
macro_rules! all_pages {
    ($client:ident.$rpc:ident($request:expr).$items:ident) => {{
        let mut request = $request;
        let mut all = Vec::new();
        loop {
            let page = $client.$rpc(timed(request.clone())).await?;
            all.extend(page.$items);
            if page.next_page_token.is_empty() {
                break all;
            }
            request.page_token = page.next_page_token;
        }
    }};
}

pub async fn send(command: Command, client: Client) -> Result<Response, Status> {
    let mut response = Response::default();
    match command {
        Command::GetAccount(it) => {
            response.accounts.extend(client.get_account(timed(it)).await?.account);
        }
        Command::BatchGetAccounts(it) => {
            response.accounts = client.batch_get_accounts(timed(it)).await?.accounts;
        }
        Command::ListAccounts(it) => {
            response.accounts = all_pages!(client.list_accounts(it).accounts);
        }
        Command::SumBalances(it) => response.sums = client.sum_balances(timed(it)).await?.sums,
        Command::ListAccountChanges(it) => {
            response.account_changes = all_pages!(client.list_account_changes(it).changes);
        }
        Command::GetHold(it) => {
            response.holds.extend(client.get_hold(timed(it)).await?.hold);
        }
        Command::ListHolds(it) => response.holds = all_pages!(client.list_holds(it).holds),
        Command::GetTransaction(it) => {
            let answer = client.get_transaction(timed(it)).await?;
            response.transactions.extend(answer.transaction);
        }
        Command::ListTransactions(it) => {
            response.transactions = all_pages!(client.list_transactions(it).transactions);
        }
        Command::ListEntries(it) => response.entries = all_pages!(client.list_entries(it).entries),
        Command::GetBalance(it) => {
            let answer = client.get_balance(timed(it)).await?;
            response.balance = answer.balance.map(|balance| (balance, answer.sequence));
        }
        change => panic!("not a read: {change:?}"),
    }
    Ok(response)
}

impl Model {
    /// The reply to a read, after expired holds are marked as such.
    pub(super) fn read(&self, command: &Command) -> Reply {
        let mut response = Response::default();
        match command {
            Command::GetAccount(it) => {
                response.accounts.push(self.account_message(&it.account_id)?);
            }
            Command::BatchGetAccounts(it) => {
                for account_id in &it.account_ids {
                    response.accounts.push(self.account_message(account_id)?);
                }
            }
            Command::ListAccounts(it) => response.accounts = self.list_accounts(it),
            Command::SumBalances(it) => response.sums = self.sum_balances(it),
            Command::ListAccountChanges(it) => {
                response.account_changes = self.account(&it.account_id)?.changes.clone();
            }
            Command::GetHold(it) => response.holds.push(self.hold(&it.hold_id)?.message.clone()),
            Command::ListHolds(it) => response.holds = self.list_holds(it)?,
            Command::GetTransaction(it) => response.transactions.push(self.get_transaction(it)?),
            Command::ListTransactions(it) => response.transactions = self.list_transactions(it)?,
            Command::ListEntries(it) => response.entries = self.list_entries(it)?,
            Command::GetBalance(it) if it.time_basis() == TimeBasis::EffectiveTime => {
                let account = self.account(&it.account_id)?;
                let at_us = time_of(&it.at_time);
                let counts = |entry: &&Entry| effective_us(entry) <= at_us;
                let amounts = account.entries.iter().filter(counts).map(|it| it.amount.as_ref());
                let sum = amounts.map(|amount| units(amount.expect("an amount"))).sum();
                let sequence = account.entries.len() as i64;
                response.balance = Some((money_in(&account.currency_code, sum), sequence));
            }
            Command::GetBalance(it) => {
                response.balance = Some(balance_at(self.account(&it.account_id)?, &it.at_time));
            }
            change => panic!("not a read: {change:?}"),
        }
        Ok(response)
    }

    fn list_accounts(&self, request: &ListAccountsRequest) -> Vec<passbook::proto::Account> {
        let state = AccountState::try_from(request.state).expect("a state");
        let ids = self.accounts.iter().filter(|(account_id, account)| {
            account_id.starts_with(&request.account_id_prefix)
                && (request.currency_code.is_empty()
                    || request.currency_code == account.currency_code)
                && (state == AccountState::Unspecified || state == account.state)
                && request.labels.iter().all(|(key, value)| account.labels.get(key) == Some(value))
        });
        ids.filter_map(|(account_id, _)| self.account_message(account_id).ok()).collect()
    }

    fn sum_balances(&self, request: &SumBalancesRequest) -> Vec<BalanceSum> {
        let SumBalancesRequest { account_id_prefix, currency_code, state, labels, at_time } =
            request.clone();
        let all = ListAccountsRequest {
            account_id_prefix,
            currency_code,
            state,
            labels,
            ..Default::default()
        };
        let mut sums: BTreeMap<String, (i64, [i128; 3])> = BTreeMap::new();
        for mut account in self.list_accounts(&all) {
            if let Some(time) = &at_time {
                if time_of(&account.create_time) > microseconds(time) {
                    continue;
                }
                let entries = self.account(&account.account_id).expect("it is listed");
                account.balance = Some(balance_at(entries, &at_time).0);
            }
            let (count, sum) = sums.entry(account.currency_code).or_default();
            *count += 1;
            for (sum, money) in
                sum.iter_mut().zip([account.balance, account.held, account.available])
            {
                *sum += units(&money.expect("an amount"));
            }
        }
        let sum = |(code, (account_count, sums)): (String, (i64, [i128; 3]))| {
            let [balance, mut held, mut available] = sums.map(|units| Some(money_in(&code, units)));
            if at_time.is_some() {
                (held, available) = (None, None);
            }
            BalanceSum { currency_code: code, account_count, balance, held, available }
        };
        sums.into_iter().map(sum).collect()
    }

    fn list_holds(&self, request: &ListHoldsRequest) -> Result<Vec<Hold>, Rejection> {
        self.account(&request.account_id)?;
        let state = HoldState::try_from(request.state).expect("a state");
        let holds = self.holds.values().map(|hold| &hold.message).filter(|hold| {
            hold.account_id == request.account_id
                && (state == HoldState::Unspecified || state == hold.state())
        });
        Ok(holds.cloned().collect())
    }

    fn get_transaction(&self, request: &GetTransactionRequest) -> Result<Transaction, Rejection> {
        let (found, name, value) = match request.lookup.as_ref().expect("a name") {
            Lookup::TransactionId(id) => (self.transactions.get(id), "transaction_id", id),
            Lookup::RequestId(id) => {
                let response = match self.requests.get(id) {
                    Some(Some((_, Ok(response)))) => response.transactions.first(),
                    _ => None,
                };
                let id_of = response.and_then(|it| self.transactions.get(&it.transaction_id));
                (id_of, "request_id", id)
            }
        };
        let missing =
            || Rejection::new(Code::NotFound, "TRANSACTION_NOT_FOUND", &[(name, value.clone())]);
        found.map(|transaction| self.as_it_is_now(transaction)).ok_or_else(missing)
    }

    fn as_it_is_now(&self, transaction: &Transaction) -> Transaction {
        let Some(reversed) = self.reversed.get(&transaction.transaction_id) else {
            return transaction.clone();
        };
        let amount = transaction.entries[0].amount.as_ref().expect("an amount");
        let part = |units| money_in(&amount.currency_code, units);
        Transaction {
            reversed_by_transaction_id: reversed.by.clone(),
            reversed_amount: reversed.units.map(part),
            ..transaction.clone()
        }
    }

    fn list_transactions(
        &self,
        request: &ListTransactionsRequest,
    ) -> Result<Vec<Transaction>, Rejection> {
        let kind = TransactionKind::try_from(request.kind).expect("a kind");
        let mut found: Vec<_> = self.transactions.values().collect();
        // UUIDs sort the same as text and as bytes.
        found.reverse();
        if !request.account_id.is_empty() {
            let entries = &self.account(&request.account_id)?.entries;
            let last: std::collections::BTreeMap<_, _> =
                entries.iter().map(|entry| (&entry.transaction_id, entry.sequence)).collect();
            found.retain(|it| last.contains_key(&it.transaction_id));
            found.sort_by_key(|it| -last[&it.transaction_id]);
        }
        let by_effective_time = request.time_basis() == TimeBasis::EffectiveTime;
        if by_effective_time {
            found.sort_by_key(|it| std::cmp::Reverse(effective_us(&it.entries[0])));
        }
        found.retain(|transaction| {
            let labels = &transaction.labels;
            let time = match by_effective_time {
                true => effective_us(&transaction.entries[0]),
                false => time_of(&transaction.create_time),
            };
            (kind == TransactionKind::Unspecified || kind == transaction.kind())
                && is_within(time, &request.start_time, &request.end_time)
                && request.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        Ok(found.into_iter().map(|it| self.as_it_is_now(it)).collect())
    }

    fn list_entries(&self, request: &ListEntriesRequest) -> Result<Vec<Entry>, Rejection> {
        let entries = self.account(&request.account_id)?.entries.iter();
        let time = match request.time_basis() {
            TimeBasis::EffectiveTime => effective_us,
            _ => |entry: &Entry| time_of(&entry.create_time),
        };
        let entries = entries.filter(|entry| {
            entry.sequence > request.after_sequence
                && is_within(time(entry), &request.start_time, &request.end_time)
        });
        let mut entries: Vec<_> = entries.cloned().collect();
        entries.sort_by_key(time);
        if request.order() == EntryOrder::Descending {
            entries.reverse();
        }
        Ok(entries)
    }
}

fn time_of(time: &Option<Timestamp>) -> i64 {
    microseconds(time.as_ref().expect("a time"))
}

/// The balance after the entries up to this time, and the sequence of the last of them.
fn balance_at(account: &Account, at_time: &Option<Timestamp>) -> (Money, i64) {
    let was = |entry: &&Entry| match at_time {
        Some(at_time) => time_of(&entry.create_time) <= microseconds(at_time),
        None => true,
    };
    match account.entries.iter().rfind(was) {
        Some(entry) => (entry.balance_after.clone().expect("a balance"), entry.sequence),
        None => (money_in(&account.currency_code, 0), 0),
    }
}

fn effective_us(entry: &Entry) -> i64 {
    time_of(&entry.effective_time.or(entry.create_time))
}

fn is_within(time: i64, start: &Option<Timestamp>, end: &Option<Timestamp>) -> bool {
    start.as_ref().is_none_or(|start| time >= microseconds(start))
        && end.as_ref().is_none_or(|end| time < microseconds(end))
}

impl Command {
    /// The same query by effective time, if it can be.
    fn with_basis(mut self, is_effective: bool) -> Self {
        match &mut self {
            _ if !is_effective => {}
            Self::ListTransactions(it) if !it.account_id.is_empty() => {
                it.set_time_basis(TimeBasis::EffectiveTime);
            }
            Self::ListEntries(it) if it.after_sequence == 0 => {
                it.set_time_basis(TimeBasis::EffectiveTime);
            }
            Self::GetBalance(it) if it.at_time.is_some() => {
                it.set_time_basis(TimeBasis::EffectiveTime);
            }
            _ => {}
        }
        self
    }
}

impl Generator {
    pub(super) fn read(&mut self, model: &Model) -> Command {
        let account_id = self.account(model);
        let page_size = *self.pick(&[0, 1, 7, 1000]);
        match self.random.u8(0..11) {
            0 | 1 => Command::GetAccount(GetAccountRequest { account_id }),
            2 => Command::GetHold(GetHoldRequest { hold_id: self.hold(model) }),
            3 => Command::ListHolds(ListHoldsRequest {
                state: self.random.i32(0..5),
                account_id,
                page_size: page_size.max(7),
                ..ListHoldsRequest::default()
            }),
            4 => {
                let name = match self.request_id_sent() {
                    Some(request_id) if self.one_in(2) => Lookup::RequestId(request_id),
                    _ => Lookup::TransactionId(self.transaction(model)),
                };
                Command::GetTransaction(GetTransactionRequest { lookup: Some(name) })
            }
            5 => Command::ListTransactions(ListTransactionsRequest {
                kind: if self.one_in(2) { self.random.i32(0..7) } else { 0 },
                start_time: self.time(model, 4),
                end_time: self.time(model, 4),
                labels: self.labels(),
                account_id: if self.one_in(3) { String::new() } else { account_id },
                page_size: page_size.max(7),
                ..ListTransactionsRequest::default()
            })
            .with_basis(self.random.bool()),
            6 => Command::ListEntries(ListEntriesRequest {
                after_sequence: if self.one_in(3) { self.random.i64(0..40) } else { 0 },
                start_time: self.time(model, 4),
                end_time: self.time(model, 4),
                order: self.random.i32(0..3),
                account_id,
                page_size: page_size.max(7),
                ..ListEntriesRequest::default()
            })
            .with_basis(self.random.bool()),
            7 => {
                let at_time = self.time(model, 1);
                let request = GetBalanceRequest { account_id, at_time, ..Default::default() };
                Command::GetBalance(request).with_basis(self.random.bool())
            }
            8 => Command::ListAccountChanges(ListAccountChangesRequest {
                account_id,
                page_size,
                ..ListAccountChangesRequest::default()
            }),
            9 => Command::SumBalances(SumBalancesRequest {
                account_id_prefix: self.account_id_prefix(model),
                currency_code: (*self.pick(&["", "", "USD", "JPY"])).to_owned(),
                state: self.random.i32(0..4),
                labels: self.labels(),
                at_time: self.time(model, 2),
            }),
            _ => Command::ListAccounts(ListAccountsRequest {
                account_id_prefix: self.account_id_prefix(model),
                currency_code: (*self.pick(&["", "", "USD", "JPY"])).to_owned(),
                state: self.random.i32(0..4),
                labels: self.labels(),
                page_size: page_size.max(7),
                ..ListAccountsRequest::default()
            }),
        }
    }

    /// None, what the ids of this caller begin with, or what the id of an account begins with.
    fn account_id_prefix(&mut self, model: &Model) -> String {
        match self.random.u8(0..4) {
            0 => String::new(),
            1 => self.caller.clone(),
            _ => {
                let mut account_id = self.account(model);
                account_id.truncate(self.random.usize(1..=account_id.len()));
                account_id
            }
        }
    }

    /// The time of a transaction, plus or minus a microsecond; usually none.
    fn time(&mut self, model: &Model, one_in: u32) -> Option<Timestamp> {
        if model.transactions.is_empty() || !self.one_in(one_in) {
            return None;
        }
        let index = self.random.usize(0..model.transactions.len());
        let transaction = model.transactions.values().nth(index)?;
        let time_us = match self.random.bool() {
            true => effective_us(&transaction.entries[0]),
            false => time_of(&transaction.create_time),
        };
        Some(timestamp(time_us + self.random.i64(-1..=1)))
    }
}
