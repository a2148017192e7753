use prost_types::Timestamp;

use crate::harness::*;

on_both_databases! {
    a_statement_is_listed_in_both_orders_a_page_at_a_time,
    a_statement_starts_after_a_sequence,
    a_statement_is_narrowed_by_time,
    paging_meets_every_entry_once_while_entries_are_added,
    a_page_token_of_another_statement_is_invalid,
}

fn descending(account_id: &str) -> ListEntriesRequest {
    ListEntriesRequest { order: EntryOrder::Descending.into(), ..entries_of(account_id) }
}

async fn all_pages(client: &Client, first: ListEntriesRequest) -> Vec<Vec<Entry>> {
    all_pages!(client.list_entries(first).entries)
}

fn sequences(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.sequence).collect()
}

/// An account with `count` deposits of 1.00. Returns their entries.
async fn account_with(client: &Client, account_id: &str, count: usize) -> Vec<Entry> {
    open(client, account_id).await;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.extend(deposited(client, account_id, "1").await.entries);
    }
    entries
}

async fn a_statement_is_listed_in_both_orders_a_page_at_a_time(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut entries = account_with(&client, "alice", 10).await;
    account_with(&client, "alice-2", 3).await;

    let pages =
        all_pages(&client, ListEntriesRequest { page_size: 4, ..entries_of("alice") }).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(pages.concat(), entries, "the list equals the answers");
    assert_eq!(all_pages(&client, entries_of("alice")).await, [entries.clone()]);

    entries.reverse();
    let pages =
        all_pages(&client, ListEntriesRequest { page_size: 5, ..descending("alice") }).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(pages.concat(), entries);
}

async fn a_statement_starts_after_a_sequence(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    account_with(&client, "alice", 6).await;
    let after =
        |after_sequence, request| ListEntriesRequest { after_sequence, page_size: 2, ..request };

    let ascending = all_pages(&client, after(3, entries_of("alice"))).await.concat();
    assert_eq!(sequences(&ascending), [4, 5, 6]);
    let descending = all_pages(&client, after(3, descending("alice"))).await.concat();
    assert_eq!(sequences(&descending), [6, 5, 4]);
    for beyond in [6, 7, i64::MAX] {
        assert_eq!(all_pages(&client, after(beyond, entries_of("alice"))).await, [[]]);
    }
}

async fn a_statement_is_narrowed_by_time(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut entries = account_with(&client, "alice", 2).await;
    tokio::time::sleep(ms(5)).await;
    entries.extend(account_with(&client, "alice", 3).await);
    let time = |index: usize| entries[index].create_time;
    let between = |start_time: Option<Timestamp>, end_time: Option<Timestamp>, request| {
        ListEntriesRequest { start_time, end_time, page_size: 2, ..request }
    };
    // Entries may share a microsecond, so the expectation is computed from the times.
    let expected = |start: Option<Timestamp>, end: Option<Timestamp>| {
        let key = |time: Timestamp| (time.seconds, time.nanos);
        let within = |entry: &&Entry| {
            let at = key(entry.create_time.expect("a time"));
            start.is_none_or(|start| at >= key(start)) && end.is_none_or(|end| at < key(end))
        };
        entries.iter().filter(within).map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    let ranges = [(time(2), None), (None, time(2)), (time(1), time(3)), (time(3), time(3))];

    for (start, end) in ranges {
        let listed = all_pages(&client, between(start, end, entries_of("alice"))).await.concat();
        assert_eq!(sequences(&listed), expected(start, end), "{start:?} {end:?}");
        let mut reversed = expected(start, end);
        reversed.reverse();
        let listed = all_pages(&client, between(start, end, descending("alice"))).await.concat();
        assert_eq!(sequences(&listed), reversed, "{start:?} {end:?}");
    }
}

async fn paging_meets_every_entry_once_while_entries_are_added(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    account_with(&client, "alice", 12).await;

    for (request, expected) in [
        (entries_of("alice"), (1..=12).collect::<Vec<i64>>()),
        (descending("alice"), (1..=12).rev().collect()),
    ] {
        let already = get(&client, "alice").await.sequence;
        let mut request = ListEntriesRequest { page_size: 2, ..request };
        let mut seen = Vec::new();
        for _ in 0..6 {
            let page = client.list_entries(request.clone()).await.expect("a page");
            seen.extend(sequences(&page.entries));
            client.deposit(deposit("alice", "1")).await.expect("applied");
            request.page_token = page.next_page_token;
        }
        let skipped = if request.order() == EntryOrder::Descending { already - 12 } else { 0 };
        let expected: Vec<i64> = expected.into_iter().map(|sequence| sequence + skipped).collect();
        assert_eq!(seen, expected, "no gap and no repeat");
    }
}

async fn a_page_token_of_another_statement_is_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    account_with(&client, "alice", 3).await;
    account_with(&client, "bob", 3).await;
    let first = ListEntriesRequest { page_size: 1, ..entries_of("alice") };
    let time = Some(Timestamp { seconds: 1, nanos: 0 });

    let others = |same: ListEntriesRequest| {
        [
            ListEntriesRequest { account_id: "bob".to_owned(), ..same.clone() },
            ListEntriesRequest { order: EntryOrder::Descending.into(), ..same.clone() },
            ListEntriesRequest { after_sequence: 1, ..same.clone() },
            ListEntriesRequest { start_time: time, ..same.clone() },
            ListEntriesRequest { end_time: time, ..same.clone() },
            ListEntriesRequest { page_token: "made up".to_owned(), ..same },
        ]
    };
    let rest = rest_of_the_only_query!(client.list_entries(first).entries, others);
    assert_eq!(sequences(&rest), [2, 3]);
}
