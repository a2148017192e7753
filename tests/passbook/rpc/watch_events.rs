use passbook::proto::EventKind as K;
use tokio::time::{Instant, timeout};

use crate::harness::{
    credentials::{Callers, allow, identity},
    *,
};

on_both_databases! {
    every_kind_of_event_comes_once_and_in_order,
    each_change_of_a_hold_is_an_event_with_the_hold_as_it_was_then,
    filters_select_events,
    a_watch_resumes_after_any_token_on_another_server,
    a_watch_from_now_begins_with_its_token_and_the_next_change,
    a_stream_says_when_it_has_sent_what_there_was,
    a_token_whose_event_the_ledger_does_not_have_is_rejected,
    a_token_behind_the_last_event_of_its_commit_is_rejected,
    malformed_requests_to_watch_events_are_invalid,
    a_caller_sees_the_events_of_its_accounts_only,
    a_caller_that_may_read_nothing_gets_no_stream,
}

async fn every_kind_of_event_comes_once_and_in_order(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    let mut watching = EventWatching::begin(&servers[1].client(), all_events()).await;
    let opened = open_with(
        &client,
        CreateAccountRequest { labels: labels(&[("a", "1")]), ..account_of("alice", "USD") },
    )
    .await;
    open(&client, "bob").await;
    let paid = deposited(&client, "alice", "100").await;
    let placed = place(&client, hold("alice", "10")).await;
    must_fail(client.withdraw(withdrawal("alice", "1000")).await, Reason::InsufficientFunds);
    let captured = captured(&client, capture_to("bob", &placed.hold_id, "4")).await;
    let second = place(&client, hold("alice", "1")).await;
    let released = released(&client, release(&second.hold_id)).await;
    let third = place_and_expire(&client, hold("alice", "2")).await;
    let labels_of = UpdateAccountRequest { update_mask: mask(&["labels"]), ..update_of("alice") };
    client.update_account(labels_of).await.expect("updated");
    freeze(&client, "alice").await;
    must_fail(client.withdraw(withdrawal("alice", "1")).await, Reason::AccountFrozen);
    unfreeze(&client, "alice").await;
    let reversal =
        reversed(&client, reversal(&captured.transaction.clone().unwrap().transaction_id)).await;
    close(&client, "bob").await.expect("closed");

    let events = watching.take(14).await;

    let expected = [
        K::AccountOpened,
        K::AccountOpened,
        K::Transaction,
        K::HoldPlaced,
        K::HoldCaptured,
        K::HoldPlaced,
        K::HoldReleased,
        K::HoldPlaced,
        K::HoldExpired,
        K::AccountUpdated,
        K::AccountFrozen,
        K::AccountUnfrozen,
        K::Transaction,
        K::AccountClosed,
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[0].account, Some(opened), "as it was opened, with its labels");
    assert_eq!(events[2].transaction, Some(paid));
    assert_eq!(events[3].hold, Some(placed));
    let parts = (events[4].transaction.clone(), events[4].hold.clone());
    assert_eq!(parts, (captured.transaction, captured.hold), "without its later reversal");
    assert_eq!(events[6].hold, Some(released));
    let expired = events[8].hold.clone().expect("a hold");
    assert_eq!((&expired.hold_id, expired.state()), (&third.hold_id, HoldState::Expired));
    let changes = client.list_account_changes(changes_of("alice")).await.expect("a page").changes;
    let seen: Vec<_> = events[9..12].iter().filter_map(|it| it.account_change.clone()).collect();
    assert_eq!(seen, changes);
    assert_eq!(events[12].transaction, Some(reversal));

    // A second pass yields the same.
    let mut again = EventWatching::begin(&client, all_events()).await;
    assert_eq!(again.take(14).await, events);
}

async fn each_change_of_a_hold_is_an_event_with_the_hold_as_it_was_then(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let placed = place(&client, hold_named("h", "alice", "4")).await;
    let grown = updated(&client, hold_update("h", "6")).await;
    // Changes nothing, and is an event.
    let same = updated(&client, hold_update("h", "6")).await;
    let part = captured(&client, capture_and_keep("h", "2")).await;
    let shrunk = updated(&client, hold_update("h", "5")).await;
    let rest = captured(&client, capture("h")).await;
    let expected = [
        (K::HoldPlaced, Some(placed)),
        (K::HoldUpdated, Some(grown)),
        (K::HoldUpdated, Some(same)),
        (K::HoldCaptured, part.hold),
        (K::HoldUpdated, Some(shrunk)),
        (K::HoldCaptured, rest.hold),
    ];

    let events = EventWatching::begin(&client, all_events()).await.take(8).await;

    let seen = events[2..].iter().map(|event| (event.kind(), event.hold.clone()));
    assert!(seen.eq(expected.clone()), "{events:#?}\n{expected:#?}");
    assert_eq!(events[5].transaction, part.transaction);
    let updates = WatchEventsRequest { kinds: vec![K::HoldUpdated.into()], ..all_events() };
    let updates = EventWatching::begin(&client, updates).await.take(3).await;
    assert_eq!(updates, [3, 4, 6].map(|index| events[index].clone()));
}

async fn filters_select_events(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "shop:1").await;
    open_with(&client, account_of("euro", "EUR")).await;
    deposited(&client, "shop:1", "9").await;
    client.deposit(deposit_in("euro", "EUR", "1")).await.expect("applied");
    let placed = place(&client, hold("shop:1", "2")).await;
    captured(&client, capture(&placed.hold_id)).await;
    let request =
        DepositRequest { labels: labels(&[("a", "1"), ("b", "2")]), ..deposit("euro", "1") };
    let request = DepositRequest { amount: money_of("EUR", "1"), ..request };
    client.deposit(request).await.expect("applied");
    // The last event matches all filters.
    open_with(
        &client,
        CreateAccountRequest { labels: labels(&[("a", "1")]), ..account_of("shop:e", "EUR") },
    )
    .await;

    let all = all_events();
    let of = |kinds: &[K]| kinds.iter().map(|kind| (*kind).into()).collect();
    let prefixes = vec!["none".to_owned(), "shop:".to_owned()];
    let cases = [
        (WatchEventsRequest { account_id_prefixes: prefixes, ..all.clone() }, vec![0, 2, 4, 5]),
        (
            WatchEventsRequest { kinds: of(&[K::Transaction, K::AccountOpened]), ..all.clone() },
            vec![0, 1, 2, 3, 5, 6],
        ),
        (
            WatchEventsRequest { kinds: of(&[K::HoldCaptured, K::AccountOpened]), ..all.clone() },
            vec![0, 1, 5],
        ),
        (WatchEventsRequest { currency_code: "EUR".to_owned(), ..all.clone() }, vec![1, 3, 6]),
        (WatchEventsRequest { labels: labels(&[("a", "1")]), ..all.clone() }, vec![6]),
    ];
    let events = EventWatching::begin(&client, all).await.take(8).await;
    for (request, expected) in cases {
        let expected: Vec<_> =
            expected.into_iter().chain([7]).map(|index: usize| events[index].clone()).collect();
        let seen = EventWatching::begin(&client, request.clone()).await.take(expected.len()).await;
        assert_eq!(seen, expected, "{request:?}");
    }
}

async fn a_watch_resumes_after_any_token_on_another_server(kind: Kind) {
    const COUNT: usize = 600;
    let (_database, servers, client) = start_two_servers(kind).await;
    open(&client, "alice").await;
    // More than one message, in few commits.
    post_many(&client, "alice", COUNT).await;
    let (mut events, mut tokens) = (Vec::new(), Vec::new());
    let mut watching = EventWatching::begin(&client, all_events()).await;
    while events.len() < COUNT + 1 {
        events.extend(watching.next().await.expect("the stream continues"));
        tokens.push((watching.token.clone(), events.len()));
    }
    assert!(tokens.len() > 2, "{} messages", tokens.len());
    let entries =
        events[1..].iter().map(|it| it.transaction.as_ref().expect("one").entries[0].sequence);
    assert!(entries.eq(1..=COUNT as i64), "each once and in order");

    let other = servers[1].client();
    let more = deposited(&client, "alice", "1").await;
    for (token, seen) in tokens {
        let mut resumed = EventWatching::begin(&other, events_after(&token)).await;
        let rest = resumed.take(events.len() + 1 - seen).await;
        assert_eq!(rest[..rest.len() - 1], events[seen..]);
        assert_eq!(rest[rest.len() - 1].transaction.as_ref(), Some(&more));
    }
}

async fn a_watch_from_now_begins_with_its_token_and_the_next_change(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    // Also of a ledger without events.
    for account_id in ["alice", "bob"] {
        let mut watching = EventWatching::begin(&client, events_from_now()).await;
        let opened = open(&client, account_id).await;
        assert_eq!(watching.next().await.expect("the beginning"), []);
        assert!(watching.has_caught_up);
        // As if the stream had been cut before the change.
        let mut resumed = EventWatching::begin(&client, events_after(&watching.token)).await;
        for watching in [&mut watching, &mut resumed] {
            assert_eq!(watching.take(1).await[0].account.as_ref(), Some(&opened));
        }
    }
}

async fn a_stream_says_when_it_has_sent_what_there_was(kind: Kind) {
    // Several pages.
    const COUNT: usize = 1200;
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    post_many(&client, "alice", COUNT).await;
    let read = async |request: WatchEventsRequest| {
        let mut watching = EventWatching::begin(&client, request).await;
        let (mut count, mut messages) = (0, 0);
        while !watching.has_caught_up {
            count += watching.next().await.expect("the stream continues").len();
            messages += 1;
        }
        (watching, count, messages)
    };
    let of_bob = |request| {
        let account_id_prefixes = vec!["bob".to_owned()];
        WatchEventsRequest { account_id_prefixes, ..request }
    };
    let began = Instant::now();

    let (all, count, messages) = read(all_events()).await;
    assert_eq!(count, COUNT + 1, "in {messages} messages");
    assert!(messages > 3, "{messages} messages");
    let (_, count, messages) = read(events_after(&all.token)).await;
    assert_eq!((count, messages), (0, 1));
    let (mut none, count, _) = read(of_bob(all_events())).await;
    assert_eq!((count, &none.token), (0, &all.token), "behind all that does not match");
    // A heartbeat that is due after 5 s would be late three times.
    times::promise("three streams catch up", began.elapsed(), seconds(1));

    let opened = open(&client, "bob").await;
    assert_eq!(none.take(1).await[0].account.as_ref(), Some(&opened));
    let (_, count, _) = read(of_bob(events_after(&all.token))).await;
    assert_eq!(count, 1);
}

async fn a_token_whose_event_the_ledger_does_not_have_is_rejected(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let other = database.create_beside(kind).await;
    let other_server = Server::start(&other).await;
    let mut tokens = Vec::new();
    let mut watching = EventWatching::begin(&client, all_events()).await;
    for account_id in ["alice", "bob"] {
        open(&client, account_id).await;
        open(&other_server.client(), account_id).await;
        watching.take(1).await;
        tokens.push(watching.token.clone());
    }
    let resume = async |client: Client, token: &String| {
        EventWatching::try_begin(&client, events_after(token)).await.map(drop)
    };

    for token in &tokens {
        must_fail(resume(other_server.client(), token).await, Reason::EventTokenUnknown);
        resume(client.clone(), token).await.expect("its own token");
    }
    // As if a state before bob were restored, and another account opened since.
    let _tampering = Tampering::begin(&database).await;
    database.execute("DELETE FROM commits WHERE other_events LIKE '%bob%'").await;
    for _ in 0..2 {
        must_fail(resume(client.clone(), &tokens[1]).await, Reason::EventTokenUnknown);
        resume(client.clone(), &tokens[0]).await.expect("an event that is still there");
        open(&client, &new_request_id()).await;
    }
}

/// As after commits were made anew, with one event each and the same times.
async fn a_token_behind_the_last_event_of_its_commit_is_rejected(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    // Two requests of a batch nearly always share a commit.
    loop {
        let before = database.count("commits").await;
        let requests = vec![post(&[leg("alice", "1")]), post(&[leg("alice", "2")])];
        let batch = BatchPostTransactionsRequest { requests };
        client.batch_post_transactions(batch).await.expect("applied");
        if database.count("commits").await == before + 1 {
            break;
        }
    }
    let mut watching = EventWatching::begin(&client, all_events()).await;
    let events = 1 + database.count("requests").await as usize;
    watching.take(events).await;
    let token = watching.token.clone();
    deposited(&client, "alice", "1").await;
    let resume = async || EventWatching::try_begin(&client, events_after(&token)).await.map(drop);
    resume().await.expect("its own token");

    let _tampering = Tampering::begin(&database).await;
    let last = "(SELECT max(number) FROM commits)";
    let one_event = format!(
        "UPDATE commits SET transaction_ids = (SELECT transaction_ids FROM commits \
            WHERE number = {last}) WHERE number = {last} - 1"
    );
    database.execute(&one_event).await;
    must_fail(resume().await, Reason::EventTokenUnknown);
}

async fn malformed_requests_to_watch_events_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let all = all_events();
    let cases = [
        (
            WatchEventsRequest { start: None, ..all.clone() },
            Reason::InvalidFilter,
            "from_beginning",
        ),
        (events_after(""), Reason::InvalidPageToken, "after_token"),
        (events_after("AQ"), Reason::InvalidPageToken, "after_token"),
        (
            WatchEventsRequest { account_id_prefixes: vec!["a*".to_owned()], ..all.clone() },
            Reason::InvalidFilter,
            "account_id_prefixes[0]",
        ),
        (
            WatchEventsRequest { account_id_prefixes: vec!["a".to_owned(); 101], ..all.clone() },
            Reason::InvalidFilter,
            "account_id_prefixes",
        ),
        (
            WatchEventsRequest { kinds: vec![1, 99], ..all.clone() },
            Reason::InvalidFilter,
            "kinds[1]",
        ),
        (WatchEventsRequest { kinds: vec![0], ..all.clone() }, Reason::InvalidFilter, "kinds[0]"),
        (
            WatchEventsRequest { currency_code: "usd".to_owned(), ..all.clone() },
            Reason::InvalidCurrencyCode,
            "currency_code",
        ),
    ];
    for (request, reason, field) in cases {
        let answer = EventWatching::try_begin(&client, request).await.map(drop);
        let status = must_fail(answer, reason);
        assert_eq!(fields(&status), [field]);
    }
}

async fn a_caller_sees_the_events_of_its_accounts_only(kind: Kind) {
    let policy = |methods: &str, accounts: &[&str]| {
        identity("east", &[methods], accounts) + &identity("all", &["*"], &[""])
    };
    let tokens = [("east", "east-token"), ("all", "all-token")];
    let callers = Callers::new(&tokens, &policy("*", &["east:"]));
    let database = TestDatabase::create(kind).await;
    let server = callers.serve(&database, &[]).await;
    let [east, all] = ["east-token", "all-token"].map(|token| server.client_of(token));
    open_funded(&all, "east:1", "10").await;
    open_funded(&all, "west:1", "10").await;
    let paid = transferred(&all, "west:1", "east:1").await;
    let of_west = place(&all, hold("west:1", "1")).await;
    let of_east = place(&all, hold("east:1", "1")).await;
    let taken = captured(&all, capture_to("east:1", &of_west.hold_id, "1")).await;
    captured(&all, capture_to("west:1", &of_east.hold_id, "1")).await;

    let mut watching = EventWatching::begin(&east, all_events()).await;
    let events = watching.take(6).await;

    let expected = [
        K::AccountOpened,
        K::Transaction,
        K::Transaction,
        K::HoldPlaced,
        // Of the hold of another.
        K::Transaction,
        K::HoldCaptured,
    ];
    assert_eq!(kinds(&events), expected);
    for event in &events {
        let text = format!("{event:?}");
        assert!(!text.contains("west:1"), "{text}");
    }
    let ids = [&events[2], &events[4]].map(|it| it.transaction.clone().unwrap().transaction_id);
    assert_eq!(ids, [paid.transaction_id, taken.transaction.unwrap().transaction_id]);
    // A filter finds nothing in what is hidden. What it would find comes first.
    let west = vec!["west:".to_owned()];
    let filter = WatchEventsRequest { account_id_prefixes: west, ..all_events() };
    let mut hidden = EventWatching::begin(&east, filter.clone()).await;
    assert_eq!(EventWatching::begin(&all, filter).await.take(6).await.len(), 6);

    // A new policy applies to a stream that is open.
    callers.set_policy(&policy("*", &["east:2", "west:2"]));
    eventually("the policy is in force", async || {
        east.get_account(account_named("east:1")).await.is_err()
    })
    .await;
    deposited(&all, "east:1", "1").await;
    let opened = open(&all, "west:2").await;
    assert_eq!(watching.take(1).await[0].account.as_ref(), Some(&opened));
    assert_eq!(hidden.take(1).await[0].account, Some(opened), "and nothing of west:1");

    callers.set_policy(&policy("write", &["east:"]));
    assert_reason(&watching.end().await, Reason::PermissionDenied);
}

async fn a_caller_that_may_read_nothing_gets_no_stream(kind: Kind) {
    let policy =
        |rights: &[&str]| identity("teller", &["*"], &[]) + &allow(&["*"], rights, "\"unlimited\"");
    let callers = Callers::new(&[("teller", "token")], &policy(&["credit", "read"]));
    let database = TestDatabase::create(kind).await;
    let server = callers.serve(&database, &[]).await;
    let client = server.client_of("token");
    let mut watching = EventWatching::begin(&client, all_events()).await;

    callers.set_policy(&policy(&["credit"]));

    let end = timeout(PATIENCE, watching.end()).await.expect("the stream ends");
    assert_reason(&end, Reason::PermissionDenied);
    assert_eq!(metadata(&end, "permission"), "account");
    assert!(end.message().contains("right read on any account"), "{}", end.message());
    // Before anything is looked up.
    for request in [events_from_now(), events_after(&watching.token), all_events()] {
        let begun = EventWatching::try_begin(&client, request).await.map(drop);
        must_fail(begun, Reason::PermissionDenied);
    }
}

async fn transferred(client: &Client, source: &str, destination: &str) -> Transaction {
    let answer = client.transfer(transfer(source, destination, "1")).await.expect("applied");
    answer.transaction.expect("a transaction")
}
