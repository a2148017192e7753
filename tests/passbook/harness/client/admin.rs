//! The admin port: metrics and probes. AdminService: figures of the write path.

use std::{collections::BTreeMap, net::SocketAddr};

use passbook::proto::{
    GetWritePathStatsRequest, GetWritePathStatsResponse, admin_service_client::AdminServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{PATIENCE, Server, TestDatabase};

/// The arguments that open an admin port.
pub const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

/// A server's admin port.
#[derive(Clone, Copy)]
pub struct Admin(pub SocketAddr);

impl Server {
    /// Starts a server with an admin port.
    pub async fn start_with_admin(database: &TestDatabase, arguments: &[&str]) -> (Self, Admin) {
        let arguments = [&ADMIN, arguments].concat();
        let server = Self::start_with(database, &arguments).await;
        let admin = server.admin();
        (server, admin)
    }

    /// The address of the admin port, from the log.
    pub fn admin(&self) -> Admin {
        let lines = self.log_lines();
        let line =
            lines.iter().find(|line| line["message"] == "serving /metrics, /livez and /readyz");
        let address = line.and_then(|line| line["address"].as_str()?.parse().ok());
        Admin(address.unwrap_or_else(|| panic!("no admin port in the log: {}", self.log())))
    }

    /// The answer of AdminService.
    pub async fn write_path_stats(&self) -> GetWritePathStatsResponse {
        let mut client = AdminServiceClient::new(self.channel());
        let answer = client.get_write_path_stats(GetWritePathStatsRequest {}).await;
        answer.expect("the stats").into_inner()
    }

    /// The lines of a JSON log.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}"))
        };
        self.log().lines().map(parse).collect()
    }
}

impl Admin {
    /// Status and body of a GET. None if the connection is refused.
    pub async fn try_get(self, path: &str) -> Option<(u16, String)> {
        self.ask("GET", path).await
    }

    pub async fn ask(self, method: &str, path: &str) -> Option<(u16, String)> {
        let ask = async {
            let mut stream = TcpStream::connect(self.0).await?;
            let request = format!("{method} {path} HTTP/1.1\r\nhost: passbook\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(PATIENCE, ask).await.expect("an answer in time").ok()?;
        let (head, text) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Some((status.expect("a status"), text.to_owned()))
    }

    pub async fn get(self, path: &str) -> (u16, String) {
        self.try_get(path).await.expect("an answer")
    }

    pub async fn metrics(self) -> Metrics {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Metrics::parse(text)
    }
}

/// A scrape of /metrics.
pub struct Metrics {
    pub text: String,
    /// By series: name and labels as written.
    values: BTreeMap<String, f64>,
}

impl Metrics {
    fn parse(text: String) -> Self {
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            let value = value.parse().expect("a number");
            assert!(values.insert(series.to_owned(), value).is_none(), "twice: {series}");
        }
        Self { text, values }
    }

    /// The value of this series, 0 if missing.
    pub fn value(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or_default()
    }

    pub fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(series, value)| (series.as_str(), *value))
    }

    /// Finished calls of an AccountService method with this code.
    pub fn handled(&self, method: &str, code: &str) -> f64 {
        let kind = match method {
            "StreamTransactions" => "bidi_stream",
            "WatchEntries" => "server_stream",
            _ => "unary",
        };
        self.value(&format!(
            "grpc_server_handled_total{{grpc_type=\"{kind}\",\
             grpc_service=\"passbook.v1.AccountService\",grpc_method=\"{method}\",\
             grpc_code=\"{code}\"}}"
        ))
    }

    /// Requests with this outcome and reason.
    pub fn requests(&self, outcome: &str, reason: &str) -> f64 {
        let labels = format!("outcome=\"{outcome}\",reason=\"{reason}\"");
        self.value(&format!("passbook_requests_total{{{labels}}}"))
    }
}
