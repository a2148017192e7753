//! `passbook bench` measures, and fails if balances do not add up.

use crate::harness::*;

on_both_databases! {
    every_workload_runs_and_its_money_adds_up,
    accounts_that_exist_are_used_as_they_are,
    watchers_of_a_run_receive_every_entry,
    event_watchers_of_a_run_receive_every_event_once,
    a_run_fails_when_another_program_changes_balances,
}

async fn every_workload_runs_and_its_money_adds_up(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, 2).await;
    let targets: Vec<_> = servers.iter().map(|it| format!("http://{}", it.address)).collect();
    let directory = tempfile::tempdir().expect("a folder");
    let runs = [
        ("hot", "unary"),
        ("uniform", "unary"),
        ("zipf", "unary"),
        ("transfer", "unary"),
        ("mixed", "unary"),
        ("hot", "stream"),
        ("transfer", "stream"),
        ("mixed", "stream"),
        ("mixed", "shared"),
    ];

    for (workload, mode) in runs {
        let json = directory.path().join(format!("{workload}-{mode}.json"));
        let plot = json.with_extension("svg");
        let (json_path, plot_path) = (json.to_string_lossy(), plot.to_string_lossy());
        let arguments = [
            ["bench", "--target", &targets[0]].as_slice(),
            &["--target", &targets[1], "--workload", workload, "--mode", mode],
            &["--accounts", "20", "--in-flight", "16", "--duration", "500ms", "--warmup", "100ms"],
            &["--json", &json_path, "--plot", &plot_path],
        ]
        .concat();
        let run = passbook(&arguments).await.must_succeed();
        assert!(run.stdout.contains("adds up"), "{}", run.stdout);

        let json = std::fs::read_to_string(&json).expect("the JSON is written");
        let report: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        assert!(report["requests"].as_u64() > Some(10), "{workload} {mode}: {json}");
        assert!(report["p99_ms"].as_f64() > Some(0.0), "{workload} {mode}: {json}");
        assert!(report["mean_batch"].as_f64() >= Some(1.0), "{workload} {mode}: {json}");
        assert_eq!(report["errors"], serde_json::json!({}), "{workload} {mode}");
        assert_eq!(report["verification_error"], serde_json::Value::Null);
        let plot = std::fs::read_to_string(&plot).expect("the plot is drawn");
        assert!(plot.contains("<svg"), "{workload} {mode}");
    }
}

async fn accounts_that_exist_are_used_as_they_are(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    for number in 0..3 {
        open_with_overdraft(&client, &format!("load.{number}"), "1000000").await;
    }
    let before = Change::Deposit(deposit("load.1", "12.34"));
    before.send(&client, PATIENCE).await.expect("applied");
    let target = format!("http://{}", server.address);
    let arguments = [
        ["bench", "--target", &target, "--existing", "load", "--accounts", "3"].as_slice(),
        &["--workload", "uniform", "--in-flight", "8", "--duration", "300ms", "--warmup", "50ms"],
        &["--threads", "2"],
    ]
    .concat();

    let run = passbook(&arguments).await.must_succeed();

    assert!(run.stdout.contains("adds up"), "{}", run.stdout);
    assert_eq!(database.count("accounts").await, 3, "none was opened");
    let missing = [&arguments[..4], &["nobody", "--accounts", "3"]].concat();
    let run = passbook(&missing).await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("nobody.0"), "{}", run.stderr);
}

/// Runs transfers over five accounts on two servers. Returns the output and the JSON.
async fn watched_run(servers: &[Server], watchers: [&str; 2]) -> (String, serde_json::Value) {
    let targets: Vec<_> = servers.iter().map(|it| format!("http://{}", it.address)).collect();
    let directory = tempfile::tempdir().expect("a folder");
    let json = directory.path().join("report.json");
    let json_path = json.to_string_lossy();
    let arguments = [
        ["bench", "--target", &targets[0], "--target", &targets[1]].as_slice(),
        &["--workload", "transfer", "--accounts", "5", "--in-flight", "8"],
        &["--duration", "500ms", "--warmup", "100ms", "--json", &json_path],
        &watchers,
    ]
    .concat();
    let run = passbook(&arguments).await.must_succeed();
    let json = std::fs::read_to_string(&json).expect("the JSON is written");
    (run.stdout, serde_json::from_str(&json).expect("it is JSON"))
}

async fn watchers_of_a_run_receive_every_entry(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, 2).await;

    let (output, report) = watched_run(&servers, ["--watchers", "10"]).await;

    assert!(output.contains("without a gap"), "{output}");
    // Each account is watched twice.
    let entries = database.count("entries").await;
    assert_eq!(report["watched_entries"].as_i64(), Some(2 * entries), "{report}");
    assert_eq!(report["watch_cuts"], serde_json::json!({}));
}

async fn event_watchers_of_a_run_receive_every_event_once(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, 2).await;
    // Of another prefix.
    open_funded(&servers[0].client(), "alice", "1").await;

    let (output, report) = watched_run(&servers, ["--event-watchers", "4"]).await;

    assert!(output.contains("each once"), "{output}");
    let events = &report["events"];
    let entries = database.count("entries").await - 1;
    assert_eq!(events["entries"].as_i64(), Some(4 * entries), "{report}");
    let all = database.count("requests").await + database.count("accounts").await;
    assert_eq!(events["backlog_events"].as_i64(), Some(all), "{report}");
    let lags = ["lag_p50_ms", "lag_p99_ms"].map(|name| events[name].as_f64().expect("a number"));
    assert!(0.0 < lags[0] && lags[0] <= lags[1], "{report}");
    assert_eq!(events["cuts"], serde_json::json!({}));
}

async fn a_run_fails_when_another_program_changes_balances(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let target = format!("http://{}", server.address);
    let arguments =
        ["bench", "--target", &target, "--duration", "2s", "--warmup", "100ms", "--in-flight", "4"];
    let thief = async {
        eventually("the run has begun", async || database.count("entries").await > 10).await;
        let steal = match kind {
            Kind::Postgres => "UPDATE accounts SET balance = balance + 1",
            // As text; the run's balances have two decimals.
            Kind::Sqlite => {
                "UPDATE accounts SET balance = printf('%.2f', CAST(balance AS REAL) + 1)"
            }
        };
        database.execute(steal).await;
    };

    let (run, ()) = tokio::join!(passbook(&arguments), thief);

    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stdout.contains("money was lost or created"), "{}", run.stdout);
}

/// With reads: nothing has an unknown outcome, which is looked up for some seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_server_ends_reports_what_it_measured() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (mut server, admin) = Server::start_with_admin(&database, &[]).await;
    let target = format!("http://{}", server.address);
    let directory = tempfile::tempdir().expect("a folder");
    let json = directory.path().join("report.json");
    let json_path = json.to_string_lossy();
    let arguments = [
        ["bench", "--target", &target, "--workload", "stats", "--accounts", "2"].as_slice(),
        &["--in-flight", "4", "--duration", "1500ms", "--warmup", "50ms", "--json", &json_path],
    ]
    .concat();
    let end = async {
        eventually("the run has begun", async || {
            let metrics = admin.metrics().await;
            let is_call =
                |name: &str| name.contains("handled") && name.contains("GetWritePathStats");
            metrics.series().any(|(name, calls)| is_call(name) && calls > 10.0)
        })
        .await;
        tokio::time::sleep(ms(200)).await;
        server.kill9();
    };

    let (run, ()) = tokio::join!(passbook(&arguments), end);

    run.must_fail_with(1, "the accounts cannot be read");
    for words in ["measured ", "rate ", "errors ", "money         the accounts cannot be read"] {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    let json = std::fs::read_to_string(&json).expect("the JSON is written");
    let report: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert!(report["requests"].as_u64() > Some(0), "{json}");
    assert!(report["errors"].as_object().is_some_and(|errors| !errors.is_empty()), "{json}");
    assert!(report["verification_error"].is_string(), "{json}");
}
