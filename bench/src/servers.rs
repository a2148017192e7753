//! The servers under load: running ones, or servers that the run starts.

use std::{process::Stdio, time::Duration};

use passbook_command::{
    CliError,
    client::{Authorization, ClientConfig, Connection},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tonic::{service::interceptor::InterceptedService, transport::Endpoint};

use crate::proto::{
    Distribution, GetWritePathStatsRequest, account_service_client::AccountServiceClient,
    admin_service_client::AdminServiceClient,
};

/// A client of both services, on one connection.
#[derive(Clone)]
pub struct Client {
    pub accounts: AccountServiceClient<Connection>,
    pub admin: AdminServiceClient<Connection>,
}

/// The most callers on one connection. More callers use several connections.
const CALLERS_PER_CONNECTION: u32 = 128;
/// The time within which a started server must be ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The servers of a run. Dropping them ends the servers that the run started.
pub struct Servers {
    endpoints: Vec<Endpoint>,
    authorization: Authorization,
    /// The started servers. They are killed on drop.
    _children: Vec<Child>,
    /// The folder of the run's own database. It is deleted on drop.
    _directory: Option<Directory>,
}

struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Files that cannot be deleted stay in the temporary folder of the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Servers {
    /// The number of servers.
    pub fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// The requests and database transactions that all servers together have committed. None if a
    /// server does not publish its stats.
    pub async fn batches(&self) -> Option<(f64, i64)> {
        let (mut requests, mut transactions) = (0.0, 0);
        for endpoint in &self.endpoints {
            let mut client = AdminServiceClient::new(self.connect(endpoint));
            let stats = client.get_write_path_stats(GetWritePathStatsRequest {}).await.ok()?;
            let Distribution { sum, count, .. } = stats.into_inner().batch_size?;
            requests += sum;
            transactions += count;
        }
        Some((requests, transactions))
    }

    fn connect(&self, endpoint: &Endpoint) -> Connection {
        InterceptedService::new(endpoint.connect_lazy(), self.authorization.clone())
    }

    /// One connection for each caller, with the number of its server. The callers are distributed
    /// over the servers in turn: in equal parts, or with `first_share` percent at the first one.
    pub fn connections(&self, callers: u32, first_share: Option<u32>) -> Vec<(usize, Connection)> {
        let servers = self.count() as u32;
        let first = match first_share {
            Some(percent) if servers > 1 => (callers * percent).div_ceil(100),
            _ => callers.div_ceil(servers),
        };
        let others = (callers - first).div_ceil((servers - 1).max(1));
        let mut by_server: Vec<_> = (0..self.count())
            .map(|server| self.shared(server, if server == 0 { first } else { others }))
            .map(Vec::into_iter)
            .collect();
        let rounds = 0..first.max(others);
        let in_turn = rounds.flat_map(|_| {
            let next = by_server.iter_mut().enumerate();
            next.filter_map(|(server, it)| Some((server, it.next()?))).collect::<Vec<_>>()
        });
        in_turn.take(callers as usize).collect()
    }

    /// One client for each caller, with the number of its server.
    pub fn clients(&self, callers: u32, first_share: Option<u32>) -> Vec<(usize, Client)> {
        let client = |connection: Connection| Client {
            accounts: AccountServiceClient::new(connection.clone())
                .max_decoding_message_size(usize::MAX),
            admin: AdminServiceClient::new(connection),
        };
        let connections = self.connections(callers, first_share).into_iter();
        connections.map(|(server, connection)| (server, client(connection))).collect()
    }

    /// A client of the first server.
    pub fn client(&self) -> Client {
        self.clients(1, None).remove(0).1
    }

    /// One connection to a server for each of its callers. Callers share connections.
    fn shared(&self, server: usize, callers: u32) -> Vec<Connection> {
        let count = callers.div_ceil(CALLERS_PER_CONNECTION);
        let connections: Vec<_> =
            (0..count).map(|_| self.connect(&self.endpoints[server])).collect();
        connections.into_iter().cycle().take(callers as usize).collect()
    }
}

/// Connects to running servers.
pub fn running(targets: &[String], client: &ClientConfig) -> Result<Servers, CliError> {
    let endpoints =
        targets.iter().map(|target| endpoint(target, client)).collect::<Result<_, _>>()?;
    let authorization = client.authorization()?;
    Ok(Servers { endpoints, authorization, _children: Vec::new(), _directory: None })
}

/// Starts servers of this executable, on the given database or on a new SQLite file.
pub async fn start(
    database_url: Option<&str>,
    count: u32,
    client: &ClientConfig,
) -> Result<Servers, CliError> {
    let program = std::env::current_exe().map_err(CliError::run)?;
    let (database_url, directory) = match database_url {
        Some(url) => (url.to_owned(), None),
        None => {
            let path = std::env::temp_dir().join(format!("passbook-bench-{}", std::process::id()));
            std::fs::create_dir_all(&path).map_err(CliError::run)?;
            let url = format!("sqlite://{}?mode=rwc", path.join("bench.db").display());
            (url, Some(Directory(path)))
        }
    };
    let mut children = Vec::new();
    let mut endpoints = Vec::new();
    for _ in 0..count {
        let mut child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--migrate"])
            .env("PASSBOOK_DATABASE_URL", &database_url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(CliError::run)?;
        endpoints.push(endpoint(&address(&mut child).await?, client)?);
        children.push(child);
    }
    let authorization = client.authorization()?;
    Ok(Servers { endpoints, authorization, _children: children, _directory: directory })
}

fn endpoint(target: &str, client: &ClientConfig) -> Result<Endpoint, CliError> {
    // The windows are so wide that flow control does not delay thousands of small messages.
    Ok(client
        .endpoint(target)?
        .tcp_nodelay(true)
        .initial_connection_window_size(8 * 1024 * 1024)
        .initial_stream_window_size(4 * 1024 * 1024))
}

/// Waits for the line that a server prints when it is ready, and returns the address in it.
async fn address(child: &mut Child) -> Result<String, CliError> {
    let failed = || CliError::Run("a server did not start: its log is above".to_owned());
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(failed)?).lines();
    let line = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await;
    let line = line.ok().and_then(Result::ok).flatten().ok_or_else(failed)?;
    let address = line
        .strip_prefix("ready: listening on ")
        .and_then(|rest| rest.split(',').next())
        .ok_or_else(failed)?;
    Ok(format!("http://{address}"))
}
