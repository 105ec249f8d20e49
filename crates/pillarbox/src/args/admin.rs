//! Verbs about the server itself: setup, DNS, certificates, configuration, reports, backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::complete;

/// `pillarbox setup`.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// The domain to host
    pub(crate) domain: String,
    /// First user; default: postmaster at the domain stays an alias of nobody
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,
    /// Name of this machine in the outside world
    #[arg(long, value_name = "H")]
    pub(crate) hostname: Option<String>,
    /// Order a certificate from Let's Encrypt: needs port 80 from outside, and the hostname in DNS
    #[arg(long, conflicts_with = "certificate")]
    pub(crate) acme: bool,
    /// Use this certificate (PEM, with the intermediate ones)
    #[arg(long, value_name = "FILE", requires = "private_key")]
    pub(crate) certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(crate) private_key: Option<PathBuf>,
    /// Read the first user's password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Ask nothing: take what was found, generate the password
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `pillarbox dkim`.
#[derive(Debug, Subcommand)]
pub(crate) enum DkimVerb {
    /// Keys of a domain and their DNS records
    List {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
    },
    /// Make new keys; they sign once DNS has had time to learn them, the old ones retire then
    Rotate {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
        /// Sign with the new keys at once
        #[arg(long)]
        now: bool,
    },
}

/// `pillarbox dns`.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsVerb {
    /// The records to publish, as zone-file lines
    Records {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
    },
    /// Look them up; each line ok, missing or wrong; exit 1 if any is not ok
    Check {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
    },
}

/// `pillarbox tls`.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsVerb {
    /// Certificates that are served and when they end
    Status,
    /// Order new certificates now (ACME)
    Renew,
}

/// `pillarbox config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Try the configuration; each problem with file, line and key
    Check,
    /// The configuration in force, secrets masked
    Show,
    /// Every key with its default, as a commented file
    Defaults,
    /// Every key, as a page of Markdown
    #[command(hide = true)]
    Reference,
    /// What a key does
    Explain {
        /// The key, such as limits.message_size
        #[arg(add = ArgValueCandidates::new(complete::keys))]
        key: String,
    },
}

/// `pillarbox report`.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportVerb {
    /// DMARC aggregate reports
    Dmarc,
    /// TLS reports
    Tls {
        #[command(subcommand)]
        verb: Option<TlsReportVerb>,
    },
}

/// `pillarbox report tls`.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsReportVerb {
    /// Send our own reports about finished days now, to those who ask for them; the daemon does it by itself in the first hours of each day
    Send,
}

/// `pillarbox backup`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Write a backup while the server runs
    Create {
        /// The file to write; it must not exist
        file: PathBuf,
        /// Keep the mailboxes too
        #[arg(long)]
        with_mail: bool,
    },
    /// Read a backup to its end and compare its checksums
    Verify {
        /// The backup
        file: PathBuf,
    },
}

/// `pillarbox node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Each node: how it is, when it was heard of, how full its queue is
    List {
        /// Those too whose queue was taken over
        #[arg(long)]
        all: bool,
    },
    /// Forget one that will not come back and left no mail
    Remove {
        /// Its name, or the id that --json shows
        node: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `pillarbox directory`.
#[derive(Debug, Subcommand)]
pub(crate) enum DirectoryVerb {
    /// Where it is kept, and how much is in it
    Show,
    /// Move it, while the server runs: to a database that several servers share, or back into a folder of one
    Migrate {
        /// postgres://…, sled, or sled:/PATH
        #[arg(long, value_name = "WHERE", required_unless_present = "to_file")]
        to: Option<String>,
        /// The same on the first line of a file, so that a password does not show among the processes
        #[arg(long, value_name = "FILE", conflicts_with = "to")]
        to_file: Option<PathBuf>,
        /// Do not ask before changing what is there already
        #[arg(long)]
        yes: bool,
    },
}
