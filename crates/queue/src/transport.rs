//! What a deliverer implements: the `Transport` trait, and what passes between it and the queue.

use std::fmt;
use std::io;
use std::sync::Arc;

use pillarbox_smtp::Reply;

use crate::body::Body;
use crate::envelope::{Envelope, Recipient};
use crate::feed::Feed;

/// Where recipients go together: everything that shares a connection or a store. `local`, `lmtp:unix:/run/dovecot/lmtp`, `mx:example.net`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination(pub Arc<str>);

/// A deliverer: one for mailboxes (`lda`), one for the world (`relay`).
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The destination a recipient belongs to. Quick, no I/O.
    fn destination(&self, envelope: &Envelope, recipient: &Recipient) -> Destination;

    /// How many `run`s the queue may have under way at once for one destination, at most. It starts with few and grows with success.
    fn concurrency(&self, destination: &Destination) -> usize;

    /// Serves one destination: takes deliveries from the feed until it is empty (one connection, several messages) and
    /// finishes each with an outcome a recipient. A delivery dropped unfinished counts as deferred.
    async fn run(&self, destination: Destination, feed: Feed);

    /// Stores a delivery at once, and so that it survives a power cut without [`Transport::sync`]. Whatever it is finished with other than
    /// [`Outcome::Delivered`], and if it is dropped, the queue takes the message as if nothing had been tried.
    async fn deliver_at_once(&self, delivery: Delivery) {
        drop(delivery);
    }

    /// Makes everything reported as delivered so far survive a power cut. The queue calls this before it forgets a
    /// message; those that hand over to another host have nothing to do.
    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A message for some of its recipients, all of one destination.
pub struct Delivery {
    /// The envelope as of this attempt.
    pub envelope: Arc<Envelope>,
    /// Which of `envelope.recipients` to serve.
    pub recipients: Vec<usize>,
    /// The message, CRLF line ends, as stored at acceptance.
    pub body: Body,
    /// This may be a repetition after a crash: look for earlier work before storing.
    pub replayed: bool,
    pub(crate) finish: Finish,
}

/// How one recipient's attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Stored in a mailbox.
    Delivered,
    /// Taken over by another host.
    Relayed {
        /// Its reply to the message.
        reply: Reply,
        /// It speaks DSN, so a success report is its business from here on (RFC 3461 §5.2.2).
        dsn: bool,
    },
    /// To be tried again.
    Deferred {
        /// In the remote's own words, or ours.
        reply: Reply,
    },
    /// Never.
    Failed {
        /// In the remote's own words, or ours.
        reply: Reply,
    },
    /// The recipient is replaced by others: a mailbox's forwarding rule, found at delivery.
    Replaced {
        /// Fresh recipients that take its place.
        by: Vec<Recipient>,
    },
}

/// One outcome a recipient, in the order of `Delivery::recipients`, and where it went, for the log.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// In the order of `Delivery::recipients`; missing ones count as deferred.
    pub each: Vec<Outcome>,
    /// The host or folder that took it, such as `mx.example.net[192.0.2.1]:25` or `maildir`.
    pub relay: String,
    /// TLS as used, such as `TLSv1.3 dane`; empty for none.
    pub tls: String,
}

/// The way back: called once with the outcomes, or with `None` when it is dropped uncalled, which defers.
pub(crate) struct Finish(Option<Box<dyn FnOnce(Option<Outcomes>) + Send>>);

impl Finish {
    pub(crate) fn new(call: impl FnOnce(Option<Outcomes>) + Send + 'static) -> Self {
        Self(Some(Box::new(call)))
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(None);
        }
    }
}

impl Delivery {
    /// The recipients to serve.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients.iter().filter_map(|&i| self.envelope.recipients.get(i))
    }

    /// Ends the attempt: one outcome a recipient, in the order of [`Delivery::recipients`].
    pub fn finish(mut self, outcomes: Outcomes) {
        if let Some(call) = self.finish.0.take() {
            call(Some(outcomes));
        }
    }

    /// The same outcome for every recipient.
    pub fn finish_all(self, outcome: Outcome, relay: impl Into<String>) {
        let each = vec![outcome; self.recipients.len()];
        self.finish(Outcomes { each, relay: relay.into(), tls: String::new() });
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Destination {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
