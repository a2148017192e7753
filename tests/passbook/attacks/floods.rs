//! Floods of calls by one identity, as fast as they are answered.

use passbook::proto::admin_service_client::AdminServiceClient;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{
    attacks::*,
    harness::credentials::{Credential, bearer},
};

const FLOODS: [&str; 7] = [
    "deposits with a deadline of 1 ms",
    "reads with a deadline of 1 ms",
    "captures of holds that do not exist",
    "reversals of transactions that do not exist",
    "transactions by labels that none has",
    "transactions of an account by labels that none has",
    "statistics of the write path",
];
/// Callers of a flood.
const FLOODING: usize = 16;

#[derive(Clone)]
struct Flooder {
    client: Client,
    admin: AdminServiceClient<InterceptedService<Channel, Credential>>,
}

impl Flooder {
    async fn call(self, flood: &str) {
        let Self { client, mut admin } = self;
        let labels = labels(&[("missing", "x")]);
        // Whether a call fails does not matter: only what it costs others.
        match flood {
            "deposits with a deadline of 1 ms" => {
                let _ = client.deposit(within(ms(1), deposit("of-a", "1"))).await;
            }
            "reads with a deadline of 1 ms" => {
                let _ = client.get_account(within(ms(1), account_named("of-a"))).await;
            }
            "captures of holds that do not exist" => {
                let _ = client.capture_hold(capture("missing")).await;
            }
            "reversals of transactions that do not exist" => {
                let _ = client.reverse_transaction(reversal(MISSING_TRANSACTION)).await;
            }
            "transactions by labels that none has" => {
                let list = ListTransactionsRequest { labels, ..transactions_of("") };
                let _ = client.list_transactions(list).await;
            }
            "transactions of an account by labels that none has" => {
                let list = ListTransactionsRequest { labels, ..transactions_of("of-a") };
                let _ = client.list_transactions(list).await;
            }
            "statistics of the write path" => {
                let _ = admin.get_write_path_stats(GetWritePathStatsRequest {}).await;
            }
            other => unreachable!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_one_identity_leave_no_work_behind() {
    let target = Target::start(&[]).await;
    let client = target.client("a");
    open(&client, "of-a").await;
    post_many(&client, "of-a", 2000).await;
    let channel = target.server.channel();
    let admin = AdminServiceClient::with_interceptor(channel, bearer("a-token"));
    let flooder = Flooder { client, admin };
    for flood in FLOODS {
        let flooder = flooder.clone();
        let attack = Attack::by(FLOODING, move || {
            let call = flooder.clone().call(flood);
            async move {
                call.await;
                1
            }
        });
        tokio::time::sleep(ms(100)).await;
        target.withstands(flood, NOBODY_MIB_MAX).await;
        println!("{flood}: {} calls", attack.end().await);
        let left = async || {
            let metrics = target.admin.metrics().await;
            metrics.value("passbook_calls_in_flight") + metrics.value("passbook_queue_length")
        };
        eventually("nothing is left of it", async || left().await == 0.0).await;
    }
}
