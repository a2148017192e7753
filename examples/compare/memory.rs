//! The memory of a server under load, and with callers that send and do not read.

use std::time::Duration;

use anyhow::Context;
use passbook::proto::{
    Leg, Money, PostTransactionRequest, StreamTransactionsRequest,
    account_service_client::AccountServiceClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    figures::Load,
    programs::{Lab, Server},
};

/// The number of callers that do not read, each with a stream on a connection of its own.
const STREAMS: usize = 8;
/// The number of requests in flight on each of these streams.
const REQUESTS: usize = 512;
/// The time after which a stream that takes no message counts as full.
const FULL_AFTER: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(4);

/// The peak of the resident memory of one server, in MiB: with 512 requests in flight, with 4,096
/// results on streams that no caller reads, and after flow control has stopped the senders on these
/// streams.
pub async fn measure(lab: &Lab) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let database = lab.database().await?;
    lab.migrate(&database.url).await?;
    lab.sql(&database.url, &crate::programs::insert_accounts("memory", 10_000, 0)).await?;
    let server = lab.serve(&database.url).await?;
    let load = Load { workload: "uniform", mode: "unary", in_flight: 512 };
    let arguments = ["--target", server.target.as_str(), "--existing", "memory"];
    lab.bench(&lab.passbook, load, &arguments, None, MEASURED).await?;
    let loaded = peak(&server)?;

    let mut unread = Vec::new();
    for stream in 0..STREAMS {
        unread.push(open(&server, stream).await?);
    }
    for stream in &mut unread {
        stream.send(REQUESTS).await;
    }
    tokio::time::sleep(FULL_AFTER).await;
    let slow = peak(&server)?;
    for stream in &mut unread {
        stream.send(usize::MAX).await;
    }
    let sent: usize = unread.iter().map(|it| it.sent).sum();
    let flooded = peak(&server)?;
    drop((unread, server));
    lab.drop(database).await?;
    Ok(vec![
        ("memory 512", loaded),
        ("memory 4096 unread", slow),
        ("memory flooded", flooded),
        ("memory flooded, requests", sent as f64),
    ])
}

/// A caller that sends requests and reads no result.
struct Unread {
    number: usize,
    sent: usize,
    requests: mpsc::Sender<StreamTransactionsRequest>,
    _results: Box<dyn std::any::Any>,
}

async fn open(server: &Server, number: usize) -> anyhow::Result<Unread> {
    let mut client = AccountServiceClient::connect(server.target.clone()).await?;
    let (requests, receiver) = mpsc::channel(1);
    let results = client.stream_transactions(ReceiverStream::new(receiver)).await?;
    Ok(Unread { number, sent: 0, requests, _results: Box::new((client, results)) })
}

impl Unread {
    /// Sends `count` requests, or fewer if the stream is full.
    async fn send(&mut self, count: usize) {
        for _ in 0..count {
            let request_id = format!("unread.{}.{}", self.number, self.sent);
            let amount = Money { currency_code: "USD".to_owned(), value: "1".to_owned() };
            let leg = Leg {
                account_id: format!("memory.{}", self.sent % 10_000),
                amount: Some(amount),
                condition: None,
            };
            let request =
                PostTransactionRequest { request_id, legs: vec![leg], ..Default::default() };
            let message =
                StreamTransactionsRequest { request: Some(request), ..Default::default() };
            match timeout(FULL_AFTER, self.requests.send(message)).await {
                Ok(Ok(())) => self.sent += 1,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

/// The peak of the resident memory of the server, in MiB.
fn peak(server: &Server) -> anyhow::Result<f64> {
    let id = server.process.id().context("the server has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}
