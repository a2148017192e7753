//! Every RPC with every kind of credential, on own and foreign accounts, answers as the table in
//! docs/security.md says.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tonic::{
    client::Grpc, codegen::http::uri::PathAndQuery, service::Interceptor, transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{
    harness::{
        certificates::Authority,
        credentials::{
            Credential, allow, authorization, bearer, deny, entry, entry_until, group, identity,
            identity_known_by,
        },
        jwt::{AUDIENCE, Files, SigningKey, claims_of, key_set, message, seconds_from_now, with},
        *,
    },
    security::calls_of_every_method::{
        BY_FORCE, EXACT, IN_A_STREAM, call, call_admin, methods, target,
    },
};

on_both_databases! {
    every_rpc_answers_every_credential_as_the_table_says,
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Unauthenticated,
    MethodDenied,
    AccountDenied,
    Answered,
}

struct Who {
    name: &'static str,
    credential: Credential,
    /// The DNS names and the URIs of the client certificate. Without any there is none.
    certificate: [&'static [&'static str]; 2],
    is_known: bool,
    may_read: bool,
    may_write: bool,
    may_admin: bool,
    may_touch_others: bool,
    /// How the ids of its own accounts begin.
    own: &'static str,
    /// On the accounts that it may touch.
    rights: &'static [&'static str],
}

const ALL_RIGHTS: [&str; 6] = ["read", "credit", "debit", "manage", "overdraft", "force"];
const EXACT_MAX: usize = 420;
const SPIFFE_ID: &str = "spiffe://example.org/own-client";
/// The names of tokens, which are also the tokens.
const BY_TOKEN: [&str; 13] = [
    "nothing-allowed",
    "read-only",
    "own-client",
    "all-but-other",
    "exact-ids",
    "reads",
    "credits",
    "debits",
    "moves",
    "manages",
    "operator",
    "everything",
    "fixture",
];

fn everyone(key: &SigningKey) -> Vec<Who> {
    let none = |name, credential| Who {
        name,
        credential,
        certificate: [&[], &[]],
        is_known: false,
        may_read: false,
        may_write: false,
        may_admin: false,
        may_touch_others: false,
        own: "own:",
        rights: &ALL_RIGHTS,
    };
    let by_jwt = |name, subject: &str, changes: Value| {
        let token = key.sign(&with(claims_of(subject), changes));
        none(name, bearer(&token))
    };
    let by_certificate = |name, certificate| Who { certificate, ..none(name, authorization(None)) };
    let known = |name| Who { is_known: true, ..none(name, bearer(name)) };
    let own = |who| Who { is_known: true, may_read: true, may_write: true, ..who };
    let nothing = |who| Who { is_known: true, ..who };
    let unsigned = with(claims_of("own-client"), json!({}));
    let unsigned = message(&json!({"alg": "none", "kid": "one"}), &unsigned) + ".";
    vec![
        none("no credential", authorization(None)),
        none("an unknown token", bearer("wrong")),
        none("an expired token", bearer("expired")),
        none("a token that is cut off", bearer("own-clie")),
        none("another scheme", authorization(Some("Basic b3duLWNsaWVudDp4"))),
        none("a bare token", authorization(Some("own-client"))),
        none("a JWT without a signature", bearer(&unsigned)),
        by_jwt("an expired JWT", "own-client", json!({"exp": seconds_from_now(-60)})),
        by_jwt("a JWT for others", "own-client", json!({"aud": ["others"]})),
        by_certificate("a certificate with two URIs", [&[], &[SPIFFE_ID, "spiffe://a.b/c"]]),
        Who {
            certificate: [&["own-client"], &[]],
            ..none("a wrong token beside", bearer("wrong"))
        },
        nothing(known("nothing-allowed")),
        Who { may_read: true, ..known("read-only") },
        own(known("own-client")),
        own(by_jwt("a JWT", "own-client", json!({"aud": ["others", AUDIENCE]}))),
        own(by_jwt(
            "a JWT of two groups",
            "member",
            json!({"groups": ["own-writers", "other-nobodies"]}),
        )),
        own(by_certificate("a SPIFFE ID", [&["any"], &[SPIFFE_ID]])),
        own(by_certificate("a DNS name", [&["own-client"], &[]])),
        // These have the names of others that are known in another way.
        nothing(by_jwt("a JWT of a token's name", "everything", json!({}))),
        nothing(by_jwt("a JWT of a SPIFFE ID", SPIFFE_ID, json!({}))),
        nothing(by_jwt("a JWT of a group's name", "own-writers", json!({}))),
        nothing(by_certificate("a DNS name of a token's name", [&["everything"], &[]])),
        own(known("all-but-other")),
        Who { own: EXACT, ..own(known("exact-ids")) },
        Who { rights: &["read"], ..own(known("reads")) },
        Who { rights: &["credit"], ..own(known("credits")) },
        Who { rights: &["debit"], ..own(known("debits")) },
        Who { rights: &["credit", "debit"], ..own(known("moves")) },
        Who { rights: &["read", "manage"], ..own(known("manages")) },
        Who { may_admin: true, ..known("operator") },
        Who { may_touch_others: true, ..own(known("everything")) },
    ]
}

fn policy() -> String {
    let read_write = |name| identity(name, &["read", "write"], &[]);
    let with = |name, rights: &[&str], amount_max| {
        read_write(name) + &allow(&["own:*"], rights, amount_max)
    };
    let all = |accounts: &[String]| allow(accounts, &ALL_RIGHTS, "\"unlimited\"");
    let exact: Vec<_> = (0..EXACT_MAX).map(|number| format!("{EXACT}{number}")).collect();
    let policy = [
        read_write("all-but-other") + &deny(&["other:*"], &ALL_RIGHTS) + &all(&["*".to_owned()]),
        read_write("exact-ids") + &all(&exact),
        with("reads", &["read"], ""),
        with("credits", &["credit"], "\"unlimited\""),
        with("debits", &["debit"], "{ USD = \"1000\" }"),
        with("moves", &["credit", "debit"], "\"unlimited\""),
        with("manages", &["read", "manage"], "{ USD = \"0.01\" }"),
        identity("nothing-allowed", &[], &["own:"]),
        identity("read-only", &["read"], &["own:"]),
        identity("own-client", &["read", "write"], &["own:"]),
        identity_known_by("jwt", "own-client", &["read", "write"], &["own:"]),
        identity_known_by("dns", "own-client", &["read", "write"], &["own:"]),
        identity_known_by("spiffe", SPIFFE_ID, &["read", "write"], &["own:"]),
        identity("operator", &["admin"], &[]),
        identity("everything", &["read", "write"], &[""]),
        identity("fixture", &["*"], &[""]),
        group("own-writers", &["read", "write"], &[all(&["own:*".to_owned()])]),
        // It may call nothing, so it gives its members nothing.
        group("other-nobodies", &[], &[all(&["*".to_owned()])]),
    ];
    policy.concat()
}

/// The settings of a server that knows callers in every way.
fn settings(authority: &Authority, key: &SigningKey) -> (Files, Vec<String>) {
    authority.install(&authority.sign(&["localhost"], &[]));
    let files = Files::new(&policy());
    let jwks = files.write("jwks.json", &key_set(&[key]));
    let tokens: String = BY_TOKEN.iter().map(|name| entry(name, name)).collect();
    let expired = entry_until("everything", "expired", "2020-01-01T00:00:00Z");
    let tokens = files.write("tokens.toml", &(tokens + &expired));
    let more = ["--jwt-jwks", &jwks, "--jwt-groups-claim", "groups", "--tokens-file", &tokens];
    let mut settings = [files.settings(), authority.mutual_arguments()].concat();
    settings.extend(more.map(str::to_owned));
    (files, settings)
}

async fn every_rpc_answers_every_credential_as_the_table_says(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (authority, key) = (Authority::new(), SigningKey::ed("one"));
    let (_files, settings) = settings(&authority, &key);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start_with(&database, &settings).await;
    let connect = async |[dns_names, uris]: [&[&str]; 2]| {
        let signed = authority.sign(dns_names, uris);
        let own = (!dns_names.is_empty() || !uris.is_empty()).then_some(&signed);
        authority.connect(&server, own).await.expect("connected")
    };
    let fixture = Client::over(connect([&[], &[]]).await, bearer("fixture"));
    // A denied call changes nothing, so one target serves all of them.
    let untouched = [target(&fixture, "own:").await, target(&fixture, "other:").await];

    let mut cells = BTreeMap::new();
    let mut wrong = Vec::new();
    for who in everyone(&key) {
        let channel = connect(who.certificate).await;
        for (service, method) in methods() {
            for is_own in [true, false] {
                let prefix = if is_own { who.own } else { "other:" };
                let expected = expected(&who, &service, &method, is_own);
                let fresh = match expected {
                    Expected::Answered => Some(target(&fixture, prefix).await),
                    _ => None,
                };
                let target = fresh.as_ref().unwrap_or(&untouched[usize::from(!is_own)]);
                let (channel, credential) = (channel.clone(), who.credential.clone());
                let answer = match service.as_str() {
                    "AdminService" => call_admin(channel, credential, &method).await,
                    _ => call(Client::over(channel, credential), &method, target).await,
                };
                let found = found(&answer);
                if found != Some(expected) {
                    let name = who.name;
                    wrong.push(format!(
                        "{service}/{method}, {name}, {prefix} {expected:?}: {answer:?}"
                    ));
                }
                *cells.entry(format!("{expected:?}")).or_insert(0) += 1;
            }
        }
    }

    for (credential, code) in
        [(bearer("operator"), Code::Unimplemented), (bearer("wrong"), Code::Unauthenticated)]
    {
        let channel = connect([&[], &[]]).await;
        assert_eq!(call_what_is_not_there(channel, credential).await, code);
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("cells: {cells:?}");
    assert_eq!(cells.len(), 4, "all kinds of answers were seen: {cells:?}");
    for target in untouched {
        let request = GetAccountRequest { account_id: target.account_id };
        let account = fixture.get_account(request).await.expect("it exists");
        let account = account.account.expect("an account");
        assert_eq!((account.version, account.sequence), (4, 2), "{account:?}");
    }
}

fn expected(who: &Who, service: &str, method: &str, is_own: bool) -> Expected {
    let is_read = ["Get", "BatchGet", "List", "Sum", "Watch", "Verify"]
        .iter()
        .any(|prefix| method.starts_with(prefix));
    let may_call = match service {
        "AdminService" => who.may_admin,
        _ if is_read => who.may_read,
        _ => who.may_write,
    };
    let has_rights = match service {
        "AdminService" => true,
        _ => has_rights(who, method, is_own || who.may_touch_others),
    };
    match (who.is_known, may_call, has_rights) {
        (false, _, _) => Expected::Unauthenticated,
        (true, false, _) => Expected::MethodDenied,
        (true, true, true) => Expected::Answered,
        (true, true, false) => Expected::AccountDenied,
    }
}

/// Whether an identity with these rights, on the accounts of the call or on others, may make it.
fn has_rights(who: &Who, method: &str, on_these: bool) -> bool {
    let method = method.trim_end_matches(IN_A_STREAM);
    if let Some(method) = method.strip_suffix(BY_FORCE) {
        // The posting of this test is a deposit, unless it is forced.
        let method = if method == "PostTransaction" { "Withdraw" } else { method };
        return who.rights.contains(&"force") && has_rights(who, method, on_these);
    }
    let needed: &[&str] = match method {
        // They name no account, or show only visible ones.
        "ListAccounts" | "SumBalances" | "GetRequestOutcome" => return true,
        // Some account is enough.
        "WatchEvents" => return who.rights.contains(&"read"),
        "FenceRequest" => return ["credit", "debit"].iter().any(|it| who.rights.contains(it)),
        "CreateAccount"
        | "BatchCreateAccounts"
        | "UpdateAccount"
        | "FreezeAccount"
        | "UnfreezeAccount"
        | "CloseAccount" => &["manage", "read"],
        // The calls of this test are deposits.
        "Deposit" | "PostTransaction" | "BatchPostTransactions" | "StreamTransactions" => {
            &["credit"]
        }
        "Transfer" => &["credit", "debit"],
        "Withdraw" | "PlaceHold" | "UpdateHold" | "CaptureHold" | "ReleaseHold"
        | "ReverseTransaction" => &["debit"],
        _ => &["read"],
    };
    on_these && needed.iter().all(|right| who.rights.contains(right))
}

fn found(answer: &Result<(), Status>) -> Option<Expected> {
    let Err(status) = answer else { return Some(Expected::Answered) };
    match (status.code(), reason_if_any(status).as_str(), metadata(status, "permission").as_str()) {
        (Code::Unauthenticated, "UNAUTHENTICATED", "") => Some(Expected::Unauthenticated),
        (Code::PermissionDenied, "PERMISSION_DENIED", "method") => Some(Expected::MethodDenied),
        (Code::PermissionDenied, "PERMISSION_DENIED", "account") => Some(Expected::AccountDenied),
        _ => None,
    }
}

async fn call_what_is_not_there(channel: Channel, mut credential: Credential) -> Code {
    let mut client = Grpc::new(channel);
    client.ready().await.expect("connected");
    let request = credential.call(tonic::Request::new(())).expect("a credential");
    let path = PathAndQuery::from_static("/passbook.v1.AccountService/Donate");
    let codec = ProstCodec::<(), ()>::default();
    client.unary(request, path, codec).await.expect_err("the method is missing").code()
}
