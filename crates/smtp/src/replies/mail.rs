//! Replies about a message: sender, recipients, parameters, content, taking responsibility.

use super::reply;
use crate::address::{AddressError, Domain, Mailbox};
use crate::reply::Reply;

/// 250 to MAIL.
pub fn sender_ok() -> Reply {
    reply(250, 2, 1, 0, "Sender accepted")
}

/// 250 to RCPT.
pub fn recipient_ok() -> Reply {
    reply(250, 2, 1, 5, "Recipient accepted")
}

/// 354 to DATA.
pub fn start_input() -> Reply {
    Reply::plain(354, "Send the message, then a line with a single dot")
}

/// 250 to a BDAT chunk that is not the last.
pub fn chunk_ok(octets: u64) -> Reply {
    reply(250, 2, 0, 0, format!("{octets} octets received"))
}

/// 250 at the end of a message: it is safe and ours.
pub fn queued(id: &str) -> Reply {
    reply(250, 2, 0, 0, format!("Accepted as {id}"))
}

/// 250 to one recipient of an LMTP message.
pub fn delivered(id: &str, recipient: &str) -> Reply {
    reply(250, 2, 1, 5, format!("{recipient} accepted as {id}"))
}

/// 503: no MAIL yet.
pub fn need_mail() -> Reply {
    reply(503, 5, 5, 1, "Say MAIL first")
}

/// 503: no RCPT yet.
pub fn need_rcpt() -> Reply {
    reply(503, 5, 5, 1, "Say RCPT first")
}

/// 554: every RCPT was refused.
pub fn no_valid_recipients() -> Reply {
    reply(554, 5, 5, 1, "No valid recipients")
}

/// 503: MAIL inside a transaction (RFC 5321 §4.1.4).
pub fn nested_mail() -> Reply {
    reply(503, 5, 5, 1, "A transaction is open already; RSET ends it")
}

/// 503: MAIL, RCPT or DATA between the chunks of a message (RFC 3030 §2).
pub fn between_chunks() -> Reply {
    reply(503, 5, 5, 1, "The message has begun with BDAT; go on with BDAT or RSET")
}

/// 503: a BDAT after one that failed (RFC 3030 §2).
pub fn chunk_after_failure() -> Reply {
    reply(503, 5, 5, 1, "This message was refused already; RSET starts anew")
}

/// 503: DATA with BODY=BINARYMIME (RFC 3030 §3).
pub fn binary_needs_bdat() -> Reply {
    reply(503, 5, 5, 1, "A BINARYMIME message must be sent by BDAT")
}

/// 501 to a MAIL whose path is none.
pub fn bad_sender(why: AddressError) -> Reply {
    reply(501, 5, 1, 7, format!("Bad sender: {why}; the form is MAIL FROM:<user@domain>"))
}

/// 501 to a RCPT whose path is none.
pub fn bad_recipient(why: AddressError) -> Reply {
    reply(501, 5, 1, 3, format!("Bad recipient: {why}; the form is RCPT TO:<user@domain>"))
}

/// 555: a parameter of an extension that is not offered, or of none (RFC 5321 §4.1.1.11).
pub fn unknown_parameter(verb: &str) -> Reply {
    reply(555, 5, 5, 4, format!("A parameter of {verb} is not known here"))
}

/// 501: a parameter given twice, without its value, or with an impossible one.
pub fn bad_parameter(keyword: &str) -> Reply {
    reply(501, 5, 5, 4, format!("The value of {keyword} is missing, malformed or given twice"))
}

/// 501: HOLDFOR or HOLDUNTIL beyond what FUTURERELEASE announces (RFC 4865 §5).
pub fn hold_too_long() -> Reply {
    reply(501, 5, 5, 4, "The message may not be held that long; EHLO says how long")
}

/// 501: BY= with less time than DELIVERBY announces (RFC 2852 §4).
pub fn deliver_by_too_soon() -> Reply {
    reply(501, 5, 5, 4, "BY= leaves too little time; EHLO says how much it takes")
}

/// 553: a non-ASCII address without SMTPUTF8 (RFC 6531 §3.5).
pub fn needs_smtputf8() -> Reply {
    reply(553, 5, 6, 7, "A non-ASCII address needs SMTPUTF8 at MAIL")
}

/// 552: larger than `message_size` (RFC 1870 §6).
pub fn message_too_large() -> Reply {
    reply(552, 5, 3, 4, "The message is larger than is taken here; SIZE in the EHLO reply says how much is")
}

/// 452: recipients over the limit; those before stand (RFC 5321 §4.5.3.1.10).
pub fn too_many_recipients() -> Reply {
    reply(452, 4, 5, 3, "Too many recipients; send the message to the others in another transaction")
}

/// 550, then closed with DATA: bare CR or LF in the message.
pub fn bare_line_end() -> Reply {
    reply(550, 5, 5, 2, "The message holds a bare CR or LF; lines must end in CRLF (RFC 5321 section 2.3.8)")
}

/// 550: a line over the limit.
pub fn text_line_too_long(limit: usize) -> Reply {
    reply(550, 5, 6, 0, format!("The message holds a line of more than {limit} octets; encode it in base64 or quoted-printable"))
}

/// 550: a NUL in the message.
pub fn nul_in_message() -> Reply {
    reply(550, 5, 6, 0, "The message holds a NUL octet; encode it in base64")
}

/// 552: a header section over the limit.
pub fn header_too_large() -> Reply {
    reply(552, 5, 3, 4, "The message's header section is too large")
}

/// 550: nobody of that name here.
pub fn unknown_recipient(recipient: &str) -> Reply {
    reply(550, 5, 1, 1, format!("<{recipient}>: no such user here"))
}

/// 550: not our domain, and the client has not logged in.
pub fn relay_denied(recipient: &str) -> Reply {
    reply(
        550,
        5,
        7,
        1,
        format!("<{recipient}>: relaying denied; this server does not serve that domain. Users must log in on port 465 or 587"),
    )
}

/// 550: the user exists and is suspended.
pub fn recipient_suspended(recipient: &str) -> Reply {
    reply(550, 5, 2, 1, format!("<{recipient}>: this mailbox is disabled"))
}

/// 550: the message looks like junk, and the address only forwards to other hosts.
pub fn junk_not_forwarded() -> Reply {
    reply(
        550,
        5,
        7,
        1,
        "The message looks like junk and the recipient's mail is forwarded elsewhere; write to the postmaster if that is wrong",
    )
}

/// 452: the mailbox is full; the sender should try again.
pub fn mailbox_full(recipient: &str) -> Reply {
    reply(452, 4, 2, 2, format!("<{recipient}>: the mailbox is full; try again later"))
}

/// 552: the mailbox is full, and mail for full ones is refused here.
pub fn mailbox_full_for_good(recipient: &str) -> Reply {
    reply(552, 5, 2, 2, format!("<{recipient}>: the mailbox is full"))
}

/// 550: aliases that lead in a circle.
pub fn alias_loop() -> Reply {
    reply(550, 5, 4, 6, "The address leads in a circle; our postmaster must mend its aliases")
}

/// 550: an alias that stands for more addresses than we follow.
pub fn alias_too_wide() -> Reply {
    reply(550, 5, 4, 6, "The address stands for more recipients than are allowed; our postmaster must mend its aliases")
}

/// 553: the user may not send as this address (RFC 6409 §6.1).
pub fn sender_not_owned(sender: &Mailbox) -> Reply {
    // The address may be non-ASCII; the writer turns what cannot be shown into `?`.
    reply(553, 5, 7, 1, format!("You may not send as <{sender}>; use an address of your own"))
}

/// 550: the sender's domain takes no mail (RFC 7505 §4.2).
pub fn sender_null_mx(domain: &Domain) -> Reply {
    reply(550, 5, 7, 27, format!("The sender's domain {domain} takes no mail (null MX), so nobody could be told of failures"))
}

/// 550: the sender's domain does not exist.
pub fn sender_domain_unknown(domain: &Domain) -> Reply {
    reply(550, 5, 1, 8, format!("The sender's domain {domain} does not exist in the DNS"))
}

/// 450: a client or user sends too much.
pub fn rate_limited() -> Reply {
    reply(450, 4, 7, 1, "Too much mail in a short time; try again later")
}

/// 554: the message has passed too many hosts, or this one before (RFC 5321 §6.3).
pub fn mail_loop() -> Reply {
    reply(554, 5, 4, 6, "Mail loop: the message has passed too many hosts")
}

/// 452: the disk is nearly full (RFC 1870 §6).
pub fn disk_full() -> Reply {
    reply(452, 4, 3, 1, "Not enough room to take a message just now; try again later")
}

/// 451: something of ours does not work at the moment.
pub fn try_later() -> Reply {
    reply(451, 4, 3, 0, "A local problem keeps us from taking this now; try again later")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn all(user: &Mailbox) -> Vec<Reply> {
        vec![
            sender_ok(),
            recipient_ok(),
            start_input(),
            chunk_ok(7),
            queued("4Zx"),
            delivered("4Zx", "ann@example.org"),
            need_mail(),
            need_rcpt(),
            no_valid_recipients(),
            nested_mail(),
            between_chunks(),
            chunk_after_failure(),
            binary_needs_bdat(),
            bad_sender(AddressError::NoDomain),
            bad_recipient(AddressError::Unclosed),
            unknown_parameter("MAIL"),
            bad_parameter("SIZE"),
            hold_too_long(),
            deliver_by_too_soon(),
            needs_smtputf8(),
            message_too_large(),
            too_many_recipients(),
            bare_line_end(),
            text_line_too_long(1),
            nul_in_message(),
            header_too_large(),
            unknown_recipient("ann@example.org"),
            relay_denied("ann@example.org"),
            recipient_suspended("ann@example.org"),
            mailbox_full("ann@example.org"),
            mailbox_full_for_good("ann@example.org"),
            alias_loop(),
            alias_too_wide(),
            sender_not_owned(user),
            sender_null_mx(&user.domain),
            sender_domain_unknown(&user.domain),
            rate_limited(),
            mail_loop(),
            disk_full(),
            try_later(),
        ]
    }
}
