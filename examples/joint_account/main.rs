//! A joint account holds $1000. One process deposits $100 while another withdraws $100.
//!
//! Without a lock the account ends at $900 or at $1100. Through Passbook, with two servers over one
//! database, the account ends at $1000 every time.
//!
//! ```text
//! cargo build && cargo run --example joint_account
//! ```
//!
//! Without a `--target` the example starts two servers, on a database that it removes at the end.

mod passbook_rounds;
mod server;
mod story;
mod unlocked;

use std::{path::Path, process::ExitCode};

use clap::{Parser, value_parser};
use console::style;
use tempfile::TempDir;

use crate::{
    passbook_rounds::Passbook,
    server::{Server, built_program},
    story::{CHANGE, Endings, START},
    unlocked::{Moment, Round, UnlockedAccounts},
};

/// Plays the story of the joint account: without a lock, then through Passbook.
#[derive(Parser)]
struct Arguments {
    /// A running server. With two of them deposits go to the first, withdrawals to the second.
    /// Default: the example starts two servers.
    #[arg(long = "target", value_name = "URL")]
    targets: Vec<String>,
    /// The database, SQLite or PostgreSQL, of the table without a lock and of the servers that the
    /// example starts. The table is removed at the end. Default: SQLite files in a temporary folder.
    #[arg(long, value_name = "URL", env = "PASSBOOK_TEST_POSTGRES_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The number of rounds of each part.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..)
    )]
    rounds: u32,
}

impl Arguments {
    fn database_url(&self, folder: &Path, file: &str) -> String {
        let file = folder.join(file);
        let temporary = format!("sqlite://{}?mode=rwc", file.display());
        self.database_url.clone().unwrap_or(temporary)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let folder = TempDir::with_prefix("joint-account-")?;
    println!();
    println!("A joint account holds ${START}. At the same moment one process deposits ${CHANGE}");
    println!("and another withdraws ${CHANGE}. It must end at ${START}.");

    let database_url = arguments.database_url(folder.path(), "unlocked.db");
    play_without_lock(&database_url, arguments.rounds).await?;

    let database_url = arguments.database_url(folder.path(), "passbook.db");
    let (servers, targets) = if arguments.targets.is_empty() {
        let servers = start_servers(&database_url, folder.path()).await?;
        let targets = servers.iter().map(|server| server.target.clone());
        let targets = targets.collect();
        (servers, targets)
    } else {
        (Vec::new(), arguments.targets)
    };
    let endings = play_through_passbook(&servers, &targets, arguments.rounds).await?;
    Ok(match endings.wrong() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Part one: the lost update, without a lock.
async fn play_without_lock(database_url: &str, rounds: u32) -> anyhow::Result<()> {
    heading("1. Without a lock: read the balance, change it, write it back");
    let mut accounts = UnlockedAccounts::create(database_url).await?;
    print_steps(&accounts.play(Moment::Arranged).await?);

    let mut arranged = Endings::default();
    let mut by_chance = Endings::default();
    for _ in 0..rounds {
        arranged.add(accounts.play(Moment::Arranged).await?.balance.into());
        by_chance.add(accounts.play(Moment::LeftToChance).await?.balance.into());
    }
    accounts.remove().await?;

    println!();
    println!("   The unlucky moment is arranged here: a barrier holds both back until both have");
    println!("   read. In the second line there is no barrier: both start together, the rest is");
    println!("   chance. The processes are played by two connections to {}.", kind(database_url));
    println!();
    print_endings("arranged", &arranged);
    print_endings("left to chance", &by_chance);
    Ok(())
}

/// Part two: the same changes through Passbook.
async fn play_through_passbook(
    servers: &[Server],
    targets: &[String],
    rounds: u32,
) -> anyhow::Result<Endings> {
    heading("2. Through Passbook: the row is locked before it is read");
    for server in servers {
        println!("   passbook serve, process {}, {}", server.process_id, server.target);
    }
    let (first, last) = (&targets[0], &targets[targets.len() - 1]);
    println!("   deposits go to {first}, withdrawals to {last}");

    let mut passbook = Passbook::connect(first, last).await?;
    let mut endings = Endings::default();
    let mut deposits_first = 0;
    for round in 0..rounds {
        let played = passbook.play().await?;
        if round == 0 {
            println!();
            println!("   The statement after the first round:");
            for entry in &played.statement {
                let amount = entry.amount.clone().unwrap_or_default().value;
                let balance = entry.balance_after.clone().unwrap_or_default().value;
                println!("   {:>6} {amount:>12} {balance:>12}", entry.sequence);
            }
        }
        deposits_first += u32::from(played.deposit_was_first);
        endings.add(played.balance);
    }

    println!();
    print_endings("at the same moment", &endings);
    let withdrawals_first = rounds - deposits_first;
    println!(
        "   (the deposit came first {deposits_first} times, the withdrawal {withdrawals_first})"
    );
    println!();
    let summary = match endings.wrong() {
        0 => style("   Nothing was lost.".to_owned()).green().bold(),
        wrong => style(format!("   PASSBOOK LOST MONEY in {wrong} rounds.")).red().bold(),
    };
    println!("{summary}");
    Ok(endings)
}

/// Starts two servers over one database.
async fn start_servers(database_url: &str, folder: &Path) -> anyhow::Result<Vec<Server>> {
    let program = built_program()?;
    let mut servers = Vec::new();
    for name in ["server-1.log", "server-2.log"] {
        servers.push(Server::start(&program, database_url, &folder.join(name)).await?);
    }
    Ok(servers)
}

/// Prints one round step by step. The final balance shows which process wrote last.
fn print_steps(round: &Round) {
    let (deposit, withdrawal) = (&round.deposit, &round.withdrawal);
    let deposit_writes = format!("writes ${} + ${CHANGE}", deposit.read);
    let withdrawal_writes = format!("writes ${} - ${CHANGE}", withdrawal.read);
    step("one process", "the other", "in the database");
    step(&format!("reads ${}", deposit.read), "", &format!("${START}"));
    step("", &format!("reads ${}", withdrawal.read), &format!("${START}"));
    let (last, lost) = if round.balance == withdrawal.written {
        step(&deposit_writes, "", &format!("${}", deposit.written));
        ("", "the deposit is lost")
    } else {
        step("", &withdrawal_writes, &format!("${}", withdrawal.written));
        (deposit_writes.as_str(), "the withdrawal is lost")
    };
    let other = if last.is_empty() { withdrawal_writes.as_str() } else { "" };
    let ending = style(format!("${}: {lost}", round.balance)).red().bold();
    step(last, other, &ending.to_string());
}

fn step(depositor: &str, withdrawer: &str, database: &str) {
    println!("   {depositor:<22}{withdrawer:<22}{database}");
}

fn heading(text: &str) {
    println!();
    println!("{}", style(text).bold());
    println!();
}

fn print_endings(name: &str, endings: &Endings) {
    let right = style(format!("{:>4} right", endings.right)).green();
    let wrong = format!(
        "{:>4} ended at ${}, {:>4} at ${}",
        endings.deposit_lost,
        START - CHANGE,
        endings.withdrawal_lost,
        START + CHANGE,
    );
    let wrong = match endings.wrong() {
        0 => style(wrong).dim(),
        _ => style(wrong).red(),
    };
    println!("   {name:<20}{right}, {wrong}");
    if endings.other > 0 {
        println!("   {:<20}{} ended at another balance", "", endings.other);
    }
}

fn kind(database_url: &str) -> &'static str {
    match database_url.split_once(':') {
        Some(("sqlite", _)) => "SQLite",
        _ => "PostgreSQL",
    }
}
