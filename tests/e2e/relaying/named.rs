//! BIND with signed zones of our own, from the root down, in a folder.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::process::Child;

use crate::{bind, peers};

/// A zone: its records in zone format, and what is done to its text once it is signed.
pub(super) struct Zone<'a> {
    /// Without the trailing dot.
    pub(super) name: &'a str,
    /// Records below SOA and NS.
    pub(super) records: String,
    /// Replaced in the signed file, whose signatures then lie.
    pub(super) forged: Option<(String, String)>,
    /// Signed, and the key proved by the parent.
    pub(super) signed: bool,
}

/// The running server; it ends when dropped.
pub(super) struct Named {
    folder: TempDir,
    address: SocketAddr,
    _child: Child,
}

const HEAD: &str =
    "$TTL 60\n@ IN SOA ns.root-servers.test. hostmaster.root-servers.test. 1 3600 600 86400 60\n@ IN NS ns.root-servers.test.\n";

impl Named {
    /// Signs the zones and a root above them, and serves all. `None` where the programs are missing.
    pub(super) async fn start(zones: &[Zone<'_>]) -> Option<Self> {
        if !["named", "dnssec-keygen", "dnssec-signzone"].into_iter().all(peers::have) {
            return None;
        }
        let folder = pillarbox_testkit::folder();
        let at = folder.path();
        let mut root = format!("{HEAD}ns.root-servers.test. IN A 127.0.0.1\n");
        let mut config = String::new();
        for zone in zones {
            root.push_str(&format!("{0}. IN NS ns.root-servers.test.\n", zone.name));
            let text = format!("{HEAD}{}", zone.records);
            if zone.signed {
                root.push_str(&sign(at, zone.name, &text, zone.forged.as_ref()).await);
            } else {
                std::fs::write(at.join(format!("{}.zone", zone.name)), text).unwrap();
            }
            config.push_str(&format!("zone \"{0}\" {{ type primary; file \"{0}.zone\"; }};\n", zone.name));
        }
        sign(at, ".", &root, None).await;
        config.push_str("zone \".\" { type primary; file \"root.zone\"; };\n");
        let port = bind::port();
        let text = format!(
            "options {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; minimal-responses yes; {} }};\ncontrols {{ }};\n{config}",
            at.display(),
            bind::QUIET
        );
        std::fs::write(at.join("named.conf"), text).unwrap();
        let child = bind::serve(&at.join("named.conf")).await;
        Some(Self { folder, address: SocketAddr::from(([127, 0, 0, 1], port)), _child: child })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the root's keys, for `dns.trust_anchor`.
    pub(super) fn trust_anchor(&self) -> String {
        self.folder.path().join("anchor").display().to_string()
    }
}

/// Signs a zone and leaves it in `NAME.zone`. Returns the DS records for its parent; the root's key goes to `anchor`.
async fn sign(folder: &Path, name: &str, text: &str, forged: Option<&(String, String)>) -> String {
    let file = if name == "." { "root".to_owned() } else { name.to_owned() };
    let keys = folder.join(format!("{file}.keys"));
    std::fs::create_dir(&keys).unwrap();
    let at = |path: &Path| path.display().to_string();
    let plain = folder.join(format!("{file}.plain"));
    let signed = folder.join(format!("{file}.zone"));
    std::fs::write(&plain, text).unwrap();
    let keys_at = at(&keys);
    for key in [&["-f", "KSK"][..], &[]] {
        let arguments = [&["-q", "-K", &keys_at, "-a", "ECDSAP256SHA256"][..], key, &[name]].concat();
        done(peers::run("dnssec-keygen", &arguments).await);
    }
    let arguments = ["-q", "-S", "-K", &keys_at, "-d", &keys_at, "-o", name, "-f", &at(&signed), &at(&plain)].map(str::to_owned);
    done(peers::run("dnssec-signzone", &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await);
    if let Some((from, to)) = forged {
        let text = std::fs::read_to_string(&signed).unwrap();
        assert!(text.contains(from.as_str()), "{from:?} is not in the signed zone:\n{text}");
        std::fs::write(&signed, text.replace(from.as_str(), to)).unwrap();
    }
    let mut delegation = String::new();
    for entry in std::fs::read_dir(&keys).unwrap() {
        let path = entry.unwrap().path();
        let text = || std::fs::read_to_string(&path).unwrap();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dsset-")) {
            delegation.push_str(&text());
        }
        if name == "." && path.extension().is_some_and(|e| e == "key") && text().contains("DNSKEY 257 ") {
            let record: String = text().lines().filter(|line| !line.starts_with(';')).map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.join("anchor"), record).unwrap();
        }
    }
    delegation
}

fn done(output: std::process::Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
