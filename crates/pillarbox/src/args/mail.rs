//! Verbs about domains, users, aliases and mail.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
        domain: String,
    },
    /// Take no more mail for it; its users and aliases go too, stored mail stays
    Remove {
        /// The domain
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
        address: String,
    },
    /// Remove a user; stored mail stays
    Remove {
        /// The address
        address: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Refuse logins, and mail as mailbox.suspended says
    Suspend {
        /// The address
        address: String,
    },
    /// The way back from suspend
    Resume {
        /// The address
        address: String,
    },
    /// All users, or those of a domain
    List {
        /// The domain
        domain: Option<String>,
    },
    /// Set the password
    Passwd {
        /// The address
        address: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Set the quota
    Quota {
        /// The address
        address: String,
        /// A size such as 2G, none, or default for the configured one
        size: String,
    },
}

/// `pillarbox alias`.
#[derive(Debug, Subcommand)]
pub(crate) enum AliasVerb {
    /// Add targets to an alias; @DOMAIN is the catch-all
    Add {
        /// The address, or @DOMAIN
        address: String,
        /// Where its mail goes, here or elsewhere
        #[arg(required = true)]
        targets: Vec<String>,
        /// It is fine when all of it is there already
        #[arg(long)]
        if_missing: bool,
    },
    /// Remove targets, or the whole alias
    Remove {
        /// The address, or @DOMAIN
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
        domain: Option<String>,
    },
}

/// `pillarbox app-password`.
#[derive(Debug, Subcommand)]
pub(crate) enum AppPasswordVerb {
    /// Make a password for one device and print it once
    Add {
        /// Whose
        address: String,
        /// What you call the device
        label: String,
    },
    /// Labels, and when each was last used
    List {
        /// Whose
        address: String,
    },
    /// Take one back
    Revoke {
        /// Whose
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
        address: String,
    },
    /// Answer no more
    Clear {
        /// Whose
        address: String,
    },
}
