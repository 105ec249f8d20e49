//! Whether a message may be answered by a machine.

use pillarbox_smtp::{Mailbox, ReversePath};

use crate::address_list;
use crate::header::{self, Field, Limits};
use crate::mime::Content;

/// Why no automatic reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoReply {
    /// Reports are never answered (RFC 3834 §2).
    #[error("the message has a null sender")]
    NullSender,
    /// `MAILER-DAEMON`, `owner-…`, `…-request`, `noreply` and their kin.
    #[error("the sender is a program or a list manager")]
    SenderIsProgram,
    /// The user wrote to himself or through an alias of his.
    #[error("the sender is the user")]
    OwnAddress,
    /// `Auto-Submitted` other than `no` (RFC 3834 §5).
    #[error("the message was itself sent by a program")]
    AutoSubmitted,
    /// `List-…` fields (RFC 2369, RFC 2919), or older marks of lists.
    #[error("the message came through a mailing list")]
    MailingList,
    /// `Precedence: bulk`, `list` or `junk`.
    #[error("the message is bulk mail")]
    Bulk,
    /// `X-Auto-Response-Suppress` as Exchange and others set it.
    #[error("the sender asks for no automatic replies")]
    Suppressed,
    /// A delivery report or read receipt.
    #[error("the message is a report")]
    Report,
    /// Marked as spam.
    #[error("the message is marked as spam")]
    Spam,
    /// None of the user's addresses stands in To, Cc and their Resent- forms (RFC 5230 §4.5).
    #[error("the message does not name the user as a recipient")]
    NotAddressed,
    /// The header section is beyond all measure.
    #[error("the header of the message is too large")]
    TooLarge,
}

/// Says whether `message` (its header section suffices) may be answered on behalf of a user with the addresses `own`: the mailbox itself,
/// its aliases, further names it accepts. An address with a detail (`user+detail@`) counts as `user@` when `delimiter` is not empty.
pub fn may_reply(message: &[u8], sender: &ReversePath, own: &[Mailbox], delimiter: &str) -> Result<(), NoReply> {
    let Some(sender) = sender.mailbox() else { return Err(NoReply::NullSender) };
    let is_own = |address: &Mailbox| {
        let bare = address.split_detail(delimiter).map(|(bare, _)| bare);
        own.iter().any(|o| o.same_as(address) || bare.as_ref().is_some_and(|b| o.same_as(b)))
    };
    if is_own(sender) {
        return Err(NoReply::OwnAddress);
    }
    if is_program(&sender.local.key()) {
        return Err(NoReply::SenderIsProgram);
    }
    let mut addressed = false;
    let mut fields = header::fields_within(message, Limits::default());
    for field in fields.by_ref() {
        check(&field)?;
        if !addressed && ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc"].iter().any(|name| field.is(name)) {
            addressed = address_list::mailboxes(&field.unfolded()).iter().any(is_own);
        }
    }
    if fields.end() == Some(header::SectionEnd::Limit) {
        return Err(NoReply::TooLarge);
    }
    if addressed { Ok(()) } else { Err(NoReply::NotAddressed) }
}

/// Whether a folded local part belongs to no person.
fn is_program(local: &str) -> bool {
    let exact = [
        "mailer-daemon",
        "postmaster",
        "listserv",
        "majordomo",
        "mailman",
        "root",
        "daemon",
        "nobody",
        "noreply",
        "no-reply",
        "no_reply",
        "donotreply",
        "do-not-reply",
        "do_not_reply",
        "bounce",
        "bounces",
        "www-data",
    ];
    // A detail or a VERP tail says nothing about who it is.
    let base = local.split(['+', '=']).next().unwrap_or(local);
    exact.contains(&base)
        || local.starts_with("owner-")
        || local.starts_with("bounce-")
        || local.starts_with("bounces-")
        || local.starts_with("noreply-")
        || local.starts_with("no-reply-")
        || ["-owner", "-request", "-bounce", "-bounces", "-relay", "-noreply", "-no-reply", "-errors", "-admin"]
            .iter()
            .any(|suffix| base.ends_with(suffix))
}

/// What one field says against a reply.
fn check(field: &Field<'_>) -> Result<(), NoReply> {
    let name = field.name;
    let is_list_field = name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"List-"));
    if is_list_field
        || ["Mailing-List", "X-Mailing-List", "X-Mailman-Version", "X-Listserver", "X-BeenThere", "Feedback-ID"].iter().any(|n| field.is(n))
    {
        return Err(NoReply::MailingList);
    }
    let value = field.text().to_ascii_lowercase();
    // The first word counts; comments and parameters may follow.
    let word = value.split([';', '(', ' ', '\t', ',']).find(|w| !w.is_empty()).unwrap_or_default();
    if field.is("Auto-Submitted") && word != "no" {
        return Err(NoReply::AutoSubmitted);
    }
    if ["X-Autoreply", "X-Autorespond", "X-Autoreply-From", "X-Mail-Autoreply", "X-Vacation"].iter().any(|n| field.is(n)) && word != "no" {
        return Err(NoReply::AutoSubmitted);
    }
    if field.is("Precedence") || field.is("X-Precedence") {
        match word {
            "bulk" | "junk" | "auto_reply" => return Err(NoReply::Bulk),
            "list" => return Err(NoReply::MailingList),
            _ => {}
        }
    }
    if field.is("X-Auto-Response-Suppress") {
        let asks = value.split([',', ' ', ';']).any(|w| matches!(w, "all" | "oof" | "autoreply" | "dr"));
        if asks {
            return Err(NoReply::Suppressed);
        }
    }
    if (field.is("X-Spam-Flag") || field.is("X-Spam-Status")) && word == "yes" {
        return Err(NoReply::Spam);
    }
    if field.is("Content-Type") && Content::parse(&field.unfolded()).kind == "multipart/report" {
        return Err(NoReply::Report);
    }
    if field.is("Return-Path") && value.trim() == "<>" {
        return Err(NoReply::NullSender);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(sender: &str, fields: &str) -> Result<(), NoReply> {
        let own = ["ada@example.org".parse().unwrap(), "lovelace@example.org".parse().unwrap()];
        let message = format!("From: x@example.net\r\n{fields}\r\n\r\nhello\r\n");
        may_reply(message.as_bytes(), &sender.parse().unwrap(), &own, "+")
    }

    #[test]
    fn people_are_answered() {
        for fields in [
            "To: ada@example.org",
            "To: other@example.net\r\nCc: \"A\" <ADA@Example.ORG>",
            "To: ada+shop@example.org",
            "To: g: x@y.example, lovelace@example.org;",
            "Resent-To: ada@example.org",
            "To: ada@example.org\r\nAuto-Submitted: no",
            "To: ada@example.org\r\nAuto-Submitted: No (really)",
            "To: ada@example.org\r\nPrecedence: first-class",
            "To: ada@example.org\r\nX-Auto-Response-Suppress: RN, NRN",
            "To: ada@example.org\r\nX-Spam-Flag: NO",
            "To: ada@example.org\r\nContent-Type: multipart/mixed; boundary=x",
        ] {
            assert_eq!(decide("bob@example.net", fields), Ok(()), "{fields}");
        }
    }

    #[test]
    fn twenty_kinds_are_not() {
        let to = "To: ada@example.org";
        for (sender, fields, why) in [
            ("", "", NoReply::NullSender),
            ("mailer-daemon@example.net", "", NoReply::SenderIsProgram),
            ("MAILER-DAEMON@example.net", "", NoReply::SenderIsProgram),
            ("owner-list@example.net", "", NoReply::SenderIsProgram),
            ("list-owner@example.net", "", NoReply::SenderIsProgram),
            ("list-request@example.net", "", NoReply::SenderIsProgram),
            ("list-bounces+ada=example.org@example.net", "", NoReply::SenderIsProgram),
            ("bounce+x@example.net", "", NoReply::SenderIsProgram),
            ("no-reply@example.net", "", NoReply::SenderIsProgram),
            ("postmaster@example.net", "", NoReply::SenderIsProgram),
            ("ada@example.org", "", NoReply::OwnAddress),
            ("ada+x@EXAMPLE.org", "", NoReply::OwnAddress),
            ("lovelace@example.org", "", NoReply::OwnAddress),
            ("bob@example.net", "Auto-Submitted: auto-generated", NoReply::AutoSubmitted),
            ("bob@example.net", "auto-submitted: AUTO-REPLIED; owner-email=x", NoReply::AutoSubmitted),
            ("bob@example.net", "Auto-Submitted:", NoReply::AutoSubmitted),
            ("bob@example.net", "List-Id: <l.example.net>", NoReply::MailingList),
            ("bob@example.net", "LIST-UNSUBSCRIBE: <mailto:x>", NoReply::MailingList),
            ("bob@example.net", "X-Mailing-List: l", NoReply::MailingList),
            ("bob@example.net", "Precedence: Bulk", NoReply::Bulk),
            ("bob@example.net", "Precedence: junk", NoReply::Bulk),
            ("bob@example.net", "Precedence: list", NoReply::MailingList),
            ("bob@example.net", "X-Auto-Response-Suppress: OOF, DR", NoReply::Suppressed),
            ("bob@example.net", "X-Auto-Response-Suppress: All", NoReply::Suppressed),
            ("bob@example.net", "Content-Type: multipart/report; boundary=x", NoReply::Report),
            ("bob@example.net", "X-Spam-Flag: YES", NoReply::Spam),
        ] {
            assert_eq!(decide(sender, &format!("{to}\r\n{fields}")), Err(why), "{sender} {fields}");
        }
        assert_eq!(decide("bob@example.net", "To: bob@example.net\r\nX: ada@example.org"), Err(NoReply::NotAddressed));
        assert_eq!(decide("bob@example.net", "X: y"), Err(NoReply::NotAddressed));
        assert_eq!(decide("bob@example.net", &"To: ada@example.org\r\n".repeat(10_001)), Err(NoReply::TooLarge));
    }
}
