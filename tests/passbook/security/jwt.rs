//! JSON Web Tokens: which are accepted, whom they name, and how the keys are replaced.

use ::ring::hmac;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::harness::{
    admin::Admin,
    certificates::Authority,
    credentials::{allow, bearer, deny, entry, group, identity, identity_known_by},
    jwt::{
        AUDIENCE, Files, JwksServer, SigningKey, base64, claims_of, key_set, message,
        seconds_from_now, with,
    },
    *,
};

/// The settings with these keys, and more.
fn arguments(files: &Files, jwks: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = files.settings();
    arguments.extend(["--jwt-jwks", jwks].map(str::to_owned));
    arguments.extend(more.iter().map(|it| (*it).to_owned()));
    arguments
}

async fn serve(database: &TestDatabase, arguments: &[String]) -> (Server, Admin) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Server::start_with_admin(database, &arguments).await
}

/// What a call with this token gets.
async fn code(server: &Server, token: &str) -> Code {
    match server.client_of(token).get_account(missing_account()).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// Why a token is not accepted.
async fn rejection(server: &Server, token: &str) -> String {
    let answer = server.client_of(token).get_account(missing_account()).await;
    let status = must_fail(answer, Reason::Unauthenticated);
    status.message().to_owned()
}

async fn create(client: &Client, account_id: &str) -> Result<String, Code> {
    let created = client.create_account(account_of(account_id, "USD")).await;
    let account = created.map_err(|status| status.code())?.account;
    Ok(account.expect("an account").created_by)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_each_algorithm_is_accepted_and_names_the_caller() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let keys = [SigningKey::rsa("one"), SigningKey::ec("two"), SigningKey::ed("three")];
    let jwks = files.write("jwks.json", &key_set(&keys.each_ref()));
    let (server, _) = serve(&database, &arguments(&files, &jwks, &[])).await;

    for key in &keys {
        for audience in [json!(AUDIENCE), json!(["others", AUDIENCE])] {
            let token = key.sign(&with(claims_of("alice"), json!({"aud": audience})));
            let client = server.client_of(&token);
            let account_id = new_request_id();
            assert_eq!(create(&client, &account_id).await.as_deref(), Ok("jwt:alice"));
            // The second call with a token finds it verified.
            client.get_account(account_named(&account_id)).await.expect("the same caller");
        }
        // Clocks differ.
        let edge = json!({"exp": seconds_from_now(-20), "nbf": seconds_from_now(20)});
        let token = key.sign(&with(claims_of("alice"), edge));
        assert_eq!(code(&server, &token).await, Code::NotFound, "{}", key.algorithm());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_token_is_rejected_with_the_reason_and_never_logged() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let (rsa, ec, other) = (SigningKey::rsa("rsa"), SigningKey::ec("ec"), SigningKey::ec("other"));
    let jwks = files.write("jwks.json", &key_set(&[&rsa, &ec]));
    let groups = ["--jwt-groups-claim", "groups", "--log", "trace"];
    let (server, admin) = serve(&database, &arguments(&files, &jwks, &groups)).await;

    let valid = ec.sign(&claims_of("alice"));
    assert_eq!(code(&server, &valid).await, Code::NotFound);
    let claims = |changes: Value| rsa.sign(&with(claims_of("alice"), changes));
    let header = |changes: Value| {
        let header = json!({"alg": "ES256", "kid": "ec"});
        ec.sign_with(&with(header, changes), &claims_of("alice"))
    };
    let unsigned =
        |algorithm: &str| message(&json!({"alg": algorithm, "kid": "ec"}), &claims_of("alice"));
    // The classic attack: the public key, which everyone knows, as the secret of an HMAC.
    let by_secret = |key: &[u8]| {
        let message = unsigned("HS256");
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key);
        format!("{message}.{}", base64(hmac::sign(&secret, message.as_bytes())))
    };
    let [first, payload, signature] =
        valid.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let admins = base64(with(claims_of("admin"), json!({})).to_string());
    let by_other = other.sign_with(&json!({"alg": "ES256", "kid": "ec"}), &claims_of("alice"));
    let by_rsa = rsa.sign_with(&json!({"alg": "RS256", "kid": "ec"}), &claims_of("alice"));

    let malformed = "neither a known one nor a JWT that is signed with RS256, ES256 or EdDSA";
    let algorithm = "`alg` is not that of its key";
    let claim = |name: &str| format!("claim {name:?} is missing or malformed");
    let cases: Vec<(String, &str, String)> = vec![
        (claims(json!({"exp": seconds_from_now(-40)})), "expired", "has expired".to_owned()),
        (
            claims(json!({"nbf": seconds_from_now(100)})),
            "not_yet_valid",
            "is not valid yet".to_owned(),
        ),
        (claims(json!({"exp": null})), "claim", claim("exp")),
        (claims(json!({"exp": "tomorrow"})), "claim", claim("exp")),
        (claims(json!({"exp": 1e300})), "claim", claim("exp")),
        (claims(json!({"nbf": "today"})), "claim", claim("nbf")),
        (claims(json!({"iss": "https://evil.test"})), "issuer", "of another issuer".to_owned()),
        (claims(json!({"iss": null})), "claim", claim("iss")),
        (claims(json!({"aud": "others"})), "audience", "for another audience".to_owned()),
        (claims(json!({"aud": ["others"]})), "audience", "for another audience".to_owned()),
        (claims(json!({"aud": null})), "claim", claim("aud")),
        (claims(json!({"sub": null})), "claim", claim("sub")),
        (claims(json!({"sub": 7})), "claim", claim("sub")),
        (claims(json!({"sub": "alice smith"})), "claim", claim("sub")),
        (claims(json!({"groups": {"a": 1}})), "claim", claim("groups")),
        (claims(json!({"groups": ["a", 1]})), "claim", claim("groups")),
        (other.sign(&claims_of("alice")), "unknown_key", "`kid` is of no key".to_owned()),
        (header(json!({"kid": null})), "unknown_key", "`kid` is of no key".to_owned()),
        (format!("{}.", unsigned("none")), "malformed", malformed.to_owned()),
        (format!("{}.{signature}", unsigned("none")), "malformed", malformed.to_owned()),
        (by_secret(ec.public()), "algorithm", algorithm.to_owned()),
        (by_secret(rsa.public()), "algorithm", algorithm.to_owned()),
        (by_rsa, "algorithm", algorithm.to_owned()),
        (header(json!({"alg": "ES384"})), "algorithm", algorithm.to_owned()),
        (header(json!({"kid": "rsa"})), "algorithm", algorithm.to_owned()),
        (header(json!({"crit": ["exp"]})), "malformed", malformed.to_owned()),
        (by_other, "signature", "signature is invalid".to_owned()),
        (format!("{first}.{admins}.{signature}"), "signature", "signature is invalid".to_owned()),
        (format!("{first}.{payload}."), "signature", "signature is invalid".to_owned()),
        (format!("{first}.{payload}.%"), "malformed", malformed.to_owned()),
        ("a.b.c".to_owned(), "malformed", malformed.to_owned()),
    ];
    for (token, reason, expected) in &cases {
        let series = format!("passbook_unauthenticated_total{{reason=\"jwt_{reason}\"}}");
        let before = admin.metrics().await.value(&series);
        let message = rejection(&server, token).await;
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(admin.metrics().await.value(&series) > before, "{reason}");
    }
    let two_parts = rejection(&server, &format!("{first}.{payload}")).await;
    assert_eq!(two_parts, "the token is unknown or has expired");
    assert_eq!(code(&server, &valid).await, Code::NotFound, "the attempts have no effect");

    let log = server.log();
    assert!(log.contains("\"TRACE\""), "the libraries log:\n{log}");
    for (token, ..) in &cases {
        let signature = token.rsplit('.').next().filter(|it| it.len() > 1);
        let line = signature.and_then(|it| log.lines().find(|line| line.contains(it)));
        assert_eq!(line, None, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_verified_before_still_expires() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let key = SigningKey::ed("one");
    let jwks = files.write("jwks.json", &key_set(&[&key]));
    let (server, _) = serve(&database, &arguments(&files, &jwks, &[])).await;

    let token = key.sign(&with(claims_of("alice"), json!({"exp": seconds_from_now(-27)})));
    assert_eq!(code(&server, &token).await, Code::NotFound);
    eventually("it expires", async || code(&server, &token).await == Code::Unauthenticated).await;
    assert_eq!(rejection(&server, &token).await, "the token has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_give_what_each_of_them_allows_unless_the_identity_has_an_entry() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let writers = allow(&["shop:*"], &["read", "credit", "manage"], "{ USD = \"10\" }");
    let policy = [
        identity_known_by("jwt", "bob", &["read"], &["bob:"]),
        group("readers", &["read"], &[allow(&["*"], &["read"], "")]),
        group("shop-writers", &["read", "write"], &[writers]),
        group("fees", &["Deposit"], &[allow(&["fees"], &["credit"], "\"unlimited\"")]),
        group("guarded", &["GetAccount"], &[deny(&["shop:vault"], &["credit"])]),
    ];
    let files = Files::new(&policy.concat());
    let key = SigningKey::ed("one");
    let jwks = files.write("jwks.json", &key_set(&[&key]));
    let claims = ["--jwt-groups-claim", "groups", "--jwt-identity-claim", "email"];
    let (server, _) = serve(&database, &arguments(&files, &jwks, &claims)).await;
    let client = |email: &str, groups: Value| {
        let claims = json!({"email": email, "groups": groups});
        server.client_of(&key.sign(&with(claims_of("ignored"), claims)))
    };
    let read = async |client: &Client, account_id: &str| {
        let answer = client.get_account(account_named(account_id)).await;
        answer.map_or_else(|it| it.code(), |_| Code::Ok)
    };

    // The rights of two groups stand side by side: the prefix of one does not widen the other.
    let both = client("carol@shop.test", json!(["readers", "shop-writers", "fees", "unknown"]));
    assert_eq!(create(&both, "shop:1").await.as_deref(), Ok("jwt:carol@shop.test"));
    assert_eq!(create(&both, "fees").await, Err(Code::PermissionDenied));
    assert_eq!(create(&both, "other").await, Err(Code::PermissionDenied));
    assert_eq!(read(&both, "other").await, Code::NotFound);
    let pay = async |client: &Client, account_id: &str, amount: &str| {
        let answer = client.deposit(deposit(account_id, amount)).await;
        answer.map_or_else(|it| it.code(), |_| Code::Ok)
    };
    assert_eq!(pay(&both, "shop:1", "10").await, Code::Ok);
    assert_eq!(pay(&both, "shop:1", "10.01").await, Code::PermissionDenied);
    assert_eq!(pay(&both, "fees", "10.01").await, Code::NotFound, "there is no limit for fees");

    // The denials of a group count for all methods, also for those that it does not allow.
    create(&both, "shop:vault").await.expect("opened");
    assert_eq!(pay(&both, "shop:vault", "1").await, Code::Ok);
    let guarded = client("frank@shop.test", json!(["shop-writers", "guarded"]));
    assert_eq!(pay(&guarded, "shop:1", "1").await, Code::Ok);
    assert_eq!(pay(&guarded, "shop:vault", "1").await, Code::PermissionDenied);

    let one = client("dave@shop.test", json!("readers"));
    assert_eq!(read(&one, "shop:1").await, Code::Ok, "a text is one group");
    assert_eq!(create(&one, "shop:2").await, Err(Code::PermissionDenied));
    for groups in [json!(null), json!([]), json!(["unknown"]), json!(["jwt:bob"])] {
        let nobody = client("erin@shop.test", groups);
        assert_eq!(read(&nobody, "shop:1").await, Code::PermissionDenied);
    }
    // An identity is no group, even if it has the name of one.
    assert_eq!(read(&client("readers", json!([])), "shop:1").await, Code::PermissionDenied);
    // An entry of the identity decides alone.
    let bob = client("bob", json!(["readers", "shop-writers"]));
    assert_eq!(read(&bob, "shop:1").await, Code::PermissionDenied);
    assert_eq!(read(&bob, "bob:1").await, Code::NotFound);
    assert_eq!(create(&bob, "shop:2").await, Err(Code::PermissionDenied));

    // Members of groups are no identities that have vanished from the policy.
    drop(server);
    let (server, _) = serve(&database, &arguments(&files, &jwks, &claims)).await;
    assert!(!server.log().contains("not in the policy"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_certificates_and_jwts_never_prove_the_same_identity() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let policy = [
        identity("alice", &["read", "write"], &[""]),
        identity_known_by("dns", "alice", &["read", "write"], &[""]),
        identity_known_by("jwt", "alice", &["read"], &[""]),
        identity_known_by("jwt", "only", &["read"], &[""]),
    ];
    let files = Files::new(&policy.concat());
    let key = SigningKey::ec("one");
    let jwks = files.write("jwks.json", &key_set(&[&key]));
    let tokens = files.write("tokens.toml", &entry("alice", "alice-token"));
    let settings = arguments(&files, &jwks, &["--tokens-file", &tokens]);
    let (server, _) = serve(&database, &settings).await;

    // Both kinds of token beside each other.
    let (by_token, by_jwt) =
        (server.client_of("alice-token"), server.client_of(&key.sign(&claims_of("alice"))));
    assert_eq!(create(&by_token, "a").await.as_deref(), Ok("alice"));
    assert_eq!(create(&by_jwt, "b").await, Err(Code::PermissionDenied), "it is jwt:alice");
    assert_eq!(rejection(&server, "no-token").await, "the token is unknown or has expired");

    files.write("tokens.toml", &entry("jwt:alice", "alice-token"));
    let checked = [&["config".to_owned(), "check".to_owned()], &settings[..]].concat();
    let checked: Vec<&str> = checked.iter().map(String::as_str).collect();
    let error = passbook(&checked).await;
    assert!(error.must_fail(2).contains("the identity of a token cannot be \"jwt:alice\""));

    // With JWTs configured, a caller needs a certificate or a token.
    let mut settings = arguments(&files, &jwks, &[]);
    settings.extend(authority.mutual_arguments());
    let (server, _) = serve(&database, &settings).await;
    let request = account_of("c", "USD");
    for (name, expected) in [("alice", Code::Ok), ("jwt:alice", Code::Unauthenticated)] {
        let signed = authority.sign(&[name], &[]);
        let channel = authority.connect(&server, Some(&signed)).await.expect("connected");
        let answer = Client::anonymous(channel).create_account(request.clone()).await;
        assert_eq!(answer.map_or_else(|it| it.code(), |_| Code::Ok), expected, "{name}");
    }
    let channel = authority.connect(&server, None).await.expect("connected");
    let client = Client::over(channel, bearer(&key.sign(&claims_of("only"))));
    let answer = client.get_account(missing_account()).await;
    must_fail(answer, Reason::AccountNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_replaced_as_a_whole_or_not_at_all() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let (old, new) = (SigningKey::ec("old"), SigningKey::ed("new"));
    let jwks = files.write("jwks.json", &key_set(&[&old]));
    let (server, _) = serve(&database, &arguments(&files, &jwks, &[])).await;
    let (by_old, by_new) = (old.sign(&claims_of("alice")), new.sign(&claims_of("alice")));
    assert_eq!(code(&server, &by_old).await, Code::NotFound);
    assert_eq!(code(&server, &by_new).await, Code::Unauthenticated);

    // A file that is not written to its end, and one without keys.
    let whole = key_set(&[&old, &new]);
    for (count, invalid) in [(1, &whole[..whole.len() / 2]), (2, "{\"keys\": []}")] {
        files.write("jwks.json", invalid);
        let logged = || server.log().matches("keys for JWTs not reloaded").count();
        eventually("it says so", async || logged() == count).await;
        assert_eq!(code(&server, &by_old).await, Code::NotFound);
    }
    files.write("jwks.json", &whole);
    eventually("both count", async || code(&server, &by_new).await == Code::NotFound).await;
    assert_eq!(code(&server, &by_old).await, Code::NotFound);
    // A token that was verified before goes with its key.
    files.write("jwks.json", &key_set(&[&new]));
    let is_gone = async || code(&server, &by_old).await == Code::Unauthenticated;
    eventually("the old one is gone", is_gone).await;
    assert_eq!(code(&server, &by_new).await, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_at_a_url_are_fetched_again_for_an_unknown_key_and_stay_while_it_is_away() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["*"], &[""]));
    let (old, new) = (SigningKey::rsa("old"), SigningKey::ed("new"));
    let issuer = JwksServer::start().await;

    // The start waits for the keys.
    let publish = async {
        eventually("it asks for the keys", async || issuer.requests() > 1).await;
        issuer.publish(&key_set(&[&old]));
    };
    let settings = arguments(&files, &issuer.url(), &[]);
    let ((server, admin), ()) = tokio::join!(serve(&database, &settings), publish);
    let waits = server.log().matches("waiting for the keys for JWTs, up to 30 s").count();
    assert_eq!(waits, 1, "{}", server.log());
    let (by_old, by_new) = (old.sign(&claims_of("alice")), new.sign(&claims_of("alice")));
    assert_eq!(code(&server, &by_old).await, Code::NotFound);
    assert!(admin.metrics().await.value("passbook_jwks_fetch_timestamp_seconds") > 1.7e9);

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
    issuer.stop().await;
    logs("onnection refused").await;
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
