//! Names of others, such as hold ids and transaction ids: they can be neither probed nor squatted.

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

on_both_databases! {
    the_name_of_a_hold_is_free_to_everyone_but_its_caller,
    a_hold_is_found_by_its_own_name_and_by_its_id,
    a_hold_of_an_older_version_keeps_its_id,
    a_hidden_transaction_is_denied_before_its_entries_are_read,
    a_hidden_hold_looks_like_one_that_does_not_exist,
    a_hidden_hold_is_denied_before_its_row_is_read,
}

async fn serve(database: &TestDatabase) -> (Server, [Client; 3], Callers) {
    let policy = [
        identity("east", &["*"], &["east:", "shared:"]),
        identity("west", &["*"], &["west:", "shared:"]),
        identity("all", &["*"], &[""]),
    ];
    let tokens = [("east", "east-token"), ("west", "west-token"), ("all", "all-token")];
    let callers = Callers::new(&tokens, &policy.concat());
    let server = callers.serve(database, &[]).await;
    let clients = ["east-token", "west-token", "all-token"].map(|it| server.client_of(it));
    for account_id in ["east:1", "west:1", "shared:1"] {
        open_funded(&clients[2], account_id, "100").await;
    }
    (server, clients, callers)
}

async fn place_named(client: &Client, hold_id: &str, account_id: &str) -> Hold {
    place(client, hold_named(hold_id, account_id, "1")).await
}

async fn the_name_of_a_hold_is_free_to_everyone_but_its_caller(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, [east, west, _], _callers) = serve(&database).await;
    assert_eq!(place_named(&east, "order-1", "east:1").await.hold_id, "order-1@east");
    let by_server = place_named(&east, "", "east:1").await.hold_id;

    // Taken by another caller or free: the same answers, of which the first ones hold nothing.
    for hold_id in ["order-1", "free", &by_server] {
        let answer = west.place_hold(hold_named(hold_id, "west:none", "1")).await;
        must_fail(answer, Reason::AccountNotFound);
        let answer = west.place_hold(hold_named(hold_id, "west:1", "1000")).await;
        must_fail(answer, Reason::InsufficientFunds);
        let answer = west.place_hold(hold_named(hold_id, "east:1", "1")).await;
        must_fail(answer, Reason::PermissionDenied);
        let placed = place_named(&west, hold_id, "west:1").await;
        assert_eq!(placed.hold_id, format!("{hold_id}@west"));
        let again = west.place_hold(hold_named(hold_id, "shared:1", "1")).await;
        let status = must_fail(again, Reason::HoldExists);
        assert_eq!(metadata(&status, "hold_id"), placed.hold_id);
    }
    let ids_of_others = hold_named("order-2@east", "west:1", "1");
    must_fail(west.place_hold(ids_of_others).await, Reason::InvalidHoldId);
    // What others did changes nothing for the first caller.
    for hold_id in ["order-1", "order-1@east", &by_server] {
        let found = get_hold(&east, hold_id).await;
        assert_eq!((&*found.account_id, &*found.created_by), ("east:1", "east"), "{hold_id}");
    }
}

async fn a_hold_is_found_by_its_own_name_and_by_its_id(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, [east, west, all], _callers) = serve(&database).await;
    for name in ["a", "b"] {
        place_named(&east, name, "shared:1").await;
        place_named(&west, name, "shared:1").await;
    }

    let own = captured(&west, capture("a")).await.hold.expect("a hold");
    assert_eq!(own.hold_id, "a@west");
    let hold = captured(&west, capture("a@east")).await.hold.expect("a hold");
    assert_eq!((&*hold.hold_id, &*hold.ended_by), ("a@east", "west"));
    must_fail(west.capture_hold(capture("a")).await, Reason::HoldNotOpen);
    assert_eq!(released(&east, release("b")).await.hold_id, "b@east");
    must_fail(all.release_hold(release("b")).await, Reason::HoldNotFound);
    released(&all, release("b@west")).await;

    let request = ListHoldsRequest { page_size: 1, ..holds_of("shared:1") };
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListHoldsRequest { page_token, ..request.clone() };
        let page = all.list_holds(request).await.expect("a page");
        ids.extend(page.holds.into_iter().map(|hold| hold.hold_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, ["a@east", "a@west", "b@east", "b@west"]);
}

async fn a_hold_of_an_older_version_keeps_its_id(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, [east, west, _], _callers) = serve(&database).await;
    let request = hold_named("order-1", "shared:1", "1");
    east.place_hold(request.clone()).await.expect("placed");
    // As an older version stored the hold: the id is the name.
    let _tampering = Tampering::begin(&database).await;
    database.execute("UPDATE holds SET hold_id = 'order-1'").await;
    database.execute("UPDATE requests SET hold_id = 'order-1' WHERE hold_id IS NOT NULL").await;

    let outcome = request_outcome(&east, &request.request_id).await;
    assert_eq!(outcome.hold.expect("a hold").hold_id, "order-1");
    let answer = east.place_hold(hold_named("order-1", "shared:1", "2")).await;
    must_fail(answer, Reason::HoldExists);
    assert_eq!(place_named(&west, "order-1", "shared:1").await.hold_id, "order-1@west");
    let found = get_hold(&west, "order-1").await;
    assert_eq!(found.hold_id, "order-1@west", "its own comes first");
    let captured = captured(&east, capture("order-1")).await;
    assert_eq!(captured.hold.expect("a hold").hold_id, "order-1");
}

async fn a_hidden_transaction_is_denied_before_its_entries_are_read(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, [east, west, _], _callers) = serve(&database).await;
    let transaction_id = deposited(&east, "east:1", "1").await.transaction_id;
    // A caller for whom the entries are read gets an error.
    let _tampering = Tampering::begin(&database).await;
    database.execute(&format!("DELETE FROM entries WHERE {}", of_account("east:1"))).await;

    let mut answers = Vec::new();
    for transaction_id in [transaction_id.clone(), new_request_id()] {
        let answer = west.get_transaction(transaction_by_id(&transaction_id)).await;
        let read = must_fail(answer, Reason::PermissionDenied);
        let answer = west.reverse_transaction(reversal(&transaction_id)).await;
        let reversed = must_fail(answer, Reason::PermissionDenied);
        answers.push([read, reversed].map(|it| (it.message().to_owned(), it.details().to_vec())));
    }
    assert_eq!(answers[0], answers[1]);
    let answer = east.get_transaction(transaction_by_id(&transaction_id)).await;
    assert_eq!(answer.expect_err("no entries").code(), Code::Internal);
}

async fn a_hidden_hold_looks_like_one_that_does_not_exist(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, [east, west, _], _callers) = serve(&database).await;
    let request = PlaceHoldRequest {
        expire_time: Some(from_now(seconds(1))),
        ..hold_named("brief", "east:1", "1")
    };
    east.place_hold(request).await.expect("placed");
    let get = |hold_id: &str| GetHoldRequest { hold_id: hold_id.to_owned() };
    eventually("it has expired", async || {
        get_hold(&east, "brief").await.state() == HoldState::Expired
    })
    .await;

    let mut answers = Vec::new();
    for hold_id in ["brief@east", "free@east", "free"] {
        let denials = [
            west.get_hold(get(hold_id)).await.map(drop),
            west.capture_hold(capture(hold_id)).await.map(drop),
            west.release_hold(release(hold_id)).await.map(drop),
        ];
        let denials = denials.map(|denial| {
            let status = must_fail(denial, Reason::PermissionDenied);
            (status.message().to_owned(), status.details().to_vec())
        });
        answers.push(denials);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

async fn a_hidden_hold_is_denied_before_its_row_is_read(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (_server, [east, west, _], _callers) = serve(&database).await;
    place_named(&east, "order-1", "east:1").await;
    // A caller for whom the row is read gets an error.
    let _tampering = Tampering::begin(&database).await;
    database.execute("UPDATE holds SET request_id = ''").await;

    let get = || GetHoldRequest { hold_id: "order-1@east".to_owned() };
    must_fail(west.get_hold(get()).await, Reason::PermissionDenied);
    must_fail(west.capture_hold(capture("order-1@east")).await, Reason::PermissionDenied);
    must_fail(west.release_hold(release("order-1@east")).await, Reason::PermissionDenied);
    for error in [
        east.get_hold(get()).await.map(drop),
        east.capture_hold(capture("order-1@east")).await.map(drop),
        east.release_hold(release("order-1@east")).await.map(drop),
    ] {
        assert_eq!(error.expect_err("a corrupt row").code(), Code::Internal);
    }
}
