//! Pages of events, on a real SQLite file: what is read does not depend on how many watch, and a page has
//! a bounded size.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    domain::{
        account::{AccountUpdate, AttributeChange, Labels},
        command::Request,
        event::{CommitId, Event, EventPosition},
        fixtures::{id, posting},
        ids::Identity,
        unit_of_work::Effects,
    },
    ledger::{
        Ledger,
        watch::{
            EventStart, EventWatcher,
            events::watcher::SMALL_PAGE_SIZE,
            tests::{context, deposit, ledger},
        },
    },
    storage::{EventPage, StorageError},
};

async fn watcher(ledger: &Ledger) -> EventWatcher {
    let start = EventStart::After(EventPosition::default());
    let watcher = EventWatcher::new(ledger.event_feed.clone(), start, Identity::anonymous());
    watcher.await.unwrap()
}

/// The next pages, with exactly so many events.
async fn pages(watcher: &mut EventWatcher, event_count: usize) -> Vec<Arc<EventPage>> {
    let (mut pages, mut count) = (Vec::new(), 0);
    while count < event_count {
        let page = watcher.next().await.unwrap();
        count += page.events.len();
        pages.push(page);
    }
    assert_eq!(count, event_count);
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_watchers_that_begin_at_different_times_read_what_one_reads() {
    const WATCHERS: u64 = 50;
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    deposit(&ledger, 1..=600).await;
    deposit(&ledger, 601..=1200).await;
    // A page may end inside of a commit. Whether another commit is behind it must not depend on time.
    deposit(&ledger, 1201..=1201).await;
    // The feed drops its pages when nobody is subscribed.
    let _subscribed = ledger.event_feed.subscribe();
    let watching = (0..WATCHERS).map(async |number| {
        sleep(Duration::from_millis(10 * number)).await;
        pages(&mut watcher(&ledger).await, 1 + 1400).await
    });
    let deposits = async {
        for number in 1202..=1400 {
            deposit(&ledger, number..=number).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    let (watched, ()) = join(join_all(watching), deposits).await;

    let pointers = |pages: &[Arc<EventPage>]| pages.iter().map(Arc::as_ptr).collect::<Vec<_>>();
    let first = pointers(&watched[0]);
    for pages in &watched {
        assert_eq!(pointers(pages), first);
    }
}

/// The bytes of labels of an event.
fn label_bytes(event: &Event) -> usize {
    let of =
        |labels: &Labels| labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    match event {
        Event::Request(Effects { transaction: Some(transaction), .. }) => of(&transaction.labels),
        Event::AccountChanged(change) => of(&change.before.labels) + of(&change.after.labels),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_a_megabyte_at_most_however_large_the_labels_are() {
    const MEGABYTE: usize = 1024 * 1024;
    const COUNT: i64 = 150;
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    let labels = |first: i64| -> Labels {
        (first..first + 32).map(|number| (format!("{number:063}"), "x".repeat(256))).collect()
    };
    let deposits = (1..=COUNT).map(async |number| {
        let request = posting(&number.to_string(), &[("a", "1.00")]);
        ledger.execute(&context(), Request { labels: labels(0), ..request }).await.unwrap();
    });
    join_all(deposits).await;
    for number in 1..=COUNT {
        let change = AttributeChange::Update {
            labels: Some(labels(number)),
            overdraft_limit: None,
            unlimited_overdraft: None,
        };
        let update = AccountUpdate {
            account_id: id("a"),
            change,
            expected_version: None,
            reason: String::new(),
            created_by: Identity::anonymous(),
        };
        ledger.update_account(&context(), update).await.unwrap();
    }

    let pages = pages(&mut watcher(&ledger).await, 1 + 2 * COUNT as usize).await;

    let bytes = pages.iter().map(|page| page.events.iter().map(|it| label_bytes(&it.1)).sum());
    let bytes: Vec<usize> = bytes.collect();
    assert!(bytes.iter().all(|bytes| *bytes <= MEGABYTE), "{bytes:?}");
    assert!(bytes.len() <= 7, "{bytes:?}");
    // Each event once, and in order.
    let events: Vec<_> = pages.iter().flat_map(|page| &page.events).collect();
    let entries = events.iter().filter_map(|(_, event)| match event {
        Event::Request(Effects { transaction, .. }) => {
            Some(transaction.as_ref()?.entries[0].sequence)
        }
        _ => None,
    });
    assert!(entries.eq(1..=COUNT));
    let versions = events.iter().filter_map(|(_, event)| match event {
        Event::AccountChanged(change) => Some(change.version),
        _ => None,
    });
    assert!(versions.eq(COUNT + 2..=2 * COUNT + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_without_room_for_its_pages_yields_the_same_events_in_small_ones() {
    const COUNT: i64 = 600;
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    deposit(&ledger, 1..=COUNT).await;
    let budget = &ledger.budgets.event_page_bytes;
    let mut others = budget.share(Identity::anonymous(), None);
    others.resize(budget.capacity()).unwrap();

    let small = pages(&mut watcher(&ledger).await, 1 + COUNT as usize).await;

    assert_eq!(budget.used(), budget.capacity());
    assert!(small.iter().all(|page| page.size() <= SMALL_PAGE_SIZE), "{} pages", small.len());
    drop(others);
    let mut with_room = watcher(&ledger).await;
    let first = with_room.next().await.unwrap();
    assert!(first.size() > SMALL_PAGE_SIZE);
    assert_eq!(budget.used(), first.size());
    let rest = pages(&mut with_room, 1 + COUNT as usize - first.events.len()).await;
    drop(with_room);
    assert_eq!(budget.used(), 0);
    let events = small.iter().flat_map(|page| &page.events);
    assert!(events.eq([first].iter().chain(&rest).flat_map(|page| &page.events)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_up_to_a_commit_that_is_gone() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    deposit(&ledger, 1..=10).await;
    let (feed, identity) = (&ledger.event_feed, Identity::anonymous());
    let last = ledger.own_reads.last_position().await.unwrap().commit_id();
    let others = [
        CommitId { time_us: last.time_us + 1, ..last },
        CommitId { number: last.number + 1, ..last },
    ];
    let page = async |until| feed.page(EventPosition::default(), until, &identity).await;
    for other in others {
        let error = page(other).await.unwrap_err();
        assert!(matches!(error, StorageError::Aborted(_)), "{error}");
        assert_eq!(ledger.own_reads.new_commits(other).await.unwrap(), None);
    }
    // The error is not kept.
    assert_eq!(page(last).await.unwrap().unwrap().events.len(), 1 + 10);
}
