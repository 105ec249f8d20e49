//! Aggregate reports: TLS (RFC 8460) and DMARC ones sent to those who ask for them, and those that others send us kept for `pillarbox report`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use pillarbox_config::Config;
use pillarbox_control::api::now_millis;
use pillarbox_directory::Directory;
use pillarbox_ingest::ReportIntake;
use pillarbox_message::{address_list, header};
use pillarbox_relay::Relay;
use pillarbox_relay::tlsrpt::Submit;
use pillarbox_screen::{Dns, Signer, reports};
use pillarbox_smtp::{Domain, Mailbox};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::wiring::{InternalMail, internal_envelope};

/// How often it is looked whether a day has ended.
const LOOK: Duration = Duration::from_secs(3600);

/// Signs and queues reports.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) internal: Arc<InternalMail>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) config: Arc<ArcSwap<Config>>,
}

impl Post {
    /// A signature by the author's domain, or where that has no keys (a host's name seldom has) by the domain above it, which DMARC counts as
    /// the same. RFC 8460 §3 wants one.
    async fn signature(&self, message: &[u8]) -> Vec<u8> {
        let author = header::first(message, "From").and_then(|field| address_list::mailboxes(field.value).into_iter().next());
        let mut name = author.map(|author| author.domain.to_string()).unwrap_or_default();
        while let Ok(domain) = Domain::new(&name) {
            if let Ok(Some(fields)) = self.signer.sign(&domain, Bytes::copy_from_slice(message)).await {
                return fields;
            }
            name = name.split_once('.').map(|(_, above)| above.to_owned()).unwrap_or_default();
        }
        Vec::new()
    }

    /// Queues a report under the null reverse path, signed where possible.
    async fn send(&self, to: Mailbox, from: Option<Mailbox>, message: Vec<u8>) {
        let signature = self.signature(&message).await;
        let mut envelope = internal_envelope(to, now_millis());
        if let Some(from) = from {
            envelope.from = from.into();
        }
        self.internal.submit(envelope, [signature, message].concat()).await;
    }

    /// For TLS reports.
    pub(crate) fn for_tls(&self) -> Submit {
        let post = self.clone();
        Arc::new(move |report| {
            let post = post.clone();
            Box::pin(async move {
                post.send(report.to, None, report.message).await;
                Ok(())
            })
        })
    }

    /// Makes and queues the DMARC reports that are due.
    async fn send_dmarc(&self, directory: &dyn Directory, dns: &Dns) {
        let config = self.config.load_full();
        let from = format!("postmaster@{}", config.hostname).parse::<Mailbox>();
        let (true, Ok(from)) = (config.screen.dmarc_reports, from) else { return };
        match reports::due(directory, dns, &config.hostname, &from, now_millis() / 86_400_000).await {
            Ok(outgoing) => {
                for report in outgoing {
                    tracing::info!(domain = %report.domain, to = %report.to, "a DMARC report is sent");
                    self.send(report.to, Some(report.from), report.message).await;
                }
            }
            Err(error) => tracing::warn!(%error, "DMARC reports could not be made; they are tried again"),
        }
    }
}

/// Sends both kinds until `stop`.
pub(crate) async fn send(post: Post, relay: Arc<Relay>, directory: Arc<dyn Directory>, dns: Dns, stop: CancellationToken) {
    let tls = relay.background(stop.clone(), post.for_tls());
    let dmarc = async {
        loop {
            // Looked at first at the start: a daemon that is restarted every night owes its reports too.
            post.send_dmarc(directory.as_ref(), &dns).await;
            if tokio::time::timeout(LOOK, stop.cancelled()).await.is_ok() {
                break;
            }
        }
    };
    futures::future::join(tls, dmarc).await;
}

/// Keeps reports that arrive as mail, of both kinds; the mail itself is delivered all the same.
pub(crate) struct Intake {
    relay: Arc<Relay>,
    directory: Arc<dyn Directory>,
    turns: Arc<Semaphore>,
}

/// Reports unpacked at once; more are delivered without being read.
const AT_ONCE: usize = 2;

impl Intake {
    pub(crate) fn new(relay: Arc<Relay>, directory: Arc<dyn Directory>) -> Self {
        Self { relay, directory, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn take_tls(relay: &Relay, message: Bytes) {
        match relay.take_tls_report(message).await {
            Ok(kept) => tracing::info!(kept, "TLS reports were received"),
            Err(error) => tracing::info!(%error, "a message that looked like a TLS report holds none"),
        }
    }

    async fn take_dmarc(directory: &dyn Directory, message: Bytes) {
        match reports::receive(directory, message).await {
            Ok(Some(report)) => tracing::info!(domain = report.domain, messages = report.messages, "a DMARC report was received"),
            Ok(None) => {}
            Err(error) => tracing::info!(%error, "a message that looked like a DMARC report holds none"),
        }
    }
}

impl ReportIntake for Intake {
    fn offer(&self, message: Bytes) {
        let tls = header::first(&message, "TLS-Report-Domain").is_some();
        if !tls && !reports::looks_like_report(&message) {
            return;
        }
        let Ok(turn) = self.turns.clone().try_acquire_owned() else { return };
        let (relay, directory) = (self.relay.clone(), self.directory.clone());
        tokio::spawn(async move {
            match tls {
                true => Self::take_tls(&relay, message).await,
                false => Self::take_dmarc(directory.as_ref(), message).await,
            }
            drop(turn);
        });
    }
}
