//! Flags of messages as other stores keep them: the info part of Maildir names, and the status fields of mbox files.

use pillarbox_message::header;

/// What is known of an imported message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// Maildir letters.
    pub(crate) letters: String,
    /// Some reader has had it listed: it belongs in `cur/`.
    pub(crate) known: bool,
    /// It is no message: a mail program's own notes, or one deleted and not yet swept away.
    pub(crate) skip: bool,
}

/// The standard flags of Maildir names; small letters are Dovecot's keywords.
const STANDARD: [char; 6] = ['D', 'F', 'P', 'R', 'S', 'T'];

impl Flags {
    /// From the info part of a Maildir name. `keywords`: whether small letters mean the same at the destination.
    pub(crate) fn of_info(info: &str, keywords: bool) -> Self {
        let letters = info.chars().filter(|c| STANDARD.contains(c) || (keywords && c.is_ascii_lowercase())).collect();
        Self { letters, known: true, skip: false }
    }

    /// From `Status`, `X-Status` (mutt, Dovecot, UW-IMAP) and `X-Mozilla-Status` (Thunderbird).
    pub(crate) fn of_header(section: &[u8]) -> Self {
        let mut flags = Self::default();
        for field in header::fields(section) {
            if field.is("Status") || field.is("X-Status") {
                let extended = field.is("X-Status");
                for c in field.text().chars() {
                    match c {
                        'R' if !extended => flags.letters.push('S'),
                        'O' if !extended => {}
                        'A' => flags.letters.push('R'),
                        'F' => flags.letters.push('F'),
                        'D' => flags.letters.push('T'),
                        'T' => flags.letters.push('D'),
                        _ => continue,
                    }
                    flags.known = true;
                }
            } else if field.is("X-Mozilla-Status") {
                let bits = u32::from_str_radix(field.text().trim(), 16).unwrap_or(0);
                for (bit, letter) in [(1, 'S'), (2, 'R'), (4, 'F'), (0x1000, 'P')] {
                    if bits & bit != 0 {
                        flags.letters.push(letter);
                    }
                }
                flags.known = true;
                flags.skip |= bits & 8 != 0;
            } else if field.is("Subject") {
                flags.skip |= field.text().trim() == "DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA";
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_mail_programs_become_letters() {
        for (header, letters, known, skip) in [
            ("Status: RO\r\nX-Status: AF\r\n\r\n", "SRF", true, false),
            ("Status: O\n\n", "", true, false),
            ("Subject: hi\n\n", "", false, false),
            ("X-Mozilla-Status: 1003\n\n", "SRP", true, false),
            ("X-Mozilla-Status: 0009\n\n", "S", true, true),
            ("Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\n", "", false, true),
        ] {
            assert_eq!(Flags::of_header(header.as_bytes()), Flags { letters: letters.into(), known, skip }, "{header}");
        }
        assert_eq!(Flags::of_info("FSab,", true).letters, "FSab");
        assert_eq!(Flags::of_info("FSab", false).letters, "FS");
    }
}
