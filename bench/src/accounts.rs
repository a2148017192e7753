//! The accounts of a run: opened before the load, compared with the results after it.

use std::{collections::HashMap, sync::Arc};

use passbook_command::{CliError, output};
use rust_decimal::Decimal;
use tokio::task::JoinSet;

use crate::{driver::RunStats, proto, servers::Servers};

/// Accounts in one BatchGetAccounts: the limit of the server.
const ACCOUNTS_PER_READ: usize = 1000;

/// The accounts of a run.
pub struct Accounts {
    ids: Arc<Vec<String>>,
    before: Sums,
}

/// The sums of balances and entries of all accounts.
#[derive(Clone, Copy, Default)]
struct Sums {
    balance: Decimal,
    entries: i64,
}

impl Accounts {
    /// Opens `count` accounts with ids that no other run has. They have unlimited overdraft, so that
    /// no request is rejected for insufficient funds.
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

    /// Uses the existing accounts `prefix.0`, `prefix.1` and so on.
    pub async fn existing(servers: &Servers, prefix: &str, count: u32) -> Result<Self, CliError> {
        let ids: Arc<Vec<String>> = Arc::new((0..count).map(|n| format!("{prefix}.{n}")).collect());
        let before = Sums::read(servers, &ids).await.map_err(CliError::Run)?;
        Ok(Self { ids, before })
    }

    /// The ids of the accounts.
    pub fn ids(&self) -> &Arc<Vec<String>> {
        &self.ids
    }

    /// The sequence of the last entry of each account, by account id.
    pub async fn sequences(&self, servers: &Servers) -> Result<HashMap<String, i64>, String> {
        let mut sequences = HashMap::with_capacity(self.ids.len());
        for account in read(servers, &self.ids).await? {
            sequences.insert(account.account_id, account.sequence);
        }
        Ok(sequences)
    }

    /// Compares the change of balances and entries with the sum of the results.
    pub async fn verify(&self, servers: &Servers, stats: &RunStats) -> Result<(), String> {
        let after = Sums::read(servers, &self.ids).await?;
        let balance = after.balance - self.before.balance;
        if balance != Decimal::from(stats.net) {
            return Err(format!(
                "the balances changed by {balance}, but the results sum to {}: money was lost or \
                 created",
                stats.net
            ));
        }
        let entries = after.entries - self.before.entries;
        if entries != stats.entries {
            return Err(format!("{entries} new entries, but {} by the results", stats.entries));
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
    for ids in ids.chunks(ACCOUNTS_PER_READ) {
        let request = proto::BatchGetAccountsRequest { account_ids: ids.to_vec() };
        let response = client
            .accounts
            .batch_get_accounts(request)
            .await
            .map_err(|status| format!("the accounts cannot be read: {}", status.message()))?;
        accounts.extend(response.into_inner().accounts);
    }
    Ok(accounts)
}
