//! `sendmail -t`: recipients are those whom the header names, and Bcc is not for the others to see.

use std::io;

use pillarbox_message::{address_list, header};

use super::spool::Spool;

/// Takes the recipients out of the header and the Bcc fields with them. When the message is being resent, only the Resent fields count.
pub(super) fn extract(spool: &mut Spool) -> io::Result<Vec<String>> {
    let head = spool.beginning()?;
    let mut fields = header::fields(&head);
    let (mut plain, mut resent, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
    for field in fields.by_ref() {
        if field.name.is_empty() {
            break;
        }
        let bcc = field.is("Bcc") || field.is("Resent-Bcc");
        if bcc {
            hidden.push(field.range.clone());
        }
        let list = match () {
            () if field.is("To") || field.is("Cc") || field.is("Bcc") => &mut plain,
            () if field.is("Resent-To") || field.is("Resent-Cc") || field.is("Resent-Bcc") => &mut resent,
            () => continue,
        };
        list.extend(address_list::parse(&field.unfolded()).into_iter().map(|entry| match entry.address {
            Ok(mailbox) => mailbox.to_string(),
            Err(text) => text,
        }));
    }
    let end = fields.offset();
    let kept: Vec<u8> = header::without(head.get(..end).unwrap_or_default(), &hidden).concat();
    spool.replace_beginning(end as u64, kept);
    let found = if resent.is_empty() { plain } else { resent };
    Ok(found.into_iter().filter(|r| !r.trim().is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extracted(message: &str) -> (Vec<String>, String) {
        let mut spool = Spool::read(message.as_bytes(), false).unwrap();
        let found = extract(&mut spool).unwrap();
        let mut out = Vec::new();
        spool.write_to(b"", &mut out).unwrap();
        (found, String::from_utf8(out).unwrap())
    }

    #[test]
    fn everyone_in_the_header_gets_it_and_nobody_sees_bcc() {
        let (found, left) = extracted("To: A <a@x.org>, root\nSubject: s\nBcc: b@x.org,\n c@x.org\nCc: d@x.org\n\nBcc: not@this.org\n");
        assert_eq!(found, ["a@x.org", "root", "b@x.org", "c@x.org", "d@x.org"]);
        assert_eq!(left, "To: A <a@x.org>, root\r\nSubject: s\r\nCc: d@x.org\r\n\r\nBcc: not@this.org\r\n");
    }

    #[test]
    fn a_resent_message_goes_to_those_it_is_resent_to() {
        let (found, _) = extracted("Resent-To: new@x.org\nTo: old@x.org\n\n");
        assert_eq!(found, ["new@x.org"]);
    }

    #[test]
    fn a_message_without_header_names_nobody() {
        let (found, left) = extracted("hello\n\nTo: a@x.org\n");
        assert!(found.is_empty());
        assert_eq!(left, "hello\r\n\r\nTo: a@x.org\r\n");
    }
}
