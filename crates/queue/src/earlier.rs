//! What an earlier process accepted: for who hands in mail from files, and must know after a crash whether a file's message was taken.

use std::collections::HashSet;
use std::sync::Arc;

use crate::id::QueueId;
use crate::queue::Queue;

/// While it is there, the journal forgets no message, however soon that is finished.
#[derive(Debug)]
pub struct Remembered(#[expect(dead_code, reason = "its existence is what counts")] Arc<()>);

impl Queue {
    /// Keeps the journal from forgetting until the answer is dropped. What was written to the queue's file system before that is durable before
    /// anything is forgotten.
    pub fn remember(&self) -> Remembered {
        Remembered(Arc::clone(&self.remembered))
    }

    /// Whether somebody wants nothing to be forgotten.
    pub(crate) fn must_remember(&self) -> bool {
        Arc::strong_count(&self.remembered) > 1
    }

    /// The messages that the journal knew at the start, finished ones among them. They are given out once; later answers are empty.
    pub fn take_earlier(&self) -> HashSet<QueueId> {
        std::mem::take(&mut *self.earlier.lock())
    }
}
