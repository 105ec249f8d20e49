//! Dialogues that a person can read: files of `C:` and `S:` lines, run against a server.
//!
//! | line | meaning |
//! | --- | --- |
//! | `# …`, blank | nothing |
//! | `@key value` | a fact about the dialogue, such as `@rfc 5321 §4.5.2`, `@listener submission`; before the first step |
//! | `C: text` | send the text and CRLF |
//! | `R: text` | send raw octets, with `\r \n \t \0 \\ \xNN`; no CRLF is added |
//! | `S: 250 text` | read a whole reply; its code must match (`x` is any digit, <code>&#124;</code> separates alternatives), and some line's text the pattern, if one is given |
//! | `S*N 250 text` | N such replies in a row |
//! | `S= line` | read exactly one line, which must match as a whole, code and all |
//! | `S+ pattern` | some line of the reply just read matches |
//! | `S! pattern` | no line of the reply just read matches |
//! | `X: starttls`, `X: tls` | do the handshake |
//! | `X: split N` | from here on send N octets a segment; `X: split 0` ends that |
//! | `X: group` … `X: send` | gather what is to be sent and send it in one piece |
//! | `X: closed` | the server closes now, without a further word |
//! | `X: shutdown` | end our sending direction |
//! | `X: reconnect` | leave and connect anew |
//! | `X: auth MECHANISM USER PASSWORD` | log in by SCRAM-SHA-256 or SCRAM-SHA-256-PLUS; the last reply is left for `S:` |
//!
//! `${name}` stands for a variable of the [`Target`], `${repeat:N:text}` for N times the text, `${base64:text}` for the text (with
//! the escapes of `R:`) in base64. Patterns are those of [`crate::pattern`].

mod parse;
mod run;
mod scram;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use run::DialogError;

/// A dialogue, read.
#[derive(Debug, Clone)]
pub struct Dialog {
    /// Where it was read from.
    pub path: PathBuf,
    /// The `@` lines; a key that occurs twice has its values joined by a newline.
    pub facts: BTreeMap<String, String>,
    steps: Vec<(usize, Step)>,
}

/// Whom to talk to.
#[derive(Clone)]
pub struct Target {
    /// Where the server listens.
    pub address: SocketAddr,
    /// A Unix socket to connect to instead.
    pub unix: Option<PathBuf>,
    /// TLS from the first byte.
    pub implicit_tls: bool,
    /// STARTTLS before the first step: the greeting is read, EHLO and STARTTLS are said, the handshake is done, and the greeting
    /// is shown to the dialogue as if it came now, since everything else begins anew (RFC 3207 §4.2).
    pub starttls: bool,
    /// Octets a segment from the start, as `X: split` sets them; 0 for as many as there are.
    pub split: usize,
    /// For handshakes; believes anything unless set.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name asked for in handshakes.
    pub server_name: String,
    /// What `${name}` stands for.
    pub variables: BTreeMap<String, String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Text with variables in it; CRLF is added.
    Line(String),
    /// Text with variables and escapes.
    Raw(String),
    Reply {
        count: usize,
        codes: Vec<String>,
        pattern: String,
    },
    ExactLine(String),
    SomeLine(String),
    NoLine(String),
    StartTls,
    Split(usize),
    Group,
    Send,
    Closed,
    ShutDown,
    Reconnect,
    Auth {
        mechanism: String,
        user: String,
        password: String,
    },
}

/// A dialogue file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}: {why}")]
pub struct BadDialog {
    path: String,
    line: usize,
    why: String,
}

impl Target {
    /// A plain one without variables.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            unix: None,
            implicit_tls: false,
            starttls: false,
            split: 0,
            tls: crate::certificates::trusting_client_config(),
            server_name: "localhost".into(),
            variables: BTreeMap::new(),
        }
    }

    /// TLS from the first byte.
    pub fn implicit_tls(mut self) -> Self {
        self.implicit_tls = true;
        self
    }

    /// STARTTLS before the first step.
    pub fn starttls(mut self) -> Self {
        self.starttls = true;
        self
    }

    /// Sets a variable.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }
}

impl Dialog {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, BadDialog> {
        let text =
            std::fs::read_to_string(path).map_err(|e| BadDialog { path: path.display().to_string(), line: 0, why: e.to_string() })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, BadDialog> {
        parse::parse(text, path)
    }

    /// All `.dialog` files below a folder, sorted by path.
    pub fn load_all(folder: &Path) -> Result<Vec<Self>, BadDialog> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(next) = folders.pop() {
            let entries =
                std::fs::read_dir(&next).map_err(|e| BadDialog { path: next.display().to_string(), line: 0, why: e.to_string() })?;
            for path in entries.flatten().map(|e| e.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "dialog") {
                    found.push(path);
                }
            }
        }
        found.sort();
        found.iter().map(|path| Self::load(path)).collect()
    }

    /// A fact, or the empty string.
    pub fn fact(&self, key: &str) -> &str {
        self.facts.get(key).map_or("", String::as_str)
    }

    /// How many connections it makes.
    pub fn connections(&self) -> usize {
        1 + self.steps.iter().filter(|(_, step)| *step == Step::Reconnect).count()
    }

    /// Plays it. The transcript is returned, or the line at which the server did otherwise.
    pub async fn run(&self, target: &Target) -> Result<Vec<String>, DialogError> {
        run::run(self, target).await
    }
}

#[cfg(test)]
mod tests;
