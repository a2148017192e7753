//! Load beyond the server's limits is shed at once, with the reason.

use sea_orm::ConnectionTrait;
use tokio::{task::JoinSet, time::Instant};
use tonic_types::StatusExt;

use crate::harness::{
    checker,
    ring::{RingLoad, Stop, open_ring},
    *,
};

on_both_databases! {
    a_full_queue_sheds_at_once_and_accepts_again_when_it_has_room,
    batches_of_one_are_as_correct_as_batches_of_many,
    a_hundred_callers_on_one_account_share_transactions,
}

async fn a_full_queue_sheds_at_once_and_accepts_again_when_it_has_room(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, admin) = Server::start_with_admin(&database, &["--queue-capacity", "4"]).await;
    let client = server.client();
    open(&client, "hot").await;
    let foreign = database.lock_account("hot").await;
    let mut taken = JoinSet::new();
    for _ in 0..4 {
        let client = client.clone();
        let change = Change::Deposit(deposit("hot", "1"));
        taken.spawn(async move { change.send(&client, 2 * PATIENCE).await });
    }
    let is_full = async || admin.metrics().await.value("passbook_queue_length") == 4.0;
    eventually("it is full", is_full).await;

    let started = Instant::now();
    let shed_change = Change::Deposit(deposit("hot", "1"));
    let answer = shed_change.send(&client, PATIENCE).await;
    let status = must_fail(answer, Reason::Overloaded);
    assert_eq!(outcome(&status), "not_applied");
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    assert!(status.message().contains('4'), "the message names the limit: {}", status.message());
    times::promise("the error of a shed call", started.elapsed(), ms(500));
    assert_eq!(balance(&client, "hot").await, "0.00", "reads go on");

    foreign.execute_unprepared("ROLLBACK").await.expect("the lock is given back");
    for answer in taken.join_all().await {
        answer.expect("what was taken on is done");
    }
    assert_eq!(balance(&client, "hot").await, "4.00");
    shed_change.send(&client, PATIENCE).await.expect("there is room again");
    checker::assert_consistent(&database).await;
}

async fn batches_of_one_are_as_correct_as_batches_of_many(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let alone = Server::start_with(&database, &["--batch-size-max", "1"]).await;
    let together = Server::start(&database).await;
    let clients = [alone.client(), together.client()];
    let (accounts, mut history) = open_ring(&clients[0], 3).await;

    history.extend(RingLoad::on(&accounts, 24, Stop::After(10), seed()).run(&clients).await);

    checker::assert_sound(&database, &history).await;
}

async fn a_hundred_callers_on_one_account_share_transactions(kind: Kind) {
    let (database, _server, client) = start_loaded_server(kind).await;
    open(&client, "hot").await;
    let calls = (0..100).map(async |_| {
        for _ in 0..10 {
            client.deposit(within(PATIENCE, deposit("hot", "1"))).await.expect("applied");
        }
    });

    join_all(calls).await;

    assert_eq!(balance(&client, "hot").await, "1000.00");
    // Entries of one transaction share its time, so distinct times count transactions.
    let times =
        database.texts("SELECT DISTINCT CAST(create_time_us AS TEXT) FROM entries").await.len();
    println!("{kind:?}: 1000 deposits in {times} transactions");
    assert!(times < 500, "1000 deposits took {times} transactions");
    checker::assert_consistent(&database).await;
}
