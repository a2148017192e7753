//! The accounts of a run: opened before it, counted after it.

use std::{collections::HashMap, sync::Arc};

use passbook_command::{CliError, output};
use rust_decimal::Decimal;
use tokio::task::JoinSet;

use crate::{driver::RunStats, proto, servers::Servers};

/// Accounts read in one call.
const READ_AT_ONCE: usize = 1000;

/// The accounts of a run.
pub struct Accounts {
    ids: Arc<Vec<String>>,
    before: Sums,
}

/// What all accounts together have.
#[derive(Clone, Copy, Default)]
struct Sums {
    balance: Decimal,
    entries: i64,
}

impl Accounts {
    /// Opens this many, with ids that no other run has. They may go below zero, so that no
    /// request is refused for lack of funds.
    pub async fn open(
        servers: &Servers,
        run: &str,
        count: u32,
        in_flight: u32,
    ) -> Result<Self, CliError> {
        let ids: Arc<Vec<String>> = Arc::new((0..count).map(|n| format!("{run}.{n}")).collect());
        let bar = output::bar(u64::from(count), "opening accounts {bar:40} {pos}/{len}");
        let mut openers = JoinSet::new();
        let callers = in_flight.max(64).min(count) as usize;
        for (caller, (_, client)) in servers.clients(callers as u32, None).into_iter().enumerate() {
            let (ids, mut client, bar) = (ids.clone(), client, bar.clone());
            openers.spawn(async move {
                for account_id in ids.iter().skip(caller).step_by(callers) {
                    let request = proto::CreateAccountRequest {
                        account_id: account_id.clone(),
                        currency_code: "USD".to_owned(),
                        unlimited_overdraft: true,
                        ..Default::default()
                    };
                    client.accounts.create_account(request).await?;
                    bar.inc(1);
                }
                Ok::<_, tonic::Status>(())
            });
        }
        while let Some(opened) = openers.join_next().await {
            opened.map_err(CliError::run)?.map_err(|status| {
                CliError::Run(format!("opening accounts failed: {}", status.message()))
            })?;
        }
        bar.finish_and_clear();
        Ok(Self { ids, before: Sums::default() })
    }

    /// Takes accounts that exist, as they are.
    pub async fn existing(servers: &Servers, prefix: &str, count: u32) -> Result<Self, CliError> {
        let ids: Arc<Vec<String>> = Arc::new((0..count).map(|n| format!("{prefix}.{n}")).collect());
        let before = Sums::read(servers, &ids).await.map_err(CliError::Run)?;
        Ok(Self { ids, before })
    }

    /// Their ids.
    pub fn ids(&self) -> &Arc<Vec<String>> {
        &self.ids
    }

    /// The latest sequence of each.
    pub async fn sequences(&self, servers: &Servers) -> Result<HashMap<String, i64>, String> {
        let mut sequences = HashMap::with_capacity(self.ids.len());
        let note = |it: proto::Account| sequences.insert(it.account_id, it.sequence);
        read(servers, &self.ids).await?.into_iter().map(note).for_each(drop);
        Ok(sequences)
    }

    /// Compares the balances with what the answers add up to.
    pub async fn verify(&self, servers: &Servers, measured: &RunStats) -> Result<(), String> {
        let after = Sums::read(servers, &self.ids).await?;
        let balance = after.balance - self.before.balance;
        if balance != Decimal::from(measured.net) {
            return Err(format!(
                "the balances have changed by {balance}, the answers sum to {}: money was lost or \
                 made",
                measured.net
            ));
        }
        let entries = after.entries - self.before.entries;
        if entries != measured.entries {
            return Err(format!("{entries} entries, {} by the answers", measured.entries));
        }
        Ok(())
    }
}

impl Sums {
    async fn read(servers: &Servers, ids: &[String]) -> Result<Self, String> {
        let mut sums = Self::default();
        for account in read(servers, ids).await? {
            let value = account.balance.unwrap_or_default().value;
            let value = Decimal::from_str_exact(&value).map_err(|error| error.to_string())?;
            sums.balance += value;
            sums.entries += account.sequence;
        }
        Ok(sums)
    }
}

async fn read(servers: &Servers, ids: &[String]) -> Result<Vec<proto::Account>, String> {
    let mut accounts = Vec::with_capacity(ids.len());
    let mut client = servers.client();
    for ids in ids.chunks(READ_AT_ONCE) {
        let request = proto::BatchGetAccountsRequest { account_ids: ids.to_vec() };
        let answer = client.accounts.batch_get_accounts(request).await;
        let answer = answer.map_err(|status| format!("not verified: {}", status.message()))?;
        accounts.extend(answer.into_inner().accounts);
    }
    Ok(accounts)
}
