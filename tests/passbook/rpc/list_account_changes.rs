use crate::harness::*;

on_both_databases! {
    every_change_is_kept_with_what_was_before_and_after_it,
    only_changes_of_account_attributes_are_listed,
    changes_are_listed_oldest_first_a_page_at_a_time,
    many_large_changes_are_listed_in_pages,
    a_page_token_of_another_account_is_invalid,
}

async fn all_pages(client: &Client, first: ListAccountChangesRequest) -> Vec<Vec<AccountChange>> {
    all_pages!(client.list_account_changes(first).changes)
}

fn versions(changes: &[AccountChange]) -> Vec<i64> {
    changes.iter().map(|change| change.version).collect()
}

async fn every_change_is_kept_with_what_was_before_and_after_it(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    let labels = |value: &str| labels(&[("team", value)]);
    let request = CreateAccountRequest {
        overdraft_limit: money("1"),
        labels: labels("a"),
        ..account_of("alice", "USD")
    };
    open_with(&client, request).await;
    let account_id = || "alice".to_owned();
    let request = UpdateAccountRequest {
        account_id: account_id(),
        labels: labels("b"),
        overdraft_limit: money("2.5"),
        ..Default::default()
    };
    client.update_account(request).await.expect("it is updated");
    let request = UpdateAccountRequest {
        account_id: account_id(),
        unlimited_overdraft: true,
        ..Default::default()
    };
    client.update_account(request).await.expect("it is updated");
    let longest = "ä".repeat(512);
    let request = FreezeAccountRequest {
        account_id: account_id(),
        reason: longest.clone(),
        ..Default::default()
    };
    client.freeze_account(request).await.expect("it is frozen");
    let reason = "it's \"over\"; -- $1".to_owned();
    let request = UnfreezeAccountRequest {
        account_id: account_id(),
        reason: reason.clone(),
        ..Default::default()
    };
    client.unfreeze_account(request).await.expect("it is open");
    let request = CloseAccountRequest {
        account_id: account_id(),
        reason: String::new(),
        ..Default::default()
    };
    let account = client.close_account(request).await.expect("it is closed").account;

    let changes = all_pages(&servers[1].client(), changes_of("alice")).await.concat();

    let state = |state: AccountState, limit: &str, unlimited_overdraft, team: &str| {
        let labels = labels(team);
        let overdraft_limit = money(limit);
        AccountAttributes { state: state.into(), overdraft_limit, unlimited_overdraft, labels }
    };
    let attributes = [
        state(AccountState::Open, "1.00", false, "a"),
        state(AccountState::Open, "2.50", false, "b"),
        state(AccountState::Open, "0.00", true, "b"),
        state(AccountState::Frozen, "0.00", true, "b"),
        state(AccountState::Open, "0.00", true, "b"),
        state(AccountState::Closed, "0.00", true, "b"),
    ];
    let kinds = [
        (AccountChangeKind::Updated, String::new()),
        (AccountChangeKind::Updated, String::new()),
        (AccountChangeKind::Frozen, longest),
        (AccountChangeKind::Unfrozen, reason),
        (AccountChangeKind::Closed, String::new()),
    ];
    assert_eq!(changes.len(), kinds.len());
    let mut time = microseconds(&account.as_ref().expect("an account").create_time);
    for (index, (change, (kind, reason))) in changes.iter().zip(kinds).enumerate() {
        let expected = AccountChange {
            account_id: account_id(),
            version: index as i64 + 2,
            kind: kind.into(),
            reason,
            before: Some(attributes[index].clone()),
            after: Some(attributes[index + 1].clone()),
            create_time: change.create_time,
            created_by: String::new(),
        };
        assert_eq!(*change, expected);
        assert!(microseconds(&change.create_time) >= time, "times never go back");
        time = microseconds(&change.create_time);
    }
    let account = account.expect("an account");
    let last = changes.last().expect("a change");
    assert_eq!((last.version, last.create_time), (account.version, account.update_time));
}

async fn only_changes_of_account_attributes_are_listed(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    freeze(&client, "alice").await;
    freeze(&client, "alice").await;
    client.deposit(deposit("alice", "1")).await.expect("applied");
    unfreeze(&client, "alice").await;
    place(&client, hold_named("h", "alice", "1")).await;
    captured(&client, capture("h")).await;
    must_fail(close(&client, "alice").await, Reason::AccountNotEmpty);
    let request = UpdateAccountRequest {
        overdraft_limit: money("1"),
        expected_version: Some(1),
        ..update_of("alice")
    };
    must_fail(client.update_account(request).await, Reason::VersionMismatch);
    freeze(&client, "alice").await;

    let changes = all_pages(&client, changes_of("alice")).await.concat();

    // The version is 1 after creation, 2 after the first deposit, 4 after the second.
    assert_eq!(versions(&changes), [3, 5, 8]);
    assert_eq!(get(&client, "alice").await.version, 8);
}

async fn changes_are_listed_oldest_first_a_page_at_a_time(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    for account_id in ["alice", "alice-2"] {
        open(&client, account_id).await;
        for _ in 0..4 {
            freeze(&client, account_id).await;
            unfreeze(&client, account_id).await;
        }
    }

    let page = |page_size| ListAccountChangesRequest { page_size, ..changes_of("alice") };
    let all = all_pages(&client, changes_of("alice")).await;
    assert_eq!(all.len(), 1);
    assert_eq!(versions(&all[0]), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(all[0].iter().all(|change| change.account_id == "alice"));
    for (page_size, lengths) in [(3, vec![3, 3, 2]), (4, vec![4, 4]), (8, vec![8])] {
        let pages = all_pages(&client, page(page_size)).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        assert_eq!(pages.concat(), all[0]);
    }
}

/// Changes are read some at a time, until they are more than a page has room for.
async fn many_large_changes_are_listed_in_pages(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let large = |number: usize| {
        let label = |at: usize| (format!("key-{at:02}"), format!("{number:03}").repeat(85));
        (0..32).map(label).collect()
    };
    for number in 0..230 {
        let update = UpdateAccountRequest {
            labels: if number < 210 {
                large(number)
            } else {
                labels(&[("number", &number.to_string())])
            },
            update_mask: mask(&["labels"]),
            ..update_of("alice")
        };
        client.update_account(update).await.expect("changed");
    }

    let page = |page_size| ListAccountChangesRequest { page_size, ..changes_of("alice") };
    let pages = all_pages(&client, page(1000)).await;
    let expected: Vec<_> = (2..=231).collect();
    assert_eq!(versions(&pages.concat()), expected);
    assert!((4..=6).contains(&pages.len()), "{} pages", pages.len());
    assert_eq!(versions(&all_pages(&client, page(150)).await.concat()), expected);
}

async fn a_page_token_of_another_account_is_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    for account_id in ["alice", "bob"] {
        open(&client, account_id).await;
        freeze(&client, account_id).await;
        unfreeze(&client, account_id).await;
    }
    let first = ListAccountChangesRequest { page_size: 1, ..changes_of("alice") };

    let others = |same: ListAccountChangesRequest| {
        [
            ListAccountChangesRequest { account_id: "bob".to_owned(), ..same.clone() },
            ListAccountChangesRequest { page_token: "made up".to_owned(), ..same },
        ]
    };
    let rest = rest_of_the_only_query!(client.list_account_changes(first).changes, others);
    assert_eq!(versions(&rest), [3]);
}
