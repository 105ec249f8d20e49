//! Verbs about the server itself: setup, DNS, certificates, configuration, reports, backups.

use clap::Subcommand;

/// `pillarbox config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Try the configuration; each problem with file, line and key
    Check,
    /// The configuration in force, secrets masked
    Show,
    /// Every key with its default, as a commented file
    Defaults,
    /// What a key does
    Explain {
        /// The key, such as limits.message_size
        key: String,
    },
}
