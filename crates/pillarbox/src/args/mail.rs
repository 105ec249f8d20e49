//! Verbs about domains, users, aliases and mail.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::complete;

/// `pillarbox domain`.
#[derive(Debug, Subcommand)]
pub(crate) enum DomainVerb {
    /// Take mail for a domain from now on
    Add {
        /// The domain
        domain: String,
        /// It is fine when it is there already
        #[arg(long)]
        if_missing: bool,
    },
    /// One domain
    Show {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
    },
    /// Take no more mail for it; its users and aliases go too, stored mail stays
    Remove {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// All domains
    List,
}

/// Where a password comes from; without either option it is asked for twice.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub(crate) struct PasswordSource {
    /// Read one line of standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Make one and print it once
    #[arg(long)]
    pub(crate) generate: bool,
}

/// `pillarbox user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Add a mailbox and its owner
    Add {
        /// The address
        address: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Quota: a size such as 2G, or none
        #[arg(long, value_name = "SIZE")]
        quota: Option<String>,
        /// Display name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// A further name that logs in as this user
        #[arg(long = "login", value_name = "ADDRESS")]
        logins: Vec<String>,
        /// It is fine when it is there already
        #[arg(long)]
        if_missing: bool,
    },
    /// One user
    Show {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
    /// Remove a user; stored mail stays
    Remove {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Refuse logins, and mail as mailbox.suspended says
    Suspend {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
    /// The way back from suspend
    Resume {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
    /// All users, or those of a domain
    List {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: Option<String>,
    },
    /// Set the password
    Passwd {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Set the quota
    Quota {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
        /// A size such as 2G, none, or default for the configured one
        size: String,
    },
    /// Add users from a passwd-file, CSV, or Postfix or Dovecot map, hashes included
    Import {
        /// The file; "-" for standard input
        file: PathBuf,
        /// passwd, csv or map; default: told from the file
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        /// Domain for names without one
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
    },
    /// All users with their hashes as CSV, as import reads it
    Export,
}

/// `pillarbox alias`.
#[derive(Debug, Subcommand)]
pub(crate) enum AliasVerb {
    /// Add targets to an alias; @DOMAIN is the catch-all
    Add {
        /// The address, or @DOMAIN
        address: String,
        /// Where its mail goes, here or elsewhere
        #[arg(required = true, add = ArgValueCandidates::new(complete::users))]
        targets: Vec<String>,
        /// It is fine when all of it is there already
        #[arg(long)]
        if_missing: bool,
    },
    /// Remove targets, or the whole alias
    Remove {
        /// The address, or @DOMAIN
        #[arg(add = ArgValueCandidates::new(complete::aliases))]
        address: String,
        /// Only these targets
        targets: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// All aliases, or those of a domain
    List {
        /// The domain
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: Option<String>,
    },
}

/// `pillarbox app-password`.
#[derive(Debug, Subcommand)]
pub(crate) enum AppPasswordVerb {
    /// Make a password for one device and print it once
    Add {
        /// Whose
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
        /// What you call the device
        label: String,
    },
    /// Labels, and when each was last used
    List {
        /// Whose
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
    /// Take one back
    Revoke {
        /// Whose
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
        /// Its label
        label: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `pillarbox vacation`.
#[derive(Debug, Subcommand)]
pub(crate) enum VacationVerb {
    /// Answer mail, once a week to each correspondent
    Set {
        /// Whose mail
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
        /// Subject of the reply
        #[arg(long)]
        subject: String,
        /// File with the text of the reply, UTF-8; "-" for standard input
        #[arg(long, value_name = "FILE")]
        text_file: PathBuf,
        /// First day, YYYY-MM-DD
        #[arg(long, value_name = "DATE")]
        from: Option<String>,
        /// Last day, YYYY-MM-DD
        #[arg(long, value_name = "DATE")]
        until: Option<String>,
    },
    /// The reply that is set
    Show {
        /// Whose
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
    /// Answer no more
    Clear {
        /// Whose
        #[arg(add = ArgValueCandidates::new(complete::users))]
        address: String,
    },
}

/// Which messages a queue verb means.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct QueueFilter {
    /// Only mail to this domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) to: Option<String>,
    /// Only mail from this address; <> for reports
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,
    /// Only held mail
    #[arg(long)]
    pub(crate) held: bool,
}

/// `pillarbox queue`.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueVerb {
    /// Messages that wait, and why in the remote's own words
    List {
        #[command(flatten)]
        filter: QueueFilter,
        /// Of all servers that share the directory
        #[arg(long)]
        all_nodes: bool,
    },
    /// One message's envelope
    Show {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::messages))]
        id: String,
    },
    /// One message's bytes
    Cat {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::messages))]
        id: String,
    },
    /// Try now
    Retry {
        /// Ids
        #[arg(required_unless_present_any = ["all", "to"], add = ArgValueCandidates::new(complete::messages))]
        ids: Vec<String>,
        /// The whole queue
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// All mail to this domain
        #[arg(long, value_name = "DOMAIN", conflicts_with = "ids")]
        to: Option<String>,
    },
    /// Do not try until released
    Hold {
        /// Ids
        #[arg(required = true, add = ArgValueCandidates::new(complete::messages))]
        ids: Vec<String>,
    },
    /// The way back from hold
    Release {
        /// Ids
        #[arg(required = true, add = ArgValueCandidates::new(complete::messages))]
        ids: Vec<String>,
    },
    /// Throw away; nobody is told
    Remove {
        /// Ids
        #[arg(required = true, add = ArgValueCandidates::new(complete::messages))]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// One line a destination
    Summary,
    /// Take over the queue of a server that is gone
    Evacuate {
        /// Its state folder or queue folder, as this machine sees it
        #[arg(value_name = "NODE-DIR")]
        folder: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `pillarbox import`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportVerb {
    /// Mail from a Maildir, its folders and flags included
    Maildir(ImportArgs),
    /// Mail from an mbox file
    Mbox(ImportArgs),
}

/// What both imports need.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// Where the mail is
    pub(crate) path: PathBuf,
    /// Whose mailbox it goes to
    #[arg(long, value_name = "ADDRESS", add = ArgValueCandidates::new(complete::users))]
    pub(crate) to: String,
    /// Into this folder instead of the inbox
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<String>,
}
