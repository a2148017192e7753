//! `passbook events`: what it prints, when it ends, and where the next run begins.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command},
};

use serde_json::Value;

use crate::harness::*;

on_both_databases! {
    a_run_that_is_killed_is_continued_from_its_state_file,
    a_run_ends_with_what_is_newer_than_it,
}

/// `passbook events --follow`, killed when dropped.
struct Following(Child);

impl Following {
    /// Appends its output to a file.
    fn start(server: &Server, state: &Path, output: &Path) -> Self {
        let output = File::options().create(true).append(true).open(output).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_passbook"));
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

async fn a_run_ends_with_what_is_newer_than_it(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    open(&client, "alice").await;
    deposited(&client, "alice", "9").await;
    let placed = place(&client, hold("alice", "2")).await;
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
            // Nothing that matches: it ends with the first heartbeat.
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
