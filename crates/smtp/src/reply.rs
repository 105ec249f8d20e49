//! Replies (RFC 5321 §4.2) with their enhanced status codes (RFC 3463, registry of RFC 5248).

mod parse;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use parse::{ReplyError, ReplyParser};

/// `class.subject.detail` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

/// A reply of a server: a code, an enhanced code where one is due, and at least one line of text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// The enhanced code, if any.
    pub enhanced: Option<EnhancedCode>,
    /// The text, one entry a line, without codes and line ends.
    pub lines: Vec<String>,
}

/// How a reply's first digit reads to a client (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// 2xx: done.
    Positive,
    /// 3xx: go on.
    Intermediate,
    /// 4xx: try again later.
    Transient,
    /// 5xx: never.
    Permanent,
}

impl Reply {
    /// A reply of one line with an enhanced code.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// A reply of one line without an enhanced code, as greetings and 354 are.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced: None, lines: vec![text.into()] }
    }

    /// A reply of several lines; every line carries the codes when written.
    pub fn lines<T: Into<String>>(code: u16, enhanced: Option<EnhancedCode>, lines: impl IntoIterator<Item = T>) -> Self {
        Self { code, enhanced, lines: lines.into_iter().map(Into::into).collect() }
    }

    /// What the first digit says; anything outside 2–4 counts as permanent.
    pub fn severity(&self) -> Severity {
        match self.code {
            200..=299 => Severity::Positive,
            300..=399 => Severity::Intermediate,
            400..=499 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }

    /// Whether it is 4xx.
    pub fn is_transient(&self) -> bool {
        self.severity() == Severity::Transient
    }

    /// Whether it is 2xx.
    pub fn is_positive(&self) -> bool {
        self.severity() == Severity::Positive
    }

    /// The enhanced code, or `x.0.0` of the reply's own class.
    pub fn status(&self) -> EnhancedCode {
        self.enhanced.unwrap_or(match self.severity() {
            Severity::Positive | Severity::Intermediate => EnhancedCode(2, 0, 0),
            Severity::Transient => EnhancedCode(4, 0, 0),
            Severity::Permanent => EnhancedCode(5, 0, 0),
        })
    }
}

impl EnhancedCode {
    /// Parses `2.1.5`: class 2, 4 or 5, subject and detail of one to three digits (RFC 2034 §4, RFC 3463 §2).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut part = || -> Option<u16> {
            let digits = parts.next()?;
            if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            digits.parse().ok()
        };
        let (class, subject, detail) = (u8::try_from(part()?).ok()?, part()?, part()?);
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        Some(Self(class, subject, detail))
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl fmt::Display for Reply {
    /// One line for logs and people: `550 5.1.1 No such user`; several lines are joined by ` / `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.lines.join(" / "))
    }
}
