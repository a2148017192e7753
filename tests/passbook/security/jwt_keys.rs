//! The keys that verify JSON Web Tokens: how they are loaded, replaced and checked.

use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use super::jwt::{arguments, code, serve};
use crate::harness::{
    admin::ADMIN,
    audit_log::Audit,
    credentials::identity_known_by,
    jwt::{Files, JwksServer, SigningKey, claims_of, key_set},
    servers::free_port,
    *,
};

const FETCHED: &str = "passbook_jwks_fetch_timestamp_seconds";

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_replaced_as_a_whole_or_not_at_all() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let (old, new) = (SigningKey::ec("old"), SigningKey::ed("new"));
    let jwks = files.write("jwks.json", &key_set(&[&old]));
    let audit = Audit::new();
    let settings = [arguments(&files, &jwks, &[]), audit.arguments(&[])].concat();
    let (server, admin) = serve(&database, &settings).await;
    let (by_old, by_new) = (old.sign(&claims_of("alice")), new.sign(&claims_of("alice")));
    assert_eq!(code(&server, &by_old).await, Code::NotFound);
    assert_eq!(code(&server, &by_new).await, Code::Unauthenticated);
    let keys_in_force = async || admin.metrics().await.value("passbook_jwt_keys");

    let has_failed = async || {
        admin.metrics().await.value("passbook_files_reload_failed{files=\"keys for JWTs\"}")
    };

    // A file that is not written to its end, and one that is no key set.
    let whole = key_set(&[&old, &new]);
    for (count, invalid) in [(1, &whole[..whole.len() / 2]), (2, "{}")] {
        files.write("jwks.json", invalid);
        let logged = || server.log().matches("keys for JWTs not reloaded").count();
        eventually("it says so", async || logged() == count).await;
        eventually("the gauge says so", async || has_failed().await == 1.0).await;
        assert_eq!(code(&server, &by_old).await, Code::NotFound);
    }
    files.write("jwks.json", &whole);
    eventually("both count", async || code(&server, &by_new).await == Code::NotFound).await;
    eventually("the gauge says so", async || has_failed().await == 0.0).await;
    assert_eq!(code(&server, &by_old).await, Code::NotFound);
    // A token that was verified before goes with its key.
    files.write("jwks.json", &key_set(&[&new]));
    let is_gone = async || code(&server, &by_old).await == Code::Unauthenticated;
    eventually("the old one is gone", is_gone).await;
    assert_eq!(code(&server, &by_new).await, Code::NotFound);
    assert_eq!(keys_in_force().await, 1.0);
    // The issuer withdraws the only key.
    files.write("jwks.json", "{\"keys\": []}");
    let is_gone = async || code(&server, &by_new).await == Code::Unauthenticated;
    eventually("no key is left", is_gone).await;
    assert_eq!(keys_in_force().await, 0.0);
    let lines = server.log().matches("no JWT is accepted").count();
    assert_eq!(lines, 1, "{}", server.log());

    // The audit log has each change of the keys.
    let key_ids = |files: &Value| {
        let of_keys = files.as_array().expect("a list").iter().find(|it| it["file"] == *jwks);
        of_keys.expect("the file")["key_ids"].clone()
    };
    eventually("all are written", async || audit.events("reload").len() == 5).await;
    assert_eq!(key_ids(&audit.events("start")[0]["files"]), json!(["old"]));
    let reloads: Vec<_> = audit
        .events("reload")
        .iter()
        .map(|it| (it["outcome"].clone(), key_ids(&it["before"]), key_ids(&it["after"])))
        .collect();
    let expected = [
        ("rejected", json!(["old"]), Value::Null),
        ("rejected", json!(["old"]), Value::Null),
        ("applied", json!(["old"]), json!(["new", "old"])),
        ("applied", json!(["new", "old"]), json!(["new"])),
        ("applied", json!(["new"]), json!([])),
    ];
    assert_eq!(reloads, expected.map(|(outcome, before, after)| (json!(outcome), before, after)));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_at_a_url_are_fetched_again_for_an_unknown_key_and_stay_while_it_is_away() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let (old, new) = (SigningKey::rsa("old"), SigningKey::ed("new"));
    let issuer = JwksServer::start().await;

    // The start waits for the keys, and the admin port says so.
    let settings = arguments(&files, &issuer.url(), &["--database-url", database.url()]);
    let settings: Vec<_> = ADMIN.into_iter().chain(settings.iter().map(String::as_str)).collect();
    let server = Server::launch(([127, 0, 0, 1], free_port()).into(), &settings).await;
    eventually("it asks for the keys", async || issuer.requests() > 1).await;
    let admin = server.admin();
    assert_eq!(admin.get("/livez").await, (200, "alive\n".to_owned()));
    let not_ready = "not ready: starting, waiting for the keys for JWTs\n".to_owned();
    assert_eq!(admin.get("/readyz").await, (503, not_ready));
    issuer.publish(&key_set(&[&old]));
    eventually("it is ready", async || admin.get("/readyz").await.0 == 200).await;
    let waits = server.log().matches("waiting for the keys for JWTs, up to 30 s").count();
    assert_eq!(waits, 1, "{}", server.log());
    let (by_old, by_new) = (old.sign(&claims_of("alice")), new.sign(&claims_of("alice")));
    assert_eq!(code(&server, &by_old).await, Code::NotFound);
    assert!(admin.metrics().await.value(FETCHED) > 1.7e9);

    // Tokens with unknown keys cause one fetch in 10 s, however many there are.
    issuer.publish(&key_set(&[&new]));
    let (begin, before) = (Instant::now(), issuer.requests());
    eventually("the new key counts", async || code(&server, &by_new).await == Code::NotFound).await;
    let by_none = SigningKey::ec("none").sign(&claims_of("alice"));
    let end = Instant::now() + seconds(3);
    while Instant::now() < end {
        assert_eq!(code(&server, &by_none).await, Code::Unauthenticated);
    }
    let most = 1 + begin.elapsed().as_secs() / 10;
    let fetches = (issuer.requests() - before) as u64;
    assert!((1..=most).contains(&fetches), "{fetches} fetches in {:?}", begin.elapsed());
    assert_eq!(code(&server, &by_old).await, Code::Unauthenticated);

    // An answer that is not the keys changes nothing, and a redirect is not followed.
    let elsewhere = JwksServer::start().await;
    elsewhere.publish(&key_set(&[&old]));
    issuer.respond(&format!("302 Found\r\nlocation: {}", elsewhere.url()), "");
    code(&server, &by_old).await;
    let logs = async |what: &str| {
        eventually(what, async || server.log().contains(what)).await;
        assert_eq!(code(&server, &by_new).await, Code::NotFound, "{what}");
    };
    logs("the response is 302 Found").await;
    issuer.respond("200 OK", &" ".repeat(300 * 1024));
    logs("length limit exceeded").await;
    issuer.publish("{}");
    let fetched = admin.metrics().await.value(FETCHED);
    logs("is not a JSON Web Key Set").await;
    issuer.stop().await;
    logs("onnection refused").await;
    assert_eq!(admin.metrics().await.value(FETCHED), fetched, "no keys were fetched since");
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_without_keys() {
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let issuer = JwksServer::start().await;
    let url = issuer.url();
    let settings = arguments(&files, &url, &["--listen", "127.0.0.1:0"]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let outcome = passbook(&[&["serve"], &settings[..]].concat()).await;
    let expected = format!("no keys for JWTs: {url}: the response is 503 Service Unavailable");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_check_finds_what_is_missing_or_unusable() {
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let key = SigningKey::ec("one");
    let whole = files.write("whole.json", &key_set(&[&key]));
    let check =
        async |arguments: &[&str]| passbook(&[&["config", "check"], arguments].concat()).await;
    let all = arguments(&files, &whole, &[]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(check(&all).await.must_succeed().stdout, "the settings are valid\n");
    // Nothing is fetched.
    let url = ["--jwt-jwks", "https://nowhere.invalid/jwks"];
    check(&[&all[..6], &url].concat()).await.must_succeed();

    for (flag, expected) in [
        ("--policy-file", "jwt_issuer is set (https://issuer.test), so policy_file is required"),
        ("--jwt-issuer", "jwt_audience is set (passbook), so jwt_issuer is required"),
        ("--jwt-audience", "so jwt_audience is required"),
        ("--jwt-jwks", "so jwt_jwks is required"),
    ] {
        let at = all.iter().position(|it| *it == flag).expect("a setting");
        let without: Vec<&str> = [&all[..at], &all[at + 2..]].concat();
        let outcome = check(&without).await;
        assert!(outcome.must_fail(2).contains(expected), "{flag}: {}", outcome.stderr);
    }
    let secret = json!({"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0", "alg": "HS256"}]});
    for (name, text, expected) in [
        ("secret.json", secret.to_string(), "has no key with a kid for RS256"),
        ("twice.json", key_set(&[&key, &key]), "two keys have the kid \"one\""),
        ("cut.json", key_set(&[&key])[..40].to_owned(), "is not a JSON Web Key Set"),
    ] {
        let file = files.write(name, &text);
        let outcome = check(&[&all[..6], &["--jwt-jwks", &file]].concat()).await;
        let error = outcome.must_fail(2);
        assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
    }
    for wrong in ["http://issuer.test/jwks", "ftp://issuer.test/jwks", ""] {
        let outcome = check(&[&all[..6], &["--jwt-jwks", wrong]].concat()).await;
        assert_eq!(outcome.code, Some(2), "{wrong}");
        assert!(outcome.stderr.contains("--jwt-jwks"), "{wrong}: {}", outcome.stderr);
    }
}
