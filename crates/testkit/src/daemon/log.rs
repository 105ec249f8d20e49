//! The daemon's log as it is written: lines, and the events among them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;

use crate::wait::Changes;

/// An event of the log (JSON form).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name: `accept`, `deliver`, and so on.
    pub name: String,
    /// All its fields.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Event {
    /// A field as text; empty when it is missing.
    pub fn text(&self, field: &str) -> String {
        match self.fields.get(field) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    changes: Changes,
}

impl Log {
    /// Reads a daemon's standard error until it ends. Bytes are kept as they are, so that raw control characters are seen.
    pub(super) fn follow(&self, stderr: ChildStderr) {
        let this = self.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
                this.lines.lock().push(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
                this.changes.note();
                line.clear();
            }
        });
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.lines.lock().iter().filter_map(|line| event(line)).collect()
    }

    /// The last lines, for messages of failures.
    pub(super) fn tail(&self) -> String {
        let lines = self.lines.lock();
        lines.iter().skip(lines.len().saturating_sub(60)).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Waits until `look` finds something; looks again after each line.
    pub(super) async fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.changes.until(what, look, || format!("the log ends with:\n{}", self.tail())).await
    }
}

/// Reads a daemon's standard error to its end, for nobody.
pub(super) fn throw_away(stderr: ChildStderr) {
    let mut pipe = std::fs::File::from(stderr.into_owned_fd().unwrap());
    std::thread::spawn(move || {
        use std::io::Read as _;
        let mut octets = vec![0; 64 * 1024];
        while let Ok(1..) = pipe.read(&mut octets) {}
    });
}

/// A line as an event: a JSON object with `event`, at the top or under `fields`, as tracing's own formatter nests it.
fn event(line: &str) -> Option<Event> {
    let serde_json::Value::Object(top) = serde_json::from_str(line).ok()? else { return None };
    let fields = match top.get("fields") {
        Some(serde_json::Value::Object(inner)) if inner.contains_key("event") => inner.clone(),
        _ => top,
    };
    let name = fields.get("event")?.as_str()?.to_owned();
    Some(Event { name, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_flat_and_nested() {
        for line in [r#"{"event":"accept","id":"x","size":3}"#, r#"{"level":"INFO","fields":{"event":"accept","id":"x","size":3}}"#] {
            let event = event(line).unwrap();
            assert_eq!((event.name.as_str(), event.text("id"), event.text("size")), ("accept", "x".into(), "3".into()));
        }
        assert_eq!(event("plain text"), None);
        assert_eq!(event(r#"{"message":"ready"}"#), None);
    }
}
