//! For tests: a feed filled by hand (push messages, run the transport, look at the outcomes), and a clock set by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pillarbox_smtp::Reply;
use tokio::sync::{Notify, oneshot};

use crate::body::Body;
use crate::clock::Clock;
use crate::envelope::{Envelope, UnixMillis};
use crate::feed::{Feed, Source};
use crate::transport::{Delivery, Finish, Outcomes};

/// Stands for the queue towards a transport under test.
///
/// ```ignore
/// let queue = FakeQueue::new();
/// let outcome = queue.push(envelope, vec![0], Body::from_bytes("…"));
/// transport.run(destination, queue.feed()).await;
/// assert_eq!(outcome.await.each, [Outcome::Delivered]);
/// ```
#[derive(Clone, Default)]
pub struct FakeQueue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<VecDeque<Delivery>>,
    came: Notify,
    down: Mutex<Option<Reply>>,
}

/// Becomes the outcomes of one pushed delivery.
#[derive(Debug)]
pub struct Pushed(oneshot::Receiver<Option<Outcomes>>);

impl Pushed {
    /// The outcomes; `None` when the transport dropped the delivery, or never took it before the queue went.
    pub async fn outcomes(self) -> Option<Outcomes> {
        self.0.await.ok().flatten()
    }
}

impl FakeQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a delivery of `envelope` for the recipients at these indices.
    pub fn push(&self, envelope: Envelope, recipients: Vec<usize>, body: Body) -> Pushed {
        self.push_as(envelope, recipients, body, false)
    }

    /// As [`FakeQueue::push`], marked as a possible repetition after a crash.
    pub fn push_replayed(&self, envelope: Envelope, recipients: Vec<usize>, body: Body) -> Pushed {
        self.push_as(envelope, recipients, body, true)
    }

    fn push_as(&self, envelope: Envelope, recipients: Vec<usize>, body: Body, replayed: bool) -> Pushed {
        let (send, receive) = oneshot::channel();
        let finish = Finish::new(move |outcomes| _ = send.send(outcomes));
        self.shared.waiting.lock().push_back(Delivery { envelope: Arc::new(envelope), recipients, body, replayed, finish });
        self.shared.came.notify_one();
        Pushed(receive)
    }

    /// A feed that takes from here; any number may be open.
    pub fn feed(&self) -> Feed {
        Feed::new(Arc::new(self.clone()))
    }

    /// What a transport said with [`Feed::destination_down`].
    pub fn down(&self) -> Option<Reply> {
        self.shared.down.lock().clone()
    }
}

/// A clock that stands still until it is moved. Whoever sleeps is woken by each move.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicU64,
    moved: Notify,
}

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: UnixMillis) -> Self {
        Self { now: AtomicU64::new(now), moved: Notify::new() }
    }

    /// Sets it, forwards or back, and wakes everyone who sleeps.
    pub fn set(&self, now: UnixMillis) {
        self.now.store(now, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(crate::clock::millis(by)));
    }
}

#[async_trait::async_trait]
impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        self.now.load(Ordering::SeqCst)
    }

    async fn sleep_until(&self, time: UnixMillis) {
        let moved = self.moved.notified();
        if self.now() < time {
            moved.await;
        }
    }
}

#[async_trait::async_trait]
impl Source for FakeQueue {
    async fn take(&self, max: usize, patience: Duration) -> Vec<Delivery> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if self.shared.down.lock().is_some() {
                return Vec::new();
            }
            let taken: Vec<Delivery> = {
                let mut waiting = self.shared.waiting.lock();
                let n = max.min(waiting.len());
                waiting.drain(..n).collect()
            };
            if !taken.is_empty() || patience.is_zero() || tokio::time::timeout_at(deadline, self.shared.came.notified()).await.is_err() {
                return taken;
            }
        }
    }

    fn waiting(&self) -> usize {
        self.shared.waiting.lock().len()
    }

    fn down(&self, reply: Reply) {
        *self.shared.down.lock() = Some(reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, QueueId};
    use pillarbox_smtp::ReversePath;

    #[tokio::test]
    async fn outcomes_come_back_and_a_dropped_delivery_says_so() {
        let queue = FakeQueue::new();
        let envelope = Envelope::new(QueueId(1), ReversePath::Null, vec![]);
        let first = queue.push(envelope.clone(), vec![0], Body::from_bytes("a"));
        let second = queue.push_replayed(envelope, vec![0], Body::from_bytes("b"));
        let mut feed = queue.feed();
        assert_eq!(feed.waiting(), 2);
        let mut batch = feed.next_batch(10).await.unwrap();
        let replayed = batch.pop().unwrap();
        assert!(replayed.replayed);
        drop(replayed);
        batch.pop().unwrap().finish_all(Outcome::Delivered, "maildir");
        assert_eq!(first.outcomes().await.unwrap().each, [Outcome::Delivered]);
        assert!(second.outcomes().await.is_none());
        assert!(feed.next().await.is_none() && feed.is_idle());
    }
}
