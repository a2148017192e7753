//! `passbook serve`.

use std::sync::Arc;

use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    cli::Failed,
    config::ServeConfig,
    domain::money::Currencies,
    grpc::DeadlinePolicy,
    ledger::{Ledger, Limits},
    server::{self, ServerConfig},
    storage::{DatabaseKind, SchemaStatus, Store, schema_version},
};

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    config: ServeConfig,
}

impl Serve {
    pub async fn run(self) -> Result<(), Failed> {
        let config = self.config;
        config.check().map_err(Failed::Usage)?;
        let currencies = Currencies::new(&config.currency)
            .map_err(|(code, error)| Failed::Usage(format!("--currency {code}: {error}")))?;
        // Before anything is announced, so that a signal sent at once is not lost.
        let shutdown = shutdown_signal().map_err(Failed::run)?;

        let store = Store::connect(config.database.url().map_err(Failed::Usage)?)
            .await
            .map_err(Failed::run)?;
        prepare_schema(&store, config.migrate).await?;
        store
            .register_currencies(currencies.configured())
            .await
            .map_err(Failed::run)?
            .map_err(|conflict| Failed::Usage(conflict.to_string()))?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| Failed::Run(format!("cannot listen on {}: {error}", config.listen)))?;
        let address = listener.local_addr().map_err(Failed::run)?;

        let kind = store.kind();
        let limits = Limits {
            queue_capacity: config.limits.queue_capacity as usize,
            batch_size_max: config.batch_size_max as usize,
        };
        let ledger = Arc::new(Ledger::start(Arc::new(store), limits));
        println!("ready: listening on {address}, database {kind}, schema {}", schema_version());
        let server_config = ServerConfig {
            deadlines: DeadlinePolicy { default_timeout: config.default_deadline },
            shutdown_grace: config.shutdown_grace,
        };
        server::run(listener, ledger, Arc::new(currencies), server_config, shutdown)
            .await
            .map_err(Failed::run)
    }
}

/// Makes sure that the schema is this program's, or says which command makes it so.
async fn prepare_schema(store: &Store, migrate: bool) -> Result<(), Failed> {
    let status = store.schema_status().await.map_err(Failed::run)?;
    match (&status, migrate || store.kind() == DatabaseKind::Sqlite) {
        (SchemaStatus::Current, _) => Ok(()),
        (SchemaStatus::Missing | SchemaStatus::Behind(_), true) => {
            store.migrate_up().await.map_err(Failed::run)
        }
        (SchemaStatus::Missing, false) => Err(Failed::Run(
            "the database has no schema yet: run `passbook migrate up`, or serve with --migrate"
                .to_owned(),
        )),
        (SchemaStatus::Behind(pending), false) => Err(Failed::Run(format!(
            "the database's schema is older than this program ({} not applied): run \
             `passbook migrate up`, or serve with --migrate",
            pending.join(", ")
        ))),
        (SchemaStatus::Ahead(unknown), _) => Err(Failed::Run(format!(
            "the database's schema is newer than this program ({} not known): run a newer \
             passbook, or take it back with that one's `passbook migrate down`",
            unknown.join(", ")
        ))),
    }
}

/// Done at the first SIGTERM or ctrl-c.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
