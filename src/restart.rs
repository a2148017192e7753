//! Keeps background tasks running.

use std::time::Duration;

use tokio::time::sleep;

/// The pause before a task that panicked starts again.
const RESTART_BACKOFF: Duration = Duration::from_millis(100);

/// Runs a task until it ends, and starts it again if it panics. `start` creates the task's future.
pub fn spawn_restarting<F>(name: &'static str, mut start: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Err(error) = tokio::spawn(start()).await {
            tracing::error!(task = name, %error, "background task panicked, restarting it");
            sleep(RESTART_BACKOFF).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_starts_again_and_one_that_ends_does_not() {
        let (starts, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (count, notify) = (starts.clone(), ended.clone());
        spawn_restarting("test", move || {
            let (start, notify) = (count.fetch_add(1, Ordering::Relaxed), notify.clone());
            async move {
                assert!(start > 1, "the first two panic");
                notify.notify_one();
            }
        });
        ended.notified().await;
        sleep(RESTART_BACKOFF * 4).await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }
}
