//! What lies in a Maildir.

use std::path::{Path, PathBuf};

/// A Maildir's messages.
#[derive(Debug, Clone, Default)]
pub struct Mailbox {
    /// Those in `new/`, then those in `cur/`, each as they arrived.
    pub messages: Vec<Stored>,
    /// Names left in `tmp/`.
    pub unfinished: Vec<String>,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it lies.
    pub path: PathBuf,
    /// It is still in `new/`.
    pub new: bool,
    /// Its octets, LF line ends.
    pub content: Vec<u8>,
}

impl Mailbox {
    /// Reads a folder; one that does not exist holds nothing.
    pub(super) fn read(maildir: &Path) -> Self {
        let names = |sub: &str| -> Vec<PathBuf> {
            let mut paths: Vec<PathBuf> =
                std::fs::read_dir(maildir.join(sub)).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
            paths.sort_by_cached_key(|path| (arrival(path), path.clone()));
            paths
        };
        let mut messages = Vec::new();
        for (sub, new) in [("new", true), ("cur", false)] {
            for path in names(sub) {
                // One that a reader moved away meanwhile is seen at the next look.
                if let Ok(content) = std::fs::read(&path) {
                    messages.push(Stored { path, new, content });
                }
            }
        }
        let unfinished = names("tmp").iter().filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect();
        Self { messages, unfinished }
    }
}

/// When a message arrived, by the numbers in its name as mail readers take them: seconds, and microseconds behind an `M`, which are not padded.
fn arrival(path: &Path) -> (u64, u64) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (number(&name), name.split_once(".M").map_or(0, |(_, rest)| number(rest)))
}

impl Stored {
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// The values of all header fields of this name, unfolded, in order.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let header = text.split_once("\n\n").map_or(text.as_str(), |(header, _)| header);
        let mut found = Vec::new();
        let mut inside = false;
        for line in header.lines() {
            if line.starts_with([' ', '\t']) {
                if let (true, Some(last)) = (inside, found.last_mut()) {
                    let last: &mut String = last;
                    last.push(' ');
                    last.push_str(line.trim());
                }
                continue;
            }
            inside = line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
            if inside {
                found.push(line.split_once(':').map_or("", |(_, v)| v.trim()).to_owned());
            }
        }
        found
    }

    /// The first header field of this name, or the empty string.
    pub fn header(&self, name: &str) -> String {
        self.headers(name).into_iter().next().unwrap_or_default()
    }

    /// What stands behind the blank line.
    pub fn body(&self) -> &[u8] {
        let at = memchr::memmem::find(&self.content, b"\n\n").map_or(self.content.len(), |n| n + 2);
        &self.content[at..]
    }

    /// The size hint of this letter in the name: `S` or `W`.
    pub fn size_hint(&self, letter: char) -> Option<u64> {
        let name = self.path.file_name()?.to_string_lossy().into_owned();
        let start = name.find(&format!(",{letter}="))? + 3;
        name[start..].split([',', ':']).next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maildir_is_read() {
        let folder = crate::folder();
        for sub in ["new", "cur", "tmp"] {
            std::fs::create_dir(folder.path().join(sub)).unwrap();
        }
        std::fs::write(folder.path().join("new/1.x.host,S=20,W=23"), "A: 1\n 2\nB: x\nA: 3\n\nbody\n\nmore\n").unwrap();
        std::fs::write(folder.path().join("tmp/2"), "").unwrap();
        let mailbox = Mailbox::read(folder.path());
        let message = &mailbox.messages[0];
        assert_eq!(message.headers("a"), ["1 2", "3"]);
        assert_eq!((message.body(), message.size_hint('W')), (&b"body\n\nmore\n"[..], Some(23)));
        assert_eq!(mailbox.unfinished, ["2"]);
        assert!(Mailbox::read(Path::new("nowhere")).messages.is_empty());
    }
}
