//! Calls of services besides AccountService, which have a small budget of their own.

use passbook::proto::admin_service_client::AdminServiceClient;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::{
    attacks::*,
    harness::{credentials::bearer, http2::Raw},
};

const STATS: &str = "/passbook.v1.AdminService/GetWritePathStats";
/// The default of control calls of one identity.
const IDENTITY_CALLS_MAX: usize = 256;
const CONNECTION_CALLS_MAX: usize = 64;
/// The default of control calls of nobody.
const NOBODY_CALLS_MAX: usize = 512;

/// Each stream asks for more than the caller reads.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_of_reflection_are_small() {
    let target = Target::start(&[]).await;
    let address = format!("http://{}", target.server.address);
    for (attack, host, question) in [
        (
            "reflection of long names",
            "x".repeat(100_000),
            MessageRequest::ListServices(String::new()),
        ),
        (
            "reflection of files",
            String::new(),
            MessageRequest::FileContainingSymbol("passbook.v1.AccountService".to_owned()),
        ),
        (
            "reflection of long names that are unknown",
            String::new(),
            MessageRequest::FileContainingSymbol("\u{e4}".repeat(50_000)),
        ),
    ] {
        let request = ServerReflectionRequest { host, message_request: Some(question) };
        let mut streams = Vec::new();
        for _ in 0..IDENTITY_CALLS_MAX / CONNECTION_CALLS_MAX {
            let endpoint = Endpoint::from_shared(address.clone()).expect("an address");
            let channel = endpoint.initial_stream_window_size(1).connect_lazy();
            for _ in 0..CONNECTION_CALLS_MAX {
                let mut client =
                    ServerReflectionClient::with_interceptor(channel.clone(), bearer("a-token"));
                let requests =
                    tokio_stream::iter(vec![request.clone(); 4]).chain(tokio_stream::pending());
                streams.push(tokio::spawn(async move {
                    let answers = client.server_reflection_info(requests).await;
                    // Kept, but not read.
                    std::future::pending::<()>().await;
                    drop(answers);
                }));
            }
        }
        tokio::time::sleep(seconds(2)).await;
        target.withstands(attack, NOBODY_MIB_MAX).await;
        streams.iter().for_each(tokio::task::JoinHandle::abort);
        target.in_flight_falls_to(0.0).await;
    }
}

/// An orchestrator has no credential. Its checks get through, whatever others without one leave open.
#[tokio::test(flavor = "multi_thread")]
async fn checks_that_nobody_ends_keep_no_probe_out() {
    let target = Target::start(&[]).await;
    let check = HealthCheckRequest::default();
    for is_unread in [false, true] {
        let mut connections = Vec::new();
        for _ in 0..NOBODY_CALLS_MAX / CONNECTION_CALLS_MAX {
            let mut raw = Raw::without_window(target.server.address, "").await.expect("connected");
            if is_unread {
                raw.write_calls(HEALTH_CHECK, &check, CONNECTION_CALLS_MAX).await.expect("written");
            } else {
                let streams: Vec<u32> = (0..CONNECTION_CALLS_MAX).map(|_| raw.open()).collect();
                let calls = streams.into_iter().flat_map(|stream| raw.call(stream, HEALTH_CHECK));
                let calls: Vec<u8> = calls.collect();
                raw.write(&calls).await.expect("written");
            }
            connections.push(raw);
        }
        let all = NOBODY_CALLS_MAX as f64;
        eventually("all are in flight", async || target.in_flight().await == all).await;
        for _ in 0..3 {
            assert_eq!(serving_status(&target.server, "").await, ServingStatus::Serving);
        }
        assert_eq!(target.shed("control_calls", "identity").await, 0.0);
        drop(connections);
        eventually("nothing is in flight", async || target.in_flight().await == 0.0).await;
    }
}

/// Names are short, so messages of control calls are.
#[tokio::test(flavor = "multi_thread")]
async fn long_messages_of_control_calls_are_an_error() {
    let target = Target::start(&[]).await;
    let mut client = HealthClient::with_interceptor(target.server.channel(), bearer("a-token"));
    let check = |length| HealthCheckRequest { service: "x".repeat(length) };
    let status = client.check(check(4096)).await.expect_err("too long");
    assert_too_large(&status, "message_size_max", "4096");
    must_fail(client.check(check(4000)).await, Reason::NameNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_of_admin_service_are_few() {
    const CONNECTIONS: usize = 9;
    const CALLS: usize = 1000;
    let target = Target::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw =
            Raw::without_window(target.server.address, "Bearer a-token").await.expect("connected");
        raw.write_calls(STATS, &GetWritePathStatsRequest {}, CALLS).await.expect("written");
        connections.push(raw);
    }
    let expected = (CONNECTIONS * CALLS - IDENTITY_CALLS_MAX) as f64;
    eventually("the others are shed", async || {
        target.shed("control_calls", "connection").await
            + target.shed("control_calls", "identity").await
            >= expected
    })
    .await;
    target.in_flight_falls_to(IDENTITY_CALLS_MAX as f64).await;
    target.withstands("9 x 1000 unread calls of AdminService", NOBODY_MIB_MAX / 4).await;
    let mut operator =
        AdminServiceClient::with_interceptor(target.server.channel(), bearer("b-token"));
    operator.get_write_path_stats(GetWritePathStatsRequest {}).await.expect("others are served");
}
