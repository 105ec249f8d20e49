//! What a sink answers where it is told to answer something else than it would.

use crate::pattern;

/// A point in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// In place of the greeting.
    Connect,
    /// At EHLO or LHLO.
    Ehlo,
    /// At HELO.
    Helo,
    /// At STARTTLS.
    StartTls,
    /// At AUTH.
    Auth,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA, in place of 354.
    Data,
    /// At BDAT, before its chunk is read.
    Bdat,
    /// At the end of a message.
    Message,
    /// At RSET.
    Rset,
    /// At QUIT.
    Quit,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This reply; several lines are separated by `\n` and written as they are. A 421 closes the connection.
    Say(String),
    /// The connection is dropped without a word.
    Close,
    /// Nothing more is ever said; the connection stays open until the client goes.
    Hang,
    /// The usual answer: an exception from a wider rule before it.
    Usual,
}

impl From<&str> for Answer {
    fn from(reply: &str) -> Self {
        Self::Say(reply.to_owned())
    }
}

impl From<String> for Answer {
    fn from(reply: String) -> Self {
        Self::Say(reply)
    }
}

#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    stage: Stage,
    pattern: String,
    answer: Answer,
    left: usize,
    every: usize,
    seen: usize,
}

impl Rules {
    pub(super) fn add(&mut self, stage: Stage, pattern: &str, answer: Answer, times: usize, every: usize) {
        self.0.push(Rule { stage, pattern: pattern.to_owned(), answer, left: times, every: every.max(1), seen: 0 });
    }

    /// The answer of the latest rule that matches and is not used up.
    pub(super) fn answer(&mut self, stage: Stage, argument: &str) -> Option<Answer> {
        for rule in self.0.iter_mut().rev() {
            if rule.stage != stage || rule.left == 0 || !pattern::matches(&rule.pattern, argument) {
                continue;
            }
            rule.seen += 1;
            if rule.seen % rule.every != 0 {
                continue;
            }
            rule.left = rule.left.saturating_sub(usize::from(rule.left != usize::MAX));
            return match &rule.answer {
                Answer::Usual => None,
                other => Some(other.clone()),
            };
        }
        None
    }
}
