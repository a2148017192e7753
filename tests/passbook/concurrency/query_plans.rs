//! PostgreSQL plans the statements of the write path once a connection. A plan that is made while
//! the tables are empty, or have three rows, must be right when they have a million: each row is
//! found by its key. The plans are those that the server's own sessions executed.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::ConnectionTrait;

use crate::{
    harness::{
        auto_explain::{self, Execution, executions},
        request::{one_of_each_kind, one_of_each_kind_rejected},
        servers::PostgresServer,
        *,
    },
    tidy::files_under,
};

/// Rows in each table, of other accounts; times `PASSBOOK_TEST_SCALE`.
const OTHERS: usize = 100_000;
/// Holds that have ended, on an account that changes; times `PASSBOOK_TEST_SCALE`.
const ENDED_HOLDS: usize = 10_000;
/// Rows that one step of a statement may look at.
const ROWS_MAX: i64 = 20;
/// Pages (8 KiB) that a statement may touch.
const PAGES_MAX: i64 = 60;
/// With so few there is one worker, and each of its statements was planned by the first round.
const CONNECTIONS: [&str; 2] = ["--database-connections-max", "7"];

const TABLES: [&str; 6] =
    ["accounts", "account_changes", "currencies", "entries", "holds", "requests"];

/// What executes a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The worker's connection, which keeps the plan.
    Worker,
    /// A connection that is made when somebody else has a lock: it plans anew.
    Retry,
}

/// The statements of the write path that name a table, each by the method of `WriteTransaction` that
/// executes it and by words that no other has.
const STATEMENTS: [(&str, &str, By); 16] = [
    ("lock", r#"FOR UPDATE) AS "locked""#, By::Worker),
    ("lock", r#"FOR UPDATE SKIP LOCKED) AS "locked""#, By::Retry),
    ("lock", "FROM pg_locks held", By::Retry),
    // And the first of these.
    ("wait_for", r#"FOR UPDATE) AS "locked""#, By::Retry),
    ("records", "AS key(caller, request_id)", By::Worker),
    ("records", "AS name(account_key, sequence)", By::Worker),
    ("holds", "AS held(account_key)", By::Worker),
    ("transactions", "AS name(transaction_id)", By::Worker),
    ("reversed_by", "AS reversed(transaction_id)", By::Worker),
    ("opening_attributes", "AS wanted (account_id, version)", By::Worker),
    // The same statement, after a COMMIT in doubt.
    ("changed_after", "AS wanted (account_id, version)", By::Worker),
    ("write", "INSERT INTO accounts (", By::Worker),
    ("write", "INSERT INTO requests (", By::Worker),
    ("write", "INSERT INTO account_changes (", By::Worker),
    ("write", "INSERT INTO holds (", By::Worker),
    ("write", "UPDATE holds SET", By::Worker),
];
/// What a trigger executes.
const OF_TRIGGERS: &str = "NOT EXISTS (SELECT 1 FROM currencies";
/// GetAccount, which the harness calls and which is not part of a change. A read is planned at each
/// execution: its plan is as good as the statistics, which this test keeps out of date.
const OF_GET_ACCOUNT: &str = r#"AS "expired" FROM "accounts""#;
/// Methods of `WriteTransaction` whose statements name no table.
const WITHOUT_TABLES: [&str; 3] = ["take_turn", "commit", "roll_back"];

/// What the tables have in them when the plans are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// Nothing, and PostgreSQL has no statistics.
    Empty,
    /// Nothing, and PostgreSQL knows it.
    AnalyzedEmpty,
    /// Three rows at most, and PostgreSQL knows it.
    AnalyzedFew,
}

/// In the order in which they end.
struct Ledger {
    server: Server,
    database: TestDatabase,
    postgres: PostgresServer,
}

impl Ledger {
    async fn start(beginning: Beginning) -> Self {
        let slot = slots::take(Load::Heavy).await;
        let postgres = auto_explain::start().await;
        postgres.migrate().await;
        let database = TestDatabase::outside(&postgres.url(), slot);
        if beginning == Beginning::AnalyzedFew {
            let server = Server::start(&database).await;
            a_few_rows(&server.client()).await;
        }
        if beginning != Beginning::Empty {
            database.execute("ANALYZE").await;
        }
        let server = Server::start_with(&database, &CONNECTIONS).await;
        Self { server, database, postgres }
    }

    /// Makes changes of every kind in every way, on accounts that this round opens; returns how the
    /// statements were executed.
    async fn round(&self, number: usize) -> Vec<Execution> {
        let start = self.postgres.log().len();
        let account_id = changed_in(number);
        let client = self.server.client();
        changes(&client, &account_id).await;
        changes_of_accounts(&client, &account_id).await;
        self.change_behind_a_lock(&client, &account_id).await;
        let mut logged = None;
        eventually("the log is written", async || {
            logged = executions(&self.postgres.log()[start..], "passbook");
            logged.is_some()
        })
        .await;
        let is_of_a_change =
            |it: &Execution| it.names_any(&TABLES) && !it.statement.contains(OF_GET_ACCOUNT);
        logged.into_iter().flatten().filter(is_of_a_change).collect()
    }

    /// Another program has the account's row, until somebody waits for it.
    async fn change_behind_a_lock(&self, client: &Client, account_id: &str) {
        let other = self.database.lock_account(account_id).await;
        let waiting = spawn_deposit(client, account_id, "1");
        // A worker's wait is over in a moment, and does not count.
        let waits = "pg_stat_activity WHERE application_name = 'passbook'
            AND wait_event_type = 'Lock' AND state_change < clock_timestamp() - interval '50 ms'";
        eventually("the row is waited for", async || self.database.count(waits).await > 0).await;
        other.execute_unprepared("ROLLBACK").await.expect("the row is free");
        waiting.await.expect("a call").expect("it is made");
    }

    /// Rows of other accounts, and a long history of those that later rounds change.
    async fn fill(&self) {
        for round in [1, 2] {
            open(&self.server.client(), &changed_in(round)).await;
        }
        let of_n = format!("FROM {}", self.database.numbers(OTHERS * scale()));
        let ended = self.database.numbers(ENDED_HOLDS * scale());
        let accounts = "currency_code, currency_scale, balance, held, overdraft_limit, \
            unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, \
            update_time_us, caller";
        let changes = "kind, reason, caller, attributes_before, attributes_after, create_time_us";
        let holds = "hold_id, account_key, amount, state, expire_time_us, request_id, \
            create_time_us, update_time_us";
        for sql in [
            format!(
                "INSERT INTO accounts (account_id, {accounts}) SELECT 'other-' || n, {accounts}
                 {of_n}, (SELECT * FROM accounts LIMIT 1) a"
            ),
            format!(
                "INSERT INTO account_changes (account_id, version, {changes})
                 SELECT 'other-' || n, version, {changes}
                 {of_n}, (SELECT * FROM account_changes LIMIT 1) c"
            ),
            format!(
                "INSERT INTO holds ({holds}) SELECT 'h-' || n, account_key, 1, 'open',
                     CASE WHEN n % 2 = 0 THEN n END, 'r-' || n, 1, 1
                 {of_n} JOIN accounts ON account_id = 'other-' || n"
            ),
            format!(
                "INSERT INTO holds ({holds}) SELECT account_id || n, account_key, 1, 'released',
                     n, 'r-' || n, 1, 1
                 FROM {ended}, accounts WHERE account_id IN ('{}', '{}')",
                changed_in(1),
                changed_in(2),
            ),
            format!(
                "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind,
                     entry_keys, create_time_us, reverses_transaction_id)
                 SELECT '', 'r-' || n, fingerprint, gen_random_uuid(), kind, entry_keys,
                     create_time_us, gen_random_uuid() {of_n},
                     (SELECT * FROM requests WHERE reverses_transaction_id IS NOT NULL LIMIT 1) r"
            ),
            "INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after,
                     create_time_us, hash)
                 SELECT a.account_key, 1, gen_random_uuid(), amount, balance_after,
                     e.create_time_us, hash
                 FROM (SELECT account_key FROM accounts WHERE account_id LIKE 'other-%') a,
                     (SELECT * FROM entries LIMIT 1) e"
                .to_owned(),
        ] {
            self.database.execute(&sql).await;
        }
    }
}

/// The account that a round changes most.
fn changed_in(round: usize) -> String {
    format!("changed-{round}")
}

/// Not more than three in any table.
async fn a_few_rows(client: &Client) {
    open_funded(client, "few", "10").await;
    freeze(client, "few").await;
    unfreeze(client, "few").await;
    place(client, hold("few", "1")).await;
}

/// Requests of every kind: applied, rejected, both of them repeated, in conflict with
/// another, tried only, asked for, and fenced; and a hold that expires.
async fn changes(client: &Client, account_id: &str) {
    // While there are no other holds, or one.
    let first = format!("{account_id}-first");
    open_funded(client, &first, "1").await;
    place(client, hold_named(&first, &first, "1")).await;
    captured(client, capture(&first)).await;
    for request in one_of_each_kind(client, account_id).await {
        request.send(client, PATIENCE).await.expect("it is made");
        let again = request.send(client, PATIENCE).await.expect("it is made only once");
        assert!(again.replayed);
    }
    let left = place(client, hold(account_id, "1")).await;
    for request in one_of_each_kind_rejected(account_id, &left.hold_id) {
        for _ in 0..2 {
            request.send(client, PATIENCE).await.expect_err("it is rejected");
        }
    }
    place_and_expire(client, hold(account_id, "1")).await;
    let request = deposit(account_id, "1");
    client.deposit(request.clone()).await.expect("it is made");
    let other = DepositRequest { amount: money("2"), ..request.clone() };
    must_fail(client.deposit(other).await, Reason::RequestIdReused);
    let tried = DepositRequest { validate_only: true, ..deposit(account_id, "1") };
    client.deposit(tried).await.expect("it would be made");
    for request_id in [request.request_id, new_request_id()] {
        request_outcome(client, &request_id).await;
        fence(client, &request_id).await;
    }
}

/// An account in each of its states, updated, and opened again.
async fn changes_of_accounts(client: &Client, account_id: &str) {
    freeze(client, account_id).await;
    let request = limit_of(account_id, "5");
    client.update_account(request).await.expect("it is updated");
    open(client, account_id).await;
    unfreeze(client, account_id).await;
    let closed = format!("{account_id}-closed");
    open(client, &closed).await;
    close(client, &closed).await.expect("it is closed");
}

/// Fails unless each of these executions found its rows by their keys.
fn assert_rows_are_found_by_key(executions: &[Execution]) {
    let (mut rows, mut pages) = (BTreeMap::new(), BTreeMap::new());
    for execution in executions {
        let statement = execution.statement.as_str();
        let scans = execution.scans(&TABLES);
        assert!(scans.is_empty(), "{scans:?} in\n{statement}");
        raise(&mut rows, statement, execution.rows(&TABLES));
        raise(&mut pages, statement, execution.pages());
    }
    for (statement, rows) in rows {
        let pages = pages[statement];
        println!("{rows} rows, {pages} pages: {}", statement.get(..90).unwrap_or(statement));
        assert!(rows <= ROWS_MAX, "one step looks at {rows} rows in\n{statement}");
        assert!(pages <= PAGES_MAX, "{pages} pages are touched by\n{statement}");
    }
}

fn raise<'a>(most: &mut BTreeMap<&'a str, i64>, statement: &'a str, count: i64) {
    let most = most.entry(statement).or_default();
    *most = count.max(*most);
}

/// Fails unless the sessions that write have executed all that is listed, and nothing else.
fn assert_all_are_there(executions: &[Execution]) {
    let writes = |it: &&Execution| it.statement.contains("FOR UPDATE");
    let writers: BTreeSet<_> =
        executions.iter().filter(writes).map(|it| it.process.as_str()).collect();
    let of_writers = executions.iter().filter(|it| writers.contains(it.process.as_str()));
    let seen: BTreeSet<_> = of_writers.map(|it| it.statement.as_str()).collect();
    for statement in &seen {
        let is_listed = STATEMENTS.iter().any(|(_, words, _)| statement.contains(words))
            || statement.contains(OF_TRIGGERS);
        assert!(is_listed, "not among the statements of the write path:\n{statement}");
    }
    for (method, words, _) in STATEMENTS {
        let is_seen = seen.iter().any(|statement| statement.contains(words));
        assert!(is_seen, "{method}: nothing executed the statement with {words}");
    }
}

/// Fails unless the worker has executed its statements by plans that it had before.
fn assert_plans_were_kept(executions: &[Execution], before: &[Execution]) {
    let plan = |it: &Execution| (it.process.clone(), it.statement.clone(), it.cost());
    let before: BTreeSet<_> = before.iter().map(plan).collect();
    let kept = executions.iter().filter(|it| before.contains(&plan(it)));
    let kept: BTreeSet<_> = kept.map(|it| it.statement.as_str()).collect();
    for (method, words, _) in STATEMENTS.iter().filter(|(_, _, by)| *by == By::Worker) {
        let is_kept = kept.iter().any(|statement| statement.contains(words));
        assert!(is_kept, "{method}: no plan from before for the statement with {words}");
    }
}

async fn plans_are_right_at_many_rows(beginning: Beginning) {
    let ledger = Ledger::start(beginning).await;
    let before = ledger.round(0).await;
    ledger.fill().await;

    let executions = ledger.round(1).await;
    assert_all_are_there(&executions);
    assert_plans_were_kept(&executions, &before);
    assert_rows_are_found_by_key(&executions);

    // Now the plans are made again.
    ledger.database.execute("ANALYZE").await;
    let executions = ledger.round(2).await;
    assert_all_are_there(&executions);
    assert_rows_are_found_by_key(&executions);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_were_made_for_empty_tables_are_right_at_many_rows() {
    plans_are_right_at_many_rows(Beginning::Empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_were_made_for_tables_known_to_be_empty_are_right_at_many_rows() {
    plans_are_right_at_many_rows(Beginning::AnalyzedEmpty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_were_made_for_a_few_rows_are_right_at_many() {
    plans_are_right_at_many_rows(Beginning::AnalyzedFew).await;
}

/// So that a statement that is added is listed above, and then executed by these tests.
#[test]
fn all_that_a_write_transaction_executes_is_listed() {
    let files = files_under(&["src/storage"]);
    let impls = files.iter().flat_map(|it| it.text.split("impl WriteTransaction {\n").skip(1));
    let methods = impls.filter_map(|it| it.split("\n}\n").next());
    let methods = methods.flat_map(|it| it.split("pub async fn ").skip(1));
    let methods = methods.filter_map(|it| it.split('(').next());
    let listed = STATEMENTS.iter().map(|(method, ..)| *method).chain(WITHOUT_TABLES);
    assert_eq!(methods.collect::<BTreeSet<_>>(), listed.collect());

    let write = include_str!("../../../src/storage/write/postgres.rs");
    let listed = STATEMENTS.iter().filter(|(method, ..)| *method == "write").count();
    assert_eq!(
        write.matches(": LazyLock<String>").count(),
        listed,
        "statements of write/postgres.rs"
    );
}
