//! What the program says about itself: completions, the manual, colors.

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = passbook(&["completions", shell]).await.must_succeed().stdout;
        for word in ["contended-accounts", "min-balance-after", "unfreeze"] {
            assert!(script.contains(word), "{word} is not in the script of {shell}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_has_a_page_for_each_command() {
    let page = passbook(&["man"]).await.must_succeed().stdout;
    assert!(page.contains(".TH passbook 1") && page.contains("passbook\\-deposit(1)"), "{page}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a plain path");
    passbook(&["man", "--directory", path]).await.must_succeed();
    let page = std::fs::read_to_string(folder.path().join("passbook-hold-capture.1"));
    assert!(page.expect("the page").contains("the money leaves the ledger"));
}

#[tokio::test(flavor = "multi_thread")]
async fn colors_are_for_terminals() {
    let arguments = ["account", "get", "a", "--target", "127.0.0.1:1"];
    let plain = passbook(&arguments).await;
    assert!(plain.stderr.starts_with("error: "), "{}", plain.stderr);
    let colored = passbook_in(&[("CLICOLOR_FORCE", "1")], &arguments).await;
    assert!(colored.stderr.starts_with("\u{1b}[31m"), "{}", colored.stderr);
}
