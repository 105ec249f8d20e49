//! The configuration as types. Each field's doc comment is its reference text; `defaults.rs` holds the contract's defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Rate, duration_text};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name in banner, EHLO and Received; default: the machine's fully qualified name.
    pub hostname: String,
    /// Folders.
    pub paths: Paths,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// Certificates and versions.
    pub tls: Tls,
    /// Logging in.
    pub auth: Auth,
    /// Where domains, users and aliases are kept.
    pub directory: DirectoryConfig,
    /// Mailboxes.
    pub mailbox: MailboxConfig,
    /// The queue.
    pub queue: QueueConfig,
    /// Mail to the world.
    pub relay: Relay,
    /// Name servers.
    pub dns: Dns,
    /// Judging mail from outside.
    pub screen: Screen,
    /// Mail from our own users.
    pub submission: Submission,
    /// Logs.
    pub log: Log,
    /// What the daemon shuts itself in with.
    pub security: Security,
}

/// `[paths]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// State of the daemon: directory.sled/ queue/ tls/ dkim/ drop/.
    pub state: PathBuf,
    /// Mail: `MAIL/<domain>/<localpart>/Maildir`.
    pub mail: PathBuf,
    /// Runtime files: control.sock.
    pub runtime: PathBuf,
}

/// `[listen]`: each a list of `"[::]:25"`, `"127.0.0.1:2525"`, `"unix:/path"`, `"systemd:NAME"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// MTA service, port 25.
    pub smtp: Vec<String>,
    /// Submission with STARTTLS, port 587.
    pub submission: Vec<String>,
    /// Submission with TLS from the first byte, port 465.
    pub submissions: Vec<String>,
    /// LMTP service.
    pub lmtp: Vec<String>,
    /// HTTP: autoconfig, MTA-STS policy, ACME http-01, /healthz.
    pub http: Vec<String>,
    /// The same pages over TLS, with the certificates of `[tls]`: what others ask for the MTA-STS policy.
    pub https: Vec<String>,
    /// Prometheus metrics.
    pub metrics: Vec<String>,
    /// Networks whose connections must open with a PROXY v1/v2 header.
    pub proxy_protocol_from: Vec<IpNet>,
}

impl Listen {
    /// Every service by its key, with its addresses.
    pub fn services(&self) -> [(&'static str, &[String]); 7] {
        [
            ("smtp", &self.smtp),
            ("submission", &self.submission),
            ("submissions", &self.submissions),
            ("lmtp", &self.lmtp),
            ("http", &self.http),
            ("https", &self.https),
            ("metrics", &self.metrics),
        ]
    }
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message in octets.
    pub message_size: ByteSize,
    /// Recipients a transaction.
    pub recipients: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections per IPv4 address or IPv6 /64.
    pub connections_per_client: usize,
    /// Longest wait for a command.
    #[serde(with = "duration_text")]
    pub command_timeout: Duration,
    /// Longest DATA phase.
    #[serde(with = "duration_text")]
    pub data_timeout: Duration,
    /// Errors before 421.
    pub protocol_errors: u32,
    /// Wait before the banner on port 25, with early-talker detection when above 0.
    #[serde(with = "duration_text")]
    pub banner_delay: Duration,
    /// Memory for message bodies of all sessions together; beyond it bodies go to files at once.
    pub body_memory: ByteSize,
    /// Free space to keep on the file systems of state and mail; below it MAIL is answered 452 4.3.1.
    pub free_space: ByteSize,
    /// Received header fields before a message counts as looping.
    pub hops: usize,
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM chain; empty: a self-signed one made with rcgen and kept in STATE/tls.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
    /// "1.2" or "1.3".
    pub minimum_version: String,
    /// Further pairs, chosen by SNI.
    pub certificates: Vec<CertificatePair>,
    /// Ordering certificates from an ACME authority.
    pub acme: Option<Acme>,
}

/// One of `[[tls.certificates]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificatePair {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
}

/// `[tls.acme]` (RFC 8555).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// `mailto:` address given to the authority.
    pub contact: String,
    /// Directory URL.
    pub directory: String,
    /// "http-01" or "dns-01".
    pub challenge: String,
    /// Names to order; empty: the hostname. Names of hosted domains come by themselves where `listen.https` is set.
    pub domains: Vec<String>,
    /// Folder served by another web server at /.well-known/acme-challenge/, for http-01 without our own listener.
    pub webroot: PathBuf,
    /// Program called as `HOOK add|remove NAME VALUE` for dns-01.
    pub dns_hook: PathBuf,
    /// Name server for RFC 2136 updates, `host:port`, for dns-01.
    pub dns_update_server: String,
    /// TSIG key for RFC 2136: `name:algorithm:base64` in this file.
    pub dns_update_key_file: PathBuf,
    /// Extra root certificates (PEM) to trust for the authority's own HTTPS; for tests and private authorities.
    pub ca_file: PathBuf,
    /// Renew when the certificate has less than this left.
    #[serde(with = "duration_text")]
    pub renew_before: Duration,
}

/// `[auth]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS; none is offered without TLS.
    pub mechanisms: Vec<String>,
    /// Cost of new password hashes.
    pub argon2: Argon2Cost,
    /// Failures per client in `failure_window`, then 421 for `failure_window`.
    pub failures_per_client: u32,
    /// See `failures_per_client`.
    #[serde(with = "duration_text")]
    pub failure_window: Duration,
}

/// `[auth] argon2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

/// `[directory]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoryConfig {
    /// "sled" or "postgres".
    pub backend: String,
    /// `postgres://…`; its password is masked when shown.
    pub url: String,
    /// With PostgreSQL: how long known users are served from memory while the database is away.
    #[serde(with = "duration_text")]
    pub serve_stale: Duration,
    /// With PostgreSQL: how long a node that says nothing keeps its claim to its queue folder.
    #[serde(with = "duration_text")]
    pub node_lease: Duration,
    /// With PostgreSQL: whether a node whose claim has run out goes on with its queue (`"continue"`) or not (`"stop"`).
    pub without_lease: String,
    /// With PostgreSQL: memory for what was looked up.
    pub cache_memory: ByteSize,
    /// With PostgreSQL: connections that ask and write; one more listens.
    pub connections: usize,
}

/// `[mailbox]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailboxConfig {
    /// Quota of users without their own: a size or "none".
    pub default_quota: String,
    /// Separates user and detail in `user+detail`; empty: none.
    pub recipient_delimiter: String,
    /// Folder for junk.
    pub junk_folder: String,
    /// "maildir", "lmtp:unix:/path" or "lmtp:HOST:PORT".
    pub deliver_to: String,
    /// The same per domain, for those that differ.
    pub deliver_to_domains: BTreeMap<String, String>,
    /// A full mailbox answers 452 (`"defer"`) or 552 (`"reject"`).
    pub over_quota: String,
    /// Mail for a suspended user is refused (`"reject"`) or kept in the queue (`"hold"`).
    pub suspended: String,
}

/// `[queue]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// After this a message is returned.
    #[serde(with = "duration_text")]
    pub lifetime: Duration,
    /// After this the sender is told that it is late.
    #[serde(with = "duration_text")]
    pub delay_warning: Duration,
    /// Waits between attempts; the last repeats, with jitter.
    #[serde(with = "crate::units::duration_list")]
    pub retry: Vec<Duration>,
    /// A recipient unfinished after this moves from the journal to a file of its own.
    #[serde(with = "duration_text")]
    pub park_after: Duration,
    /// Size of a journal segment.
    pub segment_size: ByteSize,
}

/// `[relay]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// "smtps://user@host:465", "smtp://user@host:587".
    pub smarthost: String,
    /// File whose first line is the smarthost's password.
    pub smarthost_password_file: PathBuf,
    /// Port for MX delivery.
    pub port: u16,
    /// Connections at once to one destination.
    pub per_destination: usize,
    /// One per family at most.
    pub source_addresses: Vec<std::net::IpAddr>,
    /// Exceptions by recipient domain or sender.
    pub routes: Vec<RelayRoute>,
    /// Use DANE where DNSSEC proves it.
    pub dane: bool,
    /// Use MTA-STS.
    pub mta_sts: bool,
    /// Never relay to these.
    pub deny_networks: Vec<IpNet>,
    /// Extra root certificates (PEM) to trust for verified TLS to smarthosts and MTA-STS hosts.
    pub ca_file: PathBuf,
    /// Longest wait to connect.
    #[serde(with = "duration_text")]
    pub connect_timeout: Duration,
    /// Port of MTA-STS policy hosts; other than 443 only in tests.
    pub mta_sts_port: u16,
    /// Send TLS reports (RFC 8460) to domains that ask for them.
    pub tls_reports: bool,
}

/// One of `relay.routes`: exactly one of `domain` and `sender`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayRoute {
    /// Recipient domain, or `.example.net` for all below it.
    #[serde(default)]
    pub domain: Option<String>,
    /// Sender address or `@domain`.
    #[serde(default)]
    pub sender: Option<String>,
    /// "smtp://host:25", "smtps://user@host:465", "lmtp:host:port", "lmtp:unix:/path", "mx".
    pub via: String,
    /// File with the password, where `via` names a user.
    #[serde(default)]
    pub password_file: PathBuf,
}

/// `[dns]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Empty: the system's; e.g. "127.0.0.1:5353".
    pub servers: Vec<std::net::SocketAddr>,
    /// File with DNSKEY trust anchors in zone format; empty: the root's.
    pub trust_anchor: PathBuf,
}

/// `[screen]`: inbound, unauthenticated mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Screen {
    /// Check SPF.
    pub spf: bool,
    /// Verify DKIM.
    pub dkim: bool,
    /// "enforce", "report-only", "off".
    pub dmarc: String,
    /// Verify ARC chains.
    pub arc: bool,
    /// Block and allow lists.
    pub dnsbl: Vec<Dnsbl>,
    /// Greylisting.
    pub greylist: bool,
    /// "100/m" per client; empty: none.
    pub connection_rate: Rate,
    /// Messages per client network, such as "200/m"; empty: none.
    pub message_rate: Rate,
    /// Recipients per client network, such as "500/m"; empty: none.
    pub recipient_rate: Rate,
    /// Messages from one envelope sender, such as "100/h"; empty: none.
    pub sender_rate: Rate,
    /// Messages to one recipient, such as "300/h"; empty: none.
    pub mailbox_rate: Rate,
    /// Milters, asked in order.
    pub milter: Vec<Milter>,
    /// Networks, addresses (`user@host`) and domains never judged.
    pub allow: Vec<String>,
    /// Networks, HELO names, senders (`user@host`, `@domain`) always refused.
    pub deny: Vec<String>,
    /// Domains whose ARC seals are believed when DMARC fails.
    pub trusted_forwarders: Vec<String>,
    /// Send DMARC aggregate reports to those who ask for them.
    pub dmarc_reports: bool,
    /// Score at which a message is filed as junk.
    pub junk_score: f64,
    /// Score at which a message is refused; 0: never by score.
    pub reject_score: f64,
}

/// One of `screen.dnsbl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dnsbl {
    /// Zone, such as "zen.spamhaus.org".
    pub zone: String,
    /// "reject", "score" or "allow".
    #[serde(default = "Dnsbl::default_action")]
    pub action: String,
    /// Return codes that count, as addresses or networks; default 127.0.0.2–127.0.0.254, so that refusals (127.255.255.0/24) never do.
    #[serde(default)]
    pub codes: Vec<IpNet>,
    /// Points for "score".
    #[serde(default = "Dnsbl::default_score")]
    pub score: f64,
}

impl Dnsbl {
    fn default_action() -> String {
        "reject".into()
    }
    fn default_score() -> f64 {
        3.0
    }
}

/// One of `screen.milter`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Milter {
    /// "unix:/path" or "inet:HOST:PORT".
    pub address: String,
    /// "accept" or "tempfail".
    #[serde(default = "Milter::default_on_failure")]
    pub on_failure: String,
    /// Longest wait for one answer.
    #[serde(default = "Milter::default_timeout", with = "duration_text")]
    pub timeout: Duration,
}

impl Milter {
    fn default_on_failure() -> String {
        "tempfail".into()
    }
    fn default_timeout() -> Duration {
        Duration::from_secs(30)
    }
}

/// `[submission]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Submission {
    /// Recipients a user may send to, such as "500/h"; empty: none.
    pub rate_per_user: Rate,
    /// Recipients never written to before, per user; empty: none.
    pub new_recipients_per_user: Rate,
    /// Sign with the domain's DKIM keys.
    pub sign_dkim: bool,
    /// Run milters on submitted mail too.
    pub milter: bool,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// "error", "warn", "info", "debug", "trace", or tracing's filter syntax.
    pub level: String,
    /// "auto", "text", "json", "journald".
    pub format: String,
    /// Size of the event log that `pillarbox trace` reads; the oldest events go first.
    pub event_log_size: ByteSize,
}

/// `[security]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// "auto": as much of landlock and seccomp as the kernel has; "required": all of it or no start; "off".
    pub sandbox: String,
    /// Further folders that the daemon may read and write.
    pub folders: Vec<PathBuf>,
}
