//! The script of docs/entry-hash.md, by which outsiders check a statement: on what a server returns, with
//! entries of both versions of the hash.

use std::{fs::File, io::Write, process::Stdio};

use prost_types::Timestamp;
use tokio::process::Command;

use crate::harness::*;

on_both_databases! {
    the_script_of_the_documents_checks_statements,
}

const DOCUMENT: &str = include_str!("../../../docs/entry-hash.md");

/// What the script says of a statement: its exit code, and its only line.
async fn check(statement: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let script = DOCUMENT.split("```python\n").nth(1).expect("the script");
    let script = script.split("```").next().expect("its end");
    let input = tempfile::NamedTempFile::new().expect("a file");
    input.as_file().write_all(statement.as_bytes()).expect("written");
    let input = File::open(input.path()).expect("the file");
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(arguments).stdin(Stdio::from(input)).kill_on_drop(true);
    let output = python.output().await.expect("python3 is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text").trim().to_owned())
}

/// Applies deposits, some of which take effect at another time, and a withdrawal.
async fn fill(client: &Client, account_id: &str) {
    open(client, account_id).await;
    let today = from_now(seconds(0)).seconds;
    // With none, three and six decimals of a second in JSON.
    let times = [
        None,
        Some(Timestamp { seconds: today - 86_400, nanos: 0 }),
        Some(Timestamp { seconds: today + 86_400, nanos: 250_000_000 }),
        None,
        Some(Timestamp { seconds: today - 300 * 86_400, nanos: 1000 }),
    ];
    for effective_time in times {
        let request = DepositRequest { effective_time, ..deposit(account_id, "10.50") };
        client.deposit(request).await.expect("applied");
    }
    withdrawn(client, account_id, "2.50").await;
}

async fn the_script_of_the_documents_checks_statements(kind: Kind) {
    if Command::new("python3").arg("--version").output().await.is_err() {
        return skipped("python3 is not installed");
    }
    let (_database, server, client) = start_server(kind).await;
    fill(&client, "a").await;
    let target = server.address.to_string();
    let statement = async |arguments: &[&str]| {
        let arguments = [&["statement", "a", "--json"][..], arguments].concat();
        passbook_in(&[("PASSBOOK_TARGET", target.as_str())], &arguments).await.must_succeed().stdout
    };
    let listed = client.list_entries(entries_of("a")).await.expect("a page").entries;
    let hash = |sequence: usize| -> String {
        listed[sequence - 1].hash.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let right = (Some(0), format!("6 entries, balance 50.00, hash {}", hash(6)));

    let whole = statement(&[]).await;
    assert_eq!(whole.matches("effectiveTime").count(), 3, "{whole}");
    assert_eq!(check(&whole, &[]).await, right);
    // As grpcurl prints it, in two pages.
    let lines: Vec<&str> = whole.lines().collect();
    let page = |entries: &[&str]| format!("{{\"entries\": [{}]}}\n", entries.join(",\n"));
    let pages = page(&lines[..4]) + &page(&lines[4..]);
    assert_eq!(check(&pages, &[]).await, right);
    // From the third entry on.
    let rest = statement(&["--after-sequence", "2"]).await;
    assert_eq!(check(&rest, &["2", &hash(2), "21.00"]).await, right);

    // In JSON, a time of whole seconds is written as here.
    let dated = listed[1].effective_time.as_ref().expect("a time").to_string();
    let field = format!("\"effectiveTime\":\"{dated}\",");
    let wrong = [
        // Another time, none, and one where there is none.
        (2, whole.replacen(&dated, &dated.replace('Z', ".000001Z"), 1)),
        (2, whole.replacen(&field, "", 1)),
        (1, whole.replacen('{', &format!("{{{field}"), 1)),
    ];
    for (sequence, text) in wrong {
        assert_ne!(text, whole, "{field}");
        let expected = format!("entry {sequence}: wrong hash");
        let (code, said) = check(&text, &[]).await;
        assert!(code == Some(1) && said.starts_with(&expected), "{code:?} {said}");
    }
    let by_effective_time = statement(&["--by-effective-time"]).await;
    let (code, said) = check(&by_effective_time, &[]).await;
    assert!(code == Some(1) && said.starts_with("entry "), "{code:?} {said}");
}
