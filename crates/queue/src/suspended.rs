//! Mail for suspended users: how it is told from what an operator holds, and how it goes on once they are resumed.

use std::sync::Arc;

use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};

use crate::envelope::{Recipient, Route, Status};
use crate::id::QueueId;
use crate::operate::{ListFilter, RetryFilter};
use crate::queue::Queue;
use crate::schedule::DestId;

/// Messages listed at once.
const PAGE: usize = 500;
/// RFC 3463 §3.3: the mailbox is disabled, accepting no messages; here for now.
const DISABLED: EnhancedCode = EnhancedCode(4, 2, 1);

impl Recipient {
    /// Keeps this recipient's mail in the queue because its user is suspended (`mailbox.suspended = "hold"`), and says so in `queue list`.
    pub fn hold_as_suspended(&mut self) {
        self.status = Status::Held;
        self.last_reply = Some(Reply::new(450, DISABLED, "The mailbox is suspended; mail waits for it"));
    }

    /// Whether it waits for its user to be resumed: held at the door, or put off by the mailbox.
    pub fn waits_for_resumption(&self) -> bool {
        !self.status.is_settled()
            && matches!(self.route, Route::Mailbox { .. })
            && self.last_reply.as_ref().is_some_and(|reply| reply.code < 500 && reply.enhanced == Some(DISABLED))
    }
}

impl Queue {
    /// Users whose mail waits because they were suspended when it came, each once.
    pub async fn awaiting_resumption(&self) -> Vec<Mailbox> {
        let mut users: Vec<Mailbox> = Vec::new();
        let mut after = None;
        loop {
            let page = self.list(&ListFilter { held: true, ..ListFilter::default() }, after, PAGE).await;
            for recipient in page.iter().flat_map(|e| &e.recipients).filter(|r| r.waits_for_resumption()) {
                if !users.iter().any(|user| user.same_as(&recipient.address)) {
                    users.push(recipient.address.clone());
                }
            }
            if page.len() < PAGE {
                return users;
            }
            after = page.last().map(|e| e.id);
        }
    }

    /// Lets mail go on, at once, that waits for this user to be resumed; what an operator holds stays held. Answers how many messages it
    /// concerned; the answer is durable.
    pub async fn resume(&self, user: &Mailbox) -> u64 {
        let ours = |r: &Recipient| r.waits_for_resumption() && r.address.same_as(user);
        let mut count = 0;
        let mut after = None;
        loop {
            let filter = ListFilter { to: Some(user.domain.clone()), ..ListFilter::default() };
            let page = self.list(&filter, after, PAGE).await;
            after = page.last().map(|e| e.id);
            let ids = |status: Status| -> Vec<QueueId> {
                page.iter().filter(|e| e.recipients.iter().any(|r| r.status == status && ours(r))).map(|e| e.id).collect()
            };
            count += self.release_some(&ids(Status::Held), &ours).await;
            count += self.retry(&RetryFilter::Ids(ids(Status::Pending))).await;
            if page.len() < PAGE {
                return count;
            }
        }
    }

    async fn release_some(&self, ids: &[QueueId], wanted: &(dyn Fn(&Recipient) -> bool + Sync)) -> u64 {
        let now = self.clock.now();
        self.change(ids, |state, live| {
            let mut changed = Vec::new();
            let mut dests: Vec<DestId> = Vec::new();
            let recipients = &mut Arc::make_mut(&mut live.envelope).recipients;
            for (n, (fate, recipient)) in live.fates.iter_mut().zip(recipients).enumerate() {
                // The envelope's own status may be an old one; the fate has the last word.
                if fate.status != Status::Held || !wanted(recipient) {
                    continue;
                }
                fate.status = Status::Pending;
                fate.next = 0;
                // With a reply, mail older than the queue's lifetime would count as tried and be given up.
                recipient.last_reply = None;
                changed.push((n, Status::Pending));
                if !fate.flying && !dests.contains(&fate.dest) {
                    dests.push(fate.dest);
                }
            }
            let (id, priority, sender) = (live.envelope.id, live.envelope.priority, live.sender);
            dests.into_iter().for_each(|dest| _ = state.queue(id, dest, 0, priority, sender, now));
            changed
        })
        .await
    }
}
