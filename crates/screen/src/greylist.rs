//! Greylisting (RFC 6647): a stranger's first attempt is put off, since spam software seldom comes back.
//!
//! Judged at the end of DATA, so that senders who pass SPF or DKIM are spared along with those a recipient wrote to, and networks that
//! came back before.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_smtp::{Mailbox, Reply, ReversePath};
use serde::{Deserialize, Serialize};

use crate::rates::{is_correspondent, network};
use crate::replies;

/// State table: network, sender, recipient → first seen, whether it came back.
const TRIPLETS: &str = "greylist";
/// State table: networks that came back.
const NETWORKS: &str = "greylist_networks";
/// How long a stranger is put off.
const DELAY: Duration = Duration::from_secs(3 * 60);
/// How long it may take to come back.
const WINDOW: Duration = Duration::from_secs(2 * 86_400);
/// How long one that came back is known.
const KNOWN: Duration = Duration::from_secs(40 * 86_400);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Entry {
    /// Seconds since the epoch.
    first: u64,
    /// It came back in time.
    passed: bool,
}

/// The memory of strangers, in the directory's state.
pub(crate) struct Greylist {
    directory: Arc<dyn Directory>,
}

impl Greylist {
    pub(crate) fn new(directory: Arc<dyn Directory>) -> Self {
        Self { directory }
    }

    /// Whether this message has to wait; `now` in seconds since the epoch. Where the directory cannot be asked nobody waits.
    pub(crate) async fn check(&self, client: IpAddr, helo: &str, from: &ReversePath, rcpts: &[Mailbox], now: u64) -> Result<(), Reply> {
        match self.wait(client, helo, from, rcpts, now).await {
            Ok(None) => Ok(()),
            Ok(Some(seconds)) => {
                metrics::counter!("pillarbox_screen_greylisted_total").increment(1);
                Err(replies::greylisted(seconds))
            }
            Err(error) => {
                tracing::warn!(%error, "greylisting cannot be remembered");
                Ok(())
            }
        }
    }

    /// Seconds to wait, `None` for not at all. Each recipient is noted, and one that is new makes all wait.
    async fn wait(
        &self,
        client: IpAddr,
        helo: &str,
        from: &ReversePath,
        rcpts: &[Mailbox],
        now: u64,
    ) -> Result<Option<u64>, DirectoryError> {
        let network = neighbourhood(client).to_string();
        if self.directory.state_get(NETWORKS, network.as_bytes()).await?.is_some() {
            return Ok(None);
        }
        let sender = match from.mailbox() {
            Some(mailbox) => mailbox.key(),
            None => format!("<>{}", helo.to_ascii_lowercase()),
        };
        let mut wait = None;
        for rcpt in rcpts {
            if let Some(sender) = from.mailbox()
                && is_correspondent(self.directory.as_ref(), rcpt, sender).await?
            {
                continue;
            }
            let key = format!("{network}\0{sender}\0{}", rcpt.key());
            let known: Option<Entry> =
                self.directory.state_get(TRIPLETS, key.as_bytes()).await?.and_then(|v| serde_json::from_slice(&v).ok());
            match known {
                Some(entry) if entry.passed => {}
                Some(entry) => match (entry.first + DELAY.as_secs()).saturating_sub(now) {
                    0 => {
                        self.put(TRIPLETS, &key, Entry { passed: true, ..entry }, KNOWN).await?;
                        self.put(NETWORKS, &network, Entry { first: now, passed: true }, KNOWN).await?;
                    }
                    left => wait = wait.max(Some(left)),
                },
                None => {
                    self.put(TRIPLETS, &key, Entry { first: now, passed: false }, WINDOW).await?;
                    wait = wait.max(Some(DELAY.as_secs()));
                }
            }
        }
        Ok(wait)
    }

    async fn put(&self, table: &str, key: &str, entry: Entry, keep: Duration) -> Result<(), DirectoryError> {
        self.directory.state_put(table, key.as_bytes(), &serde_json::to_vec(&entry).unwrap_or_default(), keep).await
    }
}

/// Large senders retry from another machine beside the first: an IPv4 /24, an IPv6 /64.
fn neighbourhood(client: IpAddr) -> IpAddr {
    match network(client) {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        v6 => v6,
    }
}
