//! What the tests assume of time, all in one place. The machine may be busy with other things, and
//! then everything takes long: the tests assert states, counts and order, and
//!
//! - what must happen is waited for up to [`PATIENCE`], and no longer than it takes;
//! - what is promised within a time may be late by [`SLACK`];
//! - a latency or a rate that another one is compared with is printed.
//!
//! With PASSBOOK_TEST_TIMES=1 promises have no slack and figures must be good: for a release build,
//! on a machine that does nothing else.

use std::time::Duration;

use super::seconds;

/// How long a test waits for what must happen, and a call for its answer. On an idle machine it is
/// a matter of milliseconds or seconds. Too low fails a test on a busy machine; too high makes a test
/// that fails for a reason slow.
pub const PATIENCE: Duration = seconds(60);

/// How late a promise may be kept. Too low fails a test on a busy machine; too high cannot tell a
/// promise from the time-out that would have come without it: ten seconds, or a minute where the
/// test can set it.
pub const SLACK: Duration = seconds(5);

/// Whether times are asserted.
pub fn count() -> bool {
    std::env::var("PASSBOOK_TEST_TIMES").is_ok_and(|value| value == "1")
}

/// Fails if something took longer than is promised.
#[track_caller]
pub fn promise(what: &str, taken: Duration, promised: Duration) {
    let slack = if count() { Duration::ZERO } else { SLACK };
    println!("{what}: {taken:?} of {promised:?}");
    assert!(taken <= promised + slack, "{what} took {taken:?} instead of {promised:?}");
}

/// Prints a figure; that it is not a good one is a failure only where times count.
#[track_caller]
pub fn figure(figure: &str, is_good: bool) {
    println!("{figure}");
    assert!(is_good || !count(), "{figure}");
}
