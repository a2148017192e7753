//! Each PostgreSQL session has the settings that the service needs, whatever is in between and
//! whatever the defaults of role and database. Otherwise it is an error that names it.

use crate::harness::{pgbouncer::PgBouncer, proxy::PostgresProxy, servers::PostgresServer, *};

/// The settings of a writer's session.
const OF_WRITERS: [(&str, &str); 14] = [
    ("application_name", "passbook"),
    ("client_encoding", "UTF8"),
    ("default_transaction_isolation", "read committed"),
    ("enable_indexscan", "on"),
    ("enable_seqscan", "off"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("idle_session_timeout", "0"),
    ("jit", "off"),
    ("lock_timeout", "2ms"),
    ("plan_cache_mode", "force_generic_plan"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "4s"),
    ("synchronous_commit", "on"),
    ("transaction_isolation", "read committed"),
];

/// Database defaults that are nearly all wrong. (With a statement timeout of one second the
/// session can still be prepared.)
const HOSTILE: [(&str, &str); 12] = [
    ("default_transaction_isolation", "serializable"),
    ("enable_indexscan", "off"),
    ("enable_nestloop", "off"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("idle_session_timeout", "1s"),
    ("jit", "on"),
    ("lock_timeout", "1s"),
    ("plan_cache_mode", "force_custom_plan"),
    ("standard_conforming_strings", "off"),
    ("client_encoding", "LATIN1"),
    ("statement_timeout", "1s"),
    ("synchronous_commit", "off"),
];

async fn start_hostile(settings: &[&str]) -> PostgresServer {
    let server = PostgresServer::start_in(None, settings).await;
    server.migrate().await;
    for (name, value) in HOSTILE {
        server.execute(&format!("ALTER DATABASE postgres SET {name} = '{value}'")).await;
    }
    server
}

/// Records the settings of the session with each recorded request.
async fn watch_settings(server: &PostgresServer) {
    let names = OF_WRITERS.map(|(name, _)| format!("'{name}'")).join(", ");
    for statement in [
        "CREATE TABLE seen (name text, value text)",
        &format!(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                INSERT INTO seen SELECT name, current_setting(name) \
                    FROM unnest(ARRAY[{names}]) AS name; \
                RETURN NULL; END $$"
        ),
        "CREATE TRIGGER look AFTER INSERT ON requests EXECUTE FUNCTION look()",
    ] {
        let session = server.session().await;
        let done = sea_orm::ConnectionTrait::execute_unprepared(&session, statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn seen(server: &PostgresServer) -> Vec<(String, String)> {
    let sql = "SELECT DISTINCT name, value FROM seen ORDER BY name, value";
    let rows = database::rows(&server.session().await, sql).await.expect("an answer");
    let text = |row: &sea_orm::QueryResult, column| row.try_get_by_index(column).expect("text");
    rows.iter().map(|row| (text(row, 0), text(row, 1))).collect()
}

fn expected() -> Vec<(String, String)> {
    OF_WRITERS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_configured_even_if_its_options_did_not_arrive() {
    let _slot = slots::take(Load::Light).await;
    let database = start_hostile(&[]).await;
    watch_settings(&database).await;
    let proxy = PostgresProxy::start(&database.url()).await;
    proxy.drop_options();
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address);

    let server = Server::start_at(&url, &[]).await;
    let client = server.client();
    open_funded(&client, "alice", "10").await;

    assert_eq!(seen(&database).await, expected());
}

/// Makes three acknowledged deposits through this URL, and crashes the database.
async fn survive_a_crash(mut database: PostgresServer, url: &str) {
    let server = Server::start_at(url, &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    for _ in 0..3 {
        server.client().deposit(deposit("alice", "1")).await.expect("applied");
    }
    drop(server);
    database.crash();
    database.run().await;

    let server = Server::start_at(&database.url(), &[]).await;
    assert_eq!(balance(&server.client(), "alice").await, "4.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_a_crash_behind_a_pooler_that_ignores_options() {
    let _slot = slots::take(Load::Light).await;
    let database = start_hostile(&["wal_writer_delay=10s"]).await;
    let proxy = PostgresProxy::start(&database.url()).await;
    proxy.drop_options();
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address);
    survive_a_crash(database, &url).await;
}

const NO_PGBOUNCER: &str = "there is no pgbouncer (apt-get install pgbouncer)";

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_a_crash_behind_pgbouncer_in_session_mode() {
    let _slot = slots::take(Load::Light).await;
    for lines in [
        &["pool_mode = session"][..],
        &["pool_mode = session", "ignore_startup_parameters = extra_float_digits, options"],
    ] {
        let database = start_hostile(&["wal_writer_delay=10s"]).await;
        watch_settings(&database).await;
        let Some(pooler) = PgBouncer::start(&database, lines).await else {
            return skipped(NO_PGBOUNCER);
        };
        survive_a_crash(database, &pooler.url()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_in_transaction_mode_is_an_error() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start_migrated().await;
    for mode in ["transaction", "statement"] {
        let mode = format!("pool_mode = {mode}");
        let lines = [&*mode, "ignore_startup_parameters = extra_float_digits, options"];
        let Some(pooler) = PgBouncer::start(&database, &lines).await else {
            return skipped(NO_PGBOUNCER);
        };
        let url = pooler.url();

        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate", "up"]] {
            let outcome = passbook(&[command, &["--database-url", &url]].concat()).await;
            let why = outcome.must_fail(1);
            assert!(why.contains("pool_mode = session"), "{mode}: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_an_unsafe_setting_is_an_error_that_names_it() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start_migrated().await;
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    database.execute(latin).await;
    database.execute("CREATE ROLE replicating SUPERUSER LOGIN").await;
    database.execute("ALTER ROLE replicating SET session_replication_role = replica").await;
    let place = format!("{}/postgres", database.address());
    for (url, why) in [
        (
            format!("postgres@{}/latin", database.address()),
            "server_encoding is LATIN1 and must be UTF8 or SQL_ASCII",
        ),
        (
            format!("postgres@{place}?options[synchronous_commit]=off"),
            "synchronous_commit is off and must be on or remote_apply",
        ),
        (
            format!("postgres@{place}?options=-c%20synchronous-commit%3Dlocal"),
            "synchronous_commit is local and must be on or remote_apply",
        ),
        (
            format!("postgres@{place}?options=--default_transaction_isolation%3Dserializable"),
            "default_transaction_isolation is serializable and must be read committed",
        ),
        (
            format!("postgres@{place}?options[standard_conforming_strings]=off"),
            "standard_conforming_strings is off and must be on",
        ),
        (
            format!("replicating@{place}"),
            "session_replication_role is replica and must be origin or local",
        ),
    ] {
        let url = format!("postgres://{url}");
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate", "up"]] {
            let outcome = passbook(&[command, &["--database-url", &url]].concat()).await;
            let error = outcome.must_fail(1);
            let address = database.address();
            let line = format!("cannot connect to the database at {address}: {why}: ");
            assert!(error.starts_with(&line), "{url}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_lose_changes_when_the_power_fails_is_an_error() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start_in(None, &["fsync=off"]).await;
    let (url, address) = (database.url(), database.address());
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate", "up"]] {
        let outcome = passbook(&[command, &["--database-url", &url]].concat()).await;
        let error = outcome.must_fail(1);
        let line =
            format!("cannot connect to the database at {address}: fsync is off and must be on: ");
        assert!(error.starts_with(&line), "{error}");
    }
}

/// As on a busy machine. A server has callers who wait, and a command has none.
#[tokio::test(flavor = "multi_thread")]
async fn commands_wait_for_a_session_that_starts_late() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let url = database.url_at(proxy.address);
    proxy.delay_sessions(ms(2_500));
    let run =
        async |command: &[&str]| passbook(&[command, &["--database-url", &url]].concat()).await;

    let (migrated, exported, served) = tokio::join!(
        run(&["migrate", "up"]),
        run(&["export"]),
        run(&["serve", "--listen", "127.0.0.1:0", "--database-wait", "0s"]),
    );
    migrated.must_succeed();
    exported.must_succeed();
    served.must_fail_with(1, "no answer within 2 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_an_encoding_keeps_bytes() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start().await;
    let bytes = "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0";
    database.execute(bytes).await;
    let url = format!("postgres://postgres@{}/bytes", database.address());

    let server = Server::start_at(&url, &["--migrate"]).await;
    let client = server.client();
    open(&client, "alice").await;
    let mut request = deposit("alice", "1");
    request.description = "10 € für Łukasz".to_owned();
    let made = client.deposit(request.clone()).await.expect("applied");

    let transaction = made.transaction.expect("a transaction");
    assert_eq!(transaction.description, request.description);
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_and_limit_settings_in_a_url_apply_and_are_logged() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start_migrated().await;
    watch_settings(&database).await;
    let url = format!(
        "{}&options[plan_cache_mode]=auto&options=-c%20synchronous_commit%3Dremote_apply%20\
         -c%20statement_timeout%3D3000",
        database.url()
    );

    let server = Server::start_at(&url, &[]).await;
    open_funded(&server.client(), "alice", "1").await;

    let overridden = [
        ("plan_cache_mode", "auto"),
        ("statement_timeout", "3s"),
        ("synchronous_commit", "remote_apply"),
    ];
    let expected = OF_WRITERS.map(|(name, value)| {
        let given = overridden.iter().find(|(it, _)| *it == name);
        (name.to_owned(), given.map_or(value, |(_, value)| value).to_owned())
    });
    assert_eq!(seen(&database).await, expected);
    let logged = "plan_cache_mode=auto, statement_timeout=3000, synchronous_commit=remote_apply";
    assert!(server.log().contains(logged), "{}", server.log());
}

/// Each command waits for a foreign lock, longer than its role's default timeouts.
#[tokio::test(flavor = "multi_thread")]
async fn role_timeouts_do_not_stop_verify_export_import_and_migrate() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start_migrated().await;
    let server = Server::start_at(&database.url(), &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    drop(server);
    let url = database.url();
    let exported = passbook(&["export", "--database-url", &url]).await.must_succeed().stdout;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), exported).expect("it can be written");
    let file = file.path().to_str().expect("a path in UTF-8");
    database.execute("CREATE DATABASE empty; CREATE DATABASE imported").await;
    for name in ["statement_timeout", "lock_timeout"] {
        database.execute(&format!("ALTER ROLE postgres SET {name} = '400ms'")).await;
    }
    for name in ["idle_in_transaction_session_timeout", "idle_session_timeout"] {
        database.execute(&format!("ALTER ROLE postgres SET {name} = '500ms'")).await;
    }
    let at = |name: &str| format!("postgres://postgres@{}/{name}", database.address());
    passbook(&["migrate", "--database-url", &at("imported"), "up"]).await.must_succeed();

    let migrations = "SELECT pg_advisory_lock(8097880544398765931)";
    for (name, lock, command) in [
        ("postgres", "LOCK TABLE entries", &["verify"][..]),
        ("postgres", "LOCK TABLE entries", &["export"]),
        ("imported", "LOCK TABLE entries", &["import", "--input", file]),
        ("empty", migrations, &["migrate", "up"]),
    ] {
        let url = at(name);
        let other = database::connect(&url).await.expect("a session");
        let unlimited = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
        for sql in unlimited.split(';').chain(["BEGIN", lock]) {
            let done = sea_orm::ConnectionTrait::execute_unprepared(&other, sql).await;
            done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let arguments = [command, &["--database-url", &url]].concat();
        let (outcome, ()) = tokio::join!(passbook(&arguments), async {
            // Ten times its role's timeout.
            tokio::time::sleep(seconds(4)).await;
            other.close().await.expect("the session ends");
        });
        outcome.must_succeed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_send_one_statement_per_call() {
    let database = TestDatabase::create_empty(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let url = database.url_at(proxy.address);

    passbook(&["migrate", "up", "--database-url", &url]).await.must_succeed();
    assert_eq!(proxy.calls_of_several_statements(), 0, "migrate up");
    let server = Server::start_at(&url, &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    drop(server);
    assert_eq!(proxy.calls_of_several_statements(), 0, "serve");
    for command in [&["verify"][..], &["export"], &["migrate", "down"], &["migrate", "down"]] {
        passbook(&[command, &["--database-url", &url]].concat()).await.must_succeed();
        assert_eq!(proxy.calls_of_several_statements(), 0, "{command:?}");
    }
}

/// `SET TRANSACTION` after BEGIN would be one more round trip, and some engines reject it.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_begins_with_one_statement() {
    let _slot = slots::take(Load::Light).await;
    let database = PostgresServer::start_in(None, &["log_statement=all"]).await;
    database.migrate().await;
    passbook(&["export", "--database-url", &database.url()]).await.must_succeed();
    let log = database.log();
    assert!(log.contains("pg_export_snapshot"), "{log}");
    let set = log.lines().filter(|line| line.to_uppercase().contains("SET TRANSACTION ISOLATION"));
    assert_eq!(set.collect::<Vec<_>>(), Vec::<&str>::new());
}
