//! The same load on one, two and three servers over one database, with a near and a distant database.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Context;
use serde_json::Value;

use crate::{
    delay,
    figures::Load,
    programs::{Lab, number, rate},
    ratio::{self, Ratio},
};

/// The delay of each packet between a server and the distant database, in each direction.
const DELAY: Duration = Duration::from_millis(1);
/// The facts about the machine that this section repeats.
const ABOUT: [&str; 3] = ["machine", "PostgreSQL server_version", "commit"];
/// The title of the section in the page.
pub const TITLE: &str = "## Several servers";

/// A load and a number of servers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    workload: &'static str,
    accounts: u32,
    in_flight: u32,
    is_far: bool,
    /// The fraction of the load at the first server, in percent.
    first_share: Option<u32>,
    servers: u32,
}

/// The measurements of one run.
pub struct Run {
    rate: f64,
    p99_ms: f64,
    max_ms: f64,
    p99_ms_by_server: Vec<f64>,
}

pub type Runs = BTreeMap<Case, Vec<Run>>;

/// The least rate of three servers to that of one that is wanted, with 512 in flight.
const BUSY_RATE_MIN: f64 = 0.8;
/// The same with fewer.
const RATE_MIN: f64 = 0.75;
/// The same for six servers.
const SIX_RATE_MIN: f64 = 0.7;
/// The most that the p99 of three servers to that of one should be.
const P99_RATIO_MAX: f64 = 2.0;

const LOADS: [(&str, u32); 8] = [
    ("hot", 10_000),
    ("transfer", 12),
    ("transfer", 100),
    ("transfer", 1_000),
    ("transfer", 10_000),
    ("zipf", 10_000),
    ("mixed", 10_000),
    ("uniform", 10_000),
];

/// All cases. Cases that are compared are neighbors.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |workload, accounts, in_flight, is_far, first_share, servers: &[u32]| {
        for servers in servers.iter().copied() {
            cases.push(Case { workload, accounts, in_flight, is_far, first_share, servers });
        }
    };
    for (workload, accounts) in LOADS {
        for (is_far, in_flight) in [(false, 64), (false, 512), (true, 64), (true, 512)] {
            add(workload, accounts, in_flight, is_far, None, &[1, 2, 3]);
        }
    }
    add("transfer", 100, 512, false, None, &[6]);
    add("transfer", 100, 512, false, Some(90), &[3]);
    cases
}

impl Case {
    pub fn name(&self) -> String {
        let Self { in_flight, servers, .. } = self;
        format!("{}, {in_flight} in flight, {servers} servers", self.load())
    }

    fn rate_min(&self) -> f64 {
        if self.in_flight == 512 { BUSY_RATE_MIN } else { RATE_MIN }
    }

    /// The workload and the number of accounts.
    fn load(&self) -> String {
        let accounts = if self.workload == "hot" { 1 } else { self.accounts };
        format!("{}, {accounts}", self.workload)
    }
}

pub async fn measure(lab: &Lab, case: Case, duration: Duration) -> anyhow::Result<Run> {
    let Case { workload, accounts, in_flight, is_far, first_share, servers } = case;
    let database = lab.database().await?;
    let url = if is_far { far_away(&database.url)? } else { database.url.clone() };
    let (servers, accounts) = (servers.to_string(), accounts.to_string());
    let share = first_share.unwrap_or_default().to_string();
    let mut arguments = vec!["--servers", servers.as_str(), "--accounts", accounts.as_str()];
    if first_share.is_some() {
        arguments.extend(["--first-share", share.as_str()]);
    }
    let load = Load { workload, mode: "unary", in_flight };
    let report = lab.bench(&lab.passbook, load, &arguments, Some(&url), duration).await?;
    lab.drop(database).await?;
    let each = report["p99_ms_by_server"].as_array().context("no p99 by server")?;
    Ok(Run {
        rate: rate(&report)?,
        p99_ms: number(&report, "p99_ms")?,
        max_ms: number(&report, "max_ms")?,
        p99_ms_by_server: each.iter().filter_map(Value::as_f64).collect(),
    })
}

/// The URL of the same database through a proxy that delays every packet.
fn far_away(url: &str) -> anyhow::Result<String> {
    let (user, rest) = url.rsplit_once('@').context("a URL without a user")?;
    let (address, database) = rest.split_once('/').context("a URL without a database")?;
    let proxy = delay::proxy(address.to_owned(), DELAY)?;
    Ok(format!("{user}@{proxy}/{database}"))
}

/// The text of the section.
pub fn section(runs: &Runs, about: &[(String, String)], rounds: usize, seconds: u64) -> String {
    let about = about.iter().filter(|(name, _)| ABOUT.contains(&name.as_str()));
    let about: Vec<_> = about.map(|(name, value)| format!("{name} {value}")).collect();
    let mut text = format!(
        "{TITLE}\n\nOne database, the load spread evenly over the servers, unary; requests/s (p99 in \
         ms), medians of {rounds} rounds\nof {seconds} s, those of a row one after the other; \
         {}.\nThe ratio is that of three servers to one, in brackets its smallest and largest of a \
         round. Wanted: a rate of at\nleast {BUSY_RATE_MIN} with 512 in flight and {RATE_MIN} with 64, \
         and a p99 of at most {P99_RATIO_MAX}.\n\n",
        about.join(", ")
    );
    text.push_str("| load, accounts | in flight | one | two | three | rate | p99 | |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for case in runs.keys().filter(|it| it.servers == 1) {
        let of = |servers| runs.get(&Case { servers, ..*case });
        let cell = |servers| {
            let (rate, p99) =
                (median(of(servers), |it| it.rate), median(of(servers), |it| it.p99_ms));
            format!("{rate:.0} ({p99:.0})")
        };
        let Some(rate) = ratio(of(3), of(1)) else { continue };
        let p99 = median(of(3), |it| it.p99_ms) / median(of(1), |it| it.p99_ms);
        let is_reached = rate.of_medians >= case.rate_min() && p99 <= P99_RATIO_MAX;
        let reached = if is_reached { "reached" } else { "**not reached**" };
        let far = if case.is_far { ", database 2 ms away" } else { "" };
        let _ = writeln!(
            text,
            "| {}{far} | {} | {} | {} | {} | {rate} | {p99:.2} | {reached} |",
            case.load(),
            case.in_flight,
            cell(1),
            cell(2),
            cell(3),
        );
    }
    for (case, six) in runs.iter().filter(|(it, _)| it.servers == 6) {
        let one = runs.get(&Case { servers: 1, ..*case });
        let Some(rate) = ratio(Some(six), one) else { continue };
        let _ = writeln!(
            text,
            "\nSix servers, {} over {} accounts, {} in flight: {:.0} requests/s (p99 {:.0} ms, the \
             longest {:.0} ms), {rate} of\none server's rate; at least {SIX_RATE_MIN} is wanted.",
            case.workload,
            case.accounts,
            case.in_flight,
            median(Some(six), |it| it.rate),
            median(Some(six), |it| it.p99_ms),
            six.iter().map(|it| it.max_ms).fold(0.0, f64::max),
        );
    }
    for (case, run) in runs.iter().filter(|(it, _)| it.first_share.is_some()) {
        let of = |server: usize| {
            median(Some(run), |it| it.p99_ms_by_server.get(server).copied().unwrap_or_default())
        };
        let _ = writeln!(
            text,
            "\nThree servers, the first with {} % of the load ({} over {} accounts, {} in flight): \
             p99 {:.0} ms at the first,\n{:.0} and {:.0} ms at the others.",
            case.first_share.unwrap_or_default(),
            case.workload,
            case.accounts,
            case.in_flight,
            of(0),
            of(1),
            of(2),
        );
    }
    text
}

fn median(runs: Option<&Vec<Run>>, value: impl Fn(&Run) -> f64) -> f64 {
    ratio::median(&values(runs, value)).unwrap_or_default()
}

fn values(runs: Option<&Vec<Run>>, value: impl Fn(&Run) -> f64) -> Vec<f64> {
    runs.into_iter().flatten().map(value).collect()
}

/// The ratio of the rates.
fn ratio(these: Option<&Vec<Run>>, those: Option<&Vec<Run>>) -> Option<Ratio> {
    Ratio::of(&values(these, |it| it.rate), &values(those, |it| it.rate))
}
