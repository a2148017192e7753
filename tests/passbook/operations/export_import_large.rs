//! A large ledger moves between the databases and back.

use std::fmt::Write as _;

use passbook::{
    domain::{
        ids::AccountId,
        money::{Amount, Currency},
        transaction::Entry,
    },
    proto::{self, ListEntriesRequest},
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{
    checker::{self, hex},
    *,
};

const RING: usize = 100;
const TIME_US: i64 = 1_790_000_000_000_000;

struct Chain {
    account_id: AccountId,
    balance: Amount,
    sequence: i64,
    hash: [u8; 32],
    update_time_us: i64,
}

/// An export, written by the test itself.
struct Written {
    currency: Currency,
    chains: Vec<Chain>,
    requests: String,
    entries: String,
    counts: (usize, usize),
}

impl Written {
    fn new(accounts: usize) -> Self {
        let currency = Currency::from_parts("USD", 2);
        let chain = |number| Chain {
            account_id: AccountId::parse(&format!("account-{number:03}")).expect("an id"),
            balance: currency.zero(),
            sequence: 0,
            hash: [0; 32],
            update_time_us: TIME_US,
        };
        let chains = (0..accounts).map(chain).collect();
        Self { currency, chains, requests: String::new(), entries: String::new(), counts: (0, 0) }
    }

    fn post(&mut self, kind: &str, legs: &[(usize, &str)]) {
        let number = self.counts.0;
        let transaction_id =
            Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number as u128);
        let create_time_us = TIME_US + number as i64;
        let mut names = Vec::new();
        for (index, amount) in legs {
            let amount = self.currency.parse(amount).expect("an amount");
            let chain = &mut self.chains[*index];
            chain.balance = chain.balance.plus(amount);
            chain.sequence += 1;
            chain.update_time_us = create_time_us;
            let entry = Entry {
                account_id: chain.account_id.clone(),
                sequence: chain.sequence,
                transaction_id,
                currency: self.currency.clone(),
                amount,
                balance_after: chain.balance,
                create_time_us,
                effective_time_us: None,
                hash: [0; 32],
            };
            chain.hash = entry.chained_hash(&chain.hash);
            let (account_id, sequence, after) = (&chain.account_id, chain.sequence, chain.balance);
            names.push((account_id.to_string(), sequence));
            let hash = hex(&chain.hash);
            let line = json!({
                "type": "entry", "account_id": account_id.as_str(), "sequence": sequence,
                "transaction_id": transaction_id, "amount": amount.to_string(),
                "balance_after": after.to_string(), "create_time_us": create_time_us,
                "hash": hash, "effective_time_us": null,
            });
            writeln!(self.entries, "{line}").expect("a line");
            self.counts.1 += 1;
        }
        let line = json!({
            "type": "request", "caller": "", "request_id": format!("r-{number}"),
            "fingerprint": hex(&[7; 16]), "transaction_id": transaction_id, "kind": kind,
            "rejection": null, "description": format!("number {number}"),
            "labels": {"n": number.to_string()}, "entry_names": names,
            "create_time_us": create_time_us, "hold_id": null, "reverses_transaction_id": null,
            "details": null,
        });
        writeln!(self.requests, "{line}").expect("a line");
        self.counts.0 += 1;
    }

    fn file(&self) -> String {
        let header = json!({
            "type": "header", "format": "passbook", "format_version": 1,
            "schema_version": passbook::storage::schema_version(), "database": "none",
            "create_time": "now",
        });
        let mut file = header.to_string();
        file.push('\n');
        for Chain { account_id, balance, sequence, hash, update_time_us } in &self.chains {
            let (version, hash) = (sequence + 1, hex(hash));
            let line = json!({
                "type": "account", "caller": "", "account_id": account_id.as_str(), "currency_code": "USD",
                "currency_scale": 2, "balance": balance.to_string(), "held": "0.00",
                "overdraft_limit": "1000.00", "unlimited_overdraft": false, "below_limit": false, "state": "open",
                "opening_attributes": {"overdraft_limit": "1000.00"},
                "sequence": sequence, "version": version, "last_hash": hash, "labels": {},
                "create_time_us": TIME_US, "update_time_us": update_time_us,
            });
            writeln!(file, "{line}").expect("a line");
        }
        file += &self.requests;
        file += &self.entries;
        let lines = json!({
            "currency": 0, "account": self.chains.len(), "request": self.counts.0,
            "entry": self.counts.1, "hold": 0, "account_change": 0,
        });
        let trailer = json!({"type": "trailer", "lines": lines});
        writeln!(file, "{trailer}").expect("a line");
        file
    }
}

/// Deposits on one account, and transfers (two entries each) around a ring of accounts.
fn ledger(deposits: usize, transfers: usize) -> String {
    let mut written = Written::new(RING + 1);
    for number in 0..deposits {
        written.post("deposit", &[(RING, if number % 2 == 0 { "1.25" } else { "0.5" })]);
    }
    for number in 0..transfers {
        let (source, destination) = (number % RING, (number + 1) % RING);
        written.post("transfer", &[(source, "-1.01"), (destination, "1.01")]);
    }
    written.file()
}

/// All entries of these accounts, read by ListEntries.
async fn statements(server: &Server, accounts: &[&str]) -> Vec<proto::Entry> {
    let (client, mut entries) = (server.client(), Vec::new());
    for account_id in accounts {
        let request = ListEntriesRequest { page_size: 1000, ..entries_of(account_id) };
        entries.extend(all_pages!(client.list_entries(request).entries).concat());
    }
    entries
}

/// The export without its header, which contains the time.
fn body(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string(path).expect("the file exists");
    text.split_once('\n').expect("a header").1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_entries_move_from_sqlite_to_postgres_and_back_unchanged() {
    there_and_back(60_000, 20_000).await;
}

async fn there_and_back(deposits: usize, transfers: usize) {
    let directory = tempfile::tempdir().expect("a folder");
    let first_file = directory.path().join("0.jsonl");
    std::fs::write(&first_file, ledger(deposits, transfers)).expect("the file is written");
    let kinds = [Kind::Sqlite, Kind::Postgres, Kind::Sqlite];
    // Heavy: it uses both cores for seconds.
    let first = TestDatabase::create_for(Kind::Sqlite, Load::Heavy).await;
    let mut databases = Vec::new();
    let mut file = first_file.clone();
    for (number, kind) in kinds.into_iter().enumerate() {
        let database = first.create_empty_beside(kind).await;
        let (path, url) = (file.to_string_lossy().into_owned(), database.url().to_owned());
        let imported = passbook(&["import", "--database-url", &url, "--input", &path]).await;
        let said = imported.must_succeed().stdout;
        let (entries, requests) = (deposits + 2 * transfers, deposits + transfers);
        let expected = format!("imported: 101 accounts, {entries} entries, {requests} requests");
        assert!(said.contains(&expected), "{said}");
        file = directory.path().join(format!("{}.jsonl", number + 1));
        let path = file.to_string_lossy().into_owned();
        let export = ["export", "--database-url", &url, "--output", &path];
        passbook(&export).await.must_succeed();
        databases.push(database);
    }

    let [_, sqlite, postgres, back] =
        [0, 1, 2, 3].map(|number| body(&directory.path().join(format!("{number}.jsonl"))));
    assert!(sqlite == postgres, "the lines from PostgreSQL are those from SQLite");
    assert!(postgres == back, "and so are those after the way back");
    let verified = databases[1].passbook(&["verify"]).await;
    verified.must_succeed();
    let there = Server::start(&databases[1]).await;
    let back_again = Server::start(&databases[2]).await;
    let accounts = ["account-000", "account-050", "account-100"];
    let expected = statements(&there, &accounts).await;
    assert_eq!(expected.len(), deposits + 2 * 2 * transfers / RING);
    assert!(expected == statements(&back_again, &accounts).await, "statements and hashes");
    // The checker of the harness shares no code with the service.
    checker::assert_consistent(&databases[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_deep_in_a_long_account_is_found_on_both_databases() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("ledger.jsonl");
    let mut written = Written::new(2);
    // More than twice the rows of one partition of `verify`.
    for _ in 0..25_000 {
        written.post("deposit", &[(0, "1")]);
    }
    written.post("deposit", &[(1, "1")]);
    std::fs::write(&file, written.file()).expect("the file is written");
    let first = TestDatabase::create_for(Kind::Sqlite, Load::Heavy).await;
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = first.create_empty_beside(kind).await;
        let path = file.to_string_lossy().into_owned();
        let import = ["import", "--database-url", database.url(), "--input", &path];
        passbook(&import).await.must_succeed();
        Tampering::begin(&database).await;
        let cases = [
            ("DELETE FROM entries", 24_999, "it is missing"),
            ("DELETE FROM entries", 20_000, "it is missing"),
            ("UPDATE entries SET create_time_us = 0", 10_001, "its hash is"),
            ("UPDATE entries SET balance_after = '7.00'", 10_000, "its balance_after is 7.00"),
            ("DELETE FROM entries", 5_000, "it is missing"),
        ];
        // From the last entry to the first: `verify` reports the first fault in order.
        for (change, sequence, words) in cases {
            let which = format!("{} AND sequence = {sequence}", of_account("account-000"));
            database.execute(&format!("{change} WHERE {which}")).await;

            let outcome = database.passbook(&["verify"]).await;

            let expected = format!("fault: account account-000, entry {sequence}: {words}");
            assert!(outcome.stdout.contains(&expected), "{}\n{expected}", outcome.stdout);
            assert_eq!(outcome.code, Some(1));
        }
    }
}
