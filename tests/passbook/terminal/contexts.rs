//! Contexts: servers by name.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{
    certificates::Authority,
    credentials::{Callers, identity},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_context_has_the_address_the_authority_and_the_token_of_a_server() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers = Callers::new(&[("ann", "a-token")], &identity("ann", &["*"], &[""]));
    let tls = authority.arguments();
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let server = callers.serve(&database, &tls).await;
    let target = format!("https://localhost:{}", server.address.port());
    let home = tempfile::tempdir().expect("a folder");
    let token_file = home.path().join("token");
    fs::write(&token_file, "a-token").expect("written");
    let (token_file, ca_file) = (token_file.to_str(), authority.file("ca.crt"));
    let (token_file, ca_file) = (token_file.expect("plain"), ca_file.to_str().expect("plain"));
    let config = home.path().join("config");
    let environment = [("XDG_CONFIG_HOME", config.to_str().expect("plain"))];
    let run = async |arguments: &[&str]| passbook_in(&environment, arguments).await;

    let none = run(&["context", "use", "prod"]).await;
    none.must_fail_with(2, "there is no context prod: there is none");
    let set = ["context", "set", "prod", "--target", &target, "--tls-ca-file", ca_file];
    run(&[&set[..], &["--token-file", token_file]].concat()).await.must_succeed();
    run(&["context", "set", "other", "--target", "http://127.0.0.1:1"]).await.must_succeed();
    // No context is chosen, so this is the server without settings, or none.
    let unchosen = run(&["account", "list", "--context", "other"]).await;
    assert_eq!(unchosen.code, Some(6), "{}", unchosen.stderr);
    run(&["context", "use", "prod"]).await.must_succeed();
    run(&["account", "open", "a", "--currency", "USD"]).await.must_succeed();

    let list = run(&["context", "list", "--json"]).await.must_succeed().stdout;
    let settings =
        format!(r#"{{"target":"{target}","tls_ca_file":"{ca_file}","token_file":"{token_file}"}}"#);
    let other = r#"{"current":false,"name":"other","settings":{"target":"http://127.0.0.1:1"}}"#;
    let prod = format!(r#"{{"current":true,"name":"prod","settings":{settings}}}"#);
    assert_eq!(list, format!("{other}\n{prod}\n"));
    run(&["account", "get", "a", "--context", "third"]).await.must_fail_with(2, "other, prod");

    let file = config.join("passbook/contexts.toml");
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    mode(0o620);
    run(&["account", "list"]).await.must_fail_with(2, "other users can write it");
    mode(0o600);
    run(&["context", "remove", "prod"]).await.must_succeed();
    let text = fs::read_to_string(&file).expect("the file");
    assert_eq!(text, "[context.other]\ntarget = \"http://127.0.0.1:1\"\n");
    fs::write(&file, format!("{text}token_fiel = \"x\"\n")).expect("written");
    run(&["context", "list"]).await.must_fail_with(2, "token_fiel");
}
