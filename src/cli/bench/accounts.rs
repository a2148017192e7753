//! The accounts of a run: opened before it, counted after it.

use std::sync::Arc;

use rust_decimal::Decimal;
use tokio::task::JoinSet;

use crate::{
    cli::{
        Failed,
        bench::{drive::Measured, servers::Servers},
    },
    proto,
};

/// Accounts read in one call.
const READ_AT_ONCE: usize = 1000;

/// The accounts of a run.
pub struct Accounts {
    ids: Arc<Vec<String>>,
}

impl Accounts {
    /// Opens this many, with ids that no other run has. They may go below zero, so that no
    /// request is refused for lack of funds.
    pub async fn open(
        servers: &Servers,
        run: &str,
        count: u32,
        in_flight: u32,
    ) -> Result<Self, Failed> {
        let ids: Arc<Vec<String>> = Arc::new((0..count).map(|n| format!("{run}.{n}")).collect());
        let bar = super::drive::bar(u64::from(count), "opening accounts {bar:40} {pos}/{len}");
        let mut openers = JoinSet::new();
        let callers = in_flight.max(64).min(count) as usize;
        for (caller, client) in servers.clients(callers as u32).into_iter().enumerate() {
            let (ids, mut client, bar) = (ids.clone(), client, bar.clone());
            openers.spawn(async move {
                for account_id in ids.iter().skip(caller).step_by(callers) {
                    let request = proto::CreateAccountRequest {
                        account_id: account_id.clone(),
                        currency_code: "USD".to_owned(),
                        unlimited_overdraft: true,
                        ..Default::default()
                    };
                    client.create_account(request).await?;
                    bar.inc(1);
                }
                Ok::<_, tonic::Status>(())
            });
        }
        while let Some(opened) = openers.join_next().await {
            opened.map_err(Failed::run)?.map_err(|status| {
                Failed::Run(format!("opening accounts failed: {}", status.message()))
            })?;
        }
        bar.finish_and_clear();
        Ok(Self { ids })
    }

    /// Their ids.
    pub fn ids(&self) -> &Arc<Vec<String>> {
        &self.ids
    }

    /// Compares the balances with what the answers add up to.
    pub async fn verify(&self, servers: &Servers, measured: &Measured) -> Result<(), String> {
        let mut balances = Decimal::ZERO;
        let mut entries = 0;
        let mut client = servers.clients(1).remove(0);
        for ids in self.ids.chunks(READ_AT_ONCE) {
            let request = proto::BatchGetAccountsRequest { account_ids: ids.to_vec() };
            let answer = client.batch_get_accounts(request).await;
            let answer = answer.map_err(|status| format!("not verified: {}", status.message()))?;
            for account in answer.into_inner().accounts {
                let value = account.balance.unwrap_or_default().value;
                let value = Decimal::from_str_exact(&value).map_err(|error| error.to_string())?;
                balances += value;
                entries += account.sequence;
            }
        }
        if balances != Decimal::from(measured.net) {
            return Err(format!(
                "the balances sum to {balances}, the answers to {}: money was lost or made",
                measured.net
            ));
        }
        if entries != measured.entries {
            return Err(format!("{entries} entries, {} by the answers", measured.entries));
        }
        Ok(())
    }
}
