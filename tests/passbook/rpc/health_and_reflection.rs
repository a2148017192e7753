//! Health checks and reflection, for tools.

use prost::Message;
use prost_types::FileDescriptorProto;
use tokio_stream::StreamExt;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::*;

on_both_databases! {
    health_is_reported_per_service,
}

const SERVICE: &str = "passbook.v1.AccountService";

async fn health_is_reported_per_service(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let mut client = HealthClient::new(server.channel());

    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request).await.expect("a known service").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "passbook.v1.NoSuchService".to_owned() };
    let status = client.check(unknown).await.expect_err("an unknown service");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_database() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = proxy::PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let is = async |expected: ServingStatus| {
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        let answer = HealthClient::new(server.channel()).check(request).await;
        answer.is_ok_and(|answer| answer.into_inner().status() == expected)
    };

    proxy.freeze();
    eventually("it is not serving", async || is(ServingStatus::NotServing).await).await;
    proxy.thaw();
    eventually("it is serving again", async || is(ServingStatus::Serving).await).await;
}

/// Lists the services by one version of the protocol, then requests each symbol's file.
macro_rules! ask_reflection {
    ($version:ident, $channel:expr, $symbols:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = |message_request| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message_request),
        };
        let mut requests = vec![ask(MessageRequest::ListServices(String::new()))];
        let symbols = $symbols.iter().map(|symbol| (*symbol).to_owned());
        requests.extend(symbols.map(|symbol| ask(MessageRequest::FileContainingSymbol(symbol))));
        let mut client = ServerReflectionClient::new($channel);
        let answers = client.server_reflection_info(tokio_stream::iter(requests)).await;
        let mut answers = answers.expect("reflection is served").into_inner();
        let (mut services, mut files) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.next().await {
            match answer.expect("an answer").message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                Some(MessageResponse::FileDescriptorResponse(found)) => {
                    files.push(found.file_descriptor_proto);
                }
                other => panic!("{other:?}"),
            }
        }
        (services, files)
    }};
}

const SYMBOLS: [&str; 9] = [
    SERVICE,
    "passbook.v1.Money",
    "passbook.v1.ErrorReason",
    "google.rpc.ErrorInfo",
    "google.rpc.BadRequest",
    "google.rpc.PreconditionFailure",
    "google.rpc.RetryInfo",
    "google.rpc.ResourceInfo",
    "grpc.health.v1.Health",
];

#[tokio::test(flavor = "multi_thread")]
async fn reflection_of_both_versions_knows_the_services_and_the_types_of_error_details() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start(&database).await;

    let v1 = ask_reflection!(v1, server.channel(), SYMBOLS);
    let v1alpha = ask_reflection!(v1alpha, server.channel(), SYMBOLS);

    for (services, files) in [&v1, &v1alpha] {
        for service in [SERVICE, "grpc.health.v1.Health"] {
            assert!(services.iter().any(|name| name == service), "{services:?}");
        }
        assert_eq!(files.len(), SYMBOLS.len());
        for (symbol, files) in SYMBOLS.iter().zip(files) {
            let (package, name) = symbol.rsplit_once('.').expect("a full name");
            let defines = files.iter().any(|file| defines(file, package, name));
            assert!(defines, "no file that was answered defines {symbol}");
        }
    }
    // Every RPC of the contract is found.
    let file = FileDescriptorProto::decode(&v1.1[0][0][..]).expect("a file descriptor");
    let rpcs = file.service.first().map_or(0, |service| service.method.len());
    assert_eq!(rpcs, 33);
}

fn defines(file: &[u8], package: &str, name: &str) -> bool {
    let file = FileDescriptorProto::decode(file).expect("a file descriptor");
    file.package() == package
        && (file.message_type.iter().any(|message| message.name() == name)
            || file.enum_type.iter().any(|kind| kind.name() == name)
            || file.service.iter().any(|service| service.name() == name))
}
