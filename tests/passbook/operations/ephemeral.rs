//! `serve --ephemeral`: a ledger for the tests of other programs.

use std::path::Path;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_ledger_is_gone_when_its_server_ends() {
    let mut server = Server::start_by(&["--ephemeral"]).await;
    let line: serde_json::Value = serde_json::from_str(&server.ready_line).expect("JSON");
    let url = line["database_url"].as_str().expect("a URL");
    let file = url.strip_prefix("sqlite://").and_then(|rest| rest.strip_suffix("?mode=rwc"));
    let file = Path::new(file.expect("a file"));

    open_funded(&server.client(), "joint", "100.00").await;
    passbook(&["verify", "--database-url", url]).await.must_succeed();
    assert!(file.is_file());

    server.terminate();
    let status = server.wait(PATIENCE).await.expect("it ends");
    assert!(status.success(), "{status}");
    assert!(!file.parent().expect("a folder").exists());
}
