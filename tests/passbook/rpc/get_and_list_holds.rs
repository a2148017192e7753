//! GetHold and ListHolds.

use tonic_types::StatusExt;

use crate::harness::*;

on_both_databases! {
    a_hold_is_found_by_its_name_on_every_server,
    a_missing_hold_is_not_found,
    holds_are_listed_in_byte_order_of_their_names_a_page_at_a_time,
    holds_are_listed_by_their_state,
    a_page_token_of_another_query_is_invalid,
    paging_meets_every_hold_once_while_holds_are_placed_and_ended,
}

async fn all_pages(client: &Client, first: ListHoldsRequest) -> Vec<Vec<Hold>> {
    all_pages!(client.list_holds(first).holds)
}

fn names(holds: &[Hold]) -> Vec<&str> {
    holds.iter().map(|hold| hold.hold_id.as_str()).collect()
}

async fn a_hold_is_found_by_its_name_on_every_server(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open_with(&client, account_of("yen", "JPY")).await;
    let request = deposit_in("yen", "JPY", "100");
    client.deposit(request).await.expect("applied");
    let request = PlaceHoldRequest {
        amount: money_of("JPY", "7"),
        description: "日本".to_owned(),
        labels: labels(&[("k", "日")]),
        ..hold_named("h", "yen", "")
    };

    let placed = place(&client, request).await;

    assert_eq!(placed.amount, money_of("JPY", "7"));
    assert_eq!(get_hold(&servers[1].client(), "h").await, placed);
    assert_eq!(all_pages(&servers[1].client(), holds_of("yen")).await, [[placed]]);
}

async fn a_missing_hold_is_not_found(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "1")).await;

    // Ids are compared byte by byte.
    for hold_id in ["H", "h1", "alice"] {
        let request = GetHoldRequest { hold_id: hold_id.to_owned() };
        let status = must_fail(client.get_hold(request).await, Reason::HoldNotFound);
        assert_eq!(metadata(&status, "hold_id"), hold_id);
        let info = status.get_details_resource_info().expect("ResourceInfo");
        assert_eq!(
            (info.resource_type.as_str(), info.resource_name.as_str()),
            ("passbook.v1.Hold", hold_id)
        );
    }
}

async fn holds_are_listed_in_byte_order_of_their_names_a_page_at_a_time(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    open_funded(&client, "bob", "100").await;
    for hold_id in ["b", "a", "B", "a-1", "_", "a.1", "10", "9"] {
        place(&client, hold_named(hold_id, "alice", "1")).await;
        place(&client, hold_named(&format!("{hold_id}:bob"), "bob", "1")).await;
    }
    let in_order = ["10", "9", "B", "_", "a", "a-1", "a.1", "b"];

    assert_eq!(names(&all_pages(&client, holds_of("alice")).await.concat()), in_order);
    for page_size in [1, 3, 8] {
        let request = ListHoldsRequest { page_size, ..holds_of("alice") };
        let pages = all_pages(&client, request).await;
        assert_eq!(names(&pages.concat()), in_order);
        let full = pages.len() - 1;
        assert!(pages[..full].iter().all(|page| page.len() == page_size as usize));
        assert!(!pages[full].is_empty(), "there is no page without a hold");
    }
}

async fn holds_are_listed_by_their_state(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    let later = from_now(seconds(3600));
    place_all(&client, "alice", "1", &["open-1", "captured", "released", "swept"]).await;
    let request =
        PlaceHoldRequest { expire_time: Some(later), ..hold_named("open-2", "alice", "1") };
    place(&client, request).await;
    captured(&client, capture("captured")).await;
    released(&client, release("released")).await;
    released(&client, release("swept")).await;
    place_and_expire(&client, hold_named("expired-1", "alice", "1")).await;
    // The change records the expiry of this hold, but not of the next one.
    client.deposit(deposit("alice", "1")).await.expect("applied");
    place_and_expire(&client, hold_named("expired-2", "alice", "1")).await;
    let states = database.texts("SELECT state FROM holds ORDER BY hold_id").await;
    let recorded = ["captured", "expired", "open", "open", "open", "released", "released"];
    assert_eq!(states, recorded, "one of two expired holds is recorded so");

    let cases: [(HoldState, &[&str]); 5] = [
        (HoldState::Open, &["open-1", "open-2"]),
        (HoldState::Captured, &["captured"]),
        (HoldState::Released, &["released", "swept"]),
        (HoldState::Expired, &["expired-1", "expired-2"]),
        (
            HoldState::Unspecified,
            &["captured", "expired-1", "expired-2", "open-1", "open-2", "released", "swept"],
        ),
    ];
    for (state, expected) in cases {
        let request = ListHoldsRequest { state: state.into(), page_size: 1, ..holds_of("alice") };
        let holds = all_pages(&client, request).await.concat();
        assert_eq!(names(&holds), expected);
        for hold in holds {
            assert!(state == HoldState::Unspecified || hold.state() == state, "{hold:?}");
            assert_eq!(get_hold(&client, &hold.hold_id).await, hold);
        }
    }
}

async fn a_page_token_of_another_query_is_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_funded(&client, "bob", "10").await;
    place_all(&client, "alice", "1", &["a", "b", "c"]).await;
    let first = ListHoldsRequest { page_size: 1, ..holds_of("alice") };

    let others = |same: ListHoldsRequest| {
        [
            ListHoldsRequest { account_id: "bob".to_owned(), ..same.clone() },
            ListHoldsRequest { state: HoldState::Open.into(), ..same.clone() },
            ListHoldsRequest { page_token: "made up".to_owned(), ..same },
        ]
    };
    let rest = rest_of_the_only_query!(client.list_holds(first).holds, others);
    assert_eq!(names(&rest), ["b", "c"]);
}

async fn paging_meets_every_hold_once_while_holds_are_placed_and_ended(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    let expected: Vec<String> = (10..20).map(|number| format!("hold-{number}")).collect();
    for hold_id in &expected {
        place(&client, hold_named(hold_id, "alice", "1")).await;
    }

    let mut request = ListHoldsRequest { page_size: 2, ..holds_of("alice") };
    let mut seen = Vec::new();
    for (number, hold_id) in expected.iter().take(5).enumerate() {
        let page = client.list_holds(request.clone()).await.expect("a page");
        seen.extend(names(&page.holds).into_iter().map(str::to_owned));
        // Sorted before all others, and so before the current page.
        place(&client, hold_named(&format!("a-{number}"), "alice", "1")).await;
        released(&client, release(hold_id)).await;
        request.page_token = page.next_page_token;
    }

    assert!(request.page_token.is_empty());
    assert_eq!(seen, expected, "no gap and no repeat");
}
