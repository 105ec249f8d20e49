//! The command line as types; help texts, manual pages and completions are made from them.

mod admin;
mod mail;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::complete;

pub(crate) use admin::*;
pub(crate) use mail::*;

/// Administers a Pillarbox mail server.
#[derive(Debug, Parser)]
#[command(name = "pillarbox", version, about, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 not found, 4 exists already, 69 daemon unreachable and the database locked."
)]
pub(crate) struct Args {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", env = "PILLARBOX_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// First run: configuration, domain, first user, DKIM keys, certificate, DNS records to publish
    Setup(Setup),
    /// A glance: listeners, certificates, queue, disk; exit 1 when something is wrong
    Status,
    /// Probe everything, or one part; each line ok, warn or FAIL with the fix; exit 1 on any FAIL
    Check {
        /// system, dns, tls, relay, dovecot, or a domain; nothing: all of them
        #[arg(add = ArgValueCandidates::new(complete::checks))]
        what: Option<String>,
    },
    /// Domains this server takes mail for
    #[command(subcommand)]
    Domain(DomainVerb),
    /// Mailboxes and their owners
    #[command(subcommand)]
    User(UserVerb),
    /// Addresses that stand for others
    #[command(subcommand)]
    Alias(AliasVerb),
    /// Passwords for single devices
    #[command(subcommand)]
    AppPassword(AppPasswordVerb),
    /// Automatic replies
    #[command(subcommand)]
    Vacation(VacationVerb),
    /// Mail that is on its way
    #[command(subcommand)]
    Queue(QueueVerb),
    /// Servers that share this directory
    #[command(subcommand)]
    Node(NodeVerb),
    /// Where domains, users and aliases are kept
    #[command(subcommand)]
    Directory(DirectoryVerb),
    /// What would happen to mail for an address, step by step, without sending any
    Route {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
    /// A message's whole life, from the log of events
    Trace {
        /// A queue id, a Message-ID or an address
        what: String,
        /// Most events to show, the newest
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// DKIM keys
    #[command(subcommand)]
    Dkim(DkimVerb),
    /// DNS records
    #[command(subcommand)]
    Dns(DnsVerb),
    /// Certificates
    #[command(subcommand)]
    Tls(TlsVerb),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// All domains, users, aliases and credentials as readable TOML
    Export,
    /// The way back from `export`; applying twice changes nothing
    Apply {
        /// File with the TOML; "-" for standard input
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Also remove what the file does not name
        #[arg(long)]
        prune: bool,
        /// Do not ask before removing
        #[arg(long)]
        yes: bool,
    },
    /// Bring mail in from elsewhere
    #[command(subcommand)]
    Import(ImportVerb),
    /// Send a test message and follow it
    SendTest {
        /// To whom
        address: String,
        /// From whom; default: postmaster of the first domain
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
    },
    /// Reports from other servers about our mail
    #[command(subcommand)]
    Report(ReportVerb),
    /// Keep everything in one file
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Put back what `backup create` kept
    Restore {
        /// The backup
        file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Deliver a message on standard input to a mailbox (for getmail, fetchmail, another MTA)
    Deliver {
        /// The mailbox
        #[arg(long, value_name = "ADDRESS", add = ArgValueCandidates::new(complete::users))]
        to: String,
        /// Envelope sender; default: the Return-Path field, or none
        #[arg(long, value_name = "SENDER")]
        from: Option<String>,
    },
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder
        dir: PathBuf,
    },
}
