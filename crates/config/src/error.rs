//! What is wrong with a configuration: where, which key, why, and what was probably meant.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line where known (from 1).
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The key as a dotted path; empty when the file as a whole is at fault.
    pub key: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// The configuration cannot be used; the one in force, if any, stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// What it says cannot be.
    #[error("{}", first_and_count(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// Each problem by itself, for `config check`.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Unreadable { .. } => vec![self.to_string()],
            Self::Invalid(problems) => problems.iter().map(Problem::to_string).collect(),
        }
    }

    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::Unreadable { path: path.to_path_buf(), why: error.to_string() }
    }
}

fn first_and_count(problems: &[Problem]) -> String {
    match problems {
        [] => "the configuration is invalid".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more; see `pillarbox config check`)", rest.len()),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.why)
        } else {
            write!(f, "{}: {}: {}", self.origin, self.key, self.why)
        }
    }
}
