//! PostgreSQL fails one statement of a transaction, or its COMMIT, with each class of error.

use crate::harness::{checker, ring::open_ring, *};

/// Codes of appendix A of PostgreSQL's manual, and what the server does: it makes the transaction again,
/// or fails the request.
const ERRORS: [(&str, Then); 22] = [
    ("08006", Then::TryAgain),
    ("0A000", Then::TryAgain),
    ("21000", Then::TryAgain),
    ("22003", Then::Fail),
    ("23505", Then::TryAgain),
    ("23514", Then::Fail),
    ("25006", Then::TryAgain),
    ("40001", Then::TryAgain),
    ("40003", Then::TryAgain),
    ("40P01", Then::TryAgain),
    ("42501", Then::TryAgain),
    ("53100", Then::TryAgain),
    ("53200", Then::TryAgain),
    ("53300", Then::TryAgain),
    ("54000", Then::Fail),
    ("55P03", Then::TryAgain),
    ("57014", Then::TryAgain),
    ("57P01", Then::TryAgain),
    ("57P03", Then::TryAgain),
    ("58030", Then::TryAgain),
    ("P0001", Then::TryAgain),
    ("XX000", Then::TryAgain),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    TryAgain,
    Fail,
}

/// Where in its transaction a change meets the error.
#[derive(Clone, Copy, Debug)]
enum Place {
    Requests,
    Entries,
    Accounts,
    Commit,
}

const PLACES: [Place; 4] = [Place::Requests, Place::Entries, Place::Accounts, Place::Commit];

impl Place {
    fn table(self) -> &'static str {
        match self {
            Self::Requests | Self::Commit => "requests",
            Self::Entries => "entries",
            Self::Accounts => "accounts",
        }
    }

    fn trigger(self) -> String {
        let table = self.table();
        let (kind, event, time) = match self {
            Self::Requests | Self::Entries => ("TRIGGER", "BEFORE INSERT", ""),
            Self::Accounts => ("TRIGGER", "BEFORE UPDATE", ""),
            Self::Commit => ("CONSTRAINT TRIGGER", "AFTER INSERT", "DEFERRABLE INITIALLY DEFERRED"),
        };
        format!(
            "CREATE {kind} injected {event} ON {table} {time}
             FOR EACH ROW EXECUTE FUNCTION injected()"
        )
    }
}

/// Raises the error once after each restart of the sequence, which no rollback undoes.
fn raise(code: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION injected() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('injected_errors') = 1 THEN
                 RAISE EXCEPTION 'injected' USING ERRCODE = '{code}';
             END IF;
             RETURN NEW;
         END $$;
         ALTER SEQUENCE injected_errors RESTART"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_postgresql_ends_in_one_effect_or_in_none() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    let (accounts, mut history) = open_ring(&client, 2).await;
    database.execute("CREATE SEQUENCE injected_errors").await;

    for place in PLACES {
        for (code, then) in ERRORS {
            let event = format!("{code} {place:?}");
            database.execute(&raise(code)).await;
            database.execute(&place.trigger()).await;
            let change = Change::Transfer(transfer(&accounts[0], &accounts[1], "1"));

            let answer = change.send(&client, PATIENCE).await;

            assert!(
                database.count("injected_errors WHERE is_called").await > 0,
                "{event}: not raised"
            );
            match then {
                Then::TryAgain => {
                    let answer = answer.unwrap_or_else(|status| panic!("{event}: {status:?}"));
                    assert!(!answer.replayed, "{event}");
                }
                Then::Fail => {
                    let status = must_fail(answer, Reason::Internal);
                    assert_eq!(outcome(&status), "not_applied", "{event}");
                }
            }
            database.execute(&format!("DROP TRIGGER injected ON {}", place.table())).await;
            let result = change.settle(std::slice::from_ref(&client)).await;
            history.push((change, result));
        }
    }

    checker::assert_sound(&database, &history).await;
}
