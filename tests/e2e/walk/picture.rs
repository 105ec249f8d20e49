//! A terminal's text with colours as an SVG picture.

use std::fmt::Write as _;

/// Width and height of a character, and the border, in pixels.
const CELL: (f64, usize) = (7.8, 17);
const BORDER: usize = 14;

/// The eight colours of a terminal, on dark ground.
const COLOURS: [&str; 8] = ["#6b7280", "#f87171", "#4ade80", "#facc15", "#60a5fa", "#c084fc", "#22d3ee", "#e5e7eb"];

/// How a piece of text looks.
#[derive(Clone, Copy, Default, PartialEq)]
struct Look {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
}

/// Draws the lines of `tmux capture-pane -e`.
pub(super) fn svg(text: &str) -> String {
    let mut lines: Vec<Vec<(Look, String)>> = Vec::new();
    let mut look = Look::default();
    for line in text.trim_end().lines() {
        lines.push(pieces(line.trim_end(), &mut look));
    }
    let columns = lines.iter().map(|line| line.iter().map(|(_, text)| text.chars().count()).sum::<usize>()).max().unwrap_or(0);
    let (width, height) = ((columns as f64 * CELL.0).ceil() as usize + 2 * BORDER, lines.len() * CELL.1 + 2 * BORDER);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>A terminal: from an empty machine to a message read over IMAP</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#111827\"/>\n\
         <g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\" fill=\"#e5e7eb\" xml:space=\"preserve\">\n"
    );
    for (n, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        write!(out, "<text x=\"{BORDER}\" y=\"{}\">", BORDER + (n + 1) * CELL.1 - 4).unwrap();
        for (look, text) in line {
            let mut style = look.colour.and_then(|c| COLOURS.get(c)).map(|c| format!(" fill=\"{c}\"")).unwrap_or_default();
            if look.bold {
                style.push_str(" font-weight=\"bold\"");
            }
            if look.dim {
                style.push_str(" opacity=\"0.65\"");
            }
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            if style.is_empty() { out.push_str(&text) } else { write!(out, "<tspan{style}>{text}</tspan>").unwrap() }
        }
        out.push_str("</text>\n");
    }
    out.push_str("</g>\n</svg>\n");
    out
}

/// A line cut where the look changes (ECMA-48 SGR).
fn pieces(line: &str, look: &mut Look) -> Vec<(Look, String)> {
    let mut found: Vec<(Look, String)> = Vec::new();
    let mut parts = line.split("\u{1b}[");
    let mut add = |look: Look, text: &str| {
        if !text.is_empty() {
            found.push((look, text.to_owned()));
        }
    };
    add(*look, parts.next().unwrap_or_default());
    for part in parts {
        let (codes, text) = part.split_once('m').unwrap_or(("", part));
        for code in codes.split(';') {
            match code.parse::<usize>().unwrap_or(0) {
                0 => *look = Look::default(),
                1 => look.bold = true,
                2 => look.dim = true,
                22 => (look.bold, look.dim) = (false, false),
                39 => look.colour = None,
                code @ 30..=37 => look.colour = Some(code - 30),
                code @ 90..=97 => look.colour = Some(code - 90),
                _ => {}
            }
        }
        add(*look, text);
    }
    found
}

#[test]
fn colours_become_spans_and_markup_stays_text() {
    let picture = svg("\u{1b}[1m\u{1b}[32mok\u{1b}[0m <a & b>\n\n");
    assert!(picture.contains("<tspan fill=\"#4ade80\" font-weight=\"bold\">ok</tspan> &lt;a &amp; b&gt;</text>"), "{picture}");
}
