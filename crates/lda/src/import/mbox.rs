//! Reading an mbox file message by message, in constant memory.
//!
//! A message begins at a line `From SENDER DATE` at the start of the file or behind an empty line; a line that only looks alike (no date) belongs to the text.
//! Writers put a `>` before such lines of the text: before those that begin with `From ` only (mboxo), or before those that begin with any number of `>` and `From `
//! (mboxrd, which can be undone exactly).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::flags::Flags;

/// How `>From ` in a text is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quoting {
    /// One `>` is taken from every line of `>`s and `From `.
    #[default]
    Rd,
    /// `>From ` becomes `From `, other lines stay.
    O,
}

/// Where a message stands in the file and what its `From ` line and status fields say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Of the first octet behind the `From ` line.
    pub(crate) start: u64,
    /// Behind the last octet; the empty line that separates messages is not part of one.
    pub(crate) end: u64,
    /// The date of the `From ` line.
    pub(crate) date: Option<SystemTime>,
    pub(crate) flags: Flags,
}

/// Lines are looked at in pieces of this size at most.
const LINE: u64 = 64 * 1024;
/// Status fields are looked for in so many octets of a header section.
const HEADER: usize = 256 * 1024;

/// Goes through an mbox file from one `From ` line to the next.
pub(crate) struct Scanner {
    input: BufReader<File>,
    /// Of the next octet to be read.
    at: u64,
    /// The date of a `From ` line that was read already.
    pending: Option<Option<SystemTime>>,
}

impl Scanner {
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the file does not begin as an mbox file does.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut this = Self { input: BufReader::with_capacity(256 * 1024, file), at: 0, pending: None };
        this.input.seek(SeekFrom::Start(0))?;
        let mut line = Vec::new();
        // Empty lines before the first message are tolerated.
        while this.line(&mut line)? && is_blank(&line) {}
        if !line.is_empty() && !is_blank(&line) {
            match from_line(&line) {
                Some(date) => this.pending = Some(date),
                None => return Err(io::Error::new(io::ErrorKind::InvalidData, "no mbox file: its first line is not \"From SENDER DATE\"")),
            }
        }
        Ok(this)
    }

    /// The next message; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        let Some(date) = self.pending.take() else { return Ok(None) };
        let start = self.at;
        let (mut header, mut in_header) = (Vec::new(), true);
        let mut line = Vec::new();
        let mut whole_line_before = true;
        // Where an empty line that may separate two messages begins.
        let mut blank_from = None;
        loop {
            let line_start = self.at;
            if !self.line(&mut line)? {
                break;
            }
            if blank_from.is_some()
                && whole_line_before
                && let Some(date) = from_line(&line)
            {
                self.pending = Some(date);
                break;
            }
            let blank = whole_line_before && is_blank(&line);
            if in_header {
                in_header = !blank && header.len() < HEADER;
                header.extend_from_slice(&line);
            }
            blank_from = blank.then_some(line_start);
            whole_line_before = line.ends_with(b"\n");
        }
        let end = match (blank_from, self.pending.is_some()) {
            (Some(blank), _) => blank,
            (None, _) => self.at,
        };
        Ok(Some(Found { start, end: end.max(start), date, flags: Flags::of_header(&header) }))
    }

    /// A line with its end, or a piece of a very long one. False at the end of the file.
    fn line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        let n = (&mut self.input).take(LINE).read_until(b'\n', line)?;
        self.at = self.at.saturating_add(n as u64);
        Ok(n > 0)
    }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

/// `From SENDER Tue Nov 14 22:13:20 2023`, with or without a time zone. `Some(None)`: it is such a line, though its date is beyond measure.
fn from_line(line: &[u8]) -> Option<Option<SystemTime>> {
    let text = std::str::from_utf8(line.strip_prefix(b"From ")?).ok()?.trim_end();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    // Month, day, time stand together somewhere behind the sender; zone and year follow in either order.
    let at = words.windows(3).position(|window| matches!(window, [month, day, time] if month_number(month).is_some() && number(day, 2).is_some_and(|d| (1..=31).contains(&d)) && clock(time).is_some()))?;
    let month = words.get(at).and_then(|w| month_number(w))?;
    let day = words.get(at + 1).and_then(|w| number(w, 2))?;
    let (hour, minute, second) = words.get(at + 2).and_then(|w| clock(w))?;
    let rest = words.get(at + 3..)?;
    let year = rest.iter().find_map(|w| (w.len() == 4).then(|| number(w, 4)).flatten())?;
    let zone = rest.iter().find_map(|w| zone_seconds(w)).unwrap_or(0);
    let date = i32::try_from(year)
        .ok()
        .and_then(|year| time::Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok())
        .and_then(|date| date.with_hms(hour, minute, second.min(59)).ok())
        .map(|at| at.assume_utc().unix_timestamp() - zone)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    Some(date)
}

fn month_number(word: &str) -> Option<time::Month> {
    const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = NAMES.iter().position(|name| name.eq_ignore_ascii_case(word))?;
    time::Month::try_from(u8::try_from(at + 1).ok()?).ok()
}

fn number(word: &str, digits: usize) -> Option<u32> {
    (word.len() <= digits && word.bytes().all(|b| b.is_ascii_digit())).then(|| word.parse().ok()).flatten()
}

/// `22:13:20` or `22:13`.
fn clock(word: &str) -> Option<(u8, u8, u8)> {
    let mut parts = word.split(':').map(|part| number(part, 2).and_then(|n| u8::try_from(n).ok()));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        Some(second) => second?,
        None => 0,
    };
    (parts.next().is_none() && hour < 24 && minute < 60 && second <= 60).then_some((hour, minute, second))
}

/// `+0100` as seconds east.
fn zone_seconds(word: &str) -> Option<i64> {
    let (sign, digits) = match word.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let n = i64::from(number(digits, 4).filter(|_| digits.len() == 4)?);
    Some(sign * (n / 100 * 3600 + n % 100 * 60))
}

/// Reads one message out of the file, its quoted lines undone.
pub(crate) struct Message {
    file: Arc<File>,
    at: u64,
    end: u64,
    quoting: Quoting,
    /// The next octet begins a line.
    line_start: bool,
    piece: Vec<u8>,
    /// What of `piece` was handed out.
    taken: usize,
    /// Of a line's begin that may be a quoted one and is cut by the piece's end.
    held: Vec<u8>,
}

impl Message {
    pub(crate) fn new(file: Arc<File>, found: &Found, quoting: Quoting) -> Self {
        Self { file, at: found.start, end: found.end, quoting, line_start: true, piece: Vec::new(), taken: 0, held: Vec::new() }
    }

    /// Reads the next piece and undoes what is quoted in it.
    fn fill(&mut self) -> io::Result<()> {
        let mut raw = std::mem::take(&mut self.held);
        let room = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(64 * 1024);
        let before = raw.len();
        raw.resize(before + room, 0);
        let n = self.file.read_at(raw.get_mut(before..).unwrap_or_default(), self.at)?;
        if n == 0 && room > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the mbox file became shorter while it was read"));
        }
        raw.truncate(before + n);
        self.at = self.at.saturating_add(n as u64);
        let last = self.at >= self.end;
        self.piece.clear();
        self.taken = 0;
        let mut rest = raw.as_slice();
        while !rest.is_empty() {
            if self.line_start {
                let marks = rest.iter().take_while(|&&b| b == b'>').count();
                let behind = rest.get(marks..).unwrap_or_default();
                // Not enough of the line here to tell; a line of endless `>`s is no quoted one.
                if !last && marks < 1024 && behind.len() < 5 && b"From ".starts_with(behind) {
                    self.held = rest.to_vec();
                    break;
                }
                let quoted = behind.starts_with(b"From ") && if self.quoting == Quoting::Rd { marks > 0 } else { marks == 1 };
                if quoted {
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, tail) = rest.split_at(end);
            self.line_start = line.ends_with(b"\n");
            self.piece.extend_from_slice(line);
            rest = tail;
        }
        Ok(())
    }
}

impl Read for Message {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.piece.len() {
            if self.at >= self.end && self.held.is_empty() {
                return Ok(0);
            }
            self.fill()?;
        }
        let ready = self.piece.get(self.taken..).unwrap_or_default();
        let n = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), ready.get(..n)) {
            to.copy_from_slice(from);
        }
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    fn messages(text: &[u8], quoting: Quoting) -> Vec<String> {
        let shared = Arc::new(file(text));
        let mut scanner = Scanner::new(shared.try_clone().unwrap()).unwrap();
        let mut all = Vec::new();
        while let Some(found) = scanner.next().unwrap() {
            let mut message = String::new();
            Message::new(Arc::clone(&shared), &found, quoting).read_to_string(&mut message).unwrap();
            all.push(message);
        }
        all
    }

    const LINE_1: &str = "From ann@example.net Tue Nov 14 22:13:20 2023\n";

    #[test]
    fn messages_are_told_apart() {
        let text = format!("{LINE_1}Subject: a\n\none\n\nFrom here on it is text\n\n{LINE_1}Subject: b\n\ntwo\n\n");
        assert_eq!(messages(text.as_bytes(), Quoting::Rd), ["Subject: a\n\none\n\nFrom here on it is text\n", "Subject: b\n\ntwo\n"]);
        assert!(messages(b"", Quoting::Rd).is_empty());
        assert_eq!(messages(format!("{LINE_1}Subject: a\n\nno end").as_bytes(), Quoting::Rd), ["Subject: a\n\nno end"]);
        // Without an empty line before it, it is text.
        let text = format!("{LINE_1}Subject: a\n\none\n{LINE_1}two\n");
        assert_eq!(messages(text.as_bytes(), Quoting::Rd).len(), 1);
        assert!(Scanner::new(file(b"Subject: no mbox\n\n")).is_err());
    }

    #[test]
    fn quoted_lines_are_undone_as_they_were_done() {
        let text = format!("{LINE_1}A: b\n\n>From x\n>>From y\n> From z\nFrom\n");
        assert_eq!(messages(text.as_bytes(), Quoting::Rd), ["A: b\n\nFrom x\n>From y\n> From z\nFrom\n"]);
        assert_eq!(messages(text.as_bytes(), Quoting::O), ["A: b\n\nFrom x\n>>From y\n> From z\nFrom\n"]);
    }

    #[test]
    fn dates_of_all_sorts_are_read() {
        let at = |line: &str| from_line(line.as_bytes()).flatten().map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        for (line, seconds) in [
            ("From ann@example.net Tue Nov 14 22:13:20 2023\n", Some(1_700_000_000)),
            ("From ann@example.net  Tue Nov 14 22:13:20 2023\r\n", Some(1_700_000_000)),
            ("From ann@example.net Tue Nov 14 23:13:20 2023 +0100\n", Some(1_700_000_000)),
            ("From ann@example.net Tue Nov 14 23:13:20 +0100 2023\n", Some(1_700_000_000)),
            ("From - Tue Nov 14 22:13 2023\n", Some(1_699_999_980)),
            ("From MAILER-DAEMON Fri Jul  8 12:08:34 2011\n", Some(1_310_126_914)),
            ("From my point of view\n", None),
            ("From Nov 14 on\n", None),
        ] {
            assert_eq!(at(line), seconds, "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_mboxrd_writes_comes_back(bodies in proptest::collection::vec("(>{0,3}From [a-z]{0,5}\n|[a-z >]{0,9}\n|\n){0,12}", 1..4), filler in 0usize..70_000) {
            let mut text = Vec::new();
            let mut expected = Vec::new();
            for body in &bodies {
                let body = format!("Subject: x\n\n{}\n{body}", "y".repeat(filler));
                text.extend_from_slice(LINE_1.as_bytes());
                for line in body.split_inclusive('\n') {
                    if line.trim_start_matches('>').starts_with("From ") {
                        text.push(b'>');
                    }
                    text.extend_from_slice(line.as_bytes());
                }
                text.push(b'\n');
                expected.push(body);
            }
            prop_assert_eq!(messages(&text, Quoting::Rd), expected);
        }

        #[test]
        fn whatever_is_in_the_file_is_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut whole = LINE_1.as_bytes().to_vec();
            whole.extend_from_slice(&text);
            let mut scanner = Scanner::new(file(&whole)).unwrap();
            while let Some(found) = scanner.next().unwrap() {
                prop_assert!(found.start <= found.end && found.end <= whole.len() as u64);
            }
        }
    }
}
