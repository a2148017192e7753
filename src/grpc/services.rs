//! The routes of all services: health and reflection, which need no database, and AccountService
//! and AdminService, which need a ledger.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{codec::CompressionEncoding, server::NamedService, service::Routes};
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::{
    domain::money::Currencies,
    grpc::{account_service::AccountServiceImpl, admin_service::AdminServiceImpl, error},
    ledger::Ledger,
    proto::{
        self, account_service_server::AccountServiceServer,
        admin_service_server::AdminServiceServer,
    },
};

/// The names that the health service reports as SERVING while changes can be applied: the service,
/// and the server as a whole.
pub const READY_NAMES: [&str; 2] = [AccountServiceServer::<AccountServiceImpl>::NAME, ""];

/// The routes that need no database.
///
/// # Errors
/// The descriptors for reflection cannot be read, which would be a defect of the build.
pub fn base_routes(
    health: Option<HealthServer<impl Health>>,
    reflection: bool,
) -> Result<Routes, tonic_reflection::server::Error> {
    let mut routes = Routes::builder();
    if let Some(health) = health {
        routes.add_service(health);
    }
    if reflection {
        routes
            .add_service(reflection_service().build_v1()?)
            .add_service(reflection_service().build_v1alpha()?);
    }
    Ok(routes.routes())
}

/// The same routes, with UNAVAILABLE for every other call: the server waits for its database.
pub fn waiting_routes(base: &Routes) -> Routes {
    let router = base.clone().into_axum_router();
    Routes::from(router.fallback(|| async { error::waiting_for_database() }))
}

/// All routes. Streams end when `stopping` turns true. A message has at most `message_size_max`
/// bytes, as it is sent and as it is decompressed.
pub fn all_routes(
    base: &Routes,
    ledger: &Arc<Ledger>,
    currencies: Arc<Currencies>,
    stopping: watch::Receiver<bool>,
    message_size_max: usize,
) -> Routes {
    let accounts = AccountServiceImpl { ledger: ledger.clone(), currencies, stopping };
    let accounts = AccountServiceServer::new(accounts)
        .max_decoding_message_size(message_size_max)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip);
    let admin = AdminServiceImpl { ledger: ledger.clone() };
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(message_size_max);
    base.clone().add_service(accounts).add_service(admin).prepare()
}

fn reflection_service() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // grpcurl shows the details of an error only if reflection knows their types.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
