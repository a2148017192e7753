//! A request that the database rejects fails alone in its batch.

use tokio::task::JoinSet;

use crate::harness::{checker, *};

on_both_databases! {
    a_request_that_the_database_rejects_fails_alone,
}

/// A constraint that the server does not know.
fn poison(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => {
            "ALTER TABLE accounts ADD CONSTRAINT poison
                CHECK (account_id <> 'poison' OR balance < 100)"
        }
        Kind::Sqlite => {
            "CREATE TRIGGER poison BEFORE UPDATE ON accounts
                WHEN NEW.account_id = 'poison' AND CAST(NEW.balance AS REAL) >= 100
                BEGIN SELECT RAISE(ABORT, 'poison'); END"
        }
    }
}

async fn a_request_that_the_database_rejects_fails_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "poison", "99").await;
    for number in 0..10 {
        open(&client, &format!("healthy-{number}")).await;
    }
    database.execute(poison(kind)).await;
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let (client, is_poison) = (client.clone(), number % 10 == 0);
        let account_id =
            if is_poison { "poison".to_owned() } else { format!("healthy-{}", number % 10) };
        calls.spawn(async move {
            let change = Change::Deposit(deposit(&account_id, "1"));
            (is_poison, change.send(&client, PATIENCE).await)
        });
    }

    for (is_poison, answer) in calls.join_all().await {
        match (is_poison, answer) {
            (false, answer) => assert!(!answer.expect("a neighbour is not harmed").replayed),
            (true, answer) => {
                let status = must_fail(answer, Reason::Internal);
                assert_eq!(outcome(&status), "not_applied");
                let said = format!("{status:?}").to_lowercase();
                for inside in ["constraint", "trigger", "sql", "violates", "abort"] {
                    assert!(!said.contains(inside), "an answer shows the inside: {status:?}");
                }
            }
        }
    }

    assert_eq!(balance(&client, "poison").await, "99.00");
    for number in 1..10 {
        assert_eq!(balance(&client, &format!("healthy-{number}")).await, "10.00");
    }
    assert_eq!(database.count("entries").await, 91);
    client.withdraw(withdrawal("poison", "1")).await.expect("the account itself is well");
    checker::assert_consistent(&database).await;
}
