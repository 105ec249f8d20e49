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
}

/// Sends both kinds until `stop`.
pub(crate) async fn send(post: Post, relay: Arc<Relay>, directory: Arc<dyn Directory>, dns: Dns, stop: CancellationToken) {
    let tls = relay.background(stop.clone(), post.for_tls());
    let dmarc = async {
        while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
            let config = post.config.load_full();
            let from = format!("postmaster@{}", config.hostname).parse::<Mailbox>();
            let (true, Ok(from)) = (config.screen.dmarc_reports, from) else { continue };
            match reports::due(directory.as_ref(), &dns, &config.hostname, &from, now_millis() / 86_400_000).await {
                Ok(outgoing) => {
                    for report in outgoing {
                        for to in report.to {
                            post.send(to, Some(report.from.clone()), report.message.clone()).await;
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "DMARC reports could not be made; they are tried again"),
            }
        }
    };
    futures::future::join(tls, dmarc).await;
}

/// Keeps TLS reports that arrive as mail (the screen keeps DMARC ones); the mail itself is delivered all the same.
pub(crate) struct Intake(pub(crate) Arc<Relay>);

impl ReportIntake for Intake {
    fn offer(&self, message: Bytes) {
        if header::first(&message, "TLS-Report-Domain").is_none() {
            return;
        }
        let relay = self.0.clone();
        tokio::spawn(async move {
            match relay.take_tls_report(message).await {
                Ok(kept) => tracing::info!(kept, "TLS reports were received"),
                Err(error) => tracing::info!(%error, "a message that looked like a TLS report holds none"),
            }
        });
    }
}
