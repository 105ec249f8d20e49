//! Every reply the screen gives, in one table: code, enhanced code (RFC 3463, RFC 7372) and a reason that a stranger's postmaster can act on.

use std::net::IpAddr;

use pillarbox_smtp::{Domain, EnhancedCode, Mailbox, Reply};

/// The client's address is on the configured deny list.
pub fn client_denied(client: IpAddr) -> Reply {
    Reply::new(
        550,
        EnhancedCode(5, 7, 1),
        format!("Mail from [{client}] is not accepted here; its postmaster may write to ours from elsewhere"),
    )
}

/// The HELO name is on the configured deny list.
pub fn helo_denied() -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 1), "Mail from a host of this name is not accepted here")
}

/// The envelope sender is on the configured deny list.
pub fn sender_denied() -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 1), "Mail from this sender is not accepted here")
}

/// Too many connections from one client: the session closes after this.
pub fn connection_rate() -> Reply {
    Reply::new(421, EnhancedCode(4, 7, 0), "Too many connections from your address; try again in a few minutes")
}

/// Too many messages from one client.
pub fn message_rate() -> Reply {
    Reply::new(450, EnhancedCode(4, 7, 1), "Too many messages from your address; try again in a few minutes")
}

/// Too many recipients from one client.
pub fn recipient_rate() -> Reply {
    Reply::new(450, EnhancedCode(4, 7, 1), "Too many recipients from your address; try again in a few minutes")
}

/// Too many messages from one envelope sender.
pub fn sender_rate() -> Reply {
    Reply::new(450, EnhancedCode(4, 7, 1), "Too many messages from this sender; try again later")
}

/// Too many messages to one recipient (RFC 3463: 4.2.1, the mailbox takes none just now).
pub fn mailbox_rate() -> Reply {
    Reply::new(450, EnhancedCode(4, 2, 1), "Too many messages to this recipient; try again later")
}

/// The sender's domain does not exist (RFC 3463: 5.1.8, bad sender's system address).
pub fn sender_domain_unknown(domain: &Domain) -> Reply {
    Reply::new(550, EnhancedCode(5, 1, 8), format!("The sender's domain {domain} does not exist, so no answer could reach it"))
}

/// The sender's domain publishes a null MX (RFC 7505 §4.2).
pub fn sender_null_mx(domain: &Domain) -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 27), format!("The sender's domain {domain} says that it takes no mail (null MX)"))
}

/// A block list names the client.
pub fn listed(client: IpAddr, zone: &str, text: Option<&str>) -> Reply {
    let reason = text.map(|t| format!(": {t}")).unwrap_or_default();
    Reply::new(550, EnhancedCode(5, 7, 1), format!("Your address [{client}] is listed by {zone}{reason}"))
}

/// Greylisting: not seen before.
pub fn greylisted(seconds: u64) -> Reply {
    Reply::new(451, EnhancedCode(4, 7, 1), format!("Not heard of you before; please try again in {} minutes", seconds.div_ceil(60).max(1)))
}

/// DMARC: the From domain asks for refusal (RFC 7489 §10.3).
pub fn dmarc(domain: &str) -> Reply {
    Reply::new(
        550,
        EnhancedCode(5, 7, 1),
        format!("Neither SPF nor DKIM shows that this message comes from {domain}, whose DMARC policy asks to refuse such mail"),
    )
}

/// More than one From field (RFC 5322 §3.6): nobody can say who the author is.
pub fn several_from_fields() -> Reply {
    Reply::new(550, EnhancedCode(5, 6, 0), "The message has more than one From field (RFC 5322 section 3.6), so its author is in doubt")
}

/// A header section that no honest message has, and behind which an author could hide from DMARC.
pub fn header_too_large() -> Reply {
    Reply::new(550, EnhancedCode(5, 6, 0), "The header of the message is too large: more than 2000 fields, or more than 1 MiB")
}

/// The score is over `screen.reject_score`.
pub fn score() -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 1), "The message looks like spam and is not accepted here")
}

/// A milter rejects without words of its own.
pub fn milter_reject() -> Reply {
    Reply::new(550, EnhancedCode(5, 7, 1), "The message was refused by a content filter")
}

/// A milter asks to try again, or failed where `on_failure` is `tempfail`.
pub fn milter_tempfail() -> Reply {
    Reply::new(451, EnhancedCode(4, 7, 1), "The message could not be checked just now; please try again later")
}

/// A user is over `submission.rate_per_user`.
pub fn user_rate(user: &Mailbox, rate: &str) -> Reply {
    Reply::new(450, EnhancedCode(4, 7, 1), format!("{user} has sent to as many recipients as is allowed ({rate}); try again later"))
}

/// A user is over `submission.new_recipients_per_user`.
pub fn user_new_recipients(user: &Mailbox, rate: &str) -> Reply {
    Reply::new(450, EnhancedCode(4, 7, 1), format!("{user} has written to as many new recipients as is allowed ({rate}); try again later"))
}
