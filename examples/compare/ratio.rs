//! Medians of the rounds, and their ratios.

use std::fmt;

/// The ratio of two medians, and the smallest and the largest ratio of a round.
#[derive(Clone, Copy)]
pub struct Ratio {
    pub of_medians: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    /// None if one of them was not measured.
    pub fn of(these: &[f64], those: &[f64]) -> Option<Self> {
        let of_medians = median(these)? / median(those)?;
        let rounds = these.iter().zip(those).map(|(this, that)| this / that);
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        rounds.for_each(|it| (low, high) = (low.min(it), high.max(it)));
        Some(Self { of_medians, low, high })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2} ({:.2}-{:.2})", self.of_medians, self.low, self.high)
    }
}

pub fn median(rounds: &[f64]) -> Option<f64> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
