//! The machine's terminal: keys go in, and what must come out is awaited.

use std::path::Path;

use pillarbox_testkit::PATIENCE;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::peers;

/// Something that is written bit by bit, and read as it comes.
pub(super) struct Stream {
    pipe: Receiver,
    seen: String,
}

impl Stream {
    /// Opens the reading end of a FIFO.
    pub(super) fn open(path: &Path) -> Self {
        // Writing too, so that it does not end between two writers.
        let pipe = OpenOptions::new().read_write(true).open_receiver(path).unwrap();
        Self { pipe, seen: String::new() }
    }

    /// Waits for a text; what comes before it, and itself, is used up.
    pub(super) async fn until(&mut self, text: &str) {
        let reading = async {
            loop {
                if let Some(at) = self.seen.find(text) {
                    self.seen.drain(..at + text.len());
                    return;
                }
                let mut bytes = [0; 4096];
                let length = self.pipe.read(&mut bytes).await.unwrap();
                self.seen.push_str(&plain(&String::from_utf8_lossy(&bytes[..length])));
            }
        };
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            panic!("{text:?} did not come; after the last that did:\n{}", self.seen);
        }
    }
}

/// Without escape sequences (ECMA-48 CSI) and other controls but line ends.
fn plain(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        rest = rest.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out.retain(|c| c == '\n' || !c.is_control());
    out
}

/// Sends tmux a command.
async fn tmux(folder: &Path, arguments: &[&str]) -> String {
    let socket = folder.join("tmux").display().to_string();
    let output = peers::run("tmux", &[&["-S", &socket][..], arguments].concat()).await;
    assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Types a line.
pub(super) async fn line(folder: &Path, text: &str) {
    tmux(folder, &["send-keys", "-t", "walk", "-l", text]).await;
    tmux(folder, &["send-keys", "-t", "walk", "Enter"]).await;
}

/// Everything that was on the screen, with its colours.
pub(super) async fn everything(folder: &Path) -> String {
    tmux(folder, &["capture-pane", "-e", "-p", "-S", "-", "-t", "walk"]).await
}
