//! The third part of a report: the message that it is about, or its header (RFC 3461 §6.2, RFC 6522 §3).

use pillarbox_smtp::Ret;

use super::Report;
use crate::downgrade::{has_long_line, is_lines};
use crate::encode;
use crate::header;

/// The original message, as far as the caller has it at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned<'a> {
    /// Nothing can be returned.
    Nothing,
    /// The header section (a body behind it is ignored).
    Header(&'a [u8]),
    /// The whole message; whether all of it is returned is decided by RET and size.
    Message(&'a [u8]),
}

impl<'a> Returned<'a> {
    /// The header section, without the blank line.
    pub fn header(&self) -> &'a [u8] {
        match self {
            Self::Nothing => &[],
            Self::Header(bytes) | Self::Message(bytes) => bytes.get(..header::split(bytes).header).unwrap_or_default(),
        }
    }

    /// Octets at hand.
    pub fn octets(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Header(bytes) | Self::Message(bytes) => bytes.len(),
        }
    }
}

/// Most of a header section that is returned; a longer one is cut after a whole field.
const HEADER_LIMIT: usize = 64 << 10;

/// The whole message, when it is to be returned: RET=FULL or small enough, a failure, and made of proper lines.
fn whole<'a>(report: &Report<'a>) -> Option<&'a [u8]> {
    let Returned::Message(message) = report.original else { return None };
    let wanted = report.has_failure()
        && match report.ret {
            Some(Ret::Hdrs) => false,
            Some(Ret::Full) => message.len() <= report.full_limit,
            None => message.len() <= report.full_limit.min(super::DEFAULT_FULL_LIMIT),
        };
    (wanted && is_lines(message) && !has_long_line(message)).then_some(message)
}

/// Writes the part: its header, a blank line, what is returned.
pub(super) fn push_part(out: &mut Vec<u8>, report: &Report<'_>) {
    if let Some(message) = whole(report) {
        let kind = if report.original.header().is_ascii() { "message/rfc822" } else { "message/global" };
        encode::push_structured(out, "Content-Type", kind);
        encode::push_structured(out, "Content-Description", "Undelivered message");
        if !message.is_ascii() {
            encode::push_structured(out, "Content-Transfer-Encoding", "8bit");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(message);
        if !message.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
        return;
    }
    let fields = cleaned(report.original.header());
    let kind = if fields.is_ascii() { "text/rfc822-headers" } else { "message/global-headers" };
    encode::push_structured(out, "Content-Type", kind);
    encode::push_structured(out, "Content-Description", "Header of the message");
    if !fields.is_ascii() {
        encode::push_structured(out, "Content-Transfer-Encoding", "8bit");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&fields);
}

/// The header's fields with CRLF line ends, without NULs and stray CRs, without lines that are no field, up to the limit.
fn cleaned(section: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(section.len().min(HEADER_LIMIT));
    for field in header::fields(section) {
        let long = field.raw.split(|&b| b == b'\n').any(|line| line.len() > encode::LONGEST_LINE);
        if field.name.is_empty() || long {
            continue;
        }
        if out.len() + field.raw.len() > HEADER_LIMIT {
            break;
        }
        for line in field.raw.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
            out.extend(line.iter().filter(|&&b| b != b'\r' && b != 0));
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}
