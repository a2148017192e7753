//! A full database disk: nothing is lost, nothing hangs, reads continue, and the service recovers
//! once there is room. Needs a small file system, which `scripts/disk_full` makes.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use tokio::time::{Instant, sleep};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{
    checker,
    ring::{RingLoad, open_ring},
    servers::PostgresServer,
    *,
};

fn small_disk() -> PathBuf {
    std::env::var("PASSBOOK_TEST_SMALL_DISK").expect("scripts/disk_full runs this").into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for a small file system: run scripts/disk_full after changes to storage or retries"]
async fn nothing_is_lost_on_a_full_disk_on_sqlite() {
    let slot = slots::take(Load::Alone).await;
    let disk = small_disk();
    let url = format!("sqlite://{}/passbook.db?mode=rwc", disk.display());
    passbook(&["migrate", "--database-url", &url, "up"]).await.must_succeed();
    fill_and_empty(&TestDatabase::outside(&url, slot), &disk).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for a small file system: run scripts/disk_full after changes to storage or retries"]
async fn nothing_is_lost_on_a_full_disk_on_postgres() {
    let slot = slots::take(Load::Alone).await;
    let disk = small_disk();
    // No WAL is kept or preallocated, which would leave room for a long time.
    let settings = ["wal_keep_size=0", "max_wal_size=32MB", "min_wal_size=32MB"];
    let server = PostgresServer::start_in(Some(&disk), &settings).await;
    server.migrate().await;
    fill_and_empty(&TestDatabase::outside(&server.url(), slot), &disk).await;
}

async fn fill_and_empty(database: &TestDatabase, disk: &Path) {
    let server = Server::start_at(database.url(), &[]).await;
    let (client, patient) = (server.client(), server.patient());
    let (accounts, mut history) = open_ring(&client, 4).await;
    let load = RingLoad::start(&accounts, 16, std::slice::from_ref(&client), seed());
    sleep(ms(500)).await;

    let ballast = disk.join("ballast");
    let (mut refused, mut outcomes) = (0, Vec::new());
    let end = Instant::now() + seconds(60);
    // Waits until the database has used up its preallocated room as well.
    while refused < 5 {
        assert!(Instant::now() < end, "the disk is not full: {outcomes:?}");
        fill(&ballast);
        let change = Change::Deposit(deposit(&accounts[0], "1"));
        let start = Instant::now();
        let result = match change.send(&patient, seconds(5)).await {
            Ok(answer) => RequestResult::Applied(answer),
            Err(status) => {
                let claim = outcome(&status);
                assert!(["not_applied", "unknown"].contains(&claim.as_str()), "{status:?}");
                let codes = [Code::Unavailable, Code::DeadlineExceeded];
                assert!(codes.contains(&status.code()), "{status:?}");
                refused += 1;
                outcomes.push(claim);
                RequestResult::Rejected(status)
            }
        };
        times::promise("an answer", start.elapsed(), seconds(6));
        history.push((change, result));
    }
    println!("{:?}: answers on the full disk: {outcomes:?}", database.kind);
    if database.kind == Kind::Sqlite {
        balance(&client, &accounts[0]).await;
    }
    becomes(&server, "", ServingStatus::NotServing).await;

    std::fs::remove_file(&ballast).expect("removed");
    let room = Instant::now();
    let change = Change::Deposit(deposit(&accounts[0], "1"));
    let result = change.settle(std::slice::from_ref(&client)).await;
    times::promise("the first change", room.elapsed(), seconds(10));
    history.push((change, result));
    becomes(&server, "", ServingStatus::Serving).await;
    sleep(ms(500)).await;
    history.extend(load.stop().await);
    request::settle_the_rest(&mut history, &client).await;
    println!("{} changes", history.len());
    checker::assert_sound(database, &history).await;
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// Fills the disk.
fn fill(ballast: &Path) {
    let mut file =
        std::fs::File::options().create(true).append(true).open(ballast).expect("a file");
    while file.write_all(&[7; 4096]).is_ok() {}
    while file.write_all(&[7]).is_ok() {}
}
