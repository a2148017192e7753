//! `passbook events`: what it prints, when it ends, and where the next run begins.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command},
};

use serde_json::Value;

use crate::harness::{proxy::PostgresProxy, *};

on_both_databases! {
    a_run_that_is_killed_is_continued_from_its_state_file,
    a_run_ends_when_it_has_printed_what_was_there,
}

/// `passbook events --follow`, killed when dropped.
struct Following(Child);

impl Following {
    /// Appends its output to a file.
    fn start(server: &Server, state: &Path, output: &Path) -> Self {
        let output = File::options().create(true).append(true).open(output).expect("a file");
        let mut command = Command::new(program());
        command.args(["events", "--follow", "--json", "--state"]).arg(state);
        command.args(["--target", &format!("http://{}", server.address)]);
        Self(command.stdout(output).spawn().expect("the command starts"))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kinds of these events, and the ids of their transactions.
fn read(lines: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.map(|it| (text(&it["kind"]), text(&it["transaction"]["transactionId"]))).collect()
}

async fn a_run_that_is_killed_is_continued_from_its_state_file(kind: Kind) {
    let (_database, mut server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let mut watching = EventWatching::begin(&client, all_events()).await;
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("new")).expect("a folder");
    let [state, output] = ["new/state", "events.jsonl"].map(|it| directory.path().join(it));
    watching.take(1).await;
    let mut expected = vec![("EVENT_KIND_ACCOUNT_OPENED".to_owned(), String::new())];

    for _ in 0..2 {
        let _following = Following::start(&server, &state, &output);
        for is_restarted in [false, true] {
            if is_restarted {
                server.kill9();
                server.restart().await;
                watching = EventWatching::begin(&client, events_after(&watching.token)).await;
            }
            for _ in 0..2 {
                let paid = deposited(&client, "alice", "1").await;
                expected.push(("EVENT_KIND_TRANSACTION".to_owned(), paid.transaction_id));
            }
            watching.take(2).await;
            let is_behind_all =
                async || fs::read_to_string(&state).is_ok_and(|it| it.trim_end() == watching.token);
            eventually("the state is behind the last event", is_behind_all).await;
        }
    }

    assert_eq!(read(&fs::read_to_string(&output).expect("the output")), expected);
}

async fn a_run_ends_when_it_has_printed_what_was_there(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    open(&client, "alice").await;
    deposited(&client, "alice", "9").await;
    let placed = place(&client, hold("alice", "2")).await;
    deposited(&client, "alice", "1").await;
    let target = format!("http://{}", server.address);
    let run = async |arguments: &[&str]| {
        passbook(&[&["events", "--target", &target], arguments].concat()).await
    };
    let deposits = async {
        loop {
            deposited(&client, "alice", "1").await;
            tokio::time::sleep(ms(20)).await;
        }
    };
    let runs = async {
        tokio::join!(
            run(&["--json"]),
            run(&["--kind", "hold_placed", "--kind", "transaction", "--prefix", "ali"]),
            // Nothing matches.
            run(&["--prefix", "bob"]),
        )
    };

    let (all, some, none) = tokio::select! {
        outcomes = runs => outcomes,
        () = deposits => unreachable!("it has no end"),
    };

    let all = read(&all.must_succeed().stdout);
    let kinds: Vec<_> = all.iter().take(4).map(|(kind, _)| kind.as_str()).collect();
    let expected = ["ACCOUNT_OPENED", "TRANSACTION", "HOLD_PLACED", "TRANSACTION"];
    assert_eq!(kinds, expected.map(|kind| format!("EVENT_KIND_{kind}")));
    let table = some.must_succeed().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("time ") && lines[0].ends_with(" what"), "{table}");
    assert!(lines[1].contains(" transaction ") && lines[1].ends_with("alice 9.00 USD"), "{table}");
    assert!(lines[2].contains(" hold_placed "), "{table}");
    assert!(lines[2].ends_with(&format!("{}  alice 2.00 USD", placed.hold_id)), "{table}");
    assert_eq!(none.must_succeed().stdout, "");

    let other = run(&["--after-token", "AQ"]).await;
    assert_eq!(other.code, Some(2), "{}", other.stderr);
    assert!(other.stderr.contains("INVALID_PAGE_TOKEN"), "{}", other.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_of_the_state_file_is_an_error_and_is_not_created() {
    let (_database, server, client) = start_server(Kind::Sqlite).await;
    open(&client, "alice").await;
    let target = format!("http://{}", server.address);
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("missing");
    let state = folder.join("state");
    let state = state.to_str().expect("a plain path");

    let run = passbook(&["events", "--state", state, "--target", &target]).await;

    run.must_fail_with(1, &format!("there is no folder {}", folder.display()));
    assert_eq!(run.stdout, "", "nothing is printed");
    assert!(!folder.exists());
}

/// The server sends heartbeats while it searches.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_searches_all_that_was_there() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let far = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let beside = Server::start(&database).await;
    let client = beside.client();
    open(&client, "alice").await;
    post_many(&client, "alice", 4000).await;
    open(&client, "zoe").await;
    let target = format!("http://{}", far.address);
    let request =
        WatchEventsRequest { account_id_prefixes: vec!["zoe".to_owned()], ..all_events() };
    proxy.delay(ms(100));

    let search = async {
        let mut watching = EventWatching::begin(&far.client(), request).await;
        let first = watching.next().await.expect("a heartbeat");
        assert_eq!((first, watching.has_caught_up), (Vec::new(), false), "the search takes long");
        watching.take(1).await;
        assert!(watching.has_caught_up);
    };
    let arguments = ["events", "--json", "--prefix", "zoe", "--target", &target];
    let (run, ()) = tokio::join!(passbook(&arguments), search);

    let opened = ("EVENT_KIND_ACCOUNT_OPENED".to_owned(), String::new());
    assert_eq!(read(&run.must_succeed().stdout), [opened]);
}
