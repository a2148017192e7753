//! The report: medians, ratios and the bounds of the ratios.

use std::{fmt::Write as _, path::Path};

use anyhow::anyhow;
use plotters::prelude::*;

use crate::{
    Values,
    ratio::{Ratio, median},
};

/// A ratio of two figures, and its bound.
struct Row {
    what: &'static str,
    figure: &'static str,
    to: &'static str,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

const fn row(what: &'static str, figure: &'static str, to: &'static str, bound: Bound) -> Row {
    Row { what, figure, to, bound }
}

const PGBENCH_HOT: &str = "hot, pgbench 32";
const PGBENCH_UNIFORM: &str = "uniform, pgbench 32";

const ROWS: &[Row] = &[
    row(
        "hot account, unary, 512 in flight : lock per request",
        "hot 512",
        "hot 512, lock per request",
        AtLeast(25.0),
    ),
    row(
        "hot account, unary, 512 in flight : pgbench, 32 clients",
        "hot 512",
        PGBENCH_HOT,
        AtLeast(10.0),
    ),
    row(
        "hot account, unary, 512 in flight : calls without the ledger",
        "hot 512",
        "no ledger 512",
        AtLeast(0.55),
    ),
    row(
        "hot account, unary, 32 in flight : calls without the ledger",
        "hot 32",
        "no ledger 32",
        AtLeast(0.4),
    ),
    row(
        "10,000 accounts, unary, 512 in flight : lock per request",
        "uniform 512",
        "uniform 512, lock per request",
        AtLeast(4.0),
    ),
    row(
        "10,000 accounts, unary, 512 in flight : pgbench, 32 clients",
        "uniform 512",
        PGBENCH_UNIFORM,
        AtLeast(2.0),
    ),
    row(
        "10,000 accounts, unary, 32 in flight : pgbench, 32 clients",
        "uniform 32",
        PGBENCH_UNIFORM,
        AtLeast(0.83),
    ),
    row(
        "10,000 accounts, stream : pgbench, 32 clients",
        "uniform stream 512",
        PGBENCH_UNIFORM,
        AtLeast(5.0),
    ),
    row("hot account, stream : pgbench, 32 clients", "hot stream 512", PGBENCH_HOT, AtLeast(40.0)),
    row(
        "10,000 accounts, stream : UNNEST wall",
        "uniform stream 512",
        "uniform, UNNEST wall",
        AtLeast(0.5),
    ),
    row(
        "hot account, three servers, 512 in flight : one server",
        "hot 512, three servers",
        "hot 512",
        AtLeast(0.7),
    ),
    row(
        "one caller, time of a change : pgbench, one client",
        "uniform, pgbench 1",
        "uniform 1",
        AtMost(1.25),
    ),
    row(
        "10,000 accounts, unary, 16 in flight : pgbench, 16 clients",
        "uniform 16",
        "uniform, pgbench 16",
        AtLeast(1.0),
    ),
    row(
        "SQLite, hot account, 512 in flight : a transaction per request",
        "SQLite hot 512",
        "SQLite hot 512, lock per request",
        AtLeast(10.0),
    ),
    row(
        "SQLite, 10,000 accounts, 512 in flight : a transaction per request",
        "SQLite uniform 512",
        "SQLite uniform 512, lock per request",
        AtLeast(10.0),
    ),
    row(
        "1,000,000 accounts and 10,000,000 entries, rate : empty",
        "growth, full",
        "growth, empty",
        AtLeast(0.85),
    ),
    row(
        "1,000,000 accounts and 10,000,000 entries, p99 : empty",
        "growth, full p99",
        "growth, empty p99",
        AtMost(1.5),
    ),
    row(
        "a row locked by psql, rate of the load : no row locked",
        "row locked",
        "row free",
        AtLeast(0.8),
    ),
    row(
        "a row locked by psql, p99 of the load : no row locked",
        "row locked p99",
        "row free p99",
        AtMost(2.0),
    ),
];

const MEMORY: &[(&str, &str, &str)] = &[
    ("peak at 512 in flight, MiB", "memory 512", "64"),
    ("peak with 4,096 requests on streams that nobody reads, MiB", "memory 4096 unread", "bounded"),
    (
        "peak after sending on them until flow control stops the senders, MiB",
        "memory flooded",
        "bounded",
    ),
    ("requests sent on them until then", "memory flooded, requests", ""),
];

fn median_of(values: &Values, name: &str) -> Option<f64> {
    median(values.get(name)?)
}

/// The text of the page. `before` has the rates of an earlier version, if there is one.
pub fn markdown(
    values: &Values,
    before: &Values,
    about: &[(String, String)],
    rounds: usize,
    seconds: u64,
) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Written by `scripts/compare`; do not edit. Everything runs on one machine: the load, the \
         server and the\ndatabase share its cores. [Performance](performance.md) explains the figures.\n\n\
         A lock per request is `examples/lock_per_request`, pgbench runs \
         `scripts/pgbench_change.sql`, and the UNNEST wall\nis one connection that writes 1,000 \
         changes in each database transaction.\n\n",
    );
    let _ = writeln!(
        text,
        "Medians of {rounds} rounds; in a round each program is measured once for {seconds} s \
         (growth: {} s) on a new\ndatabase, those that are compared one after the other. In \
         brackets: the smallest and the largest ratio of a\nround.\n",
        seconds * 2
    );
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in about {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text.push_str("\n![changes a second](benchmarks.svg)\n\n## Ratios\n\n");
    text.push_str("| what | ratio | wanted | |\n|---|---|---|---|\n");
    for row in ROWS {
        let (Some(these), Some(those)) = (values.get(row.figure), values.get(row.to)) else {
            continue;
        };
        let Some(ratio) = Ratio::of(these, those) else { continue };
        let (wanted, reached) = match row.bound {
            AtLeast(bound) => (format!("at least {bound}"), ratio.of_medians >= bound),
            AtMost(bound) => (format!("at most {bound}"), ratio.of_medians <= bound),
        };
        let reached = if reached { "reached" } else { "**not reached**" };
        let _ = writeln!(text, "| {} | {ratio} | {wanted} | {reached} |", row.what);
    }
    if !before.is_empty() {
        text.push_str("\n## Against an earlier version\n\n| what | ratio |\n|---|---|\n");
    }
    for (name, rates) in before {
        if let Some(ratio) = values.get(name).and_then(|these| Ratio::of(these, rates)) {
            let _ = writeln!(text, "| {name} | {ratio} |");
        }
    }
    text.push_str("\n## Memory of the server\n\n| what | median | at most |\n|---|---|---|\n");
    for (what, name, bound) in MEMORY {
        if let Some(value) = median_of(values, name) {
            let _ = writeln!(text, "| {what} | {value:.0} | {bound} |");
        }
    }
    text.push_str("\n## Figures\n\nChanges a second; p99 in milliseconds; memory in MiB.\n\n");
    text.push_str("| figure | median | rounds |\n|---|---|---|\n");
    for (name, rounds) in values {
        let median = median_of(values, name).unwrap_or_default();
        let rounds: Vec<_> = rounds.iter().map(|it| format!("{it:.0}")).collect();
        let _ = writeln!(text, "| {name} | {median:.0} | {} |", rounds.join(", "));
    }
    text
}

/// The bars of the plot: label and figure.
const BARS: &[(&str, &str)] = &[
    ("hot: pgbench, 32 clients", PGBENCH_HOT),
    ("hot: lock per request", "hot 512, lock per request"),
    ("hot: Passbook, unary", "hot 512"),
    ("hot: Passbook, stream", "hot stream 512"),
    ("10,000 accounts: pgbench, 32 clients", PGBENCH_UNIFORM),
    ("10,000 accounts: lock per request", "uniform 512, lock per request"),
    ("10,000 accounts: Passbook, unary", "uniform 512"),
    ("10,000 accounts: Passbook, stream", "uniform stream 512"),
    ("SQLite, hot: transaction per request", "SQLite hot 512, lock per request"),
    ("SQLite, hot: Passbook, unary", "SQLite hot 512"),
];

/// Draws the medians as bars.
pub fn draw(values: &Values, path: &Path) -> anyhow::Result<()> {
    let bars: Vec<_> =
        BARS.iter().filter_map(|(label, name)| Some((label, median_of(values, name)?))).collect();
    let top = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
    let height = 40 + 30 * bars.len() as u32;
    let root = SVGBackend::new(path, (900, height)).into_drawing_area();
    let drawn = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| drawn(&error))?;
    let font = ("sans-serif", 15);
    let text = |text: &str, x: i32, y: i32| Text::new(text.to_owned(), (x, y), font);
    root.draw(&text("changes a second, each durable when it is answered", 10, 10))
        .map_err(|error| drawn(&error))?;
    for (index, (label, value)) in bars.iter().enumerate() {
        let y = 40 + 30 * index as i32;
        let width = (value / top * 480.0).max(1.0) as i32;
        let color = if label.contains("Passbook") {
            RGBColor(31, 119, 180)
        } else {
            RGBColor(170, 170, 170)
        };
        root.draw(&Rectangle::new([(300, y), (300 + width, y + 20)], color.filled()))
            .map_err(|error| drawn(&error))?;
        root.draw(&text(label, 10, y + 3)).map_err(|error| drawn(&error))?;
        root.draw(&text(&format!("{value:.0}"), 308 + width, y + 3))
            .map_err(|error| drawn(&error))?;
    }
    root.present().map_err(|error| drawn(&error))
}
