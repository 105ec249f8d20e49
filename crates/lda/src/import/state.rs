//! What an import has done, kept in a file so that it can be interrupted and resumed, or repeated later for what is new.
//!
//! One line a message: its key in hexadecimal. A key is written only after its message is on the disk.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The keys of messages that are done. Eight octets of memory each.
pub(crate) struct Done {
    keys: HashSet<u64>,
    file: File,
}

impl Done {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut keys = HashSet::new();
        for line in BufReader::new(&file).split(b'\n') {
            // A line torn by a crash is as if it had not been written: its message is found by its name.
            if let Ok(key) = u64::from_str_radix(&String::from_utf8_lossy(&line?), 16) {
                keys.insert(key);
            }
        }
        let mut this = Self { keys, file };
        // Whatever a crash left there must not run into the next line.
        this.file.write_all(b"\n")?;
        Ok(this)
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.keys.contains(&key)
    }

    /// Notes keys, durable when this returns.
    pub(crate) fn add(&mut self, keys: &[u64]) -> io::Result<()> {
        let text: String = keys.iter().map(|key| format!("{key:016x}\n")).collect();
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.keys.extend(keys);
        Ok(())
    }
}
