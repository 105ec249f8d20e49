//! Large messages for one mailbox of this machine: stored there before they are acknowledged, so that they are written once and not twice.
//!
//! What is small shares a flush of the journal with its company, and its delivery waits for another; that is quicker for it. A large
//! message spends its time in being written, and the journal would only add to that.

use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use crate::body::{Body, Inner};
use crate::envelope::{Envelope, Route, Status};
use crate::events::Event;
use crate::finish::Context;
use crate::id::QueueId;
use crate::journal::Note;
use crate::queue::{AcceptError, Queue};
use crate::transport::{Delivery, Finish, Outcome, Outcomes};

/// Octets from which on a message is large.
const LARGE: u64 = 256 * 1024;

/// A message that is ours. Dropping it logs what became of it already, so a caller that logs that the message came does so first.
#[derive(Debug)]
pub struct Taken {
    id: QueueId,
    delivered: Option<Event>,
}

impl Taken {
    /// Its id.
    pub fn id(&self) -> QueueId {
        self.id
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(event) = &self.delivered {
            event.log();
        }
    }
}

impl Queue {
    /// As [`Queue::accept`]; but a large message for one mailbox may be in it, durably, when this returns, and was never in the queue.
    ///
    /// # Errors
    /// As for [`Queue::accept`].
    pub async fn take(&self, mut envelope: Envelope, body: Body) -> Result<Taken, AcceptError> {
        let id = envelope.id;
        if self.may_go_at_once(&envelope, &body) {
            self.admission()?;
            self.complete(&mut envelope, &body)?;
            let delivered = self.deliver_at_once(&envelope, &body).await;
            if delivered.is_some() {
                metrics::counter!("pillarbox_queue_accepted_total").increment(1);
                return Ok(Taken { id, delivered });
            }
        }
        self.accept(envelope, body).await?;
        Ok(Taken { id, delivered: None })
    }

    /// Whether nothing but storing is to be done. Without a sync of its own, what lies in memory alone is not safe; what lies in a file is
    /// written already.
    fn may_go_at_once(&self, envelope: &Envelope, body: &Body) -> bool {
        let [recipient] = envelope.recipients.as_slice() else { return false };
        body.len() >= LARGE
            && matches!(body.parts().1, Inner::Memory(..))
            && matches!(recipient.route, Route::Mailbox { .. })
            && recipient.status == Status::Pending
            && recipient.next_attempt.is_none()
            && !recipient.notify.success
            && envelope.hold_until.is_none()
            && envelope.by.is_none()
            && !self.must_remember()
            && !self.state.lock().stopping
    }

    /// The event to log, if the mailbox took it. When the caller goes away before the answer, the message may have been taken or not.
    async fn deliver_at_once(&self, envelope: &Envelope, body: &Body) -> Option<Event> {
        let envelope = Arc::new(envelope.clone());
        let (answer, outcome) = oneshot::channel();
        let (queue, about) = (Weak::clone(&self.me), Arc::clone(&envelope));
        let finish = Finish::new(move |outcomes| {
            let event = outcomes.and_then(|outcomes| queue.upgrade()?.delivered_at_once(&about, &outcomes));
            // Nobody waits for it any more.
            if let Err(Some(event)) = answer.send(event) {
                event.log();
            }
        });
        let delivery = Delivery { envelope, recipients: vec![0], body: body.clone(), replayed: false, finish };
        let transport = Arc::clone(&self.transports.mailbox);
        self.runtime.spawn(async move { transport.deliver_at_once(delivery).await });
        outcome.await.ok().flatten()
    }

    fn delivered_at_once(&self, envelope: &Envelope, outcomes: &Outcomes) -> Option<Event> {
        let (Some(recipient), [Outcome::Delivered]) = (envelope.recipients.first(), outcomes.each.as_slice()) else { return None };
        // The journal never had the message; this is how a later start knows that its id was given out.
        self.journal.note(&Note::Settled(envelope.id, vec![(0, Status::Delivered)]), false);
        let mut event = Event::new(envelope, recipient, &Context { relay: &outcomes.relay, tls: &outcomes.tls, now: self.clock.now() });
        event.delivered();
        Some(event)
    }
}
