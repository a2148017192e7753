//! The load on other accounts while psql has locked one row.

use std::{process::Stdio, time::Duration};

use anyhow::Context;
use tokio::process::Command;

use crate::{
    figures::Load,
    programs::{Lab, number, rate},
};

const LOAD: Load = Load { workload: "uniform", mode: "unary", in_flight: 512 };
/// The measured time. The lock lasts for it and for the warm-up.
const MEASURED: Duration = Duration::from_secs(5);

/// The rate and the p99 of uniform load, without a foreign lock and with one.
pub async fn measure(lab: &Lab) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let database = lab.database().await?;
    lab.migrate(&database.url).await?;
    let accounts = crate::programs::insert_accounts("locked", crate::figures::ACCOUNTS, 0);
    lab.sql(&database.url, &accounts).await?;
    let server = lab.serve(&database.url).await?;
    let arguments = ["--target", server.target.as_str(), "--existing", "locked"];
    // The first run fills the caches, the second measures without the lock.
    lab.bench(&lab.passbook, LOAD, &arguments, None, MEASURED).await?;
    let free = lab.bench(&lab.passbook, LOAD, &arguments, None, MEASURED).await?;
    let mut psql = Command::new(&lab.psql)
        .arg(&database.url)
        .args(["-q", "-c", "BEGIN"])
        .args(["-c", "SELECT balance FROM accounts WHERE account_id = 'locked.77' FOR UPDATE"])
        .args(["-c", "SELECT pg_sleep(7)"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("psql")?;
    let locked = lab.bench(&lab.passbook, LOAD, &arguments, None, MEASURED).await?;
    psql.wait().await?;
    drop(server);
    lab.drop(database).await?;
    Ok(vec![
        ("row free", rate(&free)?),
        ("row free p99", number(&free, "p99_ms")?),
        ("row locked", rate(&locked)?),
        ("row locked p99", number(&locked, "p99_ms")?),
    ])
}
