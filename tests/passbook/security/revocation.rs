//! Revocation reaches streams that are open, and connections.

use std::time::SystemTime;

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Streaming, client::Grpc};
use tonic_prost::ProstCodec;

use crate::harness::{
    admin::ADMIN,
    certificates::{Authority, Signed, text},
    credentials::{Callers, allow, entry, entry_until, group, identity, identity_known_by},
    jwt::{Files, SigningKey, claims_of, key_set, seconds_from_now, with},
    *,
};

/// Before its end, a stream of a caller that was removed gets its error: within 2.5 s of the change
/// of the file, and a second more for a watcher. Then the connection is closed.
const REVOCATION_TIME_MAX: std::time::Duration = seconds(10);

/// An open StreamTransactions.
struct Stream {
    requests: mpsc::Sender<StreamTransactionsRequest>,
    results: Streaming<StreamTransactionsResponse>,
}

impl Stream {
    async fn open(client: &Client) -> Self {
        let (requests, receiver) = mpsc::channel(1);
        let results = client.stream_transactions(ReceiverStream::new(receiver)).await;
        Self { requests, results: results.expect("a stream") }
    }

    /// The result of a deposit on east:1, or the error that ends the stream.
    async fn deposit(&mut self) -> Result<PostTransactionResult, Status> {
        let request = post(&[leg("east:1", "1")]);
        // Sending fails after the end of the stream, which the next result is.
        let _ = self.requests.send(one_posting(request)).await;
        let response = timeout(PATIENCE, self.results.message()).await.expect("a result in time");
        Ok(response?.expect("a stream ends with an error").result.expect("always there"))
    }

    /// Deposits until the stream ends, and returns how many were applied, and the error.
    async fn until_end(&mut self) -> (usize, Status) {
        for applied in 0.. {
            match self.deposit().await {
                Ok(result) => assert_eq!(made(&result).entries.len(), 1),
                Err(status) => return (applied, status),
            }
        }
        unreachable!("the loop is endless")
    }
}

async fn start(callers: &Callers) -> (TestDatabase, Server) {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = callers.serve(&database, &[]).await;
    open_funded(&server.client_of("other-token"), "east:1", "10").await;
    (database, server)
}

const TOKENS: [(&str, &str); 2] = [("east", "east-token"), ("other", "other-token")];

fn policy(east: &str) -> String {
    east.to_owned() + &identity("other", &["*"], &[""])
}

fn east() -> String {
    identity("east", &["read", "write"], &["east:"])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_stream_has_the_rights_of_its_moment() {
    let callers = Callers::new(&TOKENS, &policy(&east()));
    let (_database, server) = start(&callers).await;
    let mut stream = Stream::open(&server.client_of("east-token")).await;
    made(&stream.deposit().await.expect("a result"));

    callers.set_policy(&policy(&identity("east", &["read", "write"], &["elsewhere:"])));
    eventually("the account is denied", async || {
        let result = stream.deposit().await.expect("the stream goes on").result;
        matches!(result, Some(post_transaction_result::Result::Error(_)))
    })
    .await;
    let denied = error(&stream.deposit().await.expect("a result"));
    assert_reason(&denied, Reason::PermissionDenied);
    assert_eq!(metadata(&denied, "permission"), "account");

    callers.set_policy(&policy(&east()));
    eventually("the account is allowed again", async || {
        let result = stream.deposit().await.expect("the stream goes on").result;
        matches!(result, Some(post_transaction_result::Result::Transaction(_)))
    })
    .await;

    callers.set_policy(&policy(&identity("east", &["read"], &["east:"])));
    let (_, status) = timeout(REVOCATION_TIME_MAX, stream.until_end()).await.expect("in time");
    assert_reason(&status, Reason::PermissionDenied);
    assert_eq!(metadata(&status, "permission"), "method");
}

/// A deposit on east:1 whose headers are sent, and whose message is not.
struct Deposit {
    message: oneshot::Sender<DepositRequest>,
    call: JoinHandle<Result<DepositResponse, Status>>,
}

impl Deposit {
    fn begin(server: &Server, token: &str) -> Self {
        let (message, receiver) = oneshot::channel();
        let message_later =
            tokio_stream::once(receiver).then(async |it| it.await.expect("a message"));
        let mut request = Request::new(message_later);
        let authorization = format!("Bearer {token}").parse().expect("printable");
        request.metadata_mut().insert("authorization", authorization);
        let mut grpc = Grpc::new(server.channel());
        let call = tokio::spawn(async move {
            grpc.ready().await.expect("connected");
            let path = "/passbook.v1.AccountService/Deposit".parse().expect("a path");
            let answer = grpc.client_streaming(request, path, ProstCodec::default()).await;
            answer.map(tonic::Response::into_inner)
        });
        Self { message, call }
    }

    async fn finish(self) -> Result<DepositResponse, Status> {
        self.message.send(deposit("east:1", "1")).expect("the call waits");
        self.call.await.expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_has_the_rights_of_the_moment_when_its_message_has_arrived() {
    let tokens = [("east", "east-token"), ("gone", "gone-token"), ("other", "other-token")];
    let gone = identity("gone", &["write"], &["east:"]);
    let callers = Callers::new(&tokens, &policy(&(east() + &gone)));
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = callers.serve(&database, &ADMIN).await;
    let admin = server.admin();
    open_funded(&server.client_of("other-token"), "east:1", "10").await;
    let calls = ["east-token", "gone-token", "other-token"];
    let [denied, unknown, allowed] = calls.map(|token| Deposit::begin(&server, token));
    let in_flight = async || admin.metrics().await.value("passbook_calls_in_flight");
    eventually("their headers have arrived", async || in_flight().await == 3.0).await;

    // The identity has another token, so its connections stay.
    let tokens = [("east", "east-token"), ("gone", "new-token"), ("other", "other-token")];
    callers.set_tokens(&tokens.map(|(name, token)| entry(name, token)).concat());
    let narrowed = identity("east", &["read", "write"], &["elsewhere:"]);
    callers.set_policy(&policy(&(narrowed + &gone)));
    eventually("both changes count", async || {
        let codes = ["east-token", "gone-token"].map(async |token| {
            let answer = server.client_of(token).deposit(deposit("east:1", "1")).await;
            answer.map_or_else(|status| status.code(), |_| Code::Ok)
        });
        join_all(codes).await == [Code::PermissionDenied, Code::Unauthenticated]
    })
    .await;
    let before = balance(&server.client_of("other-token"), "east:1").await;

    let status = must_fail(denied.finish().await, Reason::PermissionDenied);
    assert_eq!(metadata(&status, "permission"), "account");
    must_fail(unknown.finish().await, Reason::Unauthenticated);
    assert_eq!(balance(&server.client_of("other-token"), "east:1").await, before);
    allowed.finish().await.expect("it has the right");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token_though_its_identity_has_another() {
    let callers = Callers::new(&TOKENS, &policy(&east()));
    let (_database, server) = start(&callers).await;
    let client = server.client_of("east-token");
    let mut stream = Stream::open(&client).await;
    let mut watching = Watching::begin(&client, "east:1", 0).await;

    callers.set_tokens(&(entry("east", "new-token") + &entry("other", "other-token")));
    let (applied, status) =
        timeout(REVOCATION_TIME_MAX, stream.until_end()).await.expect("in time");
    assert_reason(&status, Reason::Unauthenticated);
    let status = timeout(REVOCATION_TIME_MAX, watching.end()).await.expect("in time");
    assert_reason(&status, Reason::Unauthenticated);

    // What was applied was also answered.
    let client = server.client_of("new-token");
    assert_eq!(balance(&client, "east:1").await, format!("{}.00", 10 + applied));
    assert!(Stream::open(&client).await.deposit().await.is_ok(), "the identity goes on");
}

/// It would keep the place of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_requests_ends_with_its_token() {
    let callers = Callers::new(&TOKENS, &policy(&east()));
    let (_database, server) = start(&callers).await;
    let mut removed = Stream::open(&server.client_of("east-token")).await;
    let mut kept = Stream::open(&server.client_of("other-token")).await;
    callers.set_tokens(&(entry("east", "new-token") + &entry("other", "other-token")));
    let end = timeout(REVOCATION_TIME_MAX, removed.results.message()).await.expect("in time");
    assert_eq!(end.expect_err("the token is removed").code(), Code::Unauthenticated);
    made(&kept.deposit().await.expect("a result"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires() {
    let callers = Callers::new(&TOKENS, &policy(&east()));
    let (_database, server) = start(&callers).await;
    let text = humantime::format_rfc3339_millis(SystemTime::now() + seconds(6)).to_string();
    let expire_time = humantime::parse_rfc3339(&text).expect("a time");
    let more = entry_until("east", "short-token", &text);
    callers.set_tokens(&(entry("east", "east-token") + &more + &entry("other", "other-token")));
    let client = server.client_of("short-token");
    eventually("the token counts", async || {
        client.get_account(account_named("east:1")).await.is_ok()
    })
    .await;
    let mut stream = Stream::open(&client).await;
    let mut watching = Watching::begin(&client, "east:1", 0).await;

    let (_, status) = timeout(REVOCATION_TIME_MAX, stream.until_end()).await.expect("in time");
    assert_reason(&status, Reason::Unauthenticated);
    assert!(SystemTime::now() >= expire_time);
    let status = timeout(REVOCATION_TIME_MAX, watching.end()).await.expect("in time");
    assert_reason(&status, Reason::Unauthenticated);
}

/// A server that knows its callers by certificates of this authority.
async fn start_with_certificates(
    authority: &Authority,
    callers: &Callers,
) -> (TestDatabase, Server) {
    authority.install(&authority.sign(&["localhost"], &[]));
    let mut arguments = authority.mutual_arguments();
    arguments.extend(["--policy-file".to_owned(), text(&callers.policy_file())]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, &arguments).await;
    (database, server)
}

/// A client that trusts this authority, with its own certificate.
async fn client_with(authority: &Authority, server: &Server, own: &Signed) -> Client {
    Client::anonymous(authority.connect(server, Some(own)).await.expect("connected"))
}

/// Whether a call has no response of the server, because there is no connection.
async fn is_disconnected(client: &Client) -> bool {
    let answer = client.get_account(missing_account()).await;
    std::error::Error::source(&answer.expect_err("not found")).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_the_connection_end_when_a_certificate_expires() {
    let authority = Authority::new();
    let policy = identity_known_by("dns", "east", &["read", "write"], &["east:"]);
    let callers = Callers::new(&[], &policy);
    let (_database, server) = start_with_certificates(&authority, &callers).await;
    let lasting = client_with(&authority, &server, &authority.sign(&["east"], &[])).await;
    open_funded(&lasting, "east:1", "10").await;
    let mut lasting = Stream::open(&lasting).await;

    let expire_time = SystemTime::now() + seconds(6);
    let mut params = Authority::params(&["east"], &[]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = expire_time.into();
    let client = client_with(&authority, &server, &authority.sign_params(params)).await;
    let mut stream = Stream::open(&client).await;
    let mut watching = Watching::begin(&client, "east:1", 0).await;

    let (applied, status) =
        timeout(REVOCATION_TIME_MAX, stream.until_end()).await.expect("in time");
    assert_reason(&status, Reason::Unauthenticated);
    assert!(applied > 0, "it was valid before");
    let status = timeout(REVOCATION_TIME_MAX, watching.end()).await.expect("in time");
    assert_reason(&status, Reason::Unauthenticated);
    // The certificate has whole seconds.
    assert!(SystemTime::now() + seconds(1) >= expire_time);
    eventually("the connection is closed", async || is_disconnected(&client).await).await;
    made(&lasting.deposit().await.expect("another certificate goes on"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_with_certificates_are_closed_when_an_authority_is_removed() {
    let (kept, removed) = (Authority::new(), Authority::new());
    let pem = |of: &Authority| std::fs::read_to_string(of.file("ca.crt")).expect("read");
    let (of_kept, of_removed) = (pem(&kept), pem(&removed));
    let trust = |pem: String| std::fs::write(kept.file("ca.crt"), pem).expect("written");
    trust(of_removed.clone());
    let policy = identity_known_by("dns", "east", &["read", "write"], &["east:"]);
    let callers = Callers::new(&[], &policy);
    let (_database, server) = start_with_certificates(&kept, &callers).await;
    let client = client_with(&kept, &server, &removed.sign(&["east"], &[])).await;
    open_funded(&client, "east:1", "10").await;
    let mut stream = Stream::open(&client).await;

    trust(format!("{of_removed}{of_kept}"));
    let own = kept.sign(&["east"], &[]);
    eventually("the other authority counts", async || {
        let Ok(channel) = kept.connect(&server, Some(&own)).await else { return false };
        !is_disconnected(&Client::anonymous(channel)).await
    })
    .await;
    made(&stream.deposit().await.expect("an authority more ends nothing"));

    trust(of_kept);
    let (_, status) = timeout(REVOCATION_TIME_MAX, stream.until_end()).await.expect("in time");
    assert!(std::error::Error::source(&status).is_some(), "cut by the server: {status:?}");
    assert!(is_disconnected(&client).await, "it cannot connect again");
    let client = client_with(&kept, &server, &own).await;
    assert!(!is_disconnected(&client).await, "another authority counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_ends_when_its_account_is_out_of_its_rights() {
    let callers = Callers::new(&TOKENS, &policy(&east()));
    let (_database, server) = start(&callers).await;
    let mut watching = Watching::begin(&server.client_of("east-token"), "east:1", 0).await;
    let mut other = Watching::begin(&server.client_of("other-token"), "east:1", 0).await;

    callers.set_policy(&policy(&identity("east", &["read"], &["elsewhere:"])));
    let status = timeout(REVOCATION_TIME_MAX, watching.end()).await.expect("in time");
    assert_reason(&status, Reason::PermissionDenied);
    open_funded(&server.client_of("other-token"), "east:2", "1").await;
    assert!(other.next().await.is_ok(), "another identity watches on");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_removed_identity_are_closed() {
    let callers = Callers::new(&TOKENS, &policy(&east()));
    let (_database, server) = start(&callers).await;
    let mut removed = Stream::open(&server.client_of("east-token")).await;
    let mut other = Stream::open(&server.client_of("other-token")).await;
    made(&removed.deposit().await.expect("a result"));
    made(&other.deposit().await.expect("a result"));

    callers.set_tokens(&entry("other", "other-token"));
    // The stream sends nothing more, so only the end of its connection ends it.
    let end = timeout(REVOCATION_TIME_MAX, removed.results.message()).await.expect("in time");
    assert!(end.is_err(), "{end:?}");
    made(&other.deposit().await.expect("another identity goes on"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_jwts_end_with_their_time_their_key_and_their_group() {
    let rights = ["read", "credit", "debit", "manage"];
    let members = |name| {
        let rules = [allow(&["*"], &rights, "\"unlimited\"")];
        group(name, &["read", "write"], &rules)
    };
    let files = Files::new(&(members("kept") + &members("removed")));
    let (kept, withdrawn) = (SigningKey::ed("kept"), SigningKey::ed("withdrawn"));
    let jwks = files.write("jwks.json", &key_set(&[&kept, &withdrawn]));
    let mut settings = files.settings();
    settings.extend(["--jwt-jwks", &jwks, "--jwt-groups-claim", "groups"].map(str::to_owned));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, &settings).await;
    let client = |key: &SigningKey, subject, group: &str, seconds| {
        let claims = json!({"groups": [group], "exp": seconds_from_now(seconds)});
        server.client_of(&key.sign(&with(claims_of(subject), claims)))
    };
    let going_on = client(&kept, "anna", "kept", 600);
    open_funded(&going_on, "east:1", "10").await;
    open(&going_on, "quiet").await;
    let mut going_on =
        (Stream::open(&going_on).await, Watching::begin(&going_on, "quiet", 0).await);

    // Six seconds are left, because clocks may differ by 30.
    let expiring = client(&kept, "bert", "kept", -24);
    let by_withdrawn = client(&withdrawn, "carl", "kept", 600);
    let of_removed = client(&kept, "dora", "removed", 600);
    let withdraw = || drop(files.write("jwks.json", &key_set(&[&kept])));
    let remove = || files.set_policy(&members("kept"));
    let cases: [(&Client, &dyn Fn(), Reason); 3] = [
        (&expiring, &|| {}, Reason::Unauthenticated),
        (&by_withdrawn, &withdraw, Reason::Unauthenticated),
        (&of_removed, &remove, Reason::PermissionDenied),
    ];
    for (client, change, reason) in cases {
        let mut stream = Stream::open(client).await;
        made(&stream.deposit().await.expect("a result"));
        let mut watching = Watching::begin(client, "quiet", 0).await;
        change();
        let (_, status) = timeout(REVOCATION_TIME_MAX, stream.until_end()).await.expect("in time");
        assert_reason(&status, reason);
        let status = timeout(REVOCATION_TIME_MAX, watching.end()).await.expect("in time");
        assert_reason(&status, reason);
    }
    made(&going_on.0.deposit().await.expect("another token goes on"));
    assert!(going_on.1.next().await.is_ok(), "and its watcher, too");
}
