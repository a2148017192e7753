//! Progress bars of the commands that read the whole database.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::ProgressBar;

use crate::storage::VerifyProgress;

/// The interval at which a progress bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Updates the progress bar until `work` is complete, then clears the bar and returns the output.
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

/// Shows the progress of a verification.
pub fn show_verify(bar: &ProgressBar, progress: &VerifyProgress) {
    bar.set_length(progress.expected.load(Ordering::Relaxed));
    bar.set_position(progress.read.load(Ordering::Relaxed));
    bar.set_message("verifying");
}
