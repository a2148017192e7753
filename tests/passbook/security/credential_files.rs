//! Files of tokens and policy that are wrong, cut off or being written change nothing, and metrics
//! say so.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use tokio::time::{Instant, sleep};

use crate::harness::{
    admin::ADMIN,
    certificates::Authority,
    credentials::{Callers, deny, entry, identity, whole_policy},
    *,
};

const FAILED: &str = "passbook_files_reload_failed{files=\"tokens and policy\"}";
const IN_FORCE: &str = "passbook_files_in_force_timestamp_seconds{files=\"tokens and policy\"}";

async fn is_known(server: &Server, token: &str) -> bool {
    let answer = server.client_of(token).get_account(account_named("a")).await;
    answer.is_err_and(|status| status.code() == Code::NotFound)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_wrong_or_cut_off_change_nothing_and_metrics_say_so() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let policy = identity("a", &["read"], &[""]);
    let callers = Callers::new(&[("a", "a-token")], &policy);
    let server = callers.serve(&database, &ADMIN).await;
    let admin = server.admin();
    let start = admin.metrics().await;
    assert_eq!(start.value(FAILED), 0.0);
    assert!(start.value(IN_FORCE) > 1.0e9, "{}", start.text);

    let whole = entry("a", "a-token");
    let cut_off = whole.split("expire_time").next().expect("the rest").to_owned();
    let wrong = [
        (String::new(), "has no token"),
        (whole.repeat(2), "the same sha256"),
        (whole.clone() + &entry("b", "b-token"), "is not in the policy"),
        (entry("a", "new-token") + &cut_off, "missing field `expire_time`"),
    ];
    for (tokens, why) in &wrong {
        callers.set_tokens(tokens);
        let arguments = callers.arguments();
        let mut check = vec!["config", "check"];
        check.extend(arguments.iter().map(String::as_str));
        passbook(&check).await.must_fail_with(2, why);
        eventually("the log says why", async || server.log().contains(why)).await;
        assert_eq!(admin.metrics().await.value(FAILED), 1.0, "{why}");
        assert!(is_known(&server, "a-token").await && !is_known(&server, "new-token").await);
    }
    assert_eq!(admin.metrics().await.value(IN_FORCE), start.value(IN_FORCE), "the old ones");

    callers.set_tokens(&entry("a", "new-token"));
    eventually("the new token counts", async || is_known(&server, "new-token").await).await;
    let end = admin.metrics().await;
    assert_eq!(end.value(FAILED), 0.0);
    assert!(end.value(IN_FORCE) > start.value(IN_FORCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_cut_off_changes_nothing() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let policy = identity("a", &["read"], &[""]) + &deny(&["a"], &["read"]);
    let callers = Callers::new(&[("a", "a-token")], &policy);
    let server = callers.serve(&database, &ADMIN).await;
    let admin = server.admin();
    let client = server.client_of("a-token");
    let is_denied = async || {
        let answer = client.get_account(account_named("a")).await;
        answer.is_err_and(|status| status.code() == Code::PermissionDenied)
    };
    assert!(is_denied().await);

    // The first one is valid TOML, without the denial.
    let whole = whole_policy(&policy);
    let cuts = [whole.rfind("[[identity.rule]]"), whole.find("deny"), whole.rfind("[end]")];
    for cut in cuts.map(|cut| &whole[..cut.expect("it is there")]) {
        std::fs::write(callers.policy_file(), cut).expect("written");
        let arguments = callers.arguments();
        let mut check = vec!["config", "check"];
        check.extend(arguments.iter().map(String::as_str));
        passbook(&check).await.must_fail(2);
        eventually("it is noticed", async || admin.metrics().await.value(FAILED) > 0.0).await;
        assert!(is_denied().await, "{cut}");
        callers.set_policy(&policy);
        eventually("it is whole", async || admin.metrics().await.value(FAILED) == 0.0).await;
    }
    assert!(server.log().contains("the last line must be [end]"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_does_not_count() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let policy = identity("a", &["read"], &[""]);
    let callers = Callers::new(&[("a", "a-token"), ("a", "other")], &policy);
    let server = callers.serve(&database, &[]).await;
    let both = entry("a", "a-token") + &entry("a", "other");

    // Valid by itself, and without the second token, for a seventh of the time. The file is polled at
    // every part of that cycle, because the pause between polls is no multiple of it.
    let end = Instant::now() + seconds(16);
    while Instant::now() < end {
        callers.set_tokens(&entry("a", "a-token"));
        sleep(ms(100)).await;
        callers.set_tokens(&both);
        sleep(ms(600)).await;
        assert!(is_known(&server, "other").await, "{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_the_place_of_a_file_holds_up_nothing() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let callers = Callers::new(&[("a", "a-token")], &identity("a", &["read"], &[""]));
    let server = callers.serve(&database, &ADMIN).await;
    let admin = server.admin();
    let (tokens, aside) = (callers.tokens_file(), callers.tokens_file().with_extension("pipe"));
    make_pipe(&aside);
    std::fs::rename(&aside, &tokens).expect("renamed");

    let why = "it is not a regular file";
    eventually("the log says why", async || server.log().contains(why)).await;
    assert_eq!(admin.metrics().await.value(FAILED), 1.0);
    assert!(is_known(&server, "a-token").await);
    let arguments = callers.arguments();
    let mut check = vec!["config", "check"];
    check.extend(arguments.iter().map(String::as_str));
    passbook(&check).await.must_fail_with(2, why);

    std::fs::remove_file(&tokens).expect("removed");
    callers.set_tokens(&entry("a", "new-token"));
    eventually("the new token counts", async || is_known(&server, "new-token").await).await;
    assert!(!is_known(&server, "a-token").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_give_rights_and_that_others_can_change_are_warned_of() {
    let callers = Callers::new(&[("a", "a-token")], &identity("a", &["*"], &[""]));
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let files =
        [("policy_file", callers.policy_file()), ("tls_client_ca_file", authority.file("ca.crt"))];
    let arguments = [callers.arguments().to_vec(), authority.mutual_arguments()].concat();
    let mut command = vec!["config", "check"];
    command.extend(arguments.iter().map(String::as_str));
    for (mode, is_warned) in [(0o644, false), (0o664, false), (0o646, true)] {
        for (_, file) in &files {
            fs::set_permissions(file, Permissions::from_mode(mode)).expect("set");
        }
        let checked = passbook(&command).await.must_succeed();
        for (name, file) in &files {
            let file = file.display();
            let warning = format!("{name} {file} can be changed by all users of this machine");
            let stderr = &checked.stderr;
            assert_eq!(stderr.contains(&warning), is_warned, "{mode:o}: {stderr}");
        }
    }
}
