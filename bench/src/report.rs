//! The report of a run: as a table, as JSON, and as a plot.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use plotters::prelude::*;
use serde::Serialize;

use crate::{
    Bench, Workload, driver::RunStats, event_watch::EventReport, servers::Servers,
    watchers::WatchStats,
};

/// The percentiles of the plot.
const PERCENTILES: [f64; 9] = [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// What watchers received.
pub struct Watched {
    /// By WatchEntries.
    pub entries: Result<WatchStats, String>,
    /// By WatchEvents, if any did.
    pub events: Option<EventReport>,
}

impl Watched {
    /// The error of a watcher, if there is one.
    pub fn into_result(self) -> Result<(), String> {
        let error = self.events.and_then(|events| events.error);
        self.entries.and(error.map_or(Ok(()), Err))
    }
}

/// The report of a run. The fields have the names of the keys in the JSON.
#[derive(Serialize)]
pub struct Report {
    workload: String,
    mode: String,
    servers: usize,
    accounts: u32,
    in_flight: u32,
    duration_s: f64,
    seed: u64,
    requests: u64,
    requests_per_s: f64,
    mean_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
    /// The p99 of the callers of each server, in the order of the servers.
    p99_ms_by_server: Vec<f64>,
    /// Requests in a database transaction; null if a server does not publish its stats.
    mean_batch: Option<f64>,
    errors: BTreeMap<String, u64>,
    unresolved: usize,
    /// Null if the balances equal the sum of the results.
    verification_error: Option<String>,
    watchers: u32,
    /// Entries that all watchers together received.
    watched_entries: u64,
    /// Messages that all watchers together received, heartbeats included.
    watched_messages: u64,
    /// Streams that broke and were opened again, by reason.
    watch_cuts: BTreeMap<String, u64>,
    /// The time from the end of the load until all watchers had all entries.
    watch_caught_up_ms: f64,
    /// Null if no watcher missed an entry.
    watch_error: Option<String>,
    /// Null without `--event-watchers`.
    events: Option<EventReport>,
    /// Samples: seconds, and requests a second.
    rates: Vec<(f64, f64)>,
    /// Pairs: percentile, and milliseconds.
    percentiles: Vec<(f64, f64)>,
}

impl Report {
    /// The report of these measurements.
    pub fn new(
        bench: &Bench,
        servers: &Servers,
        stats: &RunStats,
        mean_batch: Option<f64>,
        unresolved: usize,
        verified: &Result<(), String>,
        watched: &Watched,
    ) -> Self {
        let none = WatchStats::default();
        let watch = watched.entries.as_ref().unwrap_or(&none);
        let latencies = &stats.latencies;
        let at = |percentile| latencies.value_at_percentile(percentile) as f64 / 1000.0;
        Self {
            workload: format!("{:?}", bench.workload).to_lowercase(),
            mode: format!("{:?}", bench.mode).to_lowercase(),
            servers: servers.count(),
            accounts: if bench.workload == Workload::Hot { 1 } else { bench.accounts },
            in_flight: bench.in_flight,
            duration_s: bench.duration.as_secs_f64(),
            seed: bench.seed,
            requests: stats.succeeded,
            requests_per_s: stats.succeeded as f64 / bench.duration.as_secs_f64(),
            mean_ms: latencies.mean() / 1000.0,
            p50_ms: at(50.0),
            p99_ms: at(99.0),
            p99_9_ms: at(99.9),
            max_ms: latencies.max() as f64 / 1000.0,
            p99_ms_by_server: stats
                .by_server
                .values()
                .map(|it| it.value_at_percentile(99.0) as f64 / 1000.0)
                .collect(),
            mean_batch,
            errors: stats.errors.clone(),
            unresolved,
            verification_error: verified.as_ref().err().cloned(),
            watchers: bench.watchers,
            watched_entries: watch.entries,
            watched_messages: watch.messages,
            watch_cuts: watch.cuts.clone(),
            watch_caught_up_ms: watch.caught_up_after.as_secs_f64() * 1000.0,
            watch_error: watched.entries.as_ref().err().cloned(),
            events: watched.events.clone(),
            rates: stats.rates.clone(),
            percentiles: PERCENTILES.iter().map(|it| (*it, at(*it))).collect(),
        }
    }

    /// Writes the report as JSON.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }

    /// Draws the rate over time and the latency by percentile.
    pub fn draw(&self, path: &Path) -> Result<(), String> {
        let root = SVGBackend::new(path, (900, 640)).into_drawing_area();
        let text = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        root.fill(&WHITE).map_err(|error| text(&error))?;
        let (above, below) = root.split_vertically(320);
        let titles = [
            format!("{} {}: requests/s over seconds", self.workload, self.mode),
            format!("{} in flight: milliseconds by percentile", self.in_flight),
        ];
        let points = [&self.rates, &self.percentiles];
        for ((area, title), points) in [above, below].iter().zip(&titles).zip(points) {
            let right = points.iter().map(|it| it.0).fold(1.0, f64::max);
            let top = points.iter().map(|it| it.1).fold(1.0, f64::max) * 1.1;
            let mut chart = ChartBuilder::on(area)
                .caption(title, ("sans-serif", 18))
                .margin(12)
                .x_label_area_size(30)
                .y_label_area_size(70)
                .build_cartesian_2d(0.0..right, 0.0..top)
                .map_err(|error| text(&error))?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .draw()
                .map_err(|error| text(&error))?;
            let line = LineSeries::new(points.iter().copied(), &BLUE);
            chart.draw_series(line).map_err(|error| text(&error))?;
        }
        root.present().map_err(|error| text(&error))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean_batch = self.mean_batch.map_or("unknown".to_owned(), |it| format!("{it:.1}"));
        let rows = [
            ("workload", format!("{} {}, {} accounts", self.workload, self.mode, self.accounts)),
            ("servers", self.servers.to_string()),
            ("in flight", self.in_flight.to_string()),
            ("measured", format!("{} requests in {} s", self.requests, self.duration_s)),
            ("rate", format!("{:.0} requests/s", self.requests_per_s)),
            ("p50", format!("{:.2} ms", self.p50_ms)),
            ("p99", format!("{:.2} ms", self.p99_ms)),
            ("p99.9", format!("{:.2} ms", self.p99_9_ms)),
            ("max", format!("{:.2} ms", self.max_ms)),
            ("mean batch", mean_batch),
        ];
        for (name, value) in rows {
            writeln!(formatter, "{name:12}  {value}")?;
        }
        if self.servers > 1 {
            let each: Vec<_> = self.p99_ms_by_server.iter().map(|it| format!("{it:.2}")).collect();
            writeln!(formatter, "{:12}  {} ms", "p99 by server", each.join(", "))?;
        }
        writeln!(formatter, "{:12}  {}", "errors", counts(&self.errors, "none"))?;
        if self.unresolved > 0 {
            writeln!(formatter, "{:12}  {}", "unresolved", self.unresolved)?;
        }
        if self.watchers > 0 {
            let text = match &self.watch_error {
                Some(error) => error.clone(),
                None => format!(
                    "{} got {} entries in {} messages without a gap, the last after {:.0} ms; {}",
                    self.watchers,
                    self.watched_entries,
                    self.watched_messages,
                    self.watch_caught_up_ms,
                    counts(&self.watch_cuts, "no cuts"),
                ),
            };
            writeln!(formatter, "{:12}  {text}", "watchers")?;
        }
        if let Some(events) = &self.events {
            let text = match &events.error {
                Some(error) => error.clone(),
                None => format!(
                    "{} watchers got {} entries in {} messages, each once, the last after {:.0} ms; {}",
                    events.watchers,
                    events.entries,
                    events.messages,
                    events.caught_up_ms,
                    counts(&events.cuts, "no cuts"),
                ),
            };
            writeln!(formatter, "{:12}  {text}", "events")?;
            let (p50, p99) = (events.lag_p50_ms, events.lag_p99_ms);
            writeln!(formatter, "{:12}  p50 {p50:.0} ms, p99 {p99:.0} ms", "event lag")?;
            let (count, rate) = (events.backlog_events, events.backlog_events_per_s);
            writeln!(formatter, "{:12}  {count} events at {rate:.0}/s", "backlog")?;
        }
        match &self.verification_error {
            None => writeln!(formatter, "{:12}  adds up", "money"),
            Some(error) => writeln!(formatter, "{:12}  {error}", "money"),
        }
    }
}

fn counts(counts: &BTreeMap<String, u64>, none: &str) -> String {
    let texts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if texts.is_empty() { none.to_owned() } else { texts.join(", ") }
}
