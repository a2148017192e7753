//! Frames that cost the server far more than the peer.

use crate::{
    attacks::*,
    harness::http2::{self, Raw},
};

/// h2 keeps some 100 bytes for each frame that nobody has read, as long as the connection lives.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_one_byte_are_read_in_small_parts() {
    const CONNECTIONS: usize = 40;
    const FRAMES: usize = 60_000;
    let target = Target::start(&[]).await;
    let mut peers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::connect(target.server.address, "").await.expect("connected");
        peers.spawn(async move {
            let stream = raw.open();
            let frames = http2::data(stream, &[0]).repeat(FRAMES);
            // Fails if the server closes the connection.
            let _ = raw.write(&[raw.call(stream, HEALTH_CHECK), frames].concat()).await;
            raw
        });
    }
    let peers = peers.join_all().await;
    target.withstands("40 x 60,000 frames of one byte", NOBODY_MIB_MAX / 2).await;
    target.assert_memory("40 x 60,000 frames of one byte", NOBODY_MIB_MAX / 2);
    drop(peers);
}

/// Their size is below `header_size_max`, and their memory eight times as large.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_headers_are_charged_with_their_memory() {
    const CALLS: usize = 950;
    const FIELDS: usize = 450;
    let target = Target::start(&[]).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut raw =
            Raw::connect(target.server.address, "Bearer a-token").await.expect("connected");
        for _ in 0..CALLS {
            let stream = raw.open();
            let call = raw.call_with_fields(stream, GET_ACCOUNT, FIELDS);
            raw.write(&call).await.expect("written");
        }
        peers.push(raw);
    }
    let shed = async || target.shed("request_bytes", "identity").await;
    eventually("calls are shed", async || shed().await > CALLS as f64).await;
    target.withstands("1,900 calls with 450 fields", IDENTITY_MIB_MAX / 2).await;
    target.assert_memory("1,900 calls with 450 fields", IDENTITY_MIB_MAX / 2);
    drop(peers);
}
