//! JSON Web Tokens: which are accepted, and whom they name.

use ::ring::hmac;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    admin::Admin,
    audit_log::Audit,
    certificates::Authority,
    credentials::{allow, bearer, deny, entry, group, identity, identity_known_by},
    jwt::{
        AUDIENCE, Files, ISSUER, SigningKey, base64, claims_of, key_set, message, seconds_from_now,
        with,
    },
    *,
};

/// The settings with these keys, and more.
pub(super) fn arguments(files: &Files, jwks: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = files.settings();
    arguments.extend(["--jwt-jwks", jwks].map(str::to_owned));
    arguments.extend(more.iter().map(|it| (*it).to_owned()));
    arguments
}

pub(super) async fn serve(database: &TestDatabase, arguments: &[String]) -> (Server, Admin) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Server::start_with_admin(database, &arguments).await
}

/// What a call with this token gets.
pub(super) async fn code(server: &Server, token: &str) -> Code {
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
        (claims(json!({"iss": [ISSUER]})), "issuer", "of another issuer".to_owned()),
        (
            claims(json!({"iss": [ISSUER, "https://evil.test"]})),
            "issuer",
            "of another issuer".to_owned(),
        ),
        (claims(json!({"aud": "others"})), "audience", "for another audience".to_owned()),
        (claims(json!({"aud": ["others"]})), "audience", "for another audience".to_owned()),
        (claims(json!({"aud": null})), "claim", claim("aud")),
        (claims(json!({"sub": null})), "claim", claim("sub")),
        (claims(json!({"sub": 7})), "claim", claim("sub")),
        (claims(json!({"sub": "alice smith"})), "claim", claim("sub")),
        (claims(json!({"sub": ""})), "claim", claim("sub")),
        (claims(json!({"sub": ["alice"]})), "malformed", malformed.to_owned()),
        (claims(json!({"sub": "alice\n"})), "claim", claim("sub")),
        (claims(json!({"sub": "alice\u{0}"})), "claim", claim("sub")),
        (claims(json!({"sub": "\u{430}lice"})), "claim", claim("sub")),
        (claims(json!({"sub": "a".repeat(253)})), "claim", claim("sub")),
        (claims(json!({"exp": u64::MAX})), "claim", claim("exp")),
        (claims(json!({"exp": -1})), "claim", claim("exp")),
        (claims(json!({"groups": {"a": 1}})), "claim", claim("groups")),
        (claims(json!({"groups": ["a", 1]})), "claim", claim("groups")),
        (claims(json!({"groups": vec![""; 257]})), "claim", claim("groups")),
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
        identity_known_by("jwt", "gina", &["read"], &["gina:"])
            .replace("methods", "recorded_as = \"jwt:gina-before\"\nmethods"),
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
    let most: Vec<_> =
        (1..256).map(|number| number.to_string()).chain(["readers".to_owned()]).collect();
    assert_eq!(read(&client("dave@shop.test", json!(most)), "shop:1").await, Code::Ok);
    for groups in [json!(null), json!([]), json!(["unknown"]), json!(["jwt:bob"])] {
        let nobody = client("erin@shop.test", groups);
        assert_eq!(read(&nobody, "shop:1").await, Code::PermissionDenied);
    }
    // An identity is no group, even if it has the name of one.
    assert_eq!(read(&client("readers", json!([])), "shop:1").await, Code::PermissionDenied);
    // Who has the name that another identity had would share its request ids.
    let before = client("gina-before", json!(["readers"]));
    assert_eq!(read(&before, "shop:1").await, Code::PermissionDenied);
    assert_eq!(read(&client("gina", json!([])), "gina:1").await, Code::NotFound);
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
async fn a_member_of_a_group_that_gets_an_entry_is_not_renamed_while_the_server_runs() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let rule = allow(&["*"], &["read", "credit", "manage"], "\"unlimited\"");
    let members = group("members", &["*"], &[rule]);
    let files = Files::new(&members);
    let key = SigningKey::ed("one");
    let jwks = files.write("jwks.json", &key_set(&[&key]));
    let groups = ["--jwt-groups-claim", "groups"];
    let (server, _) = serve(&database, &arguments(&files, &jwks, &groups)).await;
    let alice =
        server.client_of(&key.sign(&with(claims_of("alice"), json!({"groups": "members"}))));
    create(&alice, "a").await.expect("opened");
    let request = deposit("a", "10");
    alice.deposit(request.clone()).await.expect("applied");

    let entry = identity_known_by("jwt", "alice", &["*"], &[""]);
    let renamed = entry.replace("methods", "recorded_as = \"jwt:alice-old\"\nmethods");
    files.set_policy(&(members + &renamed));
    let is_rejected = async || server.log().contains("tokens and policy not reloaded");
    eventually("the policy is rejected", is_rejected).await;

    assert!(server.log().contains("would be recorded as"), "{}", server.log());
    assert!(alice.deposit(request).await.expect("found").replayed, "applied before");
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
        identity("both", &["*"], &[""]),
        identity_known_by("jwt", "both", &["*"], &[""]),
    ];
    let files = Files::new(&policy.concat());
    let key = SigningKey::ec("one");
    let jwks = files.write("jwks.json", &key_set(&[&key]));
    let tokens = entry("alice", "alice-token") + &entry("both", "both-token");
    let tokens = files.write("tokens.toml", &tokens);
    let settings = arguments(&files, &jwks, &["--tokens-file", &tokens]);
    let (server, _) = serve(&database, &settings).await;

    // Both kinds of token beside each other.
    let (by_token, by_jwt) =
        (server.client_of("alice-token"), server.client_of(&key.sign(&claims_of("alice"))));
    assert_eq!(create(&by_token, "a").await.as_deref(), Ok("alice"));
    assert_eq!(create(&by_jwt, "b").await, Err(Code::PermissionDenied), "it is jwt:alice");
    assert_eq!(rejection(&server, "no-token").await, "the token is unknown or has expired");
    // Each kind has request ids and names of holds of its own.
    let request = deposit("a", "5");
    let by_jwt = server.client_of(&key.sign(&claims_of("both")));
    for (client, owner) in [(server.client_of("both-token"), "both"), (by_jwt, "jwt:both")] {
        let applied = client.deposit(request.clone()).await.expect("applied");
        assert!(!applied.replayed, "{owner}");
        assert_eq!(applied.transaction.expect("a transaction").created_by, owner);
        let placed = place(&client, hold_named("h", "a", "1")).await;
        assert_eq!(placed.hold_id, format!("h@{owner}"));
    }

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

/// An issuer has more identities than the policy.
#[tokio::test(flavor = "multi_thread")]
async fn identities_without_rights_hide_no_denial_of_others() {
    /// Of the audit log: callers that are counted one by one.
    const CALLERS_MAX: usize = 1000;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let files = Files::new(&identity_known_by("jwt", "alice", &["read"], &[""]));
    let (key, audit) = (SigningKey::ed("one"), Audit::new());
    let jwks = files.write("jwks.json", &key_set(&[&key]));
    let audited = audit.arguments(&[]);
    let audited: Vec<&str> = audited.iter().map(String::as_str).collect();
    let (server, _) = serve(&database, &arguments(&files, &jwks, &audited)).await;
    let channel = server.channel();
    let deny = async |name: &str| {
        let client = Client::over(channel.clone(), bearer(&key.sign(&claims_of(name))));
        must_fail(client.deposit(deposit("a", "1")).await, Reason::PermissionDenied);
    };
    for number in 0..=CALLERS_MAX {
        deny(&format!("nobody-{number}")).await;
    }
    deny("alice").await;
    let lines =
        |name| audit.events("denial").iter().filter(|line| line["identity"] == name).count();
    eventually("the denial has its line", async || lines("jwt:alice") == 1).await;
    assert_eq!((lines("jwt:nobody-0"), lines("jwt:nobody-1000")), (1, 0), "the rest is a count");
}
