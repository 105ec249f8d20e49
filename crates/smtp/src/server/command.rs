//! Command lines as commands (RFC 5321 §4.1): the verb and its argument, not yet looked into.

use crate::replies;
use crate::reply::Reply;
use crate::text::{split_word, strip_prefix_ignore_case};

/// A command. Arguments are without surrounding spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ehlo(&'a str),
    Helo(&'a str),
    Lhlo(&'a str),
    /// What follows `FROM:`.
    Mail(&'a str),
    /// What follows `TO:`.
    Rcpt(&'a str),
    Data,
    Bdat(&'a str),
    Rset,
    Noop,
    Quit,
    Vrfy(&'a str),
    Expn,
    Help,
    StartTls,
    /// Mechanism and initial response.
    Auth(&'a str, Option<&'a str>),
    /// A request of another protocol.
    Http,
    /// Commands of SMTP that are not for here: TURN, ETRN, SEND, SOML, SAML, ATRN.
    NotHere,
}

/// Parses a line without its line end. `Err` is the reply to give.
pub(super) fn parse(line: &[u8]) -> Result<Command<'_>, Reply> {
    if line.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
        return Err(replies::control_characters());
    }
    let line = std::str::from_utf8(line).map_err(|_| replies::not_utf8())?;
    if line.starts_with([' ', '\t']) {
        return Err(replies::unknown_command());
    }
    let (verb, rest) = split_word(line.trim_end_matches([' ', '\t']));
    let bare = |command, name: &str| if rest.is_empty() { Ok(command) } else { Err(replies::no_argument(name)) };
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => Ok(Command::Ehlo(rest)),
        "HELO" => Ok(Command::Helo(rest)),
        "LHLO" => Ok(Command::Lhlo(rest)),
        "MAIL" => strip_prefix_ignore_case(rest, "FROM:").map(Command::Mail).ok_or_else(|| replies::syntax("MAIL FROM:<address>")),
        "RCPT" => strip_prefix_ignore_case(rest, "TO:").map(Command::Rcpt).ok_or_else(|| replies::syntax("RCPT TO:<address>")),
        "DATA" => bare(Command::Data, "DATA"),
        "BDAT" => Ok(Command::Bdat(rest)),
        "RSET" => bare(Command::Rset, "RSET"),
        "NOOP" => Ok(Command::Noop),
        "QUIT" => bare(Command::Quit, "QUIT"),
        "VRFY" => Ok(Command::Vrfy(rest)),
        "EXPN" => Ok(Command::Expn),
        "HELP" => Ok(Command::Help),
        "STARTTLS" => bare(Command::StartTls, "STARTTLS"),
        "AUTH" => {
            let (mechanism, rest) = split_word(rest);
            let (initial, more) = split_word(rest);
            if mechanism.is_empty() || !more.is_empty() {
                return Err(replies::syntax("AUTH mechanism [initial-response]"));
            }
            Ok(Command::Auth(mechanism, (!initial.is_empty()).then_some(initial)))
        }
        "TURN" | "ETRN" | "ATRN" | "SEND" | "SOML" | "SAML" => Ok(Command::NotHere),
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" | "PRI" => Ok(Command::Http),
        _ => Err(replies::unknown_command()),
    }
}

/// `size [LAST]` of BDAT (RFC 3030 §2). `None` when it is neither, or the number is beyond 64 bits.
pub(super) fn parse_bdat(argument: &str) -> Option<(u64, bool)> {
    let (size, rest) = split_word(argument);
    // `parse` alone would take a plus sign.
    if size.is_empty() || size.len() > 20 || !size.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let last = match rest {
        "" => false,
        word if word.eq_ignore_ascii_case("LAST") => true,
        _ => return None,
    };
    Some((size.parse().ok()?, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn verbs_in_any_case() {
        for (line, command) in [
            ("EHLO x", Command::Ehlo("x")),
            ("ehlo  x ", Command::Ehlo("x")),
            ("mail from:<a@b> SIZE=1", Command::Mail("<a@b> SIZE=1")),
            ("MAIL From: <a@b>", Command::Mail(" <a@b>")),
            ("rcpt\tTO:<a@b>", Command::Rcpt("<a@b>")),
            ("data", Command::Data),
            ("DATA ", Command::Data),
            ("BDAT 1 LAST", Command::Bdat("1 LAST")),
            ("NOOP anything", Command::Noop),
            ("HELP MAIL", Command::Help),
            ("auth plain =", Command::Auth("plain", Some("="))),
            ("AUTH LOGIN", Command::Auth("LOGIN", None)),
            ("GET / HTTP/1.1", Command::Http),
            ("ETRN x", Command::NotHere),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(command), "{line:?}");
        }
    }

    #[test]
    fn refusals() {
        for (line, code) in [
            (&b""[..], 500),
            (b" NOOP", 500),
            (b"BLORT", 500),
            (b"NOOP\0", 500),
            (b"NOOP\x1b[2J", 500),
            (b"NO\rOP", 500),
            (b"NOOP \xff", 500),
            (b"DATA x", 501),
            (b"QUIT x", 501),
            (b"STARTTLS x", 501),
            (b"MAIL", 501),
            (b"MAIL FROM <a@b>", 501),
            (b"MAIL TO:<a@b>", 501),
            (b"RCPT FROM:<a@b>", 501),
            (b"AUTH", 501),
            (b"AUTH PLAIN a b", 501),
        ] {
            assert_eq!(parse(line).unwrap_err().code, code, "{line:?}");
        }
    }

    #[test]
    fn chunk_sizes() {
        assert_eq!(parse_bdat("0"), Some((0, false)));
        assert_eq!(parse_bdat("18446744073709551615 last"), Some((u64::MAX, true)));
        assert_eq!(parse_bdat("00000000000000000007 LAST"), Some((7, true)));
        for bad in ["", "-1", "+1", "18446744073709551616", "99999999999999999999", "1x", "LAST", "1 2", "1 LAST LAST", "0x10", "1.0", "١"]
        {
            assert_eq!(parse_bdat(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_octets(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
