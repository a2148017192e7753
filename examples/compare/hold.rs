//! What the other accounts feel while psql holds one row.

use std::{process::Stdio, time::Duration};

use anyhow::Context;
use tokio::process::Command;

use crate::{
    figures::Load,
    programs::{Lab, number, rate},
};

const LOAD: Load = Load { workload: "uniform", mode: "unary", in_flight: 512 };
/// How long is measured; the row is held for all of it and the warm-up.
const MEASURED: Duration = Duration::from_secs(5);

/// The rate and p99 of uniform load, without and with a row of it held.
pub async fn measure(lab: &Lab) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let database = lab.database().await?;
    lab.migrate(&database.url).await?;
    let accounts = crate::programs::insert_accounts("held", crate::figures::ACCOUNTS, 0);
    lab.sql(&database.url, &accounts).await?;
    let server = lab.serve(&database.url).await?;
    let arguments = ["--target", server.target.as_str(), "--existing", "held"];
    // Once for the caches, once without the lock.
    lab.bench(LOAD, &arguments, None, MEASURED).await?;
    let free = lab.bench(LOAD, &arguments, None, MEASURED).await?;
    let mut psql = Command::new(&lab.psql)
        .arg(&database.url)
        .args(["-q", "-c", "BEGIN"])
        .args(["-c", "SELECT balance FROM accounts WHERE account_id = 'held.77' FOR UPDATE"])
        .args(["-c", "SELECT pg_sleep(7)"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("psql")?;
    let held = lab.bench(LOAD, &arguments, None, MEASURED).await?;
    psql.wait().await?;
    drop(server);
    lab.drop(database).await?;
    Ok(vec![
        ("row free", rate(&free)?),
        ("row free p99", number(&free, "p99_ms")?),
        ("row held", rate(&held)?),
        ("row held p99", number(&held, "p99_ms")?),
    ])
}
