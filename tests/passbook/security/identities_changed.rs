//! Authentication is switched on or off, or an identity is renamed, between a request and its
//! repeat: nothing is applied twice unless the operator allows it.

use crate::harness::{
    checker,
    credentials::{Callers, entry, identity, identity_known_by},
    *,
};

on_both_databases! {
    a_request_from_before_authentication_is_not_applied_twice,
    a_request_of_a_renamed_identity_is_not_applied_twice,
    a_request_of_an_identity_is_not_applied_twice_without_authentication,
    a_request_is_not_applied_twice_because_an_edit_loses_the_former_name,
    the_former_name_is_found_behind_any_number_of_other_names,
}

const TOKENS: [(&str, &str); 2] = [("billing", "billing-token"), ("shop", "shop-token")];

/// Identities with all rights. Each continues as the other name, if there is one.
fn policy(names: &[(&str, Option<&str>)]) -> String {
    let lines = names.iter().map(|(name, recorded_as)| {
        let recorded_as = recorded_as.map(|it| format!("recorded_as = {it:?}\n"));
        let methods = format!("{}methods", recorded_as.unwrap_or_default());
        identity(name, &["*"], &[""]).replace("methods", &methods)
    });
    lines.collect()
}

/// The line with which a server refuses to start.
async fn does_not_serve(database: &TestDatabase, callers: Option<&Callers>) -> String {
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--database-url", database.url()];
    let more = callers.map(Callers::arguments);
    arguments.extend(more.iter().flatten().map(String::as_str));
    passbook(&arguments).await.must_fail(2).to_owned()
}

/// Applied by a server without authentication. Its answer was lost.
async fn made_before(database: &TestDatabase) -> DepositRequest {
    let mut server = Server::start(database).await;
    let client = server.client();
    open(&client, "alice").await;
    let request = deposit("alice", "10");
    client.deposit(request.clone()).await.expect("applied");
    server.terminate();
    server.wait(PATIENCE).await.expect("it ends");
    request
}

async fn a_request_from_before_authentication_is_not_applied_twice(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let request = made_before(&database).await;
    let callers = Callers::new(&TOKENS, &policy(&[("billing", None), ("shop", None)]));

    let why = does_not_serve(&database, Some(&callers)).await;
    assert!(why.contains("recorded_as = \"\"") && why.contains("callers_changed"), "{why}");

    callers.set_policy(&policy(&[("billing", Some("")), ("shop", None)]));
    let server = callers.serve(&database, &[]).await;
    let billing = server.client_of("billing-token");
    let again = billing.deposit(request.clone()).await.expect("found");
    assert!(again.replayed, "it was made before");
    let found = request_outcome(&billing, &request.request_id).await;
    assert_eq!(found.outcome(), RequestOutcome::Applied);
    // New requests are found as well, by this caller only.
    let new = deposit("alice", "1");
    billing.deposit(new.clone()).await.expect("applied");
    assert!(billing.deposit(new.clone()).await.expect("found").replayed);
    let shop = server.client_of("shop-token");
    assert_eq!(request_outcome(&shop, &request.request_id).await, not_seen(false));
    assert_eq!(balance(&billing, "alice").await, "11.00");
    drop(server);

    // With the operator's consent the old behavior applies.
    callers.set_policy(&policy(&[("billing", None), ("shop", None)]));
    let server = callers.serve(&database, &["--callers-changed"]).await;
    let billing = server.client_of("billing-token");
    assert!(!billing.deposit(request).await.expect("applied").replayed);
    checker::assert_consistent(&database).await;
}

async fn a_request_of_a_renamed_identity_is_not_applied_twice(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = Callers::new(&TOKENS[..1], &policy(&[("billing", None)]));
    let server = callers.serve(&database, &[]).await;
    let billing = server.client_of("billing-token");
    open(&billing, "alice").await;
    let request = deposit("alice", "10");
    billing.deposit(request.clone()).await.expect("applied");
    drop(server);

    callers.set_tokens(&entry("invoicing", "invoicing-token"));
    callers.set_policy(&policy(&[("invoicing", None)]));
    let server = callers.serve(&database, &[]).await;
    assert!(server.log().contains("billing"), "{}", server.log());
    drop(server);
    callers.set_policy(&policy(&[("invoicing", Some("billing"))]));
    let server = callers.serve(&database, &[]).await;
    let invoicing = server.client_of("invoicing-token");
    let again = invoicing.deposit(request).await.expect("found");

    assert!(again.replayed, "it was made before");
    assert_eq!(again.transaction.expect("a transaction").created_by, "billing");
    assert!(!server.log().contains("recorded_as"), "{}", server.log());
    checker::assert_consistent(&database).await;
}

async fn a_request_of_an_identity_is_not_applied_twice_without_authentication(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = Callers::new(&TOKENS[..1], &policy(&[("billing", None)]));
    let server = callers.serve(&database, &[]).await;
    let billing = server.client_of("billing-token");
    open(&billing, "alice").await;
    billing.deposit(deposit("alice", "10")).await.expect("applied");
    drop(server);

    let why = does_not_serve(&database, None).await;

    assert!(why.contains("\"billing\"") && why.contains("callers_changed"), "{why}");
    let server = Server::start_with(&database, &["--callers-changed"]).await;
    assert_eq!(balance(&server.client(), "alice").await, "10.00");
}

async fn a_request_is_not_applied_twice_because_an_edit_loses_the_former_name(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = Callers::new(&TOKENS[..1], &policy(&[("billing", None)]));
    let server = callers.serve(&database, &[]).await;
    let billing = server.client_of("billing-token");
    open(&billing, "alice").await;
    let request = deposit("alice", "10");
    billing.deposit(request.clone()).await.expect("applied");
    drop(server);
    callers.set_tokens(&entry("invoicing", "invoicing-token"));
    callers.set_policy(&policy(&[("invoicing", Some("billing"))]));
    let server = callers.serve(&database, &[]).await;
    let invoicing = server.client_of("invoicing-token");

    callers.set_policy(&policy(&[("invoicing", None)]));
    let is_rejected = async || server.log().contains("tokens and policy not reloaded");
    eventually("the policy is rejected", is_rejected).await;

    assert!(server.log().contains("would be recorded as"), "{}", server.log());
    assert!(invoicing.deposit(request.clone()).await.expect("found").replayed, "applied before");
    // What keeps the name is in force.
    callers.set_policy(&policy(&[("invoicing", Some("billing")), ("shop", None)]));
    let is_in_force = async || server.log().contains("tokens and policy reloaded");
    eventually("the policy is in force", is_in_force).await;
    assert!(invoicing.deposit(request).await.expect("found").replayed, "applied before");
    assert_eq!(balance(&invoicing, "alice").await, "10.00");
    checker::assert_consistent(&database).await;
}

async fn the_former_name_is_found_behind_any_number_of_other_names(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let before = Callers::new(&[("z-reports", "z-token")], &policy(&[("z-reports", None)]));
    let server = before.serve(&database, &[]).await;
    let client = server.client_of("z-token");
    open(&client, "alice").await;
    client.deposit(deposit("alice", "10")).await.expect("applied");
    drop(server);
    // As of the members of a group, whose identities are in no file.
    database.copy_request("'jwt:' || n", "'r'", 20_001).await;
    let renamed = identity_known_by("dns", "z-reports", &["*"], &[""]);
    let callers = Callers::new(&TOKENS[1..], &(policy(&[("shop", None)]) + &renamed));

    let why = does_not_serve(&database, Some(&callers)).await;

    assert!(why.contains("\"dns:z-reports\" now"), "{why}");
}

/// The server reads these files. Returns whether they are in force now.
async fn are_accepted(server: &Server, callers: &Callers, tokens: &str, policy: &str) -> bool {
    let ends = ["tokens and policy reloaded", "tokens and policy not reloaded"];
    let count = || ends.map(|end| server.log().matches(end).count());
    let [accepted, rejected] = count();
    callers.set_tokens(tokens);
    callers.set_policy(policy);
    eventually("the files are read", async || count() != [accepted, rejected]).await;
    count()[1] == rejected
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_was_removed_for_a_while_does_not_lose_the_former_name() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let request = made_before(&database).await;
    let callers = Callers::new(&TOKENS, &policy(&[("billing", Some("")), ("shop", None)]));
    let server = callers.serve(&database, &[]).await;
    let billing = server.client_of("billing-token");
    assert!(billing.deposit(request.clone()).await.expect("found").replayed, "applied before");

    let [of_billing, of_shop] = TOKENS.map(|(name, token)| entry(name, token));
    let without = policy(&[("shop", None)]);
    assert!(are_accepted(&server, &callers, &of_shop, &without).await, "it may be removed");
    let both = of_billing + &of_shop;
    let without_name = policy(&[("billing", None), ("shop", None)]);
    assert!(!are_accepted(&server, &callers, &both, &without_name).await, "the name is lost");

    assert!(server.log().contains("would be recorded as"), "{}", server.log());
    let billing = server.client_of("billing-token");
    must_fail(billing.deposit(request).await, Reason::Unauthenticated);
    assert_eq!(balance(&server.client_of("shop-token"), "alice").await, "10.00");
    checker::assert_consistent(&database).await;
}
