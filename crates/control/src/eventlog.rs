//! The event log that `trace` reads: JSON lines under STATE/events, bounded in size, the oldest file dropped first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The log is kept in this many files; the oldest one is dropped when a new one is begun.
const FILES: u64 = 4;

/// Appends events. One writer a folder.
#[derive(Debug)]
pub struct EventLogWriter {
    folder: PathBuf,
    file: File,
    written: u64,
    file_limit: u64,
}

impl EventLogWriter {
    /// Opens the log for appending; `limit` is the size of all its files together, in octets.
    pub fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = append_to(&current(folder))?;
        let written = file.metadata()?.len();
        Ok(Self { folder: folder.to_owned(), file, written, file_limit: (limit / FILES).max(64 * 1024) })
    }

    /// Appends whole lines, each ending in a line feed.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.written > 0 && self.written.saturating_add(lines.len() as u64) > self.file_limit {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.written = self.written.saturating_add(lines.len() as u64);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..FILES - 1).rev() {
            match fs::rename(older(&self.folder, n), older(&self.folder, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(current(&self.folder), older(&self.folder, 1))?;
        self.file = append_to(&current(&self.folder))?;
        self.written = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn current(folder: &Path) -> PathBuf {
    folder.join("events.jsonl")
}

fn older(folder: &Path, n: u64) -> PathBuf {
    folder.join(format!("events.{n}.jsonl"))
}

/// What `trace` looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// A queue id: every event that carries it, and those of messages made from it.
    Id(String),
    /// A Message-ID, with or without angle brackets.
    MessageId(String),
    /// An address as sender or recipient, in lower case.
    Address(String),
}

impl Trace {
    /// Tells the three apart: an id has 13 letters and digits; `<…>` is a Message-ID; the rest holds an `@` and may be either.
    pub fn parse(text: &str) -> Vec<Trace> {
        let bare = text.trim().trim_start_matches('<').trim_end_matches('>');
        if bare.len() == 13 && bare.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return vec![Self::Id(bare.to_ascii_lowercase())];
        }
        if text.trim().starts_with('<') {
            return vec![Self::MessageId(bare.to_owned())];
        }
        vec![Self::Address(bare.to_lowercase()), Self::MessageId(bare.to_owned())]
    }

    fn matches(&self, event: &Value) -> bool {
        let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or("");
        match self {
            Self::Id(id) => text("id") == id || text("parent") == id,
            Self::MessageId(id) => text("message_id").trim_matches(['<', '>']) == id,
            Self::Address(address) => {
                text("from").to_lowercase() == *address || text("to").to_lowercase().split(", ").any(|to| to == address)
            }
        }
    }
}

/// Every event of the messages that `wanted` finds, in time order, at most `limit` (the newest). Reads the files once to
/// find the ids and once to collect their events, in constant memory but for the answer.
pub fn trace(folder: &Path, wanted: &[Trace], limit: usize) -> io::Result<Vec<Value>> {
    let mut ids = std::collections::BTreeSet::new();
    scan(folder, |event| {
        if wanted.iter().any(|w| w.matches(event))
            && let Some(id) = event.get("id").and_then(Value::as_str)
        {
            ids.insert(id.to_owned());
            if ids.len() > limit {
                ids.pop_first();
            }
        }
    })?;
    let mut found = std::collections::VecDeque::new();
    scan(folder, |event| {
        let of_message = event.get("id").and_then(Value::as_str).is_some_and(|id| ids.contains(id));
        // A rejected recipient has no id; the address alone finds it.
        let of_address = event.get("id").and_then(Value::as_str).is_none() && wanted.iter().any(|w| w.matches(event));
        if of_message || of_address {
            found.push_back(event.clone());
            if found.len() > limit {
                found.pop_front();
            }
        }
    })?;
    Ok(found.into())
}

fn scan(folder: &Path, mut each: impl FnMut(&Value)) -> io::Result<()> {
    let files = (1..FILES).rev().map(|n| older(folder, n)).chain([current(folder)]);
    for path in files {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            // A line cut by a crash is no JSON and is passed over.
            if let Ok(event) = serde_json::from_slice::<Value>(&line) {
                each(&event);
            }
            line.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_the_newest_survive() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLogWriter::open(folder.path(), 4 * 64 * 1024).unwrap();
        for n in 0..5000 {
            log.append(
                format!("{{\"event\":\"accept\",\"id\":\"{n:013}\",\"from\":\"a@b.test\",\"pad\":\"{}\"}}\n", "x".repeat(60)).as_bytes(),
            )
            .unwrap();
        }
        let size: u64 = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 4 * 64 * 1024, "{size}");
        let last = trace(folder.path(), &Trace::parse("0000000004999"), 10).unwrap();
        assert_eq!(last.len(), 1);
        assert!(trace(folder.path(), &Trace::parse("0000000000001"), 10).unwrap().is_empty());
    }

    #[test]
    fn a_message_is_found_by_id_address_and_message_id() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLogWriter::open(folder.path(), 1 << 20).unwrap();
        log.append(b"{\"event\":\"accept\",\"id\":\"0000000000abc\",\"from\":\"a@x.test\",\"to\":\"b@y.test, c@y.test\",\"message_id\":\"<m1@x.test>\"}\n").unwrap();
        log.append(b"{\"event\":\"deliver\",\"id\":\"0000000000abc\",\"to\":\"b@y.test\"}\n").unwrap();
        log.append(b"{\"event\":\"reject\",\"from\":\"a@x.test\",\"to\":\"nobody@y.test\"}\n{\"torn").unwrap();
        for what in ["0000000000abc", "<m1@x.test>", "m1@x.test", "c@y.test"] {
            assert_eq!(trace(folder.path(), &Trace::parse(what), 10).unwrap().len(), 2, "{what}");
        }
        assert_eq!(trace(folder.path(), &Trace::parse("nobody@y.test"), 10).unwrap().len(), 1);
    }
}
