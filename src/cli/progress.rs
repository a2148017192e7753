//! Progress bars of the verbs that go through the whole database.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::ProgressBar;

use crate::storage::VerifyProgress;

/// How often a bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Draws while the work is under way, and takes the bar away when it is done.
pub async fn draw<T>(
    bar: &ProgressBar,
    update: impl Fn(&ProgressBar),
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    let result = loop {
        match tokio::time::timeout(DRAW_INTERVAL, &mut work).await {
            Ok(result) => break result,
            Err(_) => update(bar),
        }
    };
    bar.finish_and_clear();
    result
}

/// Shows how far a verification is.
pub fn show_verify(bar: &ProgressBar, progress: &VerifyProgress) {
    bar.set_length(2 * progress.entries.load(Ordering::Relaxed));
    bar.set_position(progress.looked_at.load(Ordering::Relaxed));
    bar.set_message("verifying");
}
