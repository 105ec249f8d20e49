//! What a submission server may and must mend in a message (RFC 6409 §8), as a list of changes: nothing is copied until they are applied.

use std::ops::Range;

use pillarbox_smtp::{EnhancedCode, Mailbox, Reply, ReversePath};

use crate::address_list;
use crate::date::{self, UnixMillis};
use crate::encode;
use crate::header::{self, Field, Limits, SectionEnd};
use crate::trace;

/// What is known of a submission besides the message.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The envelope's sender.
    pub sender: &'a ReversePath,
    /// Who logged in, where someone did.
    pub user: Option<&'a Mailbox>,
    /// The user's name for a `From` that we add; empty for none.
    pub user_name: &'a str,
    /// Our name: the domain of a Message-ID that we add, and the authserv-id that nobody else may use.
    pub hostname: &'a str,
    /// For a `Date` that we add.
    pub now: UnixMillis,
    /// Fresh random bits for a Message-ID that we add.
    pub random: u64,
    /// How large the header section may be.
    pub limits: Limits,
}

/// The changes, and what the caller must check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fixed {
    /// Fields to put before the message, below our `Received`.
    pub prepend: Vec<u8>,
    /// Octets to leave out, in order.
    pub remove: Vec<Range<usize>>,
    /// Where a blank line is missing between header and body.
    pub blank_line_at: Option<usize>,
    /// Everyone named in `From` (one that we added included): the user must own each of them (553 5.7.1 otherwise).
    pub from: Vec<Mailbox>,
    /// Who `Sender` names: the user must own it.
    pub sender: Option<Mailbox>,
    /// Who the latest `Resent-From` names. A user who passes on someone else's mail owns these instead of `from`.
    pub resent_from: Vec<Mailbox>,
    /// The message's id with its brackets, for the log.
    pub message_id: String,
}

/// Why a submission is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// RFC 5322 §3.6 allows one; readers disagree on which of two they show.
    #[error("The message has more than one {0} field; mail programs would disagree on which one counts")]
    Repeated(&'static str),
    /// No address where one must be.
    #[error("The {0} field holds no readable address; check the account settings of your mail program")]
    Unreadable(&'static str),
    /// Beyond the limits.
    #[error("The header of the message is too large")]
    HeaderTooLarge,
}

impl Refusal {
    /// What to tell the client.
    pub fn reply(self) -> Reply {
        match self {
            Self::Repeated(_) | Self::Unreadable(_) => Reply::new(550, EnhancedCode(5, 6, 0), self.to_string()),
            Self::HeaderTooLarge => Reply::new(552, EnhancedCode(5, 3, 4), self.to_string()),
        }
    }
}

/// Looks a submitted message through. `message` must hold the whole header section; the body behind it is not looked at.
pub fn fix_up(message: &[u8], submission: &Submission<'_>) -> Result<Fixed, Refusal> {
    let mut fixed = Fixed::default();
    let mut found = Found::default();
    let mut fields = header::fields_within(message, submission.limits);
    let mut body_at = None;
    for field in fields.by_ref() {
        if field.name.is_empty() {
            // An mbox separator that a program left in front is no part of the message.
            if field.range.start == 0 && (field.raw.starts_with(b"From ") || field.raw.starts_with(b">From ")) && field.raw.len() < 1000 {
                fixed.leave_out(field.range);
                continue;
            }
            // Anything else that is no field is the body's first line, with the blank line forgotten.
            body_at = Some(field.range.start);
            break;
        }
        found.take(&field, submission, &mut fixed)?;
    }
    match (body_at, fields.end()) {
        (Some(at), _) => fixed.blank_line_at = Some(at),
        (None, Some(SectionEnd::EndOfMessage)) => fixed.blank_line_at = Some(message.len()),
        (None, Some(SectionEnd::Limit)) => return Err(Refusal::HeaderTooLarge),
        (None, _) => {}
    }
    found.complete(message, submission, &mut fixed);
    Ok(fixed)
}

impl Fixed {
    /// Whether the message stays as it is.
    pub fn is_unchanged(&self) -> bool {
        self.prepend.is_empty() && self.remove.is_empty() && self.blank_line_at.is_none()
    }

    /// The mended message (or header section, when only that was looked at), in slices.
    pub fn slices<'a>(&'a self, message: &'a [u8]) -> Vec<&'a [u8]> {
        let mut slices: Vec<&[u8]> = vec![&self.prepend];
        match self.blank_line_at {
            None => slices.extend(header::without(message, &self.remove)),
            Some(at) => {
                let (head, body) = message.split_at(at.min(message.len()));
                slices.extend(header::without(head, &self.remove));
                if !head.is_empty() && !head.ends_with(b"\n") {
                    slices.push(b"\r\n");
                }
                slices.push(b"\r\n");
                slices.push(body);
            }
        }
        slices.retain(|s| !s.is_empty());
        slices
    }

    /// The mended message, copied.
    pub fn apply(&self, message: &[u8]) -> Vec<u8> {
        self.slices(message).concat()
    }

    fn leave_out(&mut self, range: Range<usize>) {
        match self.remove.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.remove.push(range),
        }
    }
}

/// Which fields were seen.
#[derive(Debug, Default)]
struct Found {
    from: bool,
    sender: bool,
    date: bool,
    message_id: bool,
    resent_from: bool,
}

impl Found {
    fn take(&mut self, field: &Field<'_>, submission: &Submission<'_>, fixed: &mut Fixed) -> Result<(), Refusal> {
        let empty = field.value.trim_ascii().is_empty();
        let once = |seen: &mut bool, name| if std::mem::replace(seen, true) { Err(Refusal::Repeated(name)) } else { Ok(()) };
        if field.is("From") {
            once(&mut self.from, "From")?;
            fixed.from = owned(field, "From")?;
        } else if field.is("Sender") {
            if empty {
                fixed.leave_out(field.range.clone());
                return Ok(());
            }
            once(&mut self.sender, "Sender")?;
            let mut named = owned(field, "Sender")?;
            if named.len() > 1 {
                return Err(Refusal::Unreadable("Sender"));
            }
            fixed.sender = named.pop();
        } else if field.is("Resent-From") && !std::mem::replace(&mut self.resent_from, true) {
            // The topmost block is the latest (RFC 5322 §3.6.6).
            fixed.resent_from = owned(field, "Resent-From")?;
        } else if field.is("Date") || field.is("Message-ID") {
            let seen = if field.is("Date") { &mut self.date } else { &mut self.message_id };
            // Empty ones and repetitions are dropped; ours takes the place of an empty one.
            if empty || std::mem::replace(seen, true) {
                fixed.leave_out(field.range.clone());
            }
        } else if field.is("Bcc")
            || field.is("Resent-Bcc")
            || field.is("Return-Path")
            || trace::claims_results_of(field, submission.hostname)
        {
            fixed.leave_out(field.range.clone());
        }
        Ok(())
    }

    /// Adds what is missing.
    fn complete(&self, message: &[u8], submission: &Submission<'_>, fixed: &mut Fixed) {
        let out = &mut fixed.prepend;
        if !self.date {
            encode::push_structured(out, "Date", &date::rfc5322(submission.now));
        }
        let postmaster = || format!("postmaster@{}", submission.hostname).parse::<Mailbox>().ok();
        if !self.from {
            let author = submission.user.or(submission.sender.mailbox()).cloned().or_else(postmaster);
            if let Some(author) = author {
                encode::push_structured(out, "From", &encode::address(submission.user_name, &author));
                fixed.from = vec![author];
            }
        }
        // Several authors need one who sends (RFC 5322 §3.6.2).
        if fixed.from.len() > 1
            && !self.sender
            && let Some(sender) = submission.user.or(submission.sender.mailbox())
        {
            encode::push_structured(out, "Sender", &sender.to_string());
            fixed.sender = Some(sender.clone());
        }
        if self.message_id {
            fixed.message_id = header::fields(message)
                .find(|f| f.is("Message-ID") && !f.value.trim_ascii().is_empty())
                .map(|f| f.text().chars().filter(|c| !c.is_control()).take(998).collect())
                .unwrap_or_default();
        } else {
            fixed.message_id = encode::message_id(submission.now, submission.random, submission.hostname);
            encode::push_structured(out, "Message-ID", &fixed.message_id);
        }
    }
}

/// All addresses of a field, each readable, at least one.
fn owned(field: &Field<'_>, name: &'static str) -> Result<Vec<Mailbox>, Refusal> {
    let list: Result<Vec<Mailbox>, String> = address_list::parse(&field.unfolded()).into_iter().map(|e| e.address).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(Refusal::Unreadable(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    fn fixed(message: &str) -> Result<Fixed, Refusal> {
        let user = mailbox("ada@example.org");
        let sender = ReversePath::Mailbox(user.clone());
        fix_up(
            message.as_bytes(),
            &Submission {
                sender: &sender,
                user: Some(&user),
                user_name: "Ada",
                hostname: "mail.example.org",
                now: 1_795_502_539_000,
                random: 1,
                limits: Limits::default(),
            },
        )
    }

    fn applied(message: &str) -> String {
        String::from_utf8(fixed(message).unwrap().apply(message.as_bytes())).unwrap()
    }

    const ADDED: &str =
        "Date: Tue, 24 Nov 2026 06:42:19 +0000\r\nFrom: Ada <ada@example.org>\r\nMessage-ID: <mwy1vfxk.1@mail.example.org>\r\n";

    #[test]
    fn a_complete_message_is_left_alone() {
        let message = "From: ada@example.org\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nBcc: body\r\n";
        let fixed = fixed(message).unwrap();
        assert!(fixed.is_unchanged());
        assert_eq!(fixed.message_id, "<1@x>");
        assert_eq!(fixed.from, [mailbox("ada@example.org")]);
        assert_eq!(applied(message), message);
    }

    #[test]
    fn missing_fields_are_added_and_secrets_removed() {
        let text = applied(
            "Subject: x\r\nBcc: secret@example.net,\r\n other@example.net\r\nReturn-Path: <x@y>\r\nTo: b@example.net\r\n\r\nhi\r\n",
        );
        let id = fixed("x: y\r\n\r\n").unwrap().message_id;
        assert_eq!(text, ADDED.replace("<mwy1vfxk.1@mail.example.org>", &id) + "Subject: x\r\nTo: b@example.net\r\n\r\nhi\r\n");
    }

    #[test]
    fn no_header_no_blank_line() {
        assert!(applied("hello world\r\nbye\r\n").ends_with("mail.example.org>\r\n\r\nhello world\r\nbye\r\n"));
        assert!(applied("Subject: x\r\nhello there\r\n").ends_with("Subject: x\r\n\r\nhello there\r\n"));
        assert!(applied("Subject: x\r\n").ends_with("Subject: x\r\n\r\n"));
        assert!(applied("Subject: x").ends_with("Subject: x\r\n\r\n"));
        assert!(applied("").ends_with("mail.example.org>\r\n\r\n"));
        assert!(applied("\r\nbody\r\n").ends_with("mail.example.org>\r\n\r\nbody\r\n"));
        assert!(applied("From ada Mon Jan  1\r\nSubject: x\r\n\r\nbody\r\n").ends_with("mail.example.org>\r\nSubject: x\r\n\r\nbody\r\n"));
    }

    #[test]
    fn several_authors_get_a_sender() {
        let message = "From: ada@example.org, bob@example.org\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\n";
        let fixed = fixed(message).unwrap();
        assert_eq!(fixed.prepend, b"Sender: ada@example.org\r\n");
        assert_eq!(fixed.from.len(), 2);
    }

    #[test]
    fn what_readers_would_disagree_on_is_refused() {
        assert_eq!(fixed("From: a@example.org\r\nfrom: b@example.org\r\n\r\n"), Err(Refusal::Repeated("From")));
        assert_eq!(fixed("From: nonsense\r\n\r\n"), Err(Refusal::Unreadable("From")));
        assert_eq!(fixed("From: a@example.org b@example.net\r\n\r\n"), Err(Refusal::Unreadable("From")));
        assert_eq!(fixed("From:\r\n\r\n"), Err(Refusal::Unreadable("From")));
        assert_eq!(fixed("Sender: a@x.example, b@x.example\r\n\r\n"), Err(Refusal::Unreadable("Sender")));
        assert_eq!(fixed(&"X: y\r\n".repeat(10_001)), Err(Refusal::HeaderTooLarge));
        assert_eq!(fixed("From: nonsense\r\n\r\n").unwrap_err().reply().code, 550);
    }

    #[test]
    fn passing_mail_on_names_who_passes_it() {
        let fixed = fixed("Resent-From: ada@example.org\r\nFrom: bob@example.net\r\n\r\n").unwrap();
        assert_eq!((fixed.resent_from, fixed.from), (vec![mailbox("ada@example.org")], vec![mailbox("bob@example.net")]));
    }

    #[test]
    fn our_results_cannot_be_claimed() {
        assert!(!applied("Authentication-Results: mail.example.org; spf=pass\r\nX: y\r\n\r\n").contains("spf=pass"));
    }

    proptest::proptest! {
        #[test]
        fn the_result_is_always_a_message_with_one_author(message in "([A-Za-z:\\r\\n @.<>]|From: a@b.example\r\n|\r\n){0,60}") {
            if let Ok(fixed) = fixed(&message) {
                let result = fixed.apply(message.as_bytes());
                let split = header::split(&result);
                proptest::prop_assert!(split.header < split.body);
                proptest::prop_assert_eq!(header::fields(&result).filter(|f| f.is("From")).count(), 1);
                proptest::prop_assert!(header::fields(&result).all(|f| !f.name.is_empty()));
            }
        }
    }
}
