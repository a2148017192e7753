//! The lines of the audit log about files that are reloaded, and the file that it is itself.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::{
    audit_log::{Audit, callers, end, sha256_hex, text},
    certificates::Authority,
    credentials::{Callers, entry, identity, identity_known_by, whole_policy},
    servers::free_port,
    *,
};

/// What a line says of a file.
fn of_file<'a>(files: &'a Value, file: &Path) -> &'a Value {
    let files = files.as_array().expect("a list");
    files.iter().find(|it| Path::new(text(it, "file")) == file).expect("the file")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_names_the_file_and_both_contents() {
    let (database, callers) = (TestDatabase::create(Kind::Sqlite).await, callers());
    let audit = Audit::new();
    let server = audit.serve(&database, &callers, &[]).await;
    let (policy_file, tokens_file) = (callers.policy_file(), callers.tokens_file());
    let policy = fs::read_to_string(&policy_file).expect("the policy");
    let invalid = "identity = 3";
    callers.set_policy(invalid);
    eventually("it is not in force", async || audit.events("reload").len() == 1).await;
    // The tokens of the others would not fit to it.
    let valid = policy.replace("[end]", "") + &identity("new", &["*"], &[""]);
    callers.set_policy(&valid);
    eventually("it is in force", async || audit.events("reload").len() == 2).await;
    end(server).await;

    let owner = fs::metadata(&policy_file).expect("it exists").uid();
    let start = &audit.events("start")[0]["files"];
    let reloads = audit.events("reload");
    for (line, (outcome, content)) in
        reloads.iter().zip([("rejected", invalid), ("applied", &valid)])
    {
        assert_eq!(text(line, "outcome"), outcome, "{line}");
        assert_eq!(line["error"].is_string(), outcome == "rejected", "{line}");
        let before = of_file(&line["before"], &policy_file);
        assert_eq!(text(before, "sha256"), sha256_hex(&policy, 64), "what is in force");
        assert_eq!(before, of_file(start, &policy_file));
        let after = of_file(&line["after"], &policy_file);
        assert_eq!(text(after, "sha256"), sha256_hex(&whole_policy(content), 64));
        assert_eq!(after["owner_uid"], owner);
        assert!(after["modify_time"].is_string(), "{line}");
        let tokens = [start, &line["before"], &line["after"]].map(|it| of_file(it, &tokens_file));
        assert_eq!(tokens, [tokens[0]; 3], "not changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rejected_reload_has_a_line() {
    let (database, callers) = (TestDatabase::create(Kind::Sqlite).await, callers());
    let audit = Audit::new();
    let server = audit.serve(&database, &callers, &[]).await;
    let tokens_file = callers.tokens_file();
    let tokens = fs::read_to_string(&tokens_file).expect("the tokens");
    let unknown = entry("unknown", "secret-token");
    let wrong = [
        (None, "cannot be read"),
        (Some(""), "has no token"),
        (Some("token = 3"), "line 1"),
        (Some(&*unknown), "is not in the policy"),
    ];
    for (number, (content, why)) in (1..).zip(wrong) {
        match content {
            None => fs::remove_file(&tokens_file).expect("removed"),
            Some(content) => callers.set_tokens(content),
        }
        eventually("its line is there", async || audit.events("reload").len() == number).await;
        let line = &audit.events("reload")[number - 1];
        assert_eq!(text(line, "outcome"), "rejected", "{line}");
        assert!(text(line, "error").contains(why), "{line}");
        let [before, after] = ["before", "after"].map(|it| of_file(&line[it], &tokens_file));
        assert_eq!(text(before, "sha256"), sha256_hex(&tokens, 64), "what is in force");
        let hash = content.map(|content| sha256_hex(content, 64));
        assert_eq!(after["sha256"].as_str(), hash.as_deref());
    }
    callers.set_tokens(&tokens);
    let is_back = async || server.log().contains("tokens and policy reloaded");
    eventually("what is in force is read again", is_back).await;
    end(server).await;
    assert_eq!(audit.events("reload").len(), wrong.len(), "no line: {}", audit.text());
}

/// The SHA-256 of a certificate in PEM, as `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(pem: &str) -> String {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(base64).expect("base64");
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_callers_and_of_the_server_are_named() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers = Callers::new(&[], &identity_known_by("dns", "billing", &["*"], &[""]));
    let mut arguments = authority.mutual_arguments();
    let policy_file = callers.policy_file().to_str().expect("a plain path").to_owned();
    arguments.extend(["--policy-file".to_owned(), policy_file]);
    arguments.extend(audit.arguments(&[]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &arguments).await;

    let (own, nameless) = (authority.sign(&["billing"], &[]), authority.sign(&[], &[]));
    let connect = async |own| authority.connect(&server, Some(own)).await.expect("connected");
    open(&Client::anonymous(connect(&own).await), "a").await;
    let denied = Client::anonymous(connect(&nameless).await).get_account(account_named("a")).await;
    must_fail(denied, Reason::Unauthenticated);

    let (certificate, key) = (authority.file("tls.crt"), authority.file("tls.key"));
    let renewed = authority.sign(&["localhost"], &[]);
    fs::write(&certificate, &renewed.certificate).expect("written");
    eventually("the key does not fit", async || audit.events("reload").len() == 1).await;
    fs::write(&key, &renewed.key).expect("written");
    eventually("both are in force", async || audit.events("reload").len() == 2).await;
    end(server).await;

    for (event, identity, certificate) in
        [("change", "dns:billing", &own), ("denial", "", &nameless)]
    {
        let line = &audit.events(event)[0];
        assert_eq!((text(line, "identity"), text(line, "credential")), (identity, "certificate"));
        assert_eq!(text(line, "credential_sha256"), fingerprint(&certificate.certificate));
    }
    let start = &audit.events("start")[0];
    let ca = of_file(&start["files"], &authority.file("ca.crt"));
    assert!(ca["sha256"].is_string() && start["files"].as_array().map(Vec::len) == Some(4));
    let reloads = audit.events("reload");
    let outcomes: Vec<_> = reloads.iter().map(|it| text(it, "outcome")).collect();
    assert_eq!(outcomes, ["rejected", "applied"]);
    assert!(text(&reloads[0], "error").contains("is not the key of"), "{}", reloads[0]);
    for (file, content) in [(&certificate, &renewed.certificate), (&key, &renewed.key)] {
        let after = of_file(&reloads[1]["after"], file);
        assert_eq!(text(after, "sha256"), sha256_hex(content, 64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_left_alone() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let server = audit.serve(&database, &callers(), &["--audit-amounts"]).await;
    let client = server.client_of("all-token");
    open(&client, "a").await;
    eventually("its line is there", async || audit.events("change").len() == 1).await;
    let old = audit.folder.path().join("audit.jsonl.1");
    fs::rename(audit.path(), &old).expect("renamed");
    let before = fs::read_to_string(&old).expect("the old file");
    deposited(&client, "a", "5").await;
    eventually("its line is in a new file", async || audit.events("change").len() == 1).await;
    end(server).await;

    assert_eq!(fs::read_to_string(&old).expect("the old file"), before);
    let amount = &audit.events("change")[0]["amounts"][0];
    let fields = ["account_id", "currency_code", "value"].map(|field| text(amount, field));
    assert_eq!(fields, ["a", "USD", "5.00"]);
}

/// What an account may owe is the caller's to say, as an amount is.
#[tokio::test(flavor = "multi_thread")]
async fn overdraft_limits_are_among_the_amounts() {
    let (database, audit) = (TestDatabase::create(Kind::Sqlite).await, Audit::new());
    let server = audit.serve(&database, &callers(), &["--audit-amounts"]).await;
    let client = server.client_of("all-token");
    open(&client, "a").await;
    open_with_overdraft(&client, "b", "5").await;
    open_unlimited(&client, "c").await;
    let overdraft_limit = money("6");
    let requests = vec![CreateAccountRequest { overdraft_limit, ..account_of("d", "USD") }];
    client.batch_create_accounts(BatchCreateAccountsRequest { requests }).await.expect("opened");
    client.update_account(limit_of("a", "7")).await.expect("updated");
    let no_limit = UpdateAccountRequest { unlimited_overdraft: true, ..update_of("a") };
    client.update_account(no_limit).await.expect("updated");
    let update_mask = mask(&["overdraft_limit"]);
    let cleared = UpdateAccountRequest { update_mask, ..update_of("b") };
    client.update_account(cleared).await.expect("updated");
    end(server).await;

    let amounts = |line: &serde_json::Value| {
        line["amounts"].as_array().into_iter().flatten().map(ToString::to_string).collect()
    };
    let lines: Vec<Vec<String>> = audit.events("change").iter().map(amounts).collect();
    let with_currency = |account_id: &str, value: &str| {
        let currency_code = "USD";
        let amount = serde_json::json!({
            "account_id": account_id, "currency_code": currency_code, "value": value,
        });
        vec![amount.to_string()]
    };
    let without = |account_id: &str, value: &str| {
        vec![serde_json::json!({ "account_id": account_id, "value": value }).to_string()]
    };
    let expected = [
        vec![],
        with_currency("b", "5.00"),
        without("c", "unlimited"),
        with_currency("d", "6.00"),
        with_currency("a", "7.00"),
        without("a", "unlimited"),
        without("b", "0"),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_can_be_the_audit_log() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let arguments = ["--database-url", database.url(), "--audit-file", "-"];
    let server = Server::launch(address, &arguments).await;
    let client = server.client();
    let is_open = async || client.create_account(account_of("a", "USD")).await.is_ok();
    eventually("it is ready", is_open).await;
    let is_change = |line: &String| line.contains("\"event\":\"change\"");
    eventually("its line is there", async || server.stdout().iter().any(is_change)).await;
}

/// systemd starts a server again after exit code 1, and not after 2.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_at_the_start_is_no_wrong_setting() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let folder = tempfile::tempdir().expect("a folder");
    // Its disk is not mounted yet.
    let file = folder.path().join("audit.jsonl");
    symlink(folder.path().join("disk/audit.jsonl"), &file).expect("a link");
    let file = file.to_str().expect("a plain path");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", database.url()];
    let outcome = passbook(&[&serve[..], &["--audit-file", file]].concat()).await;
    outcome.must_fail_with(1, &format!("audit_file {file}: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_audit_log_must_fit() {
    for (arguments, words) in [
        (&["--audit-required"][..], "audit_required needs audit_file"),
        (&["--audit-amounts"], "audit_amounts needs audit_file"),
        (&["--audit-file", "/no/such/folder/audit"], "audit_file /no/such/folder/audit"),
        (&["--audit-file", "/"], "audit_file /"),
    ] {
        passbook(&[&["config", "check"], arguments].concat()).await.must_fail_with(2, words);
    }
}
