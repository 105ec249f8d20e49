//! Printing: JSON or text, tables that fit the terminal, colours only there.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

const GOOD: Style = AnsiColor::Green.on_default();
const MIDDLING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const STRONG: Style = Style::new().bold();

/// Below this no table can be read; it is what a terminal that does not know its width says.
const NARROWEST: u16 = 20;
/// Width of such a terminal.
const USUAL: u16 = 80;

/// Where and how results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// Results as one JSON value.
    pub(crate) json: bool,
}

impl Out {
    /// One JSON value on a line of its own.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::failed(e.to_string()))?;
        self.line(text)
    }

    /// JSON, or the table.
    pub(crate) fn list<T: Serialize>(self, items: &[T], heads: &[&str], row: impl Fn(&T) -> Vec<String>) -> Result<(), Failure> {
        if self.json {
            return self.value(&items);
        }
        if items.is_empty() {
            return Ok(());
        }
        self.table(heads, items.iter().map(row).collect())
    }

    /// JSON, or a few named values below each other.
    pub(crate) fn record<T: Serialize>(self, item: &T, fields: &[(&str, String)]) -> Result<(), Failure> {
        if self.json {
            return self.value(item);
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            self.line(format!("{STRONG}{name:width$}{STRONG:#}  {}", safe(value)))?;
        }
        Ok(())
    }

    /// JSON `{"done": true}` where nothing else is to be said, or the sentence.
    pub(crate) fn done(self, sentence: impl AsRef<str>) -> Result<(), Failure> {
        if self.json { self.value(&serde_json::json!({ "done": true })) } else { self.line(safe(sentence.as_ref())) }
    }

    /// A line, colours stripped unless standard output is a terminal.
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{}", text.as_ref()).map_err(broken)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        std::io::stdout().lock().write_all(bytes).map_err(broken)
    }

    /// A table as wide as the terminal; in a pipe columns are as wide as their longest value and nothing wraps.
    pub(crate) fn table(self, heads: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let terminal = std::io::stdout().is_terminal();
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if !heads.is_empty() {
            table.set_header(heads);
        }
        table.set_content_arrangement(if terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
        // Terminals that do not know their size say nought.
        if terminal && table.width().is_none_or(|width| width < NARROWEST) {
            table.set_width(USUAL);
        }
        for row in rows {
            table.add_row(row.iter().map(|text| {
                let cell = Cell::new(safe(text));
                if is_number(text) { cell.set_alignment(CellAlignment::Right) } else { cell }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        let mut lines = text.lines();
        if !heads.is_empty()
            && let Some(head) = lines.next()
        {
            self.line(format!("{STRONG}{}{STRONG:#}", head.trim_end()))?;
        }
        for line in lines {
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// How a word is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    Middling,
    Bad,
}

/// A word in the colour of its mood.
pub(crate) fn mood(word: &str, mood: Mood) -> String {
    let style = match mood {
        Mood::Good => GOOD,
        Mood::Middling => MIDDLING,
        Mood::Bad => BAD,
    };
    format!("{style}{word}{style:#}")
}

/// Text that may come from the network, with nothing in it that a terminal obeys; line feeds stay line breaks of the table only as spaces.
pub(crate) fn safe(text: &str) -> String {
    let risky =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if !text.chars().any(risky) {
        return text.to_owned();
    }
    text.chars().map(|c| if risky(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains([':', '@', '-'])
}

/// A reader that left (`| head`) is no failure worth a message.
fn broken(error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        Failure::said()
    } else {
        Failure::failed(format!("cannot write the result: {error}"))
    }
}

/// Octets for people: `1.4 GiB`.
pub(crate) fn size(octets: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (octets, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 || whole >= 100 { format!("{whole} {name}") } else { format!("{whole}.{tenths} {name}") }
}

/// Seconds for people: the largest two units.
pub(crate) fn age(seconds: u64) -> String {
    let text = pillarbox_config::format_duration(std::time::Duration::from_secs(seconds));
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(safe("550 \u{1b}[31mno\u{7}\u{202e}"), "550 \\u{1b}[31mno\\u{7}\\u{202e}");
        assert_eq!(safe("grüße"), "grüße");
        assert_eq!(safe("a\nb"), "a\\nb");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(150 << 20), "150 MiB");
        assert_eq!(age(90_061), "1d 1h");
        assert_eq!(age(0), "0s");
    }
}
