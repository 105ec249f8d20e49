//! Real messages, as others collected them: every operation holds its promises on each, and another parser agrees.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use mail_parser::{Message, MessageParser, PartType};
use pillarbox_message::downgrade::{Hop, Unconvertible};
use pillarbox_message::header::Limits;
use pillarbox_message::report::{Action, DEFAULT_FULL_LIMIT, Report, ReportRecipient, Returned};
use pillarbox_message::submission::{Submission, fix_up};
use pillarbox_message::{autoreply, downgrade, header, lines, report, trace};
use pillarbox_smtp::{EnhancedCode, Mailbox, ReversePath};

/// The folder of test data, unless it is not there.
fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("PILLARBOX_DATA").map_or(beside, PathBuf::from);
    folder.join("mail").is_dir().then_some(folder)
}

/// All messages with their paths, as stored and with CRLF line ends; none when the data is missing, which is said.
fn messages() -> Vec<(PathBuf, Vec<u8>)> {
    let Some(folder) = data() else {
        println!("skipped: no test data; set PILLARBOX_DATA to its folder");
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut folders = vec![folder.join("mail"), folder.join("eai")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|e| e == "eml") {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path.clone(), lines::to_crlf(&bytes)));
                found.push((path, bytes));
            }
        }
    }
    assert!(found.len() > 20, "the data folder holds too few messages");
    found
}

/// The contents of all leaf parts, decoded.
fn contents(message: &Message<'_>, into: &mut Vec<Vec<u8>>) {
    for part in &message.parts {
        match &part.body {
            PartType::Message(nested) => contents(nested, into),
            PartType::Multipart(_) => {}
            // Line ends at the very end belong to delimiters as much as to contents.
            _ => into.push(part.contents().trim_ascii_end().to_vec()),
        }
    }
}

fn parse(message: &[u8]) -> Message<'_> {
    MessageParser::default().parse(message).unwrap()
}

#[test]
fn fields_agree_with_another_parser() {
    for (path, message) in messages() {
        let theirs: Vec<String> = parse(&message).headers().iter().map(|h| h.name().to_ascii_lowercase()).collect();
        let ours: Vec<String> =
            header::fields(&message).filter(|f| !f.name.is_empty()).map(|f| String::from_utf8_lossy(f.name).to_ascii_lowercase()).collect();
        assert_eq!(ours, theirs, "{}", path.display());
    }
}

#[test]
fn bodies_begin_where_another_parser_says() {
    for (path, message) in messages() {
        let split = header::split(&message);
        assert_eq!(split.body, parse(&message).part(0).unwrap().offset_body as usize, "{}", path.display());
    }
}

#[test]
fn line_ends_go_and_come_back() {
    for (path, message) in messages() {
        let crlf = lines::to_crlf(&message);
        assert!(!downgrade::has_bare_cr_lf(&crlf), "{}", path.display());
        let stored = lines::crlf_to_lf(&crlf);
        assert_eq!(lines::to_crlf(&stored), crlf, "{}", path.display());
        let sizes = lines::sizes(&crlf);
        assert_eq!((sizes.stored(), sizes.on_the_wire()), (stored.len() as u64, crlf.len() as u64));
    }
}

#[test]
fn conversion_keeps_contents() {
    let mut converted_count = 0;
    for (path, message) in messages() {
        for hop in [
            Hop { eight_bit: false, utf8_header: true, short_lines: true },
            Hop { eight_bit: false, utf8_header: false, short_lines: true },
            Hop { eight_bit: true, utf8_header: true, short_lines: true },
        ] {
            let converted = match downgrade::convert(&message, hop) {
                Ok(converted) => converted,
                Err(Unconvertible::Address(_)) if !hop.utf8_header => continue,
                Err(Unconvertible::Signed) => continue,
                // One message has raw 8-bit octets inside uuencoded text.
                Err(Unconvertible::UnknownEncoding) if message.windows(10).any(|w| w == b"x-uuencode") => continue,
                Err(e) => panic!("{}: {e}", path.display()),
            };
            let needs = downgrade::needs(&converted);
            assert_ne!(needs.body, pillarbox_smtp::BodyType::BinaryMime, "{}", path.display());
            let body = &converted[header::split(&converted).body..];
            assert!(hop.eight_bit || hop.utf8_header || converted.is_ascii(), "{}", path.display());
            assert!(hop.eight_bit || body.is_ascii() || hop.utf8_header, "{}", path.display());
            // Only what has CRLF line ends throughout has contents that both sides delimit alike.
            if !downgrade::has_bare_cr_lf(&message) {
                let (mut before, mut after) = (Vec::new(), Vec::new());
                contents(&parse(&message), &mut before);
                contents(&parse(&converted), &mut after);
                assert_eq!(before, after, "{} {hop:?}", path.display());
                converted_count += usize::from(matches!(converted, std::borrow::Cow::Owned(_)));
            }
        }
    }
    println!("{converted_count} conversions compared");
}

#[test]
fn submissions_are_mended_or_refused() {
    let user: Mailbox = "ada@example.org".parse().unwrap();
    let sender = ReversePath::Mailbox(user.clone());
    for (path, message) in messages() {
        let submission = Submission {
            sender: &sender,
            user: Some(&user),
            user_name: "",
            hostname: "mail.example.org",
            now: 1_795_502_539_000,
            random: 1,
            limits: Limits::default(),
        };
        let Ok(fixed) = fix_up(&message, &submission) else { continue };
        let mended = fixed.apply(&message);
        for name in ["From", "Date", "Message-ID"] {
            assert_eq!(header::fields(&mended).filter(|f| f.is(name)).count(), 1, "{name} {}", path.display());
        }
        assert_eq!(header::fields(&mended).filter(|f| f.is("Bcc")).count(), 0);
        // What another program would show as the author is who the caller was told to check.
        if fixed.prepend.is_empty() {
            let theirs: Vec<String> =
                parse(&mended).from().map(|f| f.iter().filter_map(|a| a.address().map(str::to_lowercase)).collect()).unwrap_or_default();
            let ours: Vec<String> = fixed.from.iter().map(|m| m.to_string().to_lowercase()).collect();
            if theirs.iter().all(|t| t.is_ascii()) {
                assert_eq!(ours, theirs, "{}", path.display());
            }
        }
    }
}

#[test]
fn reports_about_anything_are_well_formed() {
    let to: Mailbox = "ada@example.org".parse().unwrap();
    let recipients = [ReportRecipient::new("bob@example.net".parse().unwrap(), Action::Failed, EnhancedCode(5, 1, 1))];
    for (path, message) in messages() {
        let built = report::build(&Report {
            hostname: "mail.example.org",
            to: &to,
            smtputf8: false,
            now: 1_795_502_539_000,
            random: 11,
            queue_id: "0123456789abc",
            arrival: 1_795_502_500_000,
            received_from: None,
            envid: None,
            ret: None,
            original: Returned::Message(&message),
            full_limit: DEFAULT_FULL_LIMIT,
            recipients: &recipients,
        });
        let needs = downgrade::needs(&built);
        assert_ne!(needs.body, pillarbox_smtp::BodyType::BinaryMime, "{}", path.display());
        assert!(!needs.utf8_header && !needs.long_lines, "{}", path.display());
        let PartType::Multipart(parts) = &parse(&built).part(0).unwrap().body.clone() else { panic!("{}", path.display()) };
        assert_eq!(parts.len(), 3, "{}", path.display());
    }
}

#[test]
fn nothing_panics_and_counts_agree() {
    let own: Mailbox = "ada@example.org".parse().unwrap();
    for (_, message) in messages() {
        let _ = autoreply::may_reply(&message, &"bob@example.net".parse().unwrap(), std::slice::from_ref(&own), "+");
        let summary = header::summary(&message, Limits::default());
        assert_eq!(summary.received, trace::hops(&message));
        assert_eq!(summary.offset, header::split(&message).header);
        let ranges = header::ranges_of(&message, |f| f.is("Received"));
        assert_eq!(trace::hops(&header::without(&message, &ranges).concat()), 0);
    }
}
