use crate::harness::*;

on_both_databases! {
    accounts_are_listed_in_byte_order_a_page_at_a_time,
    filters_narrow_the_list_and_all_must_match,
    a_page_token_of_another_query_is_invalid,
    paging_meets_every_account_once_while_others_are_opened,
}

async fn all_pages(client: &Client, first: ListAccountsRequest) -> Vec<Vec<Account>> {
    all_pages!(client.list_accounts(first).accounts)
}

fn ids(accounts: &[Account]) -> Vec<&str> {
    accounts.iter().map(|account| account.account_id.as_str()).collect()
}

async fn accounts_are_listed_in_byte_order_a_page_at_a_time(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    // A database's own collation would sort "a" before "B" and skip over the punctuation.
    open_all(&client, &["b", "B", "a", "a-b", "ab", "a.b", "_", "1", "10", "2"]).await;

    let pages =
        all_pages(&client, ListAccountsRequest { page_size: 4, ..Default::default() }).await;

    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 4, 2]);
    assert_eq!(ids(&pages.concat()), ["1", "10", "2", "B", "_", "a", "a-b", "a.b", "ab", "b"]);
    let whole = all_pages(&client, ListAccountsRequest::default()).await;
    assert_eq!(whole, [pages.concat()], "ten accounts are one page by default");
    let exact =
        all_pages(&client, ListAccountsRequest { page_size: 5, ..Default::default() }).await;
    assert_eq!(exact.len(), 2, "no empty page comes after a full last one");
}

async fn filters_narrow_the_list_and_all_must_match(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let label = |value: &str| labels(&[("team", value)]);
    for (account_id, currency_code, team) in [
        ("a", "USD", "red"),
        ("b", "EUR", "red"),
        ("ba", "EUR", "blue"),
        ("c", "USD", "blue"),
        ("d", "USD", "red"),
    ] {
        let request =
            CreateAccountRequest { labels: label(team), ..account_of(account_id, currency_code) };
        open_with(&client, request).await;
    }
    database.execute("UPDATE accounts SET state = 'frozen' WHERE account_id = 'd'").await;
    let usd = || "USD".to_owned();
    let any = ListAccountsRequest::default;
    let of_prefix =
        |prefix: &str| ListAccountsRequest { account_id_prefix: prefix.to_owned(), ..any() };
    let cases = [
        (ListAccountsRequest { currency_code: usd(), ..any() }, vec!["a", "c", "d"]),
        (ListAccountsRequest { labels: label("red"), ..any() }, vec!["a", "b", "d"]),
        (ListAccountsRequest { state: AccountState::Frozen.into(), ..any() }, vec!["d"]),
        (ListAccountsRequest { state: AccountState::Closed.into(), ..any() }, vec![]),
        (
            ListAccountsRequest { currency_code: usd(), labels: label("red"), ..any() },
            vec!["a", "d"],
        ),
        (ListAccountsRequest { labels: label("re"), ..any() }, vec![]),
        (of_prefix("b"), vec!["b", "ba"]),
        (of_prefix("ba"), vec!["ba"]),
        (of_prefix("B"), vec![]),
        (ListAccountsRequest { labels: label("blue"), ..of_prefix("b") }, vec!["ba"]),
    ];

    for (request, expected) in cases {
        let small = ListAccountsRequest { page_size: 1, ..request.clone() };
        assert_eq!(
            ids(&all_pages(&client, request.clone()).await.concat()),
            expected,
            "{request:?}"
        );
        assert_eq!(ids(&all_pages(&client, small).await.concat()), expected, "{request:?}");
    }
}

async fn a_page_token_of_another_query_is_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["a", "b", "c"]).await;
    let first = ListAccountsRequest { page_size: 1, ..Default::default() };

    let others = |same: ListAccountsRequest| {
        [
            ListAccountsRequest { currency_code: "USD".to_owned(), ..same.clone() },
            ListAccountsRequest { state: AccountState::Open.into(), ..same.clone() },
            ListAccountsRequest { labels: labels(&[("a", "b")]), ..same },
        ]
    };
    let rest = rest_of_the_only_query!(client.list_accounts(first).accounts, others);
    assert_eq!(ids(&rest), ["b", "c"]);
}

async fn paging_meets_every_account_once_while_others_are_opened(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    for number in 0..20 {
        open(&client, &format!("old-{number:02}")).await;
    }
    let mut request = ListAccountsRequest { page_size: 3, ..Default::default() };
    let (mut seen, mut opened) = (Vec::new(), 0);
    loop {
        let page = client.list_accounts(request.clone()).await.expect("a page");
        seen.extend(page.accounts.into_iter().map(|account| account.account_id));
        // One account before all that were seen, one after all others.
        open(&client, &format!("a-new-{opened:02}")).await;
        open(&client, &format!("z-new-{opened:02}")).await;
        opened += 1;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || opened > 40 {
            break;
        }
        request.page_size = 5;
    }

    let old: Vec<&String> = seen.iter().filter(|id| id.starts_with("old-")).collect();
    let expected: Vec<String> = (0..20).map(|number| format!("old-{number:02}")).collect();
    assert!(old.iter().map(|id| id.as_str()).eq(expected.iter().map(String::as_str)), "{seen:?}");
    let mut unique = seen.clone();
    unique.dedup();
    assert_eq!(unique, seen, "no account twice");
}
