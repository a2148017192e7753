//! Measures Passbook, a lock per request and pgbench in turn on one machine, and writes
//! `docs/benchmarks.md` and its plot. `scripts/compare` runs it.

mod delay;
mod figures;
mod foreign_lock;
mod memory;
mod programs;
mod ratio;
mod report;
mod servers;
mod wall;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    figures::{FIGURES, Figure, Subject},
    programs::Lab,
    servers::Runs,
};

/// Measures Passbook beside other programs, and writes docs/benchmarks.md.
#[derive(Parser)]
struct Compare {
    /// The number of rounds. Each figure is measured once in a round, and its value is the median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The measured time of each figure in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Measure only the figures with this text in their names, and write no page.
    #[arg(long)]
    only: Option<String>,
    /// Skip the growth to 1,000,000 accounts and 10,000,000 entries, which takes a quarter of an
    /// hour.
    #[arg(long)]
    no_growth: bool,
    /// The program of an earlier version, of which each rate is measured right after that of this one.
    #[arg(long, conflicts_with = "servers")]
    before: Option<PathBuf>,
    /// Measure only one, two and three servers, and write only their section of the page.
    #[arg(long, conflicts_with = "only")]
    servers: bool,
    /// The folder of the page and its plot.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
}

/// The title of the last section of the page, which `scripts/compare-clients` writes.
const CLIENTS_TITLE: &str = "## Clients";

/// All values of each figure, in the order of the rounds.
type Values = BTreeMap<&'static str, Vec<f64>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let compare = Compare::parse();
    let lab = Lab::open(Duration::from_secs(compare.seconds), compare.before.clone())?;
    let chosen: Vec<&Figure> = FIGURES
        .iter()
        .filter(|_| !compare.servers)
        .filter(|it| compare.only.as_ref().is_none_or(|only| it.name.contains(only)))
        .filter(|it| !compare.no_growth || !matches!(it.subject, Subject::Growth { .. }))
        .collect();
    if chosen.iter().any(|it| matches!(it.subject, Subject::Growth { .. })) {
        lab.grow().await?;
    }
    let cases = if compare.only.is_none() { servers::cases() } else { Vec::new() };
    let bar = ProgressBar::new(((chosen.len() + cases.len()) * compare.rounds) as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    let (mut values, mut before, mut runs) = (Values::new(), Values::new(), Runs::new());
    for _ in 0..compare.rounds {
        for figure in &chosen {
            bar.set_message(figure.name);
            for (name, value) in lab.measure(figure).await? {
                bar.suspend(|| println!("{name:42} {value:10.2}"));
                values.entry(name).or_default().push(value);
            }
            if let Some(value) = lab.measure_before(figure).await? {
                bar.suspend(|| println!("{:42} {value:10.2}  (before)", figure.name));
                before.entry(figure.name).or_default().push(value);
            }
            bar.inc(1);
        }
        for case in &cases {
            bar.set_message(case.name());
            let run = servers::measure(&lab, *case, Duration::from_secs(compare.seconds)).await?;
            runs.entry(*case).or_default().push(run);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let about = lab.about().await?;
    lab.close().await?;
    let page = compare.docs.join("benchmarks.md");
    let old_text = std::fs::read_to_string(&page).unwrap_or_default();
    let mut text = if compare.servers {
        old_text.split(servers::TITLE).next().unwrap_or_default().to_owned()
    } else {
        report::markdown(&values, &before, &about, compare.rounds, compare.seconds) + "\n"
    };
    if !runs.is_empty() {
        text += &servers::section(&runs, &about, compare.rounds, compare.seconds);
    }
    if let Some(clients) = old_text.find(CLIENTS_TITLE) {
        text = format!("{}\n\n{}", text.trim_end(), &old_text[clients..]);
    }
    println!("{text}");
    if compare.only.is_none() {
        std::fs::write(&page, text)?;
    }
    if compare.only.is_none() && !compare.servers {
        report::draw(&values, &compare.docs.join("benchmarks.svg"))?;
    }
    Ok(())
}
