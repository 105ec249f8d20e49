//! By which way mail reaches a mailbox: our own Maildir, or another program by LMTP.

use std::fmt;
use std::path::PathBuf;

use pillarbox_config::NextHop;
use pillarbox_queue::Destination;

/// One way of delivery, as `deliver_to` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// `maildir`.
    Maildir,
    /// `lmtp:unix:/path`, `lmtp:HOST:PORT`, or several of them joined by commas: each user always goes to the same one.
    Lmtp(Vec<Backend>),
}

/// One LMTP server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host (a name or an address without brackets) and a port, 24 where none is written.
    Tcp(String, u16),
}

impl Way {
    /// Reads `maildir`, `lmtp:unix:/run/dovecot/lmtp`, `lmtp:host:24`, `lmtp:[::1]:24`, and `lmtp:a:24,lmtp:b:24` (the later `lmtp:` may be left out).
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("maildir") {
            return Some(Self::Maildir);
        }
        let list = text.strip_prefix("lmtp:")?;
        let backends: Option<Vec<Backend>> = list.split(',').map(|part| Backend::new(part.trim())).collect();
        backends.map(Self::Lmtp)
    }
}

impl Backend {
    fn new(text: &str) -> Option<Self> {
        let text = text.strip_prefix("lmtp:").unwrap_or(text);
        match format!("lmtp:{text}").parse() {
            Ok(NextHop::LmtpUnix(path)) => Some(Self::Unix(path)),
            Ok(NextHop::LmtpTcp { host, port }) => Some(Self::Tcp(host, port)),
            _ => None,
        }
    }

    /// The destination that the queue groups by.
    pub fn destination(&self) -> Destination {
        Destination::from(format!("lmtp:{self}"))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_as_documented() {
        let tcp = |host: &str, port| Backend::Tcp(host.into(), port);
        assert_eq!(Way::new("maildir"), Some(Way::Maildir));
        assert_eq!(Way::new("lmtp:unix:/run/dovecot/lmtp"), Some(Way::Lmtp(vec![Backend::Unix("/run/dovecot/lmtp".into())])));
        assert_eq!(Way::new("lmtp:a.example:24"), Some(Way::Lmtp(vec![tcp("a.example", 24)])));
        assert_eq!(Way::new("lmtp:[::1]:24"), Some(Way::Lmtp(vec![tcp("::1", 24)])));
        assert_eq!(Way::new("lmtp:a:24,b:25, lmtp:c:26"), Some(Way::Lmtp(vec![tcp("a", 24), tcp("b", 25), tcp("c", 26)])));
    }

    #[test]
    fn nonsense_is_none() {
        for text in ["", "mbox", "lmtp:", "lmtp:unix:relative", "lmtp:host:0", "lmtp:host:x", "lmtp::24", "lmtp:a:24,"] {
            assert_eq!(Way::new(text), None, "{text}");
        }
    }

    #[test]
    fn a_destination_reads_back_as_its_backend() {
        for text in ["lmtp:unix:/run/x", "lmtp:[::1]:24", "lmtp:host:24"] {
            let Some(Way::Lmtp(backends)) = Way::new(text) else { panic!("{text}") };
            assert_eq!(&*backends[0].destination().0, text);
        }
    }
}
