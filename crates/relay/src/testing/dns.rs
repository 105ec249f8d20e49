//! The scripted name server, told in lines as a zone file has them.

use std::net::SocketAddr;

use hickory_proto::rr::RecordType;
use pillarbox_testkit::dns::{DnsServer, Misbehaviour};

/// The server; it stops when dropped.
pub(crate) struct FakeDns(pub(crate) DnsServer);

impl FakeDns {
    pub(crate) async fn start() -> Self {
        Self(DnsServer::start().await)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Adds a line: `NAME MX 10 host`, `NAME A 192.0.2.1`, `NAME AAAA ::1`, `NAME CNAME other`, `NAME TXT text`.
    pub(crate) fn add(&self, line: &str) -> &Self {
        let mut words = line.splitn(3, ' ');
        let (owner, kind, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        match kind {
            "MX" => {
                let (preference, host) = rest.split_once(' ').unwrap();
                self.0.mx(owner, preference.parse().unwrap(), host)
            }
            "A" | "AAAA" => self.0.address_of(owner, rest),
            "CNAME" => self.0.cname(owner, rest),
            "TXT" => self.0.txt(owner, rest),
            other => panic!("unknown type {other}"),
        };
        self
    }

    /// SERVFAIL for this name.
    pub(crate) fn fail(&self, owner: &str) -> &Self {
        self.0.misbehave(owner, None, Misbehaviour::ServFail);
        self
    }

    /// How often this question came.
    pub(crate) fn asked(&self, owner: &str, kind: RecordType) -> usize {
        self.0.count(owner, kind)
    }
}
