//! WatchEvents after a failover or a restore that has lost the newest commits: a stream that has received
//! them ends and says why, and no other stream leaves anything out. It catches up with what is left.

use sea_orm::ConnectionTrait;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::harness::*;

on_both_databases! {
    a_stream_behind_lost_commits_ends_without_a_new_commit,
    a_stream_behind_commits_whose_numbers_others_have_ends,
    a_stream_before_lost_commits_gets_those_that_took_their_place,
    a_stream_catches_up_though_the_commit_that_was_last_at_its_begin_is_lost,
}

/// The commits that open carol and dave.
const NEWEST: &str = "(other_events LIKE '%carol%' OR other_events LIKE '%dave%')";

async fn assert_lost(watching: &mut EventWatching) {
    let end = timeout(PATIENCE, watching.end()).await.expect("it does not wait without an end");
    assert_reason(&end, Reason::EventTokenUnknown);
}

/// Waits until the stream has caught up, without an event.
async fn catch_up(watching: &mut EventWatching) {
    let caught_up = timeout(PATIENCE, async {
        while !watching.has_caught_up {
            assert_eq!(watching.next().await.expect("the stream continues"), []);
        }
    });
    caught_up.await.expect("it catches up");
}

/// So many events take many messages, and several pages.
const MANY: usize = 4000;

/// Two streams with the same pages: one that has read all events, the [`NEWEST`] included, and one that has
/// read one message, with small windows of flow control. Returns also how many events the second has before
/// the newest ones. It must go on within the 10 s after which a stream that is not read ends.
async fn begin_fast_and_slow(
    server: &Server,
    client: &Client,
) -> (EventWatching, EventWatching, usize) {
    open(client, "hot").await;
    post_many(client, "hot", MANY).await;
    open_all(client, &["carol", "dave"]).await;
    let mut fast = EventWatching::begin(client, all_events()).await;
    assert_eq!(opened(&fast.take(MANY + 3).await), ["hot", "carol", "dave"]);
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(16_384);
    let narrow = Client::anonymous(endpoint.initial_connection_window_size(65_535).connect_lazy());
    let mut slow = EventWatching::begin(&narrow, all_events()).await;
    let seen = slow.next().await.expect("the first events").len();
    (fast, slow, MANY + 1 - seen)
}

/// Opens these accounts, each in a commit of its own.
async fn open_all(client: &Client, account_ids: &[&str]) {
    for account_id in account_ids {
        open(client, account_id).await;
    }
}

/// The ids of the accounts that these events open.
fn opened(events: &[Event]) -> Vec<String> {
    events.iter().filter_map(|event| Some(event.account.clone()?.account_id)).collect()
}

async fn a_stream_behind_lost_commits_ends_without_a_new_commit(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    let _tampering = Tampering::begin(&database).await;
    let [mut watching, mut of_other] = [
        EventWatching::begin(&client, all_events()).await,
        EventWatching::begin(&servers[1].client(), all_events()).await,
    ];
    open_all(&client, &["alice", "bob"]).await;
    watching.take(2).await;
    let before = watching.token.clone();
    open_all(&client, &["carol", "dave"]).await;
    watching.take(2).await;
    of_other.take(4).await;
    let behind = watching.token.clone();

    database.execute(&format!("DELETE FROM commits WHERE {NEWEST}")).await;

    assert_lost(&mut watching).await;
    assert_lost(&mut of_other).await;
    must_fail(
        EventWatching::try_begin(&client, events_after(&behind)).await.map(drop),
        Reason::EventTokenUnknown,
    );
    let mut resumed = EventWatching::begin(&client, events_after(&before)).await;
    open(&client, "erin").await;
    assert_eq!(opened(&resumed.take(1).await), ["erin"]);
}

/// Deletes the newest commits. Others get their numbers at once, which open the accounts in the other
/// order.
async fn replace_newest_commits(database: &TestDatabase) {
    let sql = "CREATE TABLE replaced AS SELECT * FROM commits WHERE NEWEST;
        BEGIN;
        DELETE FROM commits WHERE number IN (SELECT number FROM replaced);
        INSERT INTO commits (number, create_time_us, transaction_ids, other_events)
            SELECT other.number, other.create_time_us + 1, it.transaction_ids, it.other_events
            FROM replaced it JOIN replaced other ON other.number <> it.number;
        COMMIT";
    database.execute(&sql.replace("NEWEST", NEWEST)).await;
}

async fn a_stream_behind_commits_whose_numbers_others_have_ends(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let _tampering = Tampering::begin(&database).await;
    let mut watching = EventWatching::begin(&client, all_events()).await;
    open_all(&client, &["alice", "bob"]).await;
    watching.take(2).await;
    let before = watching.token.clone();
    open_all(&client, &["carol", "dave"]).await;
    assert_eq!(opened(&watching.take(2).await), ["carol", "dave"]);

    replace_newest_commits(&database).await;

    assert_lost(&mut watching).await;
    let mut resumed = EventWatching::begin(&client, events_after(&before)).await;
    assert_eq!(opened(&resumed.take(2).await), ["dave", "carol"]);
}

async fn a_stream_before_lost_commits_gets_those_that_took_their_place(kind: Kind) {
    let (database, server, client) = start_loaded_server(kind).await;
    let _tampering = Tampering::begin(&database).await;
    let (mut fast, mut slow, older) = begin_fast_and_slow(&server, &client).await;

    replace_newest_commits(&database).await;

    assert_lost(&mut fast).await;
    let rest = slow.take(older + 2).await;
    assert_eq!(opened(&rest), ["dave", "carol"]);
}

async fn a_stream_catches_up_though_the_commit_that_was_last_at_its_begin_is_lost(kind: Kind) {
    let (database, server, client) = start_loaded_server(kind).await;
    let _tampering = Tampering::begin(&database).await;
    let (mut fast, mut slow, older) = begin_fast_and_slow(&server, &client).await;

    database.execute(&format!("DELETE FROM commits WHERE {NEWEST}")).await;

    // The feed has noticed. Until then it would share the last page.
    assert_lost(&mut fast).await;
    slow.take(older).await;
    catch_up(&mut slow).await;
    open(&client, "erin").await;
    assert_eq!(opened(&slow.take(1).await), ["erin"]);
}

/// The feed of the server waits for a session with the name of a server. It has not seen the commits that
/// were last when the stream began.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_catches_up_though_the_feed_never_saw_the_lost_commits() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    let _tampering = Tampering::begin(&database).await;
    open_all(&client, &["alice", "bob"]).await;
    // The feed has seen bob while somebody watches.
    let mut before = EventWatching::begin(&client, all_events()).await;
    before.take(2).await;
    let hanging = hang_as_server(&database, &format!("{LOCK_BOB}; {DRAW}")).await;
    open_all(&client, &["carol", "dave"]).await;
    let mut watching = EventWatching::begin(&client, all_events()).await;
    assert_eq!(opened(&watching.take(2).await), ["alice", "bob"]);
    assert!(!watching.has_caught_up);

    database.execute(&format!("DELETE FROM commits WHERE {NEWEST}")).await;

    catch_up(&mut watching).await;
    hanging.execute_unprepared("ROLLBACK").await.expect("it was open until now");
    open(&client, "erin").await;
    for watching in [&mut watching, &mut before] {
        assert_eq!(opened(&watching.take(1).await), ["erin"]);
    }
}

/// The feed of the server waits for a session with the name of a server, and has not seen the commit of
/// the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_that_is_behind_a_commit_which_the_feed_never_saw() {
    let (database, servers, client) = start_two_servers(Kind::Postgres).await;
    let _tampering = Tampering::begin(&database).await;
    let mut watching = EventWatching::begin(&client, all_events()).await;
    open_all(&client, &["alice", "bob"]).await;
    watching.take(2).await;
    let hanging = hang_as_server(&database, LOCK_BOB).await;
    let other = servers[1].client();
    let mut resumed = EventWatching::begin(&other, events_after(&watching.token)).await;

    database.execute("DELETE FROM commits WHERE other_events LIKE '%bob%'").await;

    assert_lost(&mut resumed).await;
    hanging.execute_unprepared("ROLLBACK").await.expect("it was open until now");
}
