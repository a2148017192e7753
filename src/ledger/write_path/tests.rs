//! The worker's supervision, on a real SQLite file: panics end in a resolved outcome.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    budget::Budgets,
    domain::{
        authorization::Caller,
        command::Request,
        fixtures::{id, new_account, posting},
        unit_of_work::RequestResult,
    },
    ledger::{
        CallContext, Error, Ledger, Outcome,
        write_path::failpoints::{Point, arm},
    },
    storage::Store,
};

async fn ledger(directory: &TempDir) -> Ledger {
    let store = Store::for_tests(directory).await;
    let ledger =
        Ledger::start(Arc::new(store), Budgets::for_tests(100, false), 100, None).await.unwrap();
    ledger.create_accounts(&within(soon()), vec![new_account("a")]).await.remove(0).unwrap();
    ledger
}

fn within(deadline: Instant) -> CallContext {
    CallContext { caller: Caller::unrestricted(""), deadline, audit: None }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn deposit(request_id: &str) -> Request {
    posting(request_id, &[("a", "1.00")])
}

async fn balance(ledger: &Ledger) -> String {
    ledger.account(&within(soon()), &id("a")).await.unwrap().balance.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_inside_the_transaction_is_rolled_back_and_tried_again() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    arm("panic-before-write", Point::BeforeWrite, 1);
    let RequestResult { replayed, .. } =
        ledger.execute(&within(soon()), deposit("panic-before-write")).await.unwrap();
    assert!(!replayed);
    assert_eq!(balance(&ledger).await, "1.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_after_the_commit_is_looked_up_and_not_applied_twice() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    arm("panic-after-commit", Point::AfterCommit, 1);
    let RequestResult { replayed, .. } =
        ledger.execute(&within(soon()), deposit("panic-after-commit")).await.unwrap();
    assert!(!replayed, "to its caller it is the first answer");
    assert_eq!(balance(&ledger).await, "1.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_that_always_panics_does_not_hold_up_the_others() {
    let directory = TempDir::new().unwrap();
    let ledger = Arc::new(ledger(&directory).await);
    arm("panic-always", Point::BeforeWrite, usize::MAX);
    let doomed = {
        let (ledger, deadline) = (ledger.clone(), Instant::now() + Duration::from_secs(2));
        tokio::spawn(
            async move { ledger.execute(&within(deadline), deposit("panic-always")).await },
        )
    };
    let others: Vec<_> = (0..50)
        .map(|index| {
            let ledger = ledger.clone();
            let posting = deposit(&format!("beside-a-panic-{index}"));
            tokio::spawn(async move { ledger.execute(&within(soon()), posting).await })
        })
        .collect();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(balance(&ledger).await, "50.00");
    let unknown = Error::DeadlineExceeded(Some(Outcome::Unknown));
    assert_eq!(doomed.await.unwrap().unwrap_err(), unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_time_is_up_learns_that_nothing_was_applied() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let failure = ledger.execute(&within(Instant::now()), deposit("too-late")).await.unwrap_err();
    assert_eq!(failure, Error::DeadlineExceeded(Some(Outcome::NotApplied)));
    assert_eq!(balance(&ledger).await, "0.00");
    ledger.close().await;
    assert_eq!(
        ledger.execute(&within(soon()), deposit("closed")).await.unwrap_err(),
        Error::ShuttingDown
    );
}
