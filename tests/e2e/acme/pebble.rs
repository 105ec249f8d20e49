//! Pebble, the small ACME authority for tests, as Debian ships it, on loopback with a certificate of ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use pillarbox_testkit::{CertificateAuthority, DaemonBuilder, PATIENCE, free_port};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::peers;

/// How it behaves.
pub(super) struct Manners {
    /// Of 100 good nonces so many are refused (RFC 8555 §6.5: clients must try again).
    pub(super) nonce_reject: u32,
    /// Of 100 proofs so many are remembered for the next order.
    pub(super) authz_reuse: u32,
    /// Life of certificates in seconds.
    pub(super) life: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self { nonce_reject: 10, authz_reuse: 0, life: 90 * 86_400 }
    }
}

/// The running authority; it ends when dropped.
pub(super) struct Pebble {
    folder: TempDir,
    authority: CertificateAuthority,
    address: SocketAddr,
    management: SocketAddr,
    /// Where it fetches pages of http-01.
    pub(super) http_port: u16,
    said: Arc<Mutex<Vec<String>>>,
    child: Child,
}

impl Pebble {
    /// Starts it; it asks this name server. `None` where it is not installed.
    pub(super) async fn start(dns: SocketAddr, manners: Manners) -> Option<Self> {
        if !peers::have("pebble") {
            return None;
        }
        let folder = pillarbox_testkit::folder();
        let authority = CertificateAuthority::new();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"]).write(folder.path(), "pebble");
        let [address, management] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let http_port = free_port();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": address, "managementListenAddress": management, "certificate": certificate, "privateKey": key,
            "httpPort": http_port, "tlsPort": free_port(), "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": manners.life,
        }});
        let file = folder.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let (said, child) = run(&file, dns, &manners).await?;
        Some(Self { folder, authority, address, management, http_port, said, child })
    }

    /// Ends it and starts it anew: it forgets accounts and keys, as it always does.
    pub(super) async fn restart(mut self, dns: SocketAddr) -> Self {
        self.child.kill().await.unwrap();
        let (said, child) = run(&self.folder.path().join("pebble.json"), dns, &Manners::default()).await.unwrap();
        Self { said, child, ..self }
    }

    /// A daemon that orders here.
    pub(super) fn customer(&self, builder: DaemonBuilder) -> DaemonBuilder {
        builder
            .set("tls.acme.directory", format!("https://localhost:{}/dir", self.address.port()))
            .set("tls.acme.contact", "mailto:postmaster@example.com")
            .set("tls.acme.ca_file", self.folder.path().join("ca.pem").display().to_string())
    }

    /// How often it said something with these words.
    pub(super) fn said(&self, words: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// Its root certificate, in a file of its own.
    pub(super) async fn root(&self) -> PathBuf {
        let io = tokio::net::TcpStream::connect(self.management).await.unwrap();
        let (io, _) = pillarbox_testkit::stream::connect_tls(Box::new(io), self.authority.client_config(), "localhost").await.unwrap();
        let page = crate::web::talk(io, b"GET /roots/0 HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(page.status, 200, "{page:?}");
        let file = self.folder.path().join("root.pem");
        std::fs::write(&file, page.body).unwrap();
        file
    }
}

/// Starts the program and waits until it serves.
async fn run(config: &Path, dns: SocketAddr, manners: &Manners) -> Option<(Arc<Mutex<Vec<String>>>, Child)> {
    let mut command = Command::new(peers::path("pebble")?);
    command.arg("-config").arg(config).args(["-dnsserver", &dns.to_string()]);
    command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", manners.nonce_reject.to_string());
    command.env("PEBBLE_AUTHZREUSE", manners.authz_reuse.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let said = Arc::new(Mutex::new(Vec::new()));
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            let is_ready = line.contains("ACME directory available at");
            said.lock().unwrap().push(line);
            if is_ready {
                return true;
            }
        }
        false
    };
    let ready = tokio::time::timeout(PATIENCE, ready).await.unwrap_or(false);
    assert!(ready, "pebble did not start:\n{}", said.lock().unwrap().join("\n"));
    let words = said.clone();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            words.lock().unwrap().push(line);
        }
    });
    Some((said, child))
}
