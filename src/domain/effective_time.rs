//! The times that the ledger can have, and effective times: when a transaction counts for the owners of
//! its accounts, which banks call its value date.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use crate::domain::rejection::Rejection;

/// All times that the ledger can have, in microseconds since the Unix epoch: from the year 1 to the end of
/// the year 9999. The JSON of most clients cannot express other years.
pub const TIMES_US: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// How far before its transaction an effective time may be: ten years and the days to make sure. Books
/// are kept for up to ten years; what is earlier is a mistake in a date.
pub const EFFECTIVE_BEFORE_MAX_DAYS: i64 = 3660;
/// How far behind its transaction an effective time may be: a leap year.
pub const EFFECTIVE_AFTER_MAX_DAYS: i64 = 366;

/// The effective time to store for a transaction with this time: None if it is that time.
///
/// # Errors
/// It is too far from the time of the transaction.
pub fn check(
    effective_time_us: Option<i64>,
    create_time_us: i64,
) -> Result<Option<i64>, Rejection> {
    let Some(effective_time_us) = effective_time_us.filter(|it| *it != create_time_us) else {
        return Ok(None);
    };
    let earliest_us = create_time_us.saturating_sub(EFFECTIVE_BEFORE_MAX_DAYS * DAY_US);
    let latest_us = create_time_us.saturating_add(EFFECTIVE_AFTER_MAX_DAYS * DAY_US);
    match (earliest_us..=latest_us).contains(&effective_time_us) {
        true => Ok(Some(effective_time_us)),
        false => {
            Err(Rejection::EffectiveTimeOutOfRange { effective_time_us, earliest_us, latest_us })
        }
    }
}

/// Whether an entry can have these times, as they are stored.
pub fn is_possible(effective_time_us: Option<i64>, create_time_us: i64) -> bool {
    TIMES_US.contains(&create_time_us)
        && effective_time_us.is_none_or(|it| TIMES_US.contains(&it))
        && check(effective_time_us, create_time_us) == Ok(effective_time_us)
}

/// The place of an entry in a statement by effective time: entries that take effect at the same time are
/// in the order of their sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectivePosition {
    /// Microseconds since the Unix epoch.
    pub time_us: i64,
    /// The sequence of the entry.
    pub sequence: i64,
}

impl EffectivePosition {
    /// Before all entries that take effect at this time or later.
    pub fn before(time_us: i64) -> Self {
        Self { time_us, sequence: 0 }
    }
}

impl fmt::Display for EffectivePosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.time_us, self.sequence)
    }
}

impl FromStr for EffectivePosition {
    type Err = ();

    /// The position in a text of a caller: only one that an entry can have.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (time_us, sequence) = text.split_once(':').ok_or(())?;
        let number = |text: &str| text.parse().map_err(drop);
        let position = Self { time_us: number(time_us)?, sequence: number(sequence)? };
        let is_possible = TIMES_US.contains(&position.time_us) && position.sequence >= 0;
        is_possible.then_some(position).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_in_a_text_is_one_that_an_entry_can_have() {
        let (first, last) = TIMES_US.into_inner();
        for (time_us, sequence) in [(first, 0), (-1, 7), (0, 1), (last, i64::MAX)] {
            let position = EffectivePosition { time_us, sequence };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for (time_us, sequence) in
            [(i64::MIN, 0), (first - 1, 1), (last + 1, 1), (i64::MAX, 1), (0, -1), (0, i64::MIN)]
        {
            let text = EffectivePosition { time_us, sequence }.to_string();
            assert_eq!(text.parse::<EffectivePosition>(), Err(()), "{text}");
        }
        for text in ["", ":", "1", "1:", ":1", "1:1:1", "a:1", "9223372036854775808:1"] {
            assert_eq!(text.parse::<EffectivePosition>(), Err(()), "{text}");
        }
    }
}
