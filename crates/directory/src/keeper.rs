//! Keepers: files beside the directory that follow every change of it, at once for a small directory, paced for a large one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::store::Directory;

/// How often a file is written anew.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Up to so many users, after every change.
    pub small: u64,
    /// Beyond, at most this often.
    pub large_every: Duration,
    /// After a failure, tried again this much later.
    pub retry: Duration,
}

/// What a keeper writes.
#[async_trait::async_trait]
pub trait Kept: Send + Sync + 'static {
    /// What it is, for the log.
    fn name(&self) -> String;
    /// Writes it as the directory is now, whole or not at all.
    ///
    /// # Errors
    /// In words, for the log and `status`.
    async fn write(&self, directory: &dyn Directory) -> Result<(), String>;
}

/// A task that keeps files current until it is stopped or dropped.
pub struct Keeper {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    failed: Arc<RwLock<Option<String>>>,
}

impl Keeper {
    /// Writes now and after every change. Needs a tokio runtime.
    pub fn start(directory: Arc<dyn Directory>, kept: Arc<dyn Kept>, pace: Pace) -> Self {
        let (stop, stopped) = oneshot::channel();
        let failed = Arc::new(RwLock::new(None));
        let task = tokio::spawn(keep(directory, kept, pace, stopped, Arc::clone(&failed)));
        Self { stop: Some(stop), task: Some(task), failed }
    }

    /// Why the last write failed, or `Ok`.
    ///
    /// # Errors
    /// In words for `status`.
    pub fn health(&self) -> Result<(), String> {
        self.failed.read().clone().map_or(Ok(()), Err)
    }

    /// Writes once more if something changed since, and ends.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn keep(
    directory: Arc<dyn Directory>,
    kept: Arc<dyn Kept>,
    pace: Pace,
    mut stopped: oneshot::Receiver<()>,
    failed: Arc<RwLock<Option<String>>>,
) {
    let mut changes = directory.watch();
    loop {
        // Marked before the write: a change during it asks for another.
        changes.mark_unchanged();
        let written = kept.write(directory.as_ref()).await;
        let mut wait = match &written {
            Ok(()) if is_small(directory.as_ref(), pace.small).await => Duration::ZERO,
            Ok(()) => pace.large_every,
            Err(why) => {
                tracing::error!("{} could not be written: {why}", kept.name());
                pace.retry
            }
        };
        let retry = written.is_err();
        *failed.write() = written.err();
        let since = Instant::now();
        if !retry {
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                _ = &mut stopped => return,
            }
            wait = wait.saturating_sub(since.elapsed());
        }
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = &mut stopped => {
                    if let Err(why) = kept.write(directory.as_ref()).await {
                        tracing::error!("{} could not be written: {why}", kept.name());
                    }
                    return;
                }
            }
        }
    }
}

async fn is_small(directory: &dyn Directory, small: u64) -> bool {
    let mut users = 0u64;
    let Ok(domains) = directory.domains().await else { return true };
    for domain in domains {
        let (of_domain, aliases) = directory.counts(&domain.name).await.unwrap_or_default();
        users = users.saturating_add(of_domain).saturating_add(aliases);
    }
    users <= small
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDirectory;
    use crate::suite::build;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;

    struct Count {
        writes: mpsc::UnboundedSender<u64>,
        fail: AtomicU32,
    }

    #[async_trait::async_trait]
    impl Kept for Count {
        fn name(&self) -> String {
            "the test's file".into()
        }

        async fn write(&self, directory: &dyn Directory) -> Result<(), String> {
            if self.fail.load(Ordering::Relaxed) > 0 {
                self.fail.fetch_sub(1, Ordering::Relaxed);
                return Err("disk full".into());
            }
            self.writes.send(directory.generation()).map_err(|e| e.to_string())
        }
    }

    fn world(fail: u32) -> (Arc<MemoryDirectory>, Arc<Count>, mpsc::UnboundedReceiver<u64>) {
        let (writes, seen) = mpsc::unbounded_channel();
        (Arc::new(MemoryDirectory::new()), Arc::new(Count { writes, fail: AtomicU32::new(fail) }), seen)
    }

    #[tokio::test]
    async fn every_change_of_a_small_directory_is_written_at_once() {
        let (directory, count, mut seen) = world(0);
        let pace = Pace { small: 10, large_every: Duration::from_secs(3600), retry: Duration::from_secs(3600) };
        let keeper = Keeper::start(Arc::clone(&directory) as Arc<dyn Directory>, count, pace);
        assert_eq!(seen.recv().await, Some(1));
        build(directory.as_ref(), &["example.org"]).await;
        assert_eq!(seen.recv().await, Some(2));
        assert!(keeper.health().is_ok());
        keeper.stop().await;
    }

    #[tokio::test]
    async fn a_large_directory_waits_but_never_past_the_end() {
        let (directory, count, mut seen) = world(0);
        let built = build(directory.as_ref(), &["example.org"]).await.user("a@example.org").await.user("b@example.org").await;
        let pace = Pace { small: 1, large_every: Duration::from_secs(3600), retry: Duration::from_secs(3600) };
        let keeper = Keeper::start(Arc::clone(&directory) as Arc<dyn Directory>, count, pace);
        assert_eq!(seen.recv().await, Some(4));
        built.user("c@example.org").await;
        tokio::task::yield_now().await;
        assert!(seen.try_recv().is_err(), "not yet");
        keeper.stop().await;
        assert_eq!(seen.recv().await, Some(5), "what changed is written at the end");
    }

    #[tokio::test]
    async fn a_failed_write_is_told_and_tried_again() {
        let (directory, count, mut seen) = world(2);
        let pace = Pace { small: 10, large_every: Duration::ZERO, retry: Duration::from_millis(1) };
        let keeper = Keeper::start(Arc::clone(&directory) as Arc<dyn Directory>, count, pace);
        assert_eq!(seen.recv().await, Some(1));
        keeper.stop().await;
    }
}
