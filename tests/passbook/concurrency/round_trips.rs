//! Round trips to PostgreSQL per change.

use crate::harness::{proxy::PostgresProxy, *};

/// BEGIN, lock, write, COMMIT.
const ROUND_TRIPS: usize = 4;
/// After the answer: sqlx tests the connection.
const ROUND_TRIPS_AFTER: usize = 1;
/// The server is idle after this time without traffic.
const QUIET: std::time::Duration = ms(50);

struct Counted {
    database: TestDatabase,
    proxy: PostgresProxy,
    server: Server,
}

async fn start() -> Counted {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;
    open(&server.client(), "a").await;
    open(&server.client(), "b").await;
    Counted { database, proxy, server }
}

/// The round trips of one change, with those after its answer.
async fn round_trips_of(change: &Change, client: &Client, proxy: &PostgresProxy) -> usize {
    tokio::time::sleep(QUIET).await;
    let before = proxy.round_trips();
    change.send(client, PATIENCE).await.expect("applied");
    let all = before + ROUND_TRIPS + ROUND_TRIPS_AFTER;
    eventually("all were made", async || proxy.round_trips() >= all).await;
    tokio::time::sleep(QUIET).await;
    proxy.round_trips() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_change_takes_four_round_trips() {
    let Counted { proxy, server, database: _database } = start().await;
    let client = server.client();
    let mut fewest = [usize::MAX; 2];

    // Readiness probes run in between, so the minimum of many counts.
    for _ in 0..20 {
        let changes =
            [Change::Deposit(deposit("a", "1")), Change::Transfer(transfer("a", "b", "1"))];
        for (change, fewest) in changes.iter().zip(&mut fewest) {
            *fewest = (*fewest).min(round_trips_of(change, &client, &proxy).await);
        }
    }

    println!("round trips: {} for a deposit, {} for a transfer", fewest[0], fewest[1]);
    assert_eq!(fewest, [ROUND_TRIPS + ROUND_TRIPS_AFTER; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_do_not_grow_with_the_batch_size() {
    let Counted { proxy, server, database } = start().await;
    let client = server.client();
    for _ in 0..3 {
        let before = proxy.round_trips();
        deposit_at_once(&client, "a", 400).await;
        let taken = proxy.round_trips() - before;
        println!("{taken} round trips for 400 deposits at once");
        assert!(taken < 400, "{taken} round trips for 400 deposits at once");
    }
    assert_eq!(database.count("entries").await, 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_alone_again_stops_taking_turns() {
    let Counted { proxy, server, database } = start().await;
    let other = Server::start(&database).await;
    let (client, of_other) = (server.client(), other.client());
    tokio::join!(deposit_at_once(&client, "a", 200), deposit_at_once(&of_other, "a", 200));
    // The next 256 transactions may take one more round trip each.
    for _ in 0..256 {
        deposited(&client, "a", "1").await;
    }
    let mut fewest = usize::MAX;

    for _ in 0..20 {
        let change = Change::Deposit(deposit("a", "1"));
        fewest = fewest.min(round_trips_of(&change, &client, &proxy).await);
    }

    assert_eq!(fewest, ROUND_TRIPS + ROUND_TRIPS_AFTER);
}
