//! What the tests assume about time. The machine may be busy with other work, so the tests assert
//! states, counts and order, and
//!
//! - what must happen is waited for up to [`PATIENCE`], and no longer than it takes;
//! - what is promised within a time may be late by [`SLACK`];
//! - a latency or a rate that another one is compared with is printed.
//!
//! With PASSBOOK_TEST_TIMES=1 promises have no slack and figures must be good: for a release build,
//! on a machine that does nothing else.

use std::time::Duration;

use super::seconds;

/// How long a test waits for a state, and a call for its answer. Both take milliseconds or seconds
/// on an idle machine. Too low fails a test on a busy machine; too high makes a failing test slow.
pub const PATIENCE: Duration = seconds(60);

/// How late a promise may be kept. Too low fails a test on a busy machine; too high confuses a
/// promise with the timeout that would have come without it: ten seconds, or a minute where the
/// test can set it.
pub const SLACK: Duration = seconds(5);

/// Whether times are asserted: PASSBOOK_TEST_TIMES=1.
pub fn count() -> bool {
    std::env::var("PASSBOOK_TEST_TIMES").is_ok_and(|value| value == "1")
}

/// Fails if an operation took longer than promised.
#[track_caller]
pub fn promise(what: &str, taken: Duration, promised: Duration) {
    let slack = if count() { Duration::ZERO } else { SLACK };
    println!("{what}: {taken:?} of {promised:?}");
    assert!(taken <= promised + slack, "{what} took {taken:?} instead of {promised:?}");
}

/// Fails if the admin port took longer than a second, or three on a busy machine. The port ends every
/// connection after five, so a longer time would prove nothing.
#[track_caller]
pub fn soon(what: &str, taken: Duration) {
    let limit = seconds(1) + if count() { Duration::ZERO } else { seconds(2) };
    println!("{what}: {taken:?}");
    assert!(taken < limit, "{what} took {taken:?}");
}

/// Prints a figure. A bad figure is a failure only where times are asserted.
#[track_caller]
pub fn figure(figure: &str, is_good: bool) {
    println!("{figure}");
    assert!(is_good || !count(), "{figure}");
}
