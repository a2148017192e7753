//! The worker's supervision, on a real SQLite file: panics end in a resolved outcome.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    budget::Budgets,
    domain::{
        authorization::Caller,
        command::{Action, Command, Request, Reversal, TransactionRef},
        fixtures::{id, new_account, posting, request, transaction, usd},
        hold::{Capture, Captured, Hold, HoldRef, HoldState, NewHold},
        ids::{HoldId, Identity, TransactionId},
        transaction::TransactionKind,
        unit_of_work::{CommandResult, RequestResult},
    },
    ledger::{
        CallContext, Error, Ledger, Outcome,
        write_path::{
            failpoints::{Point, arm},
            job::{self, Permits},
        },
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
    CallContext { caller: Caller::unrestricted(""), deadline, audit: None, share: None }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn deposit(request_id: &str) -> Request {
    posting(request_id, &[("a", "1.00")])
}

fn place(hold_id: &HoldId, amount: &str) -> Request {
    let new = NewHold {
        hold_id: Some(hold_id.clone()),
        account_id: id("a"),
        currency: usd(),
        amount: usd().parse(amount).unwrap(),
        expire_time_us: None,
    };
    request("place", Action::PlaceHold(new))
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

/// Applies a request with what its look-up has found: perhaps on a server that is no longer the primary.
async fn apply(ledger: &Ledger, request: Request) -> Result<CommandResult, Error> {
    let queue = ledger.budgets.queue.take_one(&Identity::anonymous()).unwrap();
    let records = ledger.budgets.records.clone();
    let permits = Permits { queue, records, _message: None, _resolved: None };
    let command = Command::Request(Arc::new(request));
    let (job, completion) = job::new(command, soon(), permits);
    ledger.queue.enqueue(job);
    completion.wait().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_or_a_transaction_that_was_looked_up_in_vain_is_not_missing_for_good() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let deposited = ledger.execute(&within(soon()), deposit("looked-up")).await.unwrap();
    let transaction_id = deposited.effects.transaction.unwrap().transaction_id.unwrap();
    let hold_id = HoldId::parse("h").unwrap();
    ledger.execute(&within(soon()), place(&hold_id, "1.00")).await.unwrap();

    let transaction = TransactionRef { transaction_id, resolved: None };
    for request in [
        request("release", Action::ReleaseHold(HoldRef { hold_id, resolved: None })),
        request("reverse", Action::Reverse(Reversal { transaction, amount: None })),
    ] {
        assert_eq!(apply(&ledger, request.clone()).await.unwrap_err(), Error::Contention);
        ledger.execute(&within(soon()), request).await.unwrap();
    }
    assert_eq!(balance(&ledger).await, "0.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_lost_after_its_look_up_is_not_reversed() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let lost = transaction(TransactionKind::Withdrawal, &usd(), &[("a", "-1.00")]);
    let transaction_id = lost.transaction_id.unwrap();
    let transaction = TransactionRef { transaction_id, resolved: Some(Arc::new(lost)) };
    let reverse = request("lost", Action::Reverse(Reversal { transaction, amount: None }));
    assert_eq!(apply(&ledger, reverse.clone()).await.unwrap_err(), Error::Contention);
    assert_eq!(balance(&ledger).await, "0.00");
    let rejected = ledger.execute(&within(soon()), reverse).await.unwrap_err();
    assert!(matches!(rejected, Error::Rejected(_)), "{rejected:?}");
}

/// A server that was the primary until a moment ago has answered the look-up, and what it knew is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_was_less_open_at_its_look_up_is_looked_up_again() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    ledger.execute(&within(soon()), posting("paid", &[("a", "50.00")])).await.unwrap();
    let hold_id = HoldId::parse("h").unwrap();
    let placed = ledger.execute(&within(soon()), place(&hold_id, "3.00")).await.unwrap();
    let placed = placed.effects.hold.unwrap();
    let captured =
        Captured { amount: usd().parse("1.00").unwrap(), transaction_id: TransactionId::nil() };
    let seen = [
        Hold { state: HoldState::Released, ..placed.as_ref().clone() },
        Hold { captured: Some(captured), ..placed.as_ref().clone() },
        Hold { hold_id: HoldId::parse("lost").unwrap(), ..placed.as_ref().clone() },
    ];
    let capture = |seen: Hold| {
        let hold = HoldRef { hold_id: hold_id.clone(), resolved: Some(Arc::new(seen)) };
        let (keep_open, allow_excess) = (false, false);
        let capture =
            Capture { hold, amount: None, destination_account_id: None, keep_open, allow_excess };
        request("capture", Action::CaptureHold(capture))
    };
    for seen in seen {
        let captured = apply(&ledger, capture(seen.clone())).await;
        assert_eq!(captured.unwrap_err(), Error::Contention, "{seen:?}");
    }
    apply(&ledger, capture(placed.as_ref().clone())).await.unwrap();
    assert_eq!(balance(&ledger).await, "47.00");
}

/// A failover may have lost the record for which it was allowed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_as_a_repeat_is_never_applied_anew() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let repeat = Request { is_repeat: true, ..deposit("once") };
    assert_eq!(apply(&ledger, repeat.clone()).await.unwrap_err(), Error::Contention);
    assert_eq!(balance(&ledger).await, "0.00");
    ledger.execute(&within(soon()), deposit("once")).await.unwrap();
    apply(&ledger, repeat).await.unwrap();
    assert_eq!(balance(&ledger).await, "1.00");
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

/// A caller who gives up leaves its job in the queue.
#[tokio::test]
async fn a_job_in_the_queue_has_the_share_of_its_message() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let used = || ledger.budgets.request_bytes.used();
    let share = ledger.budgets.request_share(&Identity::anonymous(), 10_000).unwrap();
    let context = CallContext { share: Some(Arc::new(share)), ..within(soon()) };
    assert!(ledger.execute(&context, deposit("d")).now_or_never().is_none());
    drop(context);
    assert_eq!(used(), 10_000);
    while used() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_reversal_has_a_share_for_the_transaction_that_was_looked_up() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let context = within(soon());
    let posted = ledger.execute(&context, posting("p", &[("a", "1.00"); 100])).await.unwrap();
    let transaction_id = posted.effects.transaction.unwrap().transaction_id.unwrap();
    let transaction = TransactionRef { transaction_id, resolved: None };
    let reversal = Action::Reverse(Reversal { transaction, amount: None });
    let mut reversing = pin!(ledger.execute(&context, request("r", reversal)));
    let mut most = 0;
    while (&mut reversing).now_or_never().is_none() {
        most = most.max(ledger.budgets.request_bytes.used());
        tokio::task::yield_now().await;
    }
    assert!((20_000..40_000).contains(&most), "{most} bytes");
    assert_eq!(ledger.budgets.request_bytes.used(), 0);
}
