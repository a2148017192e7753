//! What makes this server fast or slow.

use std::collections::VecDeque;

use axum::extract::{Query, State};
use passbook_command::proto::{
    ContendedAccount, Distribution, GetWritePathStatsRequest, GetWritePathStatsResponse,
    ListContendedAccountsRequest,
};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    App,
    chart::{Chart, Point},
    page::{Cell, Column, Content, Page, PageError, Section, Table},
    pages::part,
    session::Session,
    view,
};

/// Samples that are kept: ten minutes of a page that is open.
const SAMPLES_MAX: usize = 300;
/// The shortest time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(1500);
/// Accounts that are shown.
const ACCOUNTS_SHOWN: i32 = 20;
const COLUMNS: &[Column] = &[
    Column::text("Of each database transaction"),
    Column::number("Values"),
    Column::number("Mean"),
    Column::number("Median"),
    Column::number("99 %"),
    Column::number("Largest"),
];
const ACCOUNT_COLUMNS: &[Column] =
    &[Column::text("Account"), Column::number("Waits"), Column::number("Seconds waited")];

/// The statistics at several times, as sessions that may read them have read them. Charts show the
/// differences.
#[derive(Default)]
pub struct History(Mutex<VecDeque<Sample>>);

#[derive(Clone)]
struct Sample {
    at: Instant,
    stats: GetWritePathStatsResponse,
}

#[derive(Deserialize)]
pub struct Nothing {}

pub async fn show(
    State(app): State<App>,
    session: Session,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Page, PageError> {
    page(&app.history, &session).await
}

async fn page(history: &History, session: &Session) -> Result<Page, PageError> {
    let calls = &session.calls;
    let (mut of_stats, mut of_accounts) = (calls.admin(), calls.admin());
    let (stats, contended) = tokio::join!(
        of_stats.get_write_path_stats(calls.request(GetWritePathStatsRequest {})),
        of_accounts.list_contended_accounts(
            calls.request(ListContendedAccountsRequest { page_size: ACCOUNTS_SHOWN })
        ),
    );
    let stats = stats.map_err(|status| PageError::of(status, session))?.into_inner();
    let samples = history.record(stats).await;
    let now = Section::new("now", "Now").live();
    let charts = charts(&samples);
    let now = if charts.is_empty() {
        now.with(Content::Note(
            "Charts appear when the page has been open for a few seconds.".to_owned(),
        ))
    } else {
        charts.into_iter().fold(now, |section, chart| section.with(Content::Chart(chart)))
    };
    let since_start = Section::new("stats", "Since the server started")
        .live()
        .with(Content::Table(distributions(&stats)));
    let contended = part(contended, session)?.map(|list| {
        let rows = list.accounts.iter().map(account).collect();
        Table::new("The accounts for which requests wait most", ACCOUNT_COLUMNS, rows, "None.")
    });
    let contended = Section::new("contended", "Contended accounts").live().with_result(contended);
    Ok(Page::new("Health of the write path", session).with(now).with(since_start).with(contended))
}

impl History {
    /// Adds a sample, and returns all.
    async fn record(&self, stats: GetWritePathStatsResponse) -> Vec<Sample> {
        let at = Instant::now();
        let mut samples = self.0.lock().await;
        if samples.back().is_none_or(|last| at.duration_since(last.at) >= SAMPLE_INTERVAL) {
            samples.push_back(Sample { at, stats });
        }
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
        samples.iter().cloned().collect()
    }
}

/// A chart of the rate, and one of the mean of each distribution, from sample to sample.
fn charts(samples: &[Sample]) -> Vec<Chart> {
    let Some(start) = samples.first().map(|sample| sample.at) else { return Vec::new() };
    let chart = |title: &str, value: &dyn Fn(&Sample, &Sample) -> (f64, String)| {
        let points = samples.windows(2).map(|pair| {
            let (value, text) = value(&pair[0], &pair[1]);
            Point { at: pair[1].at.duration_since(start).as_secs_f64(), value, text }
        });
        let points: Vec<_> = points.collect();
        let seconds = points.first().zip(points.last()).map(|(first, last)| last.at - first.at);
        let from = format!("{:.0} s ago", seconds.unwrap_or_default());
        Chart::new(title, &points, [from, "now".to_owned()])
    };
    let rate = |before: &Sample, after: &Sample| {
        let number = difference(before.stats.queue_time, after.stats.queue_time).0;
        let rate = number / after.at.duration_since(before.at).as_secs_f64();
        (rate, format!("{rate:.1}/s"))
    };
    type Of = fn(&GetWritePathStatsResponse) -> Option<Distribution>;
    let mean = |of: Of| {
        move |before: &Sample, after: &Sample| {
            let (number, sum) = difference(of(&before.stats), of(&after.stats));
            if number > 0.0 { sum / number } else { 0.0 }
        }
    };
    let milliseconds = |of: Of| {
        move |before: &Sample, after: &Sample| {
            let milliseconds = 1000.0 * mean(of)(before, after);
            (milliseconds, format!("{milliseconds:.2} ms"))
        }
    };
    let size = |before: &Sample, after: &Sample| {
        let size = mean(|stats| stats.batch_size)(before, after);
        (size, format!("{size:.1}"))
    };
    let charts = [
        chart("Requests", &rate),
        chart("Requests in a database transaction", &size),
        chart("Time in the queue", &milliseconds(|stats| stats.queue_time)),
        chart("Wait for row locks", &milliseconds(|stats| stats.lock_wait)),
        chart("Write", &milliseconds(|stats| stats.write_time)),
        chart("Commit", &milliseconds(|stats| stats.commit_time)),
    ];
    charts.into_iter().flatten().collect()
}

/// How many values there were between two samples, and their sum.
fn difference(before: Option<Distribution>, after: Option<Distribution>) -> (f64, f64) {
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    ((after.count - before.count) as f64, after.sum - before.sum)
}

fn distributions(stats: &GetWritePathStatsResponse) -> Table {
    let row = |name: &'static str, distribution: Option<Distribution>, unit: f64| -> Vec<Cell> {
        let Distribution { count, sum, p50, p99, max } = distribution.unwrap_or_default();
        let mean = if count == 0 { 0.0 } else { sum / count as f64 };
        let numbers = [mean, p50, p99, max].map(|value| format!("{:.2}", value * unit).into());
        [name.into(), count.into()].into_iter().chain(numbers).collect()
    };
    let rows = vec![
        row("requests", stats.batch_size, 1.0),
        row("time in the queue of a request (ms)", stats.queue_time, 1000.0),
        row("wait for row locks (ms)", stats.lock_wait, 1000.0),
        row("write (ms)", stats.write_time, 1000.0),
        row("commit (ms)", stats.commit_time, 1000.0),
    ];
    Table::new("Statistics of the write path of this server", COLUMNS, rows, "None.")
}

fn account(account: &ContendedAccount) -> Vec<Cell> {
    vec![
        view::account(&account.account_id),
        format!("{:.0}", account.waits).into(),
        format!("{:.3}", account.seconds_waited).into(),
    ]
}
