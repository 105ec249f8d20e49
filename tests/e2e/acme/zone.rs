//! BIND with one zone that takes updates signed by a TSIG key.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::process::Child;

use crate::{bind, peers};

/// The shared secret, and one that the server does not know.
const SECRET: &str = "cGlsbGFyYm94LXRlc3Qta2V5LW9mLTMyLW9jdGV0cyE=";
const OTHER: &str = "YW5vdGhlci1rZXktb2YtMzItb2N0ZXRzLWZvci1ub25lIQ==";

/// `example.test`; the server ends when dropped.
pub(super) struct Zone {
    folder: TempDir,
    address: SocketAddr,
    _child: Child,
}

impl Zone {
    /// `None` where BIND is not installed.
    pub(super) async fn start() -> Option<Self> {
        if !["named", "nsupdate", "dig"].into_iter().all(peers::have) {
            return None;
        }
        let folder = pillarbox_testkit::folder();
        let at = folder.path();
        let port = bind::port();
        // `mx` is proved in a place of its own, as by those whose zone takes no updates.
        let zone = "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\nmail IN A 127.0.0.1\nmx IN A 127.0.0.1\n\
                    _acme-challenge.mx IN CNAME mx.acme\n";
        std::fs::write(at.join("example.zone"), zone).unwrap();
        let config = format!(
            "options {{ directory \"{0}\"; listen-on port {port} {{ 127.0.0.1; }}; {1} }};\ncontrols {{ }};\n\
             key \"acme.key\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
             zone \"example.test\" {{ type primary; file \"example.zone\"; update-policy {{ grant acme.key subdomain example.test. TXT; }}; }};\n",
            at.display(),
            bind::QUIET,
        );
        std::fs::write(at.join("named.conf"), config).unwrap();
        let child = bind::serve(&at.join("named.conf")).await;
        Some(Self { folder, address: SocketAddr::from(([127, 0, 0, 1], port)), _child: child })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A key file as `tls.acme.dns_update_key_file` wants it: the right one, or one that the server does not know.
    pub(super) fn key_file(&self, right: bool) -> String {
        let path = self.folder.path().join(if right { "right.key" } else { "wrong.key" });
        std::fs::write(&path, format!("acme.key:hmac-sha256:{}\n", if right { SECRET } else { OTHER })).unwrap();
        path.display().to_string()
    }

    /// A hook that changes the zone by nsupdate, and notes how it was called.
    pub(super) fn hook(&self) -> PathBuf {
        let path = self.folder.path().join("hook");
        let text = format!(
            "#!/bin/sh\nset -eu\necho \"$*\" >>{log}\nif [ \"$1\" = add ]; then what=\"update add $2. 60 IN TXT $3\"; else what=\"update delete $2. IN TXT $3\"; fi\n\
             printf 'server 127.0.0.1 {port}\\nzone example.test\\n%s\\nsend\\n' \"$what\" | nsupdate -y hmac-sha256:acme.key:{SECRET}\n",
            log = self.folder.path().join("hook.log").display(),
            port = self.address.port(),
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// How the hook was called so far.
    pub(super) fn hooked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("hook.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The TXT records of a name now.
    pub(super) async fn texts(&self, name: &str) -> String {
        let port = self.address.port().to_string();
        let output = peers::run("dig", &["@127.0.0.1", "-p", &port, "+short", name, "TXT"]).await;
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
