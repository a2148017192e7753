//! Times as people write them.

use std::time::SystemTime;

use prost_types::Timestamp;

const FORM: &str = "2026-11-26T09:42:23Z, or 2026-11-26 for its midnight in UTC";

/// Parses a time or a date.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("must be a time like {FORM}"))
}

/// Parses a time, a date, or a duration before now.
pub fn parse_past(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let duration = humantime::parse_duration(text).ok();
    let time = duration.and_then(|duration| SystemTime::now().checked_sub(duration));
    let wrong =
        || format!("must be a time like {FORM}, or a duration before now like 7days or 12h");
    time.map(Timestamp::from).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_dates_and_durations_are_times() {
        for (text, seconds) in [
            ("1970-01-02", 86_400),
            ("1970-01-01T01:00:00Z", 3_600),
            ("1970-01-01T02:00:00+01:00", 3_600),
        ] {
            for parsed in [parse_time(text), parse_past(text)] {
                assert_eq!(parsed, Ok(Timestamp { seconds, nanos: 0 }), "{text}");
            }
        }
        let now = Timestamp::from(SystemTime::now()).seconds;
        let hour_ago = parse_past("1h").expect("a duration").seconds;
        assert!((now - 3_601..=now - 3_599).contains(&hour_ago), "{hour_ago}");
        // A repeat of a change must have the same body, so a change takes no duration.
        assert!(parse_time("1h").is_err_and(|error| error.contains("2026-11-26")));
        assert!(parse_past("yesterday").is_err_and(|error| error.contains("7days")));
    }
}
