//! Lines for the log of events: one for each recipient's attempt.

use pillarbox_smtp::{EnhancedCode, Reply, printable};

use crate::envelope::{Envelope, Recipient, Route, UnixMillis};
use crate::finish::Context;
use crate::id::QueueId;

/// An event about one recipient, put together under the lock and written outside it.
#[derive(Debug)]
pub(crate) struct Event {
    name: &'static str,
    status: &'static str,
    id: QueueId,
    from: String,
    to: String,
    relay: String,
    tls: String,
    size: u64,
    delay: UnixMillis,
    dsn: EnhancedCode,
    reply: String,
    local: bool,
}

impl Event {
    pub(crate) fn new(envelope: &Envelope, recipient: &Recipient, context: &Context<'_>) -> Self {
        Self {
            name: "defer",
            status: "deferred",
            id: envelope.id,
            from: printable(envelope.from.to_string().as_bytes()),
            to: printable(recipient.address.to_string().as_bytes()),
            relay: printable(context.relay.as_bytes()),
            tls: printable(context.tls.as_bytes()),
            size: envelope.size,
            delay: context.now.saturating_sub(envelope.received),
            dsn: EnhancedCode(4, 0, 0),
            reply: String::new(),
            local: matches!(recipient.route, Route::Mailbox { .. }),
        }
    }

    fn set(&mut self, name: &'static str, status: &'static str, dsn: EnhancedCode, reply: Option<&Reply>) {
        (self.name, self.status, self.dsn) = (name, status, dsn);
        if let Some(reply) = reply {
            self.reply = printable(reply.to_string().as_bytes());
        }
    }

    pub(crate) fn delivered(&mut self) {
        self.set("deliver", "delivered", EnhancedCode(2, 0, 0), None);
    }

    pub(crate) fn relayed(&mut self, reply: &Reply) {
        self.set("deliver", "relayed", reply.status(), Some(reply));
    }

    pub(crate) fn replaced(&mut self) {
        self.set("deliver", "forwarded", EnhancedCode(2, 0, 0), None);
    }

    pub(crate) fn deferred(&mut self, reply: &Reply) {
        self.set("defer", "deferred", reply.status(), Some(reply));
    }

    pub(crate) fn failed(&mut self, reply: &Reply) {
        self.set("bounce", "failed", reply.status(), Some(reply));
    }

    pub(crate) fn expired(&mut self) {
        (self.name, self.status) = ("expire", "expired");
    }

    /// Writes the line.
    pub(crate) fn log(&self) {
        tracing::info!(
            target: "pillarbox::event",
            event = self.name,
            id = %self.id,
            from = %self.from,
            to = %self.to,
            relay = %self.relay,
            tls = %self.tls,
            size = self.size,
            status = self.status,
            dsn = %self.dsn,
            reply = %self.reply,
            delay_ms = self.delay,
        );
        let kind = if self.local { "mailbox" } else { "relay" };
        metrics::counter!("pillarbox_queue_outcomes_total", "event" => self.name, "transport" => kind).increment(1);
    }
}
