//! Every reply that this room gives in its own words, in one table: code, enhanced code, and a reason a stranger's postmaster can act on.
//!
//! What a remote host says is passed on unchanged; these stand where no host could be asked.

use pillarbox_smtp::{EnhancedCode, Reply};

fn transient(subject: u16, detail: u16, text: impl Into<String>) -> Reply {
    Reply::new(451, EnhancedCode(4, subject, detail), text)
}

fn permanent(subject: u16, detail: u16, text: impl Into<String>) -> Reply {
    Reply::new(550, EnhancedCode(5, subject, detail), text)
}

/// RFC 7505 §3: the domain says that it takes no mail.
pub(crate) fn null_mx(domain: &str) -> Reply {
    Reply::new(556, EnhancedCode(5, 1, 10), format!("The domain {domain} accepts no mail (null MX)"))
}

/// The domain does not exist.
pub(crate) fn no_such_domain(domain: &str) -> Reply {
    permanent(1, 2, format!("The domain {domain} does not exist"))
}

/// No MX names a host with an address.
pub(crate) fn no_host(domain: &str) -> Reply {
    permanent(4, 4, format!("The domain {domain} has no mail host with an address"))
}

/// Every address lies in `relay.deny_networks`.
pub(crate) fn denied(domain: &str) -> Reply {
    permanent(4, 4, format!("All mail hosts of {domain} are in networks that this server never relays to"))
}

/// RFC 5321 §5.1: we are the best MX, and the directory does not know the domain.
pub(crate) fn loops_back(domain: &str) -> Reply {
    Reply::new(554, EnhancedCode(5, 4, 6), format!("Mail for {domain} loops back to this server, which does not serve the domain"))
}

/// The DNS gave no usable answer.
pub(crate) fn dns_failure(name: &str, why: &str) -> Reply {
    transient(4, 3, format!("The look-up of {name} failed: {why}"))
}

/// DNSSEC validation failed (RFC 7672 §2.1.1).
pub(crate) fn bogus(name: &str) -> Reply {
    transient(7, 5, format!("The DNS answer for {name} failed DNSSEC validation"))
}

/// The configuration names no such next hop any more.
pub(crate) fn unknown_destination() -> Reply {
    transient(3, 5, "The route chosen for this message is no longer configured")
}

/// A network failure while talking to a host.
pub(crate) fn unreachable(host: &str, why: &str) -> Reply {
    transient(4, 1, format!("{host}: {why}"))
}

/// The connection broke in the middle of a session.
pub(crate) fn lost(host: &str, phase: &str, why: &str) -> Reply {
    transient(4, 2, format!("{host}: connection lost {phase}: {why}"))
}

/// The host said something that is no SMTP reply.
pub(crate) fn garbled(host: &str, phase: &str, why: &str) -> Reply {
    transient(5, 0, format!("{host}: no proper reply {phase}: {why}"))
}

/// The policy of the destination demands TLS that could not be had.
pub(crate) fn tls_required(host: &str, policy: &str, why: &str) -> Reply {
    transient(7, 5, format!("{host}: {policy} demands secure TLS: {why}"))
}

/// More bytes than the reply to STARTTLS: somebody injects (CVE-2011-0411).
pub(crate) fn injected(host: &str) -> Reply {
    transient(7, 0, format!("{host}: more than its reply was sent before TLS started; connection abandoned"))
}

/// A password may only travel over verified TLS.
pub(crate) fn auth_needs_tls(host: &str, why: &str) -> Reply {
    transient(7, 0, format!("{host}: the password is not sent without verified TLS: {why}"))
}

/// No common SASL mechanism.
pub(crate) fn no_mechanism(host: &str) -> Reply {
    transient(7, 0, format!("{host} offers no AUTH mechanism that this server can use"))
}

/// Logging in failed; it may be put right in the configuration, so mail waits.
pub(crate) fn auth_refused(host: &str, reply: &Reply) -> Reply {
    transient(7, 8, format!("{host} refused our login: {reply}"))
}

/// The password file of a smarthost cannot be read.
pub(crate) fn no_password(host: &str, why: &str) -> Reply {
    transient(3, 5, format!("The password for {host} cannot be read: {why}"))
}

/// RFC 8689 §4.2.1.
pub(crate) fn require_tls(host: &str) -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 30), format!("REQUIRETLS needed: {host} cannot be reached with verified TLS and REQUIRETLS"))
}

/// RFC 1870 §6.1: the host announced a limit below the message's size.
pub(crate) fn too_large(host: &str, size: u64, limit: u64) -> Reply {
    Reply::new(552, EnhancedCode(5, 3, 4), format!("Message of {size} octets is too large for {host}, which accepts {limit}"))
}

/// RFC 6531 §3.4.
pub(crate) fn needs_smtputf8(host: &str) -> Reply {
    permanent(6, 7, format!("{host} does not support SMTPUTF8, which this message needs"))
}

/// RFC 6152 §3: conversion was needed and impossible.
pub(crate) fn cannot_convert(host: &str, why: &str) -> Reply {
    Reply::new(554, EnhancedCode(5, 6, 3), format!("{host} takes less than this message needs, and it cannot be converted: {why}"))
}

/// RFC 8461 §5: the domain's policy does not name this host.
pub(crate) fn not_in_policy(host: &str) -> Reply {
    transient(7, 5, format!("{host} is not among the hosts that the domain's MTA-STS policy allows"))
}

/// RFC 2852 §4.1.4.1: the message was to be returned when late, and it is.
pub(crate) fn deliver_by_passed() -> Reply {
    Reply::new(554, EnhancedCode(5, 4, 7), "The time to deliver this message by has passed")
}

/// RFC 2852 §4.1.4.2: a message to be returned when late may not go to a host that does not promise it.
pub(crate) fn no_deliver_by(host: &str) -> Reply {
    Reply::new(554, EnhancedCode(5, 3, 3), format!("{host} does not support DELIVERBY in time, which this message demands"))
}

/// Our own store failed to give the body.
pub(crate) fn body_unreadable(why: &str) -> Reply {
    transient(3, 0, format!("The stored message cannot be read: {why}"))
}
