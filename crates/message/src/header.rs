//! Reading the header section in order, without copying, whatever bytes it holds (RFC 5322 §2.2).
//!
//! Nothing here fails on bad input: a line that is no field is yielded as one without a name, a message without a blank
//! line is all header, and counts and sizes are bounded by [`Limits`].

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;

/// How large a header section may be before it is refused or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the whole section.
    pub octets: usize,
    /// Fields.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { octets: 1 << 20, fields: 10_000 }
    }
}

/// One header field, as it stands in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name without white space; empty for a line that is no field.
    pub name: &'a [u8],
    /// What follows the colon, folds included, without the last line end. The whole line when there is no name.
    pub value: &'a [u8],
    /// The whole field, last line end included.
    pub raw: &'a [u8],
    /// Where `raw` stands in the message.
    pub range: Range<usize>,
}

impl<'a> Field<'a> {
    /// Whether the name is this one, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line: line ends removed (RFC 5322 §2.2.3), outer white space trimmed. Copies only when it was folded.
    pub fn unfolded(&self) -> Cow<'a, [u8]> {
        let value = self.value.trim_ascii();
        if memchr::memchr2(b'\r', b'\n', value).is_none() {
            return Cow::Borrowed(value);
        }
        Cow::Owned(value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect())
    }

    /// The unfolded value as text; octets that are no UTF-8 become U+FFFD. Encoded words stay encoded.
    pub fn text(&self) -> Cow<'a, str> {
        match self.unfolded() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }
}

/// The fields of a message, in order, up to the blank line or the limits.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    count: usize,
    limits: Limits,
    end: Option<SectionEnd>,
}

/// Why a header section ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionEnd {
    /// At a blank line: the body begins after it.
    BlankLine,
    /// At the end of the message: there is no body.
    EndOfMessage,
    /// At a limit.
    Limit,
}

/// The fields of `message`, within the usual limits.
pub fn fields(message: &[u8]) -> Fields<'_> {
    fields_within(message, Limits::default())
}

/// The fields of `message`, within `limits`.
pub fn fields_within(message: &[u8], limits: Limits) -> Fields<'_> {
    Fields { message, at: 0, count: 0, limits, end: None }
}

impl Fields<'_> {
    /// Why the section ended; `None` until the iterator has.
    pub fn end(&self) -> Option<SectionEnd> {
        self.end
    }

    /// How far it was read: after the last field yielded.
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.end.is_some() {
            return None;
        }
        let rest = self.message.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            self.end = Some(SectionEnd::EndOfMessage);
            return None;
        }
        if blank_line(rest).is_some() {
            self.end = Some(SectionEnd::BlankLine);
            return None;
        }
        if self.count >= self.limits.fields {
            self.end = Some(SectionEnd::Limit);
            return None;
        }
        let length = field_length(rest, self.limits.octets.saturating_sub(self.at));
        let Some(length) = length else {
            self.end = Some(SectionEnd::Limit);
            return None;
        };
        let raw = rest.get(..length).unwrap_or_default();
        let (name, value) = split_name(raw);
        let field = Field { name, value, raw, range: self.at..self.at + length };
        self.at += length;
        self.count += 1;
        Some(field)
    }
}

/// The length of a blank line (CRLF or LF) when `rest` begins with one.
fn blank_line(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'\r', b'\n', ..] => Some(2),
        [b'\n', ..] => Some(1),
        _ => None,
    }
}

/// The length of the field at the start of `rest`, continuation lines and line end included. `None` when it is longer than `room`.
fn field_length(rest: &[u8], room: usize) -> Option<usize> {
    let mut length = 0;
    loop {
        let tail = rest.get(length..).unwrap_or_default();
        // Never look further than the room: one endless line costs no more than the limit.
        let window = tail.get(..room.saturating_sub(length).min(tail.len())).unwrap_or_default();
        match memchr(b'\n', window) {
            Some(at) => length += at + 1,
            None if window.len() < tail.len() => return None,
            None => return Some(rest.len()),
        }
        match rest.get(length) {
            Some(b' ' | b'\t') => {}
            _ => return Some(length),
        }
    }
}

/// Splits a raw field at its colon. The name is empty when the line is no field: no colon, or a name with octets outside RFC 5322's `ftext`.
fn split_name(raw: &[u8]) -> (&[u8], &[u8]) {
    let body = raw.strip_suffix(b"\n").unwrap_or(raw);
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    let whole = (&raw[..0], body);
    let Some(colon) = memchr(b':', body) else { return whole };
    let (name, rest) = body.split_at(colon);
    // White space before the colon is obsolete syntax (RFC 5322 §4.5).
    let name = name.trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return whole;
    }
    (name, rest.get(1..).unwrap_or_default())
}

/// Where the header section ends and where the body begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// End of the last field: the header section is `..header`.
    pub header: usize,
    /// Start of the body; the message's length when there is none.
    pub body: usize,
}

/// Finds the blank line. Without one the whole message is header.
pub fn split(message: &[u8]) -> Split {
    if let Some(width) = blank_line(message) {
        return Split { header: 0, body: width };
    }
    for at in memchr::memchr_iter(b'\n', message) {
        if let Some(width) = message.get(at + 1..).and_then(blank_line) {
            return Split { header: at + 1, body: at + 1 + width };
        }
    }
    Split { header: message.len(), body: message.len() }
}

/// What one pass over a header section finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Fields, lines that are none included.
    pub fields: usize,
    /// Lines that are no field.
    pub malformed: usize,
    /// `Received` fields, for loop detection (RFC 5321 §6.3).
    pub received: usize,
    /// Octets above 127 in the section.
    pub eight_bit: bool,
    /// Why the section ended.
    pub end: SectionEnd,
    /// Where it ended.
    pub offset: usize,
}

/// Looks through the header section once.
pub fn summary(message: &[u8], limits: Limits) -> Summary {
    let mut all = fields_within(message, limits);
    let (mut count, mut malformed, mut received, mut eight_bit) = (0, 0, 0, false);
    for field in all.by_ref() {
        count += 1;
        malformed += usize::from(field.name.is_empty());
        received += usize::from(field.is("Received"));
        eight_bit |= !field.raw.is_ascii();
    }
    let end = all.end().unwrap_or(SectionEnd::EndOfMessage);
    Summary { fields: count, malformed, received, eight_bit, end, offset: all.offset() }
}

/// The first field of this name.
pub fn first<'a>(message: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(message).find(|f| f.is(name))
}

/// The Message-ID with its brackets, when there is one that is a single word of printable ASCII of at most 998 octets.
pub fn message_id(message: &[u8]) -> Option<String> {
    let value = first(message, "Message-ID")?.unfolded();
    let ok = value.len() <= 998 && value.starts_with(b"<") && value.ends_with(b">") && value.iter().all(u8::is_ascii_graphic);
    if ok { String::from_utf8(value.into_owned()).ok() } else { None }
}

/// A field's text with its encoded words decoded (RFC 2047), on one line; `None` when it is missing or empty. At most its first 2,000 octets are read.
pub fn decoded(message: &[u8], name: &str) -> Option<String> {
    let value = first(message, name)?.unfolded();
    // The parser is shown an unstructured field, whatever this one is, so that nothing but encoded words changes.
    let one = [b"Subject: ", value.get(..2000).unwrap_or(&value), b"\r\n\r\n"].concat();
    let parsed = mail_parser::MessageParser::default().parse_headers(one.as_slice())?;
    let text = crate::encode::one_line(parsed.subject()?.trim()).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The ranges of all fields that `drop` picks, neighbours merged, in order.
pub fn ranges_of(message: &[u8], mut drop: impl FnMut(&Field<'_>) -> bool) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for field in fields(message) {
        if drop(&field) {
            match ranges.last_mut() {
                Some(last) if last.end == field.range.start => last.end = field.range.end,
                _ => ranges.push(field.range),
            }
        }
    }
    ranges
}

/// The slices of `message` that remain without `ranges`, which are in order and do not overlap. Nothing is copied.
pub fn without<'a>(message: &'a [u8], ranges: &[Range<usize>]) -> Vec<&'a [u8]> {
    let mut kept = Vec::with_capacity(ranges.len() + 1);
    let mut at = 0;
    for range in ranges {
        if let Some(slice) = message.get(at..range.start).filter(|s| !s.is_empty()) {
            kept.push(slice);
        }
        at = at.max(range.end);
    }
    if let Some(slice) = message.get(at..).filter(|s| !s.is_empty()) {
        kept.push(slice);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(message: &[u8]) -> Vec<String> {
        fields(message).map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
    }

    #[test]
    fn folds_garbage_and_bare_line_feeds() {
        let message = b"A: 1\r\n 2\r\nB : x\nno colon here\r\n\tfolded\r\n\xff\xfe: y\r\nC:\r\n\r\nbody: no\r\n";
        assert_eq!(names(message), ["A", "B", "", "", "C"]);
        let first = fields(message).next().unwrap();
        assert_eq!(first.unfolded().as_ref(), b"1 2");
        assert_eq!(first.raw, b"A: 1\r\n 2\r\n");
        let split = split(message);
        assert_eq!(&message[split.body..], b"body: no\r\n");
        assert_eq!(&message[split.header..split.body], b"\r\n");
    }

    #[test]
    fn odd_messages() {
        assert!(names(b"").is_empty());
        assert!(names(b"\r\nbody").is_empty());
        assert_eq!(names(b"A: b"), ["A"]);
        assert_eq!(names(b"\0\0\0"), [""]);
        assert_eq!(split(b"A: b"), Split { header: 4, body: 4 });
        assert_eq!(split(b"\nx"), Split { header: 0, body: 1 });
    }

    #[test]
    fn limits_end_the_section() {
        let message = "A: b\r\n".repeat(50);
        let found = summary(message.as_bytes(), Limits { octets: 1000, fields: 10 });
        assert_eq!((found.fields, found.end), (10, SectionEnd::Limit));
        let found = summary(message.as_bytes(), Limits { octets: 33, fields: 100 });
        assert_eq!((found.fields, found.end, found.offset), (5, SectionEnd::Limit, 30));
        let endless = vec![b'x'; 4096];
        assert_eq!(summary(&endless, Limits { octets: 1024, fields: 10 }).end, SectionEnd::Limit);
    }

    #[test]
    fn removal_keeps_everything_else() {
        let message = b"Bcc: a\r\nTo: b\r\nbcc: c\r\n d\r\nBCC:\r\n\r\nBcc: body\r\n";
        let ranges = ranges_of(message, |f| f.is("Bcc"));
        assert_eq!(ranges.len(), 2);
        assert_eq!(without(message, &ranges).concat(), b"To: b\r\n\r\nBcc: body\r\n");
    }

    proptest::proptest! {
        #[test]
        fn fields_cover_the_section_exactly(message in proptest::collection::vec(proptest::sample::select(b"aB:\r\n \t\0\xc3\xa4<>".to_vec()), 0..200)) {
            let mut at = 0;
            for field in fields(&message) {
                proptest::prop_assert_eq!(field.range.start, at);
                proptest::prop_assert_eq!(field.raw, &message[field.range.clone()]);
                proptest::prop_assert!(field.name.is_empty() || field.name.iter().all(u8::is_ascii_graphic));
                at = field.range.end;
            }
            proptest::prop_assert_eq!(at, split(&message).header);
        }
    }
}
