//! The daemon as the admin API sees it: sockets, certificates, problems, reload.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pillarbox_config::Config;
use pillarbox_control::DaemonInfo;
use pillarbox_control::api::{CertificateInfo, ListenerInfo, SandboxInfo};
use pillarbox_directory::keeper::Keeper;
use pillarbox_directory::{Directory, Movable, Place, ResolvePolicy};
use pillarbox_ingest::certificates::CertificateStore;
use pillarbox_ingest::{Ingest, Settings};
use pillarbox_lda::MailboxTransport;
use pillarbox_queue::Queue;
use pillarbox_relay::Relay;
use pillarbox_screen::{Dns, Screen, UserRates};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::acme::Orders;
use crate::logging::LevelSetter;
use crate::reports::Post;
use crate::sandbox::Sandbox;

/// Everything that a reload touches.
pub(crate) struct Running {
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) policy: Arc<ArcSwap<ResolvePolicy>>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) movable: Arc<Movable>,
    pub(crate) certificates: Arc<CertificateStore>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) mailboxes: Arc<MailboxTransport>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) dns: Dns,
    pub(crate) notify: pillarbox_screen::Notify,
    pub(crate) scram_decoy_key: [u8; 32],
    pub(crate) listeners: Vec<ListenerInfo>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) keepers: Mutex<Vec<Keeper>>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) post: Post,
    pub(crate) set_level: LevelSetter,
    pub(crate) sandbox: Sandbox,
    /// Held while new settings are put in force.
    pub(crate) applying: Mutex<()>,
}

impl Running {
    /// New settings, built whole before any of them is put in force.
    fn apply(&self, new: Config) -> anyhow::Result<()> {
        let _one_at_a_time = self.applying.lock();
        let new = Arc::new(new);
        let old = self.config.load_full();
        let (was, is) = (Place::of(&old.directory, &old.paths.state)?, Place::of(&new.directory, &new.paths.state)?);
        // A directory that was moved is in its new place by now.
        let elsewhere = old.directory != new.directory && (was == is || self.movable.place() != is);
        if old.paths != new.paths || elsewhere {
            anyhow::bail!("paths and [directory] take effect only at a restart; the old configuration stays in force");
        }
        self.sandbox.admits(&new)?;
        let screen = Screen::new(&new, self.directory.clone(), self.dns.clone())?;
        let rates = Arc::new(UserRates::new(&new, self.directory.clone(), Some(self.notify.clone())));
        let policy = Arc::new(ResolvePolicy { srs: self.policy.load().srs.clone(), ..ResolvePolicy::from_config(&new) });
        let settings = Settings::new(new.clone(), screen, rates, policy.clone(), &self.certificates, self.scram_decoy_key)?;
        // A trial first: what comes after the relay must not fail, or half of the new file would be in force.
        CertificateStore::load(&new)?;
        (self.set_level)(&new.log.level)?;
        if let Err(error) = self.relay.reload(&new) {
            (self.set_level)(&old.log.level)?;
            return Err(error.into());
        }
        self.certificates.reload(&new)?;
        self.mailboxes.reload(&new);
        self.ingest.reconfigure(settings);
        self.policy.store(policy);
        if old.listen != new.listen {
            tracing::warn!("[listen] changed; sockets are bound anew only at a restart");
        }
        self.config.store(new);
        self.orders.reconsider();
        Ok(())
    }
}

impl Running {
    /// Uses the directory from where the new configuration says, if it was moved there.
    async fn follow_directory(&self, new: &Config) -> anyhow::Result<()> {
        let old = self.config.load_full();
        if old.paths != new.paths || old.directory == new.directory {
            return Ok(());
        }
        let to = Place::of(&new.directory, &new.paths.state)?;
        if self.movable.mirror().await.as_ref() == Some(&to) {
            self.movable.switch(&to).await?;
        }
        Ok(())
    }

    /// Nothing needs the operator.
    pub(crate) fn is_healthy(&self) -> bool {
        self.queue.health().healthy && self.problems().is_empty()
    }
}

#[async_trait::async_trait]
impl DaemonInfo for Running {
    fn listeners(&self) -> Vec<ListenerInfo> {
        self.listeners.clone()
    }

    fn certificates(&self) -> Vec<CertificateInfo> {
        let info = |c: pillarbox_ingest::certificates::CertificateInfo| CertificateInfo {
            name: c.name,
            not_after: c.not_after.format(&Rfc3339).unwrap_or_default(),
            self_signed: c.self_signed,
            names: c.names,
        };
        self.certificates.infos().into_iter().map(info).collect()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.directory.health().err().into_iter().chain(self.directory.repaired()).collect();
        if !self.mailboxes.is_healthy() {
            problems.push("stored mail could not be flushed to the disk; see to it, then restart the daemon".to_owned());
        }
        if !self.mailboxes.is_in_place() {
            problems.push(format!(
                "the mail folder {} is gone or was replaced while the daemon ran; mail waits: put it back (is it mounted?), then restart the daemon",
                self.config.load().paths.mail.display()
            ));
        }
        if !self.queue.has_lease() {
            problems.push("the database was not reached for so long that another node may have this one's queue; no mail is taken or delivered (directory.without_lease)".to_owned());
        }
        problems.extend(self.keepers.lock().iter().filter_map(|keeper| keeper.health().err()));
        let now = OffsetDateTime::now_utc();
        for certificate in self.certificates.infos() {
            let left = certificate.not_after - now;
            // Renewal comes with a third of its life left, so that a quarter says that it failed.
            let late = time::Duration::days(7).min((certificate.not_after - certificate.not_before) / 4);
            if left.is_negative() {
                problems.push(format!("the certificate of {} has expired; renew it and reload", certificate.name));
            } else if left < late && !certificate.self_signed {
                problems.push(format!("the certificate of {} ends in {} days; renew it", certificate.name, left.whole_days()));
            }
        }
        problems
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.relay.health().warnings;
        notes.extend(self.orders.notes());
        notes.extend(self.sandbox.note());
        notes
    }

    fn sandbox(&self) -> SandboxInfo {
        self.sandbox.info()
    }

    async fn reload(&self) -> Result<(), String> {
        let result = match Config::load(self.config_path.as_deref()) {
            Ok(new) => self.follow_directory(&new).await.and_then(|()| self.apply(new)),
            Err(error) => Err(error.into()),
        };
        match &result {
            Ok(()) => tracing::info!("configuration and certificates were reloaded"),
            Err(error) => tracing::error!("reload refused, the old configuration stays in force: {error:#}"),
        }
        result.map_err(|e| format!("{e:#}"))
    }

    async fn renew_certificates(&self) -> Result<Vec<String>, String> {
        self.orders.order_now(&self.config.load_full()).await.map_err(|e| format!("{e:#}"))
    }

    async fn send_tls_reports(&self) -> Result<usize, String> {
        self.relay.send_tls_reports(OffsetDateTime::now_utc(), &self.post.for_tls()).await.map_err(|e| e.to_string())
    }
}
