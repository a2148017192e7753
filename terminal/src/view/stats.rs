//! Statistics of a server.

use passbook_command::{
    proto::{ContendedAccount, Distribution, GetWritePathStatsResponse},
    table::{Column, Table},
};

use crate::output::Row;

/// The distributions of the write path.
pub fn distributions(stats: &GetWritePathStatsResponse) -> String {
    let columns = [
        Column::text("distribution"),
        Column::number("count"),
        Column::number("mean"),
        Column::number("p50"),
        Column::number("p99"),
        Column::number("max"),
    ];
    let rows = [
        ("batch_size (requests)", stats.batch_size),
        ("queue_time (s)", stats.queue_time),
        ("lock_wait (s)", stats.lock_wait),
        ("write_time (s)", stats.write_time),
        ("commit_time (s)", stats.commit_time),
    ];
    let rows = rows.map(|(name, distribution)| {
        let Distribution { count, sum, p50, p99, max } = distribution.unwrap_or_default();
        let mean = if count == 0 { 0.0 } else { sum / count as f64 };
        let values = [mean, p50, p99, max].map(number);
        [name.to_owned(), count.to_string()].into_iter().chain(values).collect()
    });
    Table::new(&columns).part(&rows)
}

/// A statistic, to six decimals: microseconds, of times.
fn number(value: f64) -> String {
    format!("{value:.6}")
}

impl Row for ContendedAccount {
    const COLUMNS: &'static [Column] = &[
        Column::text("account_id"),
        Column::number("waits"),
        Column::number("waits_error"),
        Column::number("seconds_waited"),
    ];

    fn cells(&self) -> Vec<String> {
        let numbers = [self.waits, self.waits_error, self.seconds_waited].map(number);
        [self.account_id.clone()].into_iter().chain(numbers).collect()
    }
}
