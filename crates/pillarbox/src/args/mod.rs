//! The command line as types; help texts, manual pages and completions are made from them.

mod admin;
mod mail;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    /// A glance: listeners, certificates, queue, disk; exit 1 when something is wrong
    Status,
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
    /// What would happen to mail for an address, step by step, without sending any
    Route {
        /// The address
        address: String,
    },
    /// The configuration
    #[command(subcommand)]
    Config(ConfigVerb),
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
