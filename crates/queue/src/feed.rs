//! What a deliverer takes its work from: the deliveries that wait for one destination.

use std::sync::Arc;
use std::time::Duration;

use pillarbox_smtp::Reply;

use crate::transport::Delivery;

/// The deliveries of one destination, handed out one by one or in batches. Several feeds of one destination share what waits.
pub struct Feed {
    source: Arc<dyn Source>,
}

/// Where a feed takes from: the schedule, or a test's own list.
#[async_trait::async_trait]
pub(crate) trait Source: Send + Sync {
    /// Up to `max` deliveries; none when nothing waits, or comes within `patience`.
    async fn take(&self, max: usize, patience: Duration) -> Vec<Delivery>;
    /// How many wait.
    fn waiting(&self) -> usize;
    /// The destination as a whole cannot be reached.
    fn down(&self, reply: Reply);
}

impl Feed {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Self { source }
    }

    /// The next delivery; `None` ends the run: nothing waits, the destination is down, or the queue is shutting down.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.source.take(1, Duration::ZERO).await.pop()
    }

    /// The next delivery, waiting up to `patience` for one to come, so that an open connection serves the next message too.
    pub async fn next_within(&mut self, patience: Duration) -> Option<Delivery> {
        self.source.take(1, patience).await.pop()
    }

    /// What waits, up to `max` deliveries (at least one); `None` ends the run, as for [`Feed::next`].
    pub async fn next_batch(&mut self, max: usize) -> Option<Vec<Delivery>> {
        self.next_batch_within(max, Duration::ZERO).await
    }

    /// As [`Feed::next_batch`], waiting up to `patience` for the first to come.
    pub async fn next_batch_within(&mut self, max: usize, patience: Duration) -> Option<Vec<Delivery>> {
        let batch = self.source.take(max.max(1), patience).await;
        (!batch.is_empty()).then_some(batch)
    }

    /// How many deliveries wait for this destination now.
    pub fn waiting(&self) -> usize {
        self.source.waiting()
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0
    }

    /// The destination as a whole cannot be reached (no route, no connection, a 4xx greeting): all that waits for it gets this
    /// reply and waits together, and one probe finds out when it is back. Deliveries in hand are finished as deferred by the caller.
    pub fn destination_down(&self, reply: Reply) {
        self.source.down(reply);
    }
}
