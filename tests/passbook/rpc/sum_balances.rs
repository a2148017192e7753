use crate::harness::{
    ring::{RingLoad, Stop, open_ring},
    *,
};

on_both_databases! {
    sums_are_exact_and_by_currency,
    sums_of_a_past_time_are_those_of_the_statements,
    sums_are_one_snapshot_while_money_moves,
    a_sum_of_a_past_time_examines_so_many_accounts,
}

type Sum = (&'static str, i64, [&'static str; 3]);

async fn assert_sums(client: &Client, request: SumBalancesRequest, expected: &[Sum]) {
    let sums = client.sum_balances(request.clone()).await.expect("an answer").sums;
    let money = |code, value| money_of(code, value);
    let expected: Vec<_> = expected
        .iter()
        .map(|(code, account_count, [balance, held, available])| BalanceSum {
            currency_code: (*code).to_owned(),
            account_count: *account_count,
            balance: money(code, balance),
            held: money(code, held),
            available: money(code, available),
        })
        .collect();
    assert_eq!(sums, expected, "{request:?}");
}

async fn sums_are_exact_and_by_currency(kind: Kind) {
    const LARGEST: &str = "99999999999999999999999999.99";
    let (_database, _server, client) = start_server(kind).await;
    let any = SumBalancesRequest::default;
    assert_sums(&client, any(), &[]).await;
    let red =
        CreateAccountRequest { labels: labels(&[("team", "red")]), ..account_of("b:1", "USD") };
    open_with(&client, red).await;
    for account_id in ["b:2", "b:3"] {
        open_funded(&client, account_id, LARGEST).await;
    }
    open_with_overdraft(&client, "a", "10").await;
    client.withdraw(withdrawal("a", "2.50")).await.expect("within the limit");
    deposited(&client, "b:1", "7").await;
    place(&client, hold("b:1", "1.01")).await;
    open_with(&client, account_of("b:yen", "JPY")).await;
    client.deposit(deposit_in("b:yen", "JPY", "3")).await.expect("applied");
    open(&client, "closed").await;
    close(&client, "closed").await.expect("it is empty");

    let yen = ("JPY", 1, ["3", "0", "3"]);
    let sums = ["200000000000000000000000004.48", "1.01", "200000000000000000000000013.47"];
    assert_sums(&client, any(), &[yen, ("USD", 5, sums)]).await;
    let prefix = |account_id_prefix: &str| SumBalancesRequest {
        account_id_prefix: account_id_prefix.to_owned(),
        ..any()
    };
    let sums = ["200000000000000000000000006.98", "1.01", "200000000000000000000000005.97"];
    assert_sums(&client, prefix("b:"), &[yen, ("USD", 3, sums)]).await;
    assert_sums(&client, prefix("b:1"), &[("USD", 1, ["7.00", "1.01", "5.99"])]).await;
    assert_sums(&client, prefix("c:"), &[]).await;
    let request = SumBalancesRequest { currency_code: "JPY".to_owned(), ..any() };
    assert_sums(&client, request, &[yen]).await;
    let request = SumBalancesRequest { state: AccountState::Closed.into(), ..any() };
    assert_sums(&client, request, &[("USD", 1, ["0.00", "0.00", "0.00"])]).await;
    let request = SumBalancesRequest {
        currency_code: "USD".to_owned(),
        state: AccountState::Open.into(),
        labels: labels(&[("team", "red")]),
        ..prefix("b")
    };
    assert_sums(&client, request, &[("USD", 1, ["7.00", "1.01", "5.99"])]).await;

    let invalid = SumBalancesRequest { currency_code: "usd".to_owned(), ..prefix("b*") };
    let status = must_fail(client.sum_balances(invalid).await, Reason::InvalidCurrencyCode);
    assert_eq!(fields(&status), ["currency_code", "account_id_prefix"]);
}

/// Sums at each time of an entry, a microsecond earlier and one later, against the statements.
async fn sums_of_a_past_time_are_those_of_the_statements(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let before = open_with(&client, account_of("a", "USD")).await.create_time.expect("a time");
    for account_id in ["b", "other"] {
        open_with(&client, account_of(account_id, "USD")).await;
    }
    let mut entries = Vec::new();
    for number in 0..9 {
        let account_id = if number % 3 == 0 { "b" } else { "a" };
        entries.extend(deposited(&client, account_id, "1.01").await.entries);
        deposited(&client, "other", "100").await;
    }
    // It changes, but its balance does not.
    freeze(&client, "b").await;
    let sum_at = async |time_us: i64| {
        let (account_id_prefix, at_time) = ("a".to_owned(), Some(timestamp(time_us)));
        let request = SumBalancesRequest { account_id_prefix, at_time, ..Default::default() };
        let of_a = client.sum_balances(request.clone()).await.expect("an answer").sums;
        let request = SumBalancesRequest { account_id_prefix: "b".to_owned(), ..request };
        let of_b = client.sum_balances(request).await.expect("an answer").sums;
        [of_a, of_b].concat()
    };
    assert_eq!(sum_at(microseconds(&Some(before)) - 1).await, [], "before the first account");
    let last = get(&client, "b").await.update_time;
    let times = entries.iter().map(|entry| microseconds(&entry.create_time));
    for time_us in times.chain([microseconds(&last)]).flat_map(|it| [it - 1, it, it + 1]) {
        let sums = sum_at(time_us).await;
        assert_eq!(sums.len(), 2, "both were open at {time_us}");
        for (sum, account_id) in sums.iter().zip(["a", "b"]) {
            let own = entries.iter().filter(|entry| entry.account_id == account_id);
            let was = own.rev().find(|entry| microseconds(&entry.create_time) <= time_us);
            let expected = was.map_or("0.00", |entry| value(&entry.balance_after));
            assert_eq!((value(&sum.balance), sum.account_count), (expected, 1), "{time_us}");
            assert_eq!((&sum.held, &sum.available), (&None, &None), "only of the present");
        }
    }
}

async fn sums_are_one_snapshot_while_money_moves(kind: Kind) {
    const READS: usize = 300;
    let (_database, _servers, clients) = start_loaded(kind, 2).await;
    let (accounts, _) = open_ring(&clients[0], 8).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let moving = RingLoad::transfers_on(&accounts, 12, Stop::When(stopped), seed());
    let moving_clients = clients.clone();
    let calling = tokio::spawn(async move { moving.run(&moving_clients).await.len() });

    for number in 0..READS {
        // Now, and as of a moment that has just passed.
        let at_time = (number % 3 == 0).then(|| from_now(ms(0)));
        let request = SumBalancesRequest { at_time, ..Default::default() };
        let sums = clients[number % 2].sum_balances(request).await.expect("an answer").sums;
        let [sum] = &sums[..] else { panic!("{sums:?}") };
        assert_eq!((sum.account_count, value(&sum.balance)), (8, "800.00"), "{at_time:?}");
    }

    stop.send_replace(true);
    let changes = calling.await.expect("no panic");
    assert!(changes > READS, "{changes} transfers meanwhile");
}

async fn a_sum_of_a_past_time_examines_so_many_accounts(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "pattern").await;
    database.copy_account("a", 25_000).await;
    let sum = async |account_id_prefix: &str, at_time| {
        let account_id_prefix = account_id_prefix.to_owned();
        let request = SumBalancesRequest { account_id_prefix, at_time, ..Default::default() };
        client.sum_balances(request).await
    };
    let count = |sums: SumBalancesResponse| sums.sums[0].account_count;

    assert_eq!(count(sum("", None).await.expect("an answer")), 25_001);
    let now = Some(from_now(ms(0)));
    assert_eq!(count(sum("a", now).await.expect("not too many")), 25_000);
    let status = must_fail(sum("", now).await, Reason::TooManyAccounts);
    assert_eq!(metadata(&status, "max"), "25000");
}
