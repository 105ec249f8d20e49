//! What this room needs of the configuration, parsed once.

use std::collections::HashMap;
use std::sync::Arc;

use pillarbox_config::Config;
use pillarbox_smtp::Domain;

use crate::maildir::{FolderName, HostLabel};
use crate::way::Way;

/// The parts of the configuration that deliveries read, replaced as a whole at a reload.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) hostname: String,
    pub(crate) host: HostLabel,
    pub(crate) delimiter: String,
    /// Octets; `None` is no bound.
    pub(crate) default_quota: Option<u64>,
    /// Over quota is 552 for ever, not 452 for now.
    pub(crate) reject_over_quota: bool,
    /// Mail for suspended users waits instead of being refused.
    pub(crate) hold_suspended: bool,
    pub(crate) junk_folder: FolderName,
    pub(crate) deliver_to: Arc<Way>,
    pub(crate) deliver_to_domains: HashMap<Domain, Arc<Way>>,
}

impl Settings {
    /// Values that make no sense were refused when the configuration was loaded; where one slips through, the safe reading is taken: no quota, the inbox
    /// for junk, the Maildir.
    pub(crate) fn new(config: &Config) -> Self {
        let mailbox = &config.mailbox;
        let domains = mailbox.deliver_to_domains.iter();
        Self {
            hostname: config.hostname.clone(),
            host: HostLabel::new(&config.hostname),
            delimiter: mailbox.recipient_delimiter.clone(),
            default_quota: quota_text(&mailbox.default_quota),
            reject_over_quota: mailbox.over_quota.eq_ignore_ascii_case("reject"),
            hold_suspended: mailbox.suspended.eq_ignore_ascii_case("hold"),
            junk_folder: FolderName::new(&mailbox.junk_folder).unwrap_or(FolderName::Inbox),
            deliver_to: Arc::new(Way::new(&mailbox.deliver_to).unwrap_or(Way::Maildir)),
            deliver_to_domains: domains.filter_map(|(domain, way)| Some((Domain::new(domain).ok()?, Arc::new(Way::new(way)?)))).collect(),
        }
    }
}

/// `"none"` or a size.
fn quota_text(text: &str) -> Option<u64> {
    text.parse::<pillarbox_config::ByteSize>().ok().map(|size| size.bytes())
}
