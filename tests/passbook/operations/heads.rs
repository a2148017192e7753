//! `passbook heads` and `passbook verify --heads`: a ledger that was rewritten as a whole is found.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{ledger_dump::LedgerDump, *};

on_both_databases! {
    a_ledger_that_was_continued_passes,
    a_ledger_that_was_rewritten_is_found,
    a_changed_file_of_heads_is_an_error,
    an_export_signs_the_heads_of_its_instant,
    an_imported_ledger_continues_its_heads,
    many_heads_are_signed_and_checked_by_pages,
}

/// As `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write it.
const OPENSSL_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIC6v76n0A4czcfT9rki8w8oS52kXJkFEhWpZ2tr4oU/p
-----END PRIVATE KEY-----
";
const OPENSSL_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA1iAp6w3jkfRH3UWTqh+Rf23dsMtW1xALFG0dLMKII3k=
-----END PUBLIC KEY-----
";

/// A folder with a key, its public key, and the signed heads of a ledger.
struct Witness(TempDir);

impl Witness {
    async fn create() -> Self {
        let witness = Self(tempfile::tempdir().expect("a folder"));
        let created = passbook(&["heads", "create-key", "--key", &witness.path("key")]).await;
        fs::write(witness.file("public_key"), created.must_succeed().stdout).expect("written");
        witness
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    /// Signs the heads of the ledger as it is.
    async fn sign(&self, database: &TestDatabase) {
        let (key, heads) = (self.path("key"), self.path("heads"));
        let arguments = ["heads", "sign", "--key", &key, "--output", &heads];
        database.passbook(&arguments).await.must_succeed();
    }

    async fn verify(&self, database: &TestDatabase) -> Outcome {
        let (heads, key) = (self.path("heads"), self.path("public_key"));
        database.passbook(&["verify", "--heads", &heads, "--heads-public-key", &key]).await
    }

    fn heads(&self) -> String {
        fs::read_to_string(self.file("heads")).expect("a file of heads")
    }
}

/// Alice with three entries, Bob with one, and an account without entries.
async fn ledger(kind: Kind) -> (TestDatabase, Server, Client) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    open_funded(&client, "bob", "7.50").await;
    open(&client, "empty").await;
    client.withdraw(withdrawal("alice", "30")).await.expect("applied");
    client.deposit(deposit("alice", "0.25")).await.expect("applied");
    (database, server, client)
}

fn bytes(kind: Kind, hex: &str) -> String {
    match kind {
        Kind::Sqlite => format!("x'{hex}'"),
        Kind::Postgres => format!("'\\x{hex}'::bytea"),
    }
}

/// Computes all hashes of an account again, as a person who can write the database would.
pub async fn rehash(database: &TestDatabase, account_id: &str) {
    let dump = LedgerDump::read(database).await;
    let currency_code = &dump.accounts[account_id].currency_code;
    let mut hash = "0".repeat(64);
    for entry in &dump.entries[account_id] {
        hash = checker::entry_hash(&hash, account_id, currency_code, entry);
        let (bytes, sequence) = (bytes(database.kind, &hash), entry.sequence);
        let update = format!(
            "UPDATE entries SET hash = {bytes} WHERE {} AND sequence = {sequence}; \
             UPDATE accounts SET last_hash = {bytes} WHERE account_id = '{account_id}'",
            of_account(account_id)
        );
        database.execute(&update).await;
    }
}

async fn a_ledger_that_was_continued_passes(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    let witness = Witness::create().await;
    witness.sign(&database).await;
    client.deposit(deposit("alice", "5")).await.expect("applied");
    client.deposit(deposit("empty", "5")).await.expect("applied");
    open(&client, "later").await;

    let said = witness.verify(&database).await.must_succeed().stdout;

    let public_key = fs::read_to_string(witness.file("public_key")).expect("a key");
    let public_key = public_key.lines().nth(1).expect("a line");
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("heads: the ledger continues from the 3 heads of 20"), "{said}");
    assert!(last.ends_with(&format!("Z, signed by the key {public_key}")), "{said}");
    let heads = witness.path("heads");
    let unnamed = database.passbook(&["verify", "--heads", &heads]).await.must_succeed().stdout;
    assert_eq!(unnamed.lines().last(), Some(last), "without a key, that of the file counts");
    let lines: Vec<Value> =
        witness.heads().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[0]["public_key"]), (5, &Value::from(public_key)));
    let alice = &lines[1];
    assert_eq!(
        (alice["account_id"].as_str(), alice["sequence"].as_i64()),
        (Some("alice"), Some(3))
    );
    assert_eq!(
        (alice["balance"].as_str(), alice["currency_code"].as_str()),
        (Some("70.25"), Some("USD"))
    );
    assert_eq!((lines[3]["sequence"].as_i64(), lines[3]["balance"].as_str()), (Some(0), Some("0")));
}

/// Each change leaves a ledger that `verify` alone calls right.
async fn a_ledger_that_was_rewritten_is_found(kind: Kind) {
    let (database, server, _client) = ledger(kind).await;
    let witness = Witness::create().await;
    witness.sign(&database).await;
    drop(server);
    let tampering = Tampering::begin(&database).await;
    let requests_of = |which: &str| {
        format!(
            "DELETE FROM requests WHERE transaction_id IN \
                (SELECT transaction_id FROM entries WHERE {which}); \
             DELETE FROM entries WHERE {which}"
        )
    };
    let (of_alice, of_bob) = (of_account("alice"), of_account("bob"));
    let another_time = format!(
        "UPDATE requests SET create_time_us = create_time_us - 1 WHERE transaction_id = \
            (SELECT transaction_id FROM entries WHERE {of_alice} AND sequence = 1); \
         UPDATE entries SET create_time_us = create_time_us - 1 WHERE {of_alice} AND sequence = 1"
    );
    let another_amount = format!(
        "UPDATE entries SET amount = '9.50', balance_after = '9.50' WHERE {of_bob}; \
         UPDATE accounts SET balance = '9.50' WHERE account_id = 'bob'"
    );
    let shorter = format!(
        "{}; UPDATE accounts SET sequence = 2, balance = '70.00' WHERE account_id = 'alice'",
        requests_of(&format!("{of_alice} AND sequence = 3"))
    );
    let vanished =
        format!("{}; DELETE FROM accounts WHERE account_id = 'bob'", requests_of(&of_bob));
    let empty_vanished = "DELETE FROM accounts WHERE account_id = 'empty'".to_owned();
    let cases = [
        (another_time, Some("alice"), "fault: account alice, entry 3: its hash is "),
        (another_amount, Some("bob"), "fault: account bob, entry 1: its hash is "),
        (
            shorter,
            Some("alice"),
            "fault: account alice, entry 3: it is missing: the account's sequence is 2; its signed \
             head has 3\n",
        ),
        (vanished, None, "fault: account bob: it is missing; its signed head has the sequence 1\n"),
        (empty_vanished, None, "fault: account empty: it is missing; "),
    ];
    for (change, rehashed, words) in cases {
        database.execute(&change).await;
        if let Some(account_id) = rehashed {
            rehash(&database, account_id).await;
        }
        tampering.make_commits().await;
        database.passbook(&["verify"]).await.must_succeed();

        let outcome = witness.verify(&database).await;

        outcome.must_fail_with(1, "the ledger has a fault");
        assert!(outcome.stdout.starts_with(words), "{change}:\n{}\n{words}", outcome.stdout);
        tampering.undo().await;
    }
    witness.verify(&database).await.must_succeed();
}

async fn a_changed_file_of_heads_is_an_error(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    let witness = Witness::create().await;
    witness.sign(&database).await;
    let text = witness.heads();
    let lines: Vec<&str> = text.lines().collect();
    client.deposit(deposit("bob", "5")).await.expect("applied");
    witness.sign(&database).await;
    let later = witness.heads();
    let without = |removed: usize| {
        let rest = lines.iter().enumerate().filter(|(index, _)| *index != removed);
        rest.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let later_bob = later.lines().nth(2).expect("a line");
    let cases = [
        (text.replace("70.25", "70.26"), "line 2: the signature does not match the head"),
        (
            text.replacen("\"account_id\":\"bob\"", "\"account_id\":\"bot\"", 1),
            "line 3: the signature",
        ),
        (without(2), "line 4: the lines before it are not those that were signed: 3 heads were"),
        (without(4), "line 5: the trailer is missing: the file was cut off"),
        (text.replace(lines[2], later_bob), "line 5: the lines before it are not those"),
        (
            text.replace("\"heads\":3", "\"heads\":2"),
            "line 5: the signature does not match the trailer",
        ),
        (text.clone() + lines[1], "line 5: there is more after the trailer"),
        (text[..text.len() - 20].to_owned(), "line 5: it is no line of signed heads"),
        (without(0), "line 1: it is not the header"),
        (String::new(), "line 1: it is not the header"),
        (text.replace("_version\":1", "_version\":2"), "line 1: format_version is 2; this program"),
    ];
    for (changed, words) in cases {
        fs::write(witness.file("heads"), changed).expect("written");
        witness.verify(&database).await.must_fail_with(1, words);
    }

    fs::write(witness.file("heads"), &text).expect("written");
    witness.verify(&database).await.must_succeed();
    fs::write(witness.file("key"), OPENSSL_KEY).expect("written");
    witness.sign(&database).await;
    let outcome = witness.verify(&database).await;
    outcome
        .must_fail_with(1, "heads: line 1: it is signed by the key MCowBQYDK2VwAyEA1iAp6w3jkfRH");
    fs::write(witness.file("public_key"), OPENSSL_PUBLIC_KEY).expect("written");
    witness.verify(&database).await.must_succeed();
}

async fn an_export_signs_the_heads_of_its_instant(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let witness = Witness::create().await;
    let (key, heads) = (witness.path("key"), witness.path("heads"));

    let arguments = ["export", "--heads", &heads, "--heads-key", &key];
    let export = database.passbook(&arguments).await.must_succeed().stdout;

    witness.verify(&database).await.must_succeed();
    let header = |text: &str| serde_json::from_str::<Value>(text.lines().next()?).ok();
    let time = |text: &str| header(text).expect("a header")["create_time"].clone();
    assert_eq!(time(&export), time(&witness.heads()));
    let alone = database.passbook(&["export", "--heads", &heads]).await;
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
}

async fn an_imported_ledger_continues_its_heads(kind: Kind) {
    let (source, _server, _client) = ledger(kind).await;
    let witness = Witness::create().await;
    witness.sign(&source).await;
    let export = witness.path("export");
    source.passbook(&["export", "--output", &export]).await.must_succeed();
    let other = match kind {
        Kind::Sqlite => Kind::Postgres,
        Kind::Postgres => Kind::Sqlite,
    };
    let target = source.create_beside(other).await;
    target.passbook(&["import", "--input", &export]).await.must_succeed();
    let server = Server::start(&target).await;
    server.client().deposit(deposit("alice", "1")).await.expect("applied");

    witness.verify(&target).await.must_succeed();
}

async fn many_heads_are_signed_and_checked_by_pages(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let columns = "currency_code, currency_scale, balance, held, overdraft_limit, \
        unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, \
        update_time_us, caller";
    let numbers = database.numbers(2500);
    let copy = format!(
        "INSERT INTO accounts (account_id, {columns}) SELECT 'z-' || n, {columns} \
         FROM accounts, {numbers} WHERE account_id = 'empty'"
    );
    database.execute(&copy).await;
    let tampering = Tampering::begin(&database).await;
    tampering.make_commits().await;
    let witness = Witness::create().await;
    witness.sign(&database).await;
    assert_eq!(witness.heads().lines().count(), 2505);
    let said = witness.verify(&database).await.must_succeed().stdout;
    assert!(said.contains("from the 2503 heads of"), "{said}");

    for account_id in ["z-998", "z-1", "alice"] {
        let removed = format!("DELETE FROM accounts WHERE account_id = '{account_id}'");
        database.execute(&removed).await;
        tampering.make_commits().await;

        let outcome = witness.verify(&database).await;

        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        let words = format!("fault: account {account_id}: it is missing; ");
        assert!(outcome.stdout.starts_with(&words), "{}", outcome.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_private_and_never_overwritten() {
    let witness = Witness::create().await;
    let key = fs::read_to_string(witness.file("key")).expect("a key");
    let mode = fs::metadata(witness.file("key")).expect("a file").permissions().mode();

    let again = passbook(&["heads", "create-key", "--key", &witness.path("key")]).await;

    assert_eq!(mode & 0o777, 0o600);
    again.must_fail_with(1, "key: ");
    assert_eq!(fs::read_to_string(witness.file("key")).expect("a key"), key);
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI"), "as openssl");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_key_is_wrong_usage() {
    let witness = Witness::create().await;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (key, public_key) = (witness.path("key"), witness.path("public_key"));
    let signing = database.passbook(&["heads", "sign", "--key", &public_key]).await;
    signing.must_fail_with(2, "public_key: is no private key in PEM: ");
    let arguments = ["verify", "--heads", "heads", "--heads-public-key", &key];
    database.passbook(&arguments).await.must_fail_with(2, "key: is no public key in PEM: ");
    let signing = database.passbook(&["heads", "sign", "--key", "/no/such/key"]).await;
    signing.must_fail_with(2, "/no/such/key: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_is_warned_of() {
    let witness = Witness::create().await;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let key = witness.path("key");
    for (mode, is_warned) in [(0o600, false), (0o644, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("set");
        let signed = database.passbook(&["heads", "sign", "--key", &key]).await.must_succeed();
        let warning = format!("the private key {key} is open to all users of this machine");
        assert_eq!(signed.stderr.contains(&warning), is_warned, "{mode:o}: {}", signed.stderr);
    }
}
