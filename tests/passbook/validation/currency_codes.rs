//! Special, withdrawn and redefined currency codes.

use crate::harness::*;

on_both_databases! {
    withdrawn_currency_codes_work_for_existing_accounts,
}

async fn check(currency: &[&str]) -> Outcome {
    let flags = currency.iter().flat_map(|it| ["--currency", it]);
    passbook(&["config", "check"].into_iter().chain(flags).collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_decimals_are_an_error_with_advice() {
    for (currency, words) in [
        (&["USD=6"][..], "USDMICRO=6"),
        (&["PTS=2", "PTS=3"], "currency PTS: is configured twice, with 2 and with 3 decimals"),
        (&["PTS=2,PTS=3"], "is configured twice"),
    ] {
        let outcome = check(currency).await;
        assert!(outcome.must_fail(2).contains(words), "{currency:?}: {}", outcome.stderr);
    }
    check(&["USDMICRO=6", "PTS=2", "PTS=2", "XAU=4", "HRK=2"]).await.must_succeed();
}

async fn withdrawn_currency_codes_work_for_existing_accounts(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let before = Server::start_with(&database, &["--currency", "HRK=2"]).await;
    open_with(&before.client(), account_of("kuna", "HRK")).await;
    drop(before);
    let server = Server::start(&database).await;
    let client = server.client();

    let money = money_of("HRK", "5.00");
    let deposited = DepositRequest { amount: money, ..deposit("kuna", "5") };
    client.deposit(deposited).await.expect("the account goes on");
    assert_eq!(balance(&client, "kuna").await, "5.00");
    let again = client.create_account(account_of("kuna", "HRK")).await.expect("a repeated call");
    let balance_of_it = again.account.expect("an account").balance;
    assert_eq!(balance_of_it, money_of("HRK", "5.00"));
    for (code, words) in [
        ("HRK", "--currency HRK=2"),
        ("ZWL", "was withdrawn"),
        ("XAU", "--currency XAU=4"),
        ("XTS", "has no number of decimals"),
    ] {
        let status = client.create_account(account_of(code, code)).await.expect_err(code);
        assert_reason(&status, Reason::InvalidCurrencyCode);
        assert!(status.message().contains(words), "{code}: {}", status.message());
    }
    open(&client, "alice").await;
    for text in ["two\nlines", "a\ttab"] {
        let described = DepositRequest { description: text.to_owned(), ..deposit("alice", "1") };
        let status = client.deposit(described).await.expect_err("control characters");
        assert_eq!(reason(&status), "INVALID_DESCRIPTION");
        assert!(status.message().contains("spaces for line feeds"), "{}", status.message());
    }
}
