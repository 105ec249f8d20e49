//! What all sessions share: the rooms they call on, and the settings in force.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::Config;
use pillarbox_directory::{Authenticator, Directory, ResolvePolicy};
use pillarbox_queue::Queue;
use pillarbox_screen::{Screen, Signer, UserRates};
use pillarbox_smtp::Mailbox;
use pillarbox_smtp::Reply;
use pillarbox_smtp::sasl::Mechanism;
use pillarbox_smtp::server::{Limits, Role, ServerConfig};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::certificates::CertificateStore;
use crate::tls;

/// Whether a mailbox takes another message of this size, asked at RCPT. The daemon answers from the deliverer's quota.
#[async_trait::async_trait]
pub trait MailboxCheck: Send + Sync {
    /// `Err` is the reply to give: 452 4.2.2 or 552 5.2.2.
    async fn admit(&self, user: &Mailbox, size: Option<u64>) -> Result<(), Reply>;
}

/// Is shown messages from outside that were accepted and that DMARC found to be what they claim, for the reports of others among them:
/// TLS (RFC 8460) and DMARC (RFC 9990). Must not block.
pub trait ReportIntake: Send + Sync {
    /// The whole message, as it came.
    fn offer(&self, message: bytes::Bytes);
}

/// Everything a session calls on. Made once by the daemon.
pub struct Rooms {
    /// Who is who.
    pub directory: Arc<dyn Directory>,
    /// Password checks.
    pub authenticator: Arc<Authenticator>,
    /// Where accepted mail goes.
    pub queue: Arc<Queue>,
    /// Quota at RCPT.
    pub mailboxes: Arc<dyn MailboxCheck>,
    /// DKIM and ARC signatures.
    pub signer: Arc<Signer>,
    /// Reports from others.
    pub reports: Arc<dyn ReportIntake>,
    /// The certificates served.
    pub certificates: Arc<CertificateStore>,
}

/// Settings that a reload replaces as a whole; a session keeps those it began with.
pub struct Settings {
    /// The configuration.
    pub config: Arc<Config>,
    /// Judges mail from outside.
    pub screen: Arc<Screen>,
    /// Outbound rates.
    pub user_rates: Arc<UserRates>,
    /// Route resolution.
    pub policy: Arc<ResolvePolicy>,
    pub(crate) acceptor: TlsAcceptor,
    /// By role, in the order of [`ROLES`].
    servers: [Arc<ServerConfig>; 4],
}

/// The order of `Settings::servers`.
const ROLES: [Role; 4] = [Role::Mta, Role::Submission, Role::SubmissionTls, Role::Lmtp];

/// Why settings cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Rustls refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Settings {
    /// Derives what sessions need from a configuration.
    pub fn new(
        config: Arc<Config>,
        screen: Arc<Screen>,
        user_rates: Arc<UserRates>,
        policy: Arc<ResolvePolicy>,
        certificates: &Arc<CertificateStore>,
        scram_decoy_key: [u8; 32],
    ) -> Result<Self, SettingsError> {
        let acceptor = tls::acceptor(certificates.clone(), &config.tls.minimum_version)?;
        let servers = ROLES.map(|role| Arc::new(server_config(role, &config, scram_decoy_key)));
        Ok(Self { config, screen, user_rates, policy, acceptor, servers })
    }

    /// TLS as a server with these settings, for services that are not SMTP.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    pub(crate) fn server(&self, role: Role) -> Arc<ServerConfig> {
        let [mta, submission, submissions, lmtp] = &self.servers;
        match role {
            Role::Mta => mta,
            Role::Submission => submission,
            Role::SubmissionTls => submissions,
            Role::Lmtp => lmtp,
        }
        .clone()
    }
}

fn server_config(role: Role, config: &Config, scram_decoy_key: [u8; 32]) -> ServerConfig {
    let mut server = ServerConfig::new(role, config.hostname.clone());
    server.limits = Limits {
        message_size: config.limits.message_size.bytes(),
        recipients: config.limits.recipients,
        protocol_errors: config.limits.protocol_errors,
        ..Limits::default()
    };
    server.tls_available = matches!(role, Role::Mta | Role::Submission);
    if role.is_submission() {
        server.mechanisms = config.auth.mechanisms.iter().filter_map(|name| Mechanism::from_name(name)).collect();
    }
    server.scram_decoy_key = scram_decoy_key;
    server
}

/// The receiving side of the daemon.
pub struct Ingest {
    /// What sessions call on.
    pub rooms: Rooms,
    settings: ArcSwap<Settings>,
    /// Connections open.
    pub admission: Arc<Admission>,
    /// Cancelled at shut-down.
    pub shutdown: CancellationToken,
    /// Octets of large messages that may be in memory at once, in KiB, while they are judged.
    pub(crate) large_messages: Semaphore,
    /// Permits of `large_messages` in all.
    pub(crate) large_permits: u32,
}

impl Ingest {
    /// Puts the rooms together.
    pub fn new(rooms: Rooms, settings: Settings, shutdown: CancellationToken) -> Arc<Self> {
        let budget = usize::try_from(settings.config.limits.body_memory.bytes() / 1024).unwrap_or(usize::MAX);
        // One message of the largest size must always fit, or it could never be judged.
        let largest = usize::try_from(settings.config.limits.message_size.bytes() / 1024).unwrap_or(usize::MAX);
        let permits = u32::try_from(budget.max(largest.saturating_add(64)).min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Arc::new(Self {
            rooms,
            settings: ArcSwap::from_pointee(settings),
            admission: Arc::new(Admission::default()),
            shutdown,
            large_messages: Semaphore::new(permits as usize),
            large_permits: permits,
        })
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Puts new settings in force for sessions that begin from now on.
    pub fn reconfigure(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }
}

/// Whether connections from this address must open with a PROXY header.
pub(crate) fn is_proxy(config: &Config, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    config.listen.proxy_protocol_from.iter().any(|network| network.contains(&peer))
}
