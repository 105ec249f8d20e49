//! From the text of a dialogue to its steps, and from text with variables and escapes to octets.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BadDialog, Dialog, Step};

pub(super) fn parse(text: &str, path: &Path) -> Result<Dialog, BadDialog> {
    let mut dialog = Dialog { path: path.to_path_buf(), facts: BTreeMap::new(), steps: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        let bad = |why: &str| BadDialog { path: path.display().to_string(), line: index + 1, why: why.to_owned() };
        let step = if line.trim().is_empty() || line.starts_with('#') {
            continue;
        } else if let Some(fact) = line.strip_prefix('@') {
            if !dialog.steps.is_empty() {
                return Err(bad("facts (@key value) stand before the first step"));
            }
            let (key, value) = fact.split_once(' ').unwrap_or((fact, ""));
            let slot = dialog.facts.entry(key.to_owned()).or_default();
            if !slot.is_empty() {
                slot.push('\n');
            }
            slot.push_str(value.trim());
            continue;
        } else {
            let (kind, rest) = line.split_at_checked(2).ok_or_else(|| bad("too short to be a step"))?;
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            match kind {
                "C:" => Step::Line(rest.to_owned()),
                "R:" => Step::Raw(rest.to_owned()),
                "S:" => reply(1, rest).ok_or_else(|| bad(REPLY_FORM))?,
                "S*" => {
                    let (count, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                    let count = count.parse().map_err(|_| bad("S* wants a number of replies: S*3 250 text"))?;
                    reply(count, rest).ok_or_else(|| bad(REPLY_FORM))?
                }
                "S=" => Step::ExactLine(rest.to_owned()),
                "S+" => Step::SomeLine(rest.trim().to_owned()),
                "S!" => Step::NoLine(rest.trim().to_owned()),
                "X:" => match rest.split_whitespace().collect::<Vec<_>>().as_slice() {
                    ["starttls" | "tls"] => Step::StartTls,
                    ["split", n] => Step::Split(n.parse().map_err(|_| bad("split wants a number of octets"))?),
                    ["group"] => Step::Group,
                    ["send"] => Step::Send,
                    ["closed"] => Step::Closed,
                    ["shutdown"] => Step::ShutDown,
                    ["reconnect"] => Step::Reconnect,
                    ["auth", mechanism @ ("SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS"), user, password] => {
                        Step::Auth { mechanism: (*mechanism).to_owned(), user: (*user).to_owned(), password: (*password).to_owned() }
                    }
                    _ => {
                        return Err(bad(
                            "unknown directive: starttls, tls, split N, group, send, closed, shutdown, reconnect, auth MECHANISM USER PASSWORD",
                        ));
                    }
                },
                _ => return Err(bad("a step begins with C: R: S: S* S= S+ S! or X:")),
            }
        };
        dialog.steps.push((index + 1, step));
    }
    Ok(dialog)
}

const REPLY_FORM: &str = "a reply's code has three digits, x for any: S: 250 text, S: 55x, S: 250|251";

/// A reply's codes and the pattern of its text.
fn reply(count: usize, rest: &str) -> Option<Step> {
    let (codes, pattern) = rest.split_once(' ').unwrap_or((rest, ""));
    let codes: Vec<String> = codes.split('|').map(str::to_owned).collect();
    let ok = |code: &String| code.len() == 3 && code.chars().all(|c| c.is_ascii_digit() || c == 'x');
    codes.iter().all(ok).then(|| Step::Reply { count, codes, pattern: pattern.trim().to_owned() })
}

/// Puts variables in.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or("a ${ without its }")?;
        let name = &inner[..end];
        if let Some(text) = name.strip_prefix("base64:") {
            out.push_str(&STANDARD.encode(unescape(text)?));
        } else if let Some(repeat) = name.strip_prefix("repeat:") {
            let (count, text) = repeat.split_once(':').ok_or("repeat wants a count and a text: ${repeat:3:x}")?;
            out.push_str(&text.repeat(count.parse().map_err(|_| format!("{count:?} is no count"))?));
        } else {
            out.push_str(variables.get(name).ok_or_else(|| format!("no variable is called {name:?}"))?);
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Undoes the escapes of `R:`.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('0') => out.push(0),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no octet"))?);
            }
            other => return Err(format!("unknown escape \\{}", other.map(String::from).unwrap_or_default())),
        }
    }
    Ok(out)
}
