//! Keys: `domain NUL local-part`, folded, so that a domain's rows lie together and in order. No address holds a control character.

use pillarbox_smtp::{Domain, Mailbox};

use crate::records::AliasAddress;

/// Key of a user, a credential, a login name, or an alias of one address.
pub(crate) fn mailbox(mailbox: &Mailbox) -> Vec<u8> {
    join(mailbox.domain.as_str(), &mailbox.local.key())
}

/// Key of an alias; the catch-all is the empty local part and so comes first.
pub(crate) fn alias(address: &AliasAddress) -> Vec<u8> {
    match address {
        AliasAddress::Mailbox(m) => mailbox(m),
        AliasAddress::CatchAll(d) => join(d.as_str(), ""),
    }
}

/// What all keys of a domain start with.
pub(crate) fn domain_prefix(domain: &Domain) -> Vec<u8> {
    join(domain.as_str(), "")
}

/// What the rows of `AliasesTo` for one target start with.
pub(crate) fn target_prefix(target: &Mailbox) -> Vec<u8> {
    let mut key = mailbox(target);
    key.push(1);
    key
}

/// Row of `AliasesTo`.
pub(crate) fn target_alias(target: &Mailbox, alias_key: &[u8]) -> Vec<u8> {
    let mut key = target_prefix(target);
    key.extend_from_slice(alias_key);
    key
}

fn join(domain: &str, local: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(domain.len() + local.len() + 1);
    key.extend_from_slice(domain.as_bytes());
    key.push(0);
    key.extend_from_slice(local.as_bytes());
    key
}
