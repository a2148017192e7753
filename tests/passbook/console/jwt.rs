//! The login with a JSON Web Token: the console takes what a call takes, and for as long.

use serde_json::{Value, json};

use crate::harness::{
    console::{Browser, Console},
    credentials::{allow, group, identity_known_by},
    jwt::{Files, SigningKey, claims_of, key_set, seconds_from_now, with},
    *,
};

/// A server that accepts JWTs, its issuer's key, and its console.
struct Issued {
    key: SigningKey,
    files: Files,
    server: Server,
    console: Console,
    _database: TestDatabase,
}

impl Issued {
    async fn start(key: SigningKey, policy: &str, more: &[&str]) -> Self {
        let database = TestDatabase::create(Kind::Sqlite).await;
        let files = Files::new(policy);
        let jwks = files.write("jwks.json", &key_set(&[&key]));
        let mut arguments = files.settings();
        arguments.extend(["--jwt-jwks", &jwks].map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more.to_vec()).collect();
        let (server, console) = Server::start_with_console(&database, &arguments).await;
        Self { key, files, server, console, _database: database }
    }

    fn token(&self, claims: Value) -> String {
        self.key.sign(&with(claims_of("alice"), claims))
    }
}

/// The status of a page, and why if it is that of the login form.
async fn status(browser: &Browser<'_>) -> u16 {
    let response = browser.get("/").await;
    if response.status == 401 {
        assert!(response.body.contains("name=\"token\""), "{}", response.body);
    }
    response.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_signs_in_like_a_token_and_sees_what_it_may() {
    let policy = identity_known_by("jwt", "alice", &["*"], &["a"]);
    for key in [SigningKey::rsa("one"), SigningKey::ec("two"), SigningKey::ed("three")] {
        let issued = Issued::start(key, &policy, &[]).await;
        let token = issued.token(json!({}));
        let client = issued.server.client_of(&token);
        open(&client, "alice").await;
        let browser = issued.console.signed_in(&token).await;
        let page = browser.page("/account?id=alice").await;
        assert!(page.contains("jwt:alice") && page.contains("Sign out"), "{page}");
        assert_eq!(browser.get("/account?id=bob").await.status, 403);

        let mut other = issued.console.browser();
        let (message, _) = token.rsplit_once('.').expect("a signature");
        for wrong in [
            issued.token(json!({"exp": seconds_from_now(-60)})),
            issued.token(json!({"nbf": seconds_from_now(100)})),
            issued.token(json!({"aud": "others"})),
            issued.token(json!({"iss": "https://evil.test"})),
            format!("{message}."),
            SigningKey::ed("three").sign(&claims_of("alice")),
        ] {
            let response = other.log_in(&wrong).await;
            assert_eq!((response.status, response.cookie()), (401, None), "{}", response.body);
            assert!(!response.body.contains(&wrong), "{}", response.body);
        }
    }
}

/// A server accepts a JWT for up to 30 s more than it says, because clocks differ. Its console does the
/// same, and not a call longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_jwt() {
    let policy = identity_known_by("jwt", "alice", &["*"], &[""]);
    let issued = Issued::start(SigningKey::ed("one"), &policy, &[]).await;
    let lasting = issued.console.signed_in(&issued.token(json!({}))).await;
    let exp = seconds_from_now(-26);
    let browser = issued.console.signed_in(&issued.token(json!({ "exp": exp }))).await;
    assert_eq!(status(&browser).await, 200);
    eventually("the session has ended", async || status(&browser).await == 401).await;
    let late = seconds_from_now(0) - exp;
    assert!(late >= 30, "after {late} s");
    times::promise(
        "the end of a session after that of its JWT",
        seconds(late.unsigned_abs()),
        seconds(32),
    );
    let response = browser.get("/account?id=alice").await;
    assert!(response.body.contains("no longer valid"), "{}", response.body);
    let live = browser.request("GET", "/", &["passbook-live: 1"], "").await;
    assert_eq!(live.status, 401, "an open page, too");
    assert_eq!(status(&lasting).await, 200, "another session");

    // A key that the issuer withdraws ends the others.
    issued.files.write("jwks.json", &key_set(&[&SigningKey::ed("two")]));
    eventually("the key is withdrawn", async || status(&lasting).await == 401).await;
}

/// An identity provider that names every group of a person makes long tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_jwt_signs_in_if_calls_can_have_it() {
    let policy = group("readers", &["read"], &[allow(&["*"], &["read"], "")]);
    let groups = ["--jwt-groups-claim", "groups"];
    let issued = Issued::start(SigningKey::ec("one"), &policy, &groups).await;
    let names = (1..250).map(|number| format!("{number:042}")).chain(["readers".to_owned()]);
    let token = issued.token(json!({ "groups": names.collect::<Vec<_>>() }));
    assert!((15_000..16_000).contains(&token.len()), "{}", token.len());
    let called = issued.server.client_of(&token).get_account(missing_account()).await;
    must_fail(called, Reason::AccountNotFound);
    let browser = issued.console.signed_in(&token).await;
    assert_eq!(status(&browser).await, 200);
}
