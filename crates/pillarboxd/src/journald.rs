//! systemd's journal: one datagram a line in its native protocol, readable in MESSAGE, and each field of its own under `PILLARBOX_NAME`.

use std::io;
use std::os::unix::net::UnixDatagram;

use crate::logging::line::{Fields, Value};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What every line carries: who writes, and the facility "mail" of syslog (RFC 3164), by which others sort.
const ALWAYS: &str = "SYSLOG_IDENTIFIER=pillarboxd\nSYSLOG_FACILITY=2\n";

/// The way to the journal. It may be started anew at any time, so each datagram finds its own way.
pub(crate) struct Journal {
    socket: UnixDatagram,
    datagram: Vec<u8>,
}

impl Journal {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, datagram: Vec::new() })
    }

    /// Writes one line. Fails when no journal is there, or when the line is beyond what a datagram holds.
    pub(crate) fn write(&mut self, level: tracing::Level, message: &str, fields: &Fields) -> io::Result<()> {
        encode(&mut self.datagram, level, message, fields);
        self.socket.send_to(&self.datagram, SOCKET).map(drop)
    }
}

fn encode(out: &mut Vec<u8>, level: tracing::Level, message: &str, fields: &Fields) {
    out.clear();
    out.extend_from_slice(ALWAYS.as_bytes());
    put(out, "PRIORITY", priority(level));
    put(out, "MESSAGE", message);
    for (name, value) in fields.iter().filter(|(name, _)| *name != "message") {
        let name = format!("PILLARBOX_{}", name.to_ascii_uppercase());
        match value {
            Value::Text(text) => put(out, &name, text),
            other => put(out, &name, &other.to_string()),
        }
    }
}

/// `NAME=value`, or the form with a length where the value has line breaks, so that none of them can begin a field of its own.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// As in syslog (RFC 5424, 6.2.1).
fn priority(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "3",
        tracing::Level::WARN => "4",
        tracing::Level::INFO => "6",
        tracing::Level::DEBUG | tracing::Level::TRACE => "7",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_cannot_begin_another() {
        let mut out = Vec::new();
        let mut fields = Fields::default();
        fields.text("helo", "evil\nPRIORITY=0");
        fields.text("size", "5");
        encode(&mut out, tracing::Level::WARN, "reject helo=evil", &fields);
        let mut wanted =
            b"SYSLOG_IDENTIFIER=pillarboxd\nSYSLOG_FACILITY=2\nPRIORITY=4\nMESSAGE=reject helo=evil\nPILLARBOX_HELO\n".to_vec();
        wanted.extend_from_slice(&15u64.to_le_bytes());
        wanted.extend_from_slice(b"evil\nPRIORITY=0\nPILLARBOX_SIZE=5\n");
        assert_eq!(out, wanted);
    }
}
