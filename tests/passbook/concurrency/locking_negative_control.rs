//! Negative controls: the load of `locking` without the lock must lose updates, and the checker
//! must find that. A checker that finds nothing here proves nothing elsewhere.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};

use crate::harness::{
    checker::{self, History},
    decimal::Decimal,
    ledger_dump::{EntryRow, LedgerDump},
    proxy::PostgresProxy,
    ring::{RingLoad, Stop, lost_to_foreign_updates, open_ring},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn without_row_locks_and_keys_the_real_write_path_loses_updates_and_is_caught() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    // The key of the entries is a second line of defense, so it is dropped as well.
    // For a newer schema, servers do not know which keys it must have.
    let unprotect = "INSERT INTO passbook_migrations (version, applied_at)
             VALUES ('m29990101_000001_future', 0);
         ALTER TABLE entries DROP CONSTRAINT entries_pkey;
         CREATE INDEX entries_by_account ON entries (account_key, sequence)";

    let (dump, history) = load_without_row_locks(&database, unprotect).await;

    let faults = checker::faults(&dump, &history);
    println!("{} faults, such as {:#?}", faults.len(), &faults[..faults.len().min(6)]);
    assert!(
        faults.iter().any(|fault| fault.contains("the answers add up to")),
        "no update was lost"
    );
    assert!(faults.iter().any(|fault| fault.contains("has sequence")), "no sequence is wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_row_locks_the_key_of_the_entries_still_prevents_silent_loss() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;

    let (dump, history) = load_without_row_locks(&database, "SELECT 1").await;

    let faults = checker::faults(&dump, &history);
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_row_locks_the_updates_of_other_programs_are_overwritten() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    let proxy = PostgresProxy::start(database.url()).await;
    proxy.strip_locks();
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;

    let lost = lost_to_foreign_updates(&database, &server.client()).await;

    println!("{lost} of 720 dollars are gone");
    assert!(lost > 0, "foreign updates are not protected by the row lock");
}

/// The load of `locking` over a proxy that removes `FOR UPDATE`. Runs this statement when the servers
/// have started, which they would not without the keys.
async fn load_without_row_locks(database: &TestDatabase, unprotect: &str) -> (LedgerDump, History) {
    let proxy = PostgresProxy::start(database.url()).await;
    proxy.strip_locks();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start_at(&database.url_at(proxy.address), &[]).await);
    }
    database.execute(unprotect).await;
    let clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let (accounts, mut history) = open_ring(&clients[0], 6).await;

    history.extend(RingLoad::on(&accounts, 48, Stop::After(10), seed()).run(&clients).await);

    assert!(
        proxy.locks_stripped() > 0,
        "the server takes no lock, or in words unknown to the proxy"
    );
    (LedgerDump::read(database).await, history)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_read_and_write_in_one_transaction_loses_nothing() {
    let faults = faults_of_handwritten_deposits("BEGIN IMMEDIATE", "COMMIT").await;
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_read_and_write_without_a_transaction_is_caught() {
    let faults = faults_of_handwritten_deposits("SELECT 'no BEGIN'", "SELECT 'no COMMIT'").await;
    println!("{} faults, such as {:#?}", faults.len(), &faults[..faults.len().min(6)]);
    assert!(
        faults.iter().any(|fault| fault.contains("the answers add up to")),
        "no update was lost"
    );
}

/// Eight sessions make 25 deposits each by SQL: read the account, add, write.
async fn faults_of_handwritten_deposits(begin: &'static str, commit: &'static str) -> Vec<String> {
    let database = TestDatabase::create_for(Kind::Sqlite, Load::Heavy).await;
    // Without the key, which would reject a second entry with the same sequence.
    let unprotect = "DROP TABLE entries;
        CREATE TABLE entries (account_key INTEGER, sequence INTEGER, transaction_id BLOB,
            amount TEXT, balance_after TEXT, create_time_us INTEGER, effective_time_us INTEGER,
            hash BLOB)";
    let server = Server::start(&database).await;
    open(&server.client(), "alice").await;
    drop(server);
    database.execute(unprotect).await;
    let mut sessions = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let session = database.connect().await;
        sessions.spawn(async move {
            let mut history = History::new();
            for _ in 0..25 {
                history
                    .push(deposit_by_hand(&session, begin, commit).await.expect("SQL that works"));
                tokio::time::sleep(ms(1)).await;
            }
            history
        });
    }
    let history: History = sessions.join_all().await.into_iter().flatten().collect();
    checker::faults(&LedgerDump::read(&database).await, &history)
}

async fn deposit_by_hand(
    session: &DatabaseConnection,
    begin: &str,
    commit: &str,
) -> Result<(Change, RequestResult), DbErr> {
    // SQLite's lock is not fair: a session can wait for longer than its timeout.
    while let Err(error) = session.execute_unprepared(begin).await {
        assert!(error.to_string().contains("database is locked"), "{error}");
    }
    let read = "SELECT balance, sequence, lower(hex(last_hash)), update_time_us FROM accounts";
    let account = &database::rows(session, read).await?[0];
    let balance_after =
        Decimal::parse(&account.try_get_by_index::<String>(0)?).plus(Decimal::parse("5"));
    let entry = EntryRow {
        sequence: account.try_get_by_index::<i64>(1)? + 1,
        transaction_id: new_request_id(),
        amount: Decimal::parse("5"),
        balance_after,
        create_time_us: account.try_get_by_index(3)?,
        effective_time_us: None,
        hash: String::new(),
    };
    let hash = checker::entry_hash(&account.try_get_by_index::<String>(2)?, "alice", "USD", &entry);
    let EntryRow { sequence, transaction_id, create_time_us, .. } = entry;
    let id = format!("X'{}'", transaction_id.replace('-', ""));
    let statements = [
        format!(
            "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection,
                entry_keys, create_time_us)
             VALUES ('', '{transaction_id}', X'', {id}, 'deposit', NULL, '', {create_time_us})"
        ),
        format!(
            "INSERT INTO entries VALUES (1, {sequence}, {id}, '5', '{balance_after}',
                {create_time_us}, NULL, X'{hash}')"
        ),
        format!(
            "UPDATE accounts SET balance = '{balance_after}', sequence = {sequence},
                version = {sequence} + 1, last_hash = X'{hash}'"
        ),
    ];
    for statement in &statements {
        session.execute_unprepared(statement).await?;
    }
    session.execute_unprepared(commit).await?;
    let entry = Entry {
        account_id: "alice".to_owned(),
        sequence,
        transaction_id: transaction_id.clone(),
        amount: money("5"),
        balance_after: money(&balance_after.to_string()),
        hash: (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&hash[at..at + 2], 16).expect("hex"))
            .collect(),
        ..Entry::default()
    };
    let transaction =
        Transaction { transaction_id, entries: vec![entry], ..Transaction::default() };
    let result = RequestResult::Applied(Answer {
        transaction: Some(transaction),
        hold: None,
        replayed: false,
    });
    Ok((Change::Deposit(deposit("alice", "5")), result))
}
