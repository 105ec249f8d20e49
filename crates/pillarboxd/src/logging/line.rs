//! One line of the log on its way from a session to the writing thread: its fields, in two pieces of memory however many they are.

use std::fmt::Write as _;

use serde::ser::SerializeMap as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};

/// One line on its way out.
pub(super) struct Line {
    pub(super) time: OffsetDateTime,
    pub(super) level: tracing::Level,
    /// Of the contract's events; others are only printed.
    pub(super) is_event: bool,
    /// Goes to standard error.
    pub(super) printed: bool,
    pub(super) fields: Fields,
}

/// A line's fields in their order. Their texts lie behind one another: a line has a dozen, and as many lines are made a second as mail allows.
#[derive(Default)]
pub(crate) struct Fields {
    texts: String,
    /// So much of the texts belongs to fields.
    kept: usize,
    each: Vec<(&'static str, Kept)>,
}

enum Kept {
    /// From the end of the text before it up to here.
    TextTo(usize),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
        }
    }
}

impl Fields {
    /// Of one event.
    pub(super) fn of(event: &tracing::Event<'_>) -> Self {
        let mut fields = Self { texts: String::with_capacity(256), kept: 0, each: Vec::with_capacity(16) };
        event.record(&mut fields);
        fields
    }

    pub(super) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Adds a text. An event that lacks something says so with an empty one; such a field is left out.
    pub(crate) fn text(&mut self, name: &'static str, text: &str) {
        self.texts.push_str(text);
        self.keep_text(name);
    }

    /// Makes a field of what was added to the texts.
    fn keep_text(&mut self, name: &'static str) {
        if self.texts.len() > std::mem::replace(&mut self.kept, self.texts.len()) {
            self.each.push((name, Kept::TextTo(self.kept)));
        }
    }

    /// All of them, with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
        let mut start = 0;
        self.each.iter().map(move |(name, kept)| {
            let value = match kept {
                Kept::TextTo(end) => Value::Text(self.texts.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default()),
                Kept::Unsigned(number) => Value::Unsigned(*number),
                Kept::Signed(number) => Value::Signed(*number),
                Kept::Float(number) => Value::Float(*number),
                Kept::Bool(truth) => Value::Bool(*truth),
            };
            (*name, value)
        })
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.each.push((field.name(), Kept::Unsigned(value)));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.each.push((field.name(), Kept::Signed(value)));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.each.push((field.name(), Kept::Bool(value)));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.each.push((field.name(), Kept::Float(value)));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Texts take all that is written to them; a value that fails to show itself is shown as far as it went.
        let _ = write!(self.texts, "{value:?}");
        self.keep_text(field.name());
    }
}

pub(super) fn timestamp(time: OffsetDateTime) -> String {
    let millis = time.replace_nanosecond(u32::from(time.millisecond()) * 1_000_000).unwrap_or(time);
    millis.format(&Rfc3339).unwrap_or_default()
}

/// A line as one JSON object, written as it goes: at several events a message this is a good part of what a message costs.
struct AsJson<'a>(&'a Line, &'a str);

impl serde::Serialize for AsJson<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(line, time) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", time)?;
        if !line.is_event {
            map.serialize_entry("level", line.level.as_str())?;
        }
        for (name, value) in line.fields.iter() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

pub(super) fn json_line(out: &mut Vec<u8>, line: &Line, time: &str) {
    // Text and numbers always serialise, and a vector takes all that is written to it.
    let _ = serde_json::to_writer(&mut *out, &AsJson(line, time));
    out.push(b'\n');
}

/// `2026-11-24T06:45:26.123Z INFO accept id=… from=…`: nothing in it can break the line or reach a terminal raw.
pub(super) fn text_line(out: &mut String, line: &Line, time: &str) {
    let _ = write!(out, "{time} {:<5} ", line.level.as_str());
    words(out, line);
    out.push('\n');
}

/// The event or message first, then the fields.
pub(super) fn words(out: &mut String, line: &Line) {
    let lead = if line.is_event { "event" } else { "message" };
    for (_, value) in line.fields.iter().filter(|(name, _)| *name == lead) {
        push_clean(out, value, false);
    }
    for (name, value) in line.fields.iter().filter(|(name, _)| *name != lead) {
        let _ = write!(out, " {name}=");
        push_clean(out, value, true);
    }
}

fn push_clean(out: &mut String, value: Value<'_>, quote: bool) {
    let Value::Text(text) = value else {
        let _ = write!(out, "{value}");
        return;
    };
    let quote = quote && (text.is_empty() || text.contains([' ', '"', '=']));
    if quote {
        out.push('"');
    }
    for c in text.chars() {
        match c {
            '"' if quote => out.push_str("\\\""),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    if quote {
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let mut fields = Fields::default();
        fields.text("event", "reject");
        fields.text("from", "");
        fields.each.push(("size", Kept::Unsigned(5)));
        fields.text("helo", "\u{1b}[2Jevil\r\nfake line");
        fields.each.push(("priority", Kept::Signed(-3)));
        fields.each.push(("share", Kept::Float(0.5)));
        fields.each.push(("local", Kept::Bool(true)));
        Line { time: OffsetDateTime::UNIX_EPOCH, level: tracing::Level::INFO, is_event: true, printed: true, fields }
    }

    #[test]
    fn fields_keep_their_order_and_an_empty_text_is_none() {
        let line = line();
        let seen: Vec<_> = line.fields.iter().collect();
        let expected = [
            ("event", Value::Text("reject")),
            ("size", Value::Unsigned(5)),
            ("helo", Value::Text("\u{1b}[2Jevil\r\nfake line")),
            ("priority", Value::Signed(-3)),
            ("share", Value::Float(0.5)),
            ("local", Value::Bool(true)),
        ];
        assert_eq!(seen, expected);
        assert!(Fields::default().is_empty() && !line.fields.is_empty());
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let line = line();
        let mut text = String::new();
        text_line(&mut text, &line, &timestamp(line.time));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}') && !text.contains('\r'));
        assert!(text.starts_with("1970-01-01T00:00:00Z INFO  reject size=5 helo="), "{text}");
        assert!(text.ends_with(" priority=-3 share=0.5 local=true\n"), "{text}");
        let mut json = Vec::new();
        json_line(&mut json, &line, &timestamp(line.time));
        let read = serde_json::from_slice::<serde_json::Value>(&json).unwrap();
        assert_eq!((&read["helo"], &read["size"], &read["priority"]), (&"\u{1b}[2Jevil\r\nfake line".into(), &5.into(), &(-3).into()));
        assert_eq!(json.iter().filter(|octet| **octet == b'\n').count(), 1);
    }
}
