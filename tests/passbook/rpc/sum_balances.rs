use crate::harness::*;

on_both_databases! {
    sums_are_exact_and_by_currency,
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
