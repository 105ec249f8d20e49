//! Real peers, where they are installed: OpenDKIM over milter, dkimpy for signatures and seals.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox_config::{Config, Milter};
use pillarbox_directory::{Change, Directory, DomainRecord, MemoryDirectory};
use pillarbox_screen::auth::{AuthResult, Checks, authenticate};
use pillarbox_screen::{Signer, dkim};
use pillarbox_smtp::{Domain, ReversePath};
use support::dns::{Script, Server};
use support::session::{World, config, stored};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

const CLIENT: &str = "198.51.100.7";
const MESSAGE: &str = "From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: a line\n that folds\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\
    Message-ID: <1@example.org>\nMIME-Version: 1.0\nContent-Type: text/plain\n\nHello  there\n.dots\n\n";

/// A program of Debian's. Missing, the test says so and ends, or fails where `PILLARBOX_REQUIRE_PEERS=1`.
fn program(name: &str) -> Option<PathBuf> {
    let found =
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{name} is not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Waits until something listens on a socket, or the process has ended.
async fn listening(socket: &Path, child: &mut Child) {
    let patience = Instant::now() + Duration::from_secs(90);
    while UnixStream::connect(socket).await.is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the peer ended before it listened");
        assert!(Instant::now() < patience, "the peer does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A configuration that leaves all judging to one filter.
fn only(socket: &Path) -> Config {
    config(|screen| {
        (screen.spf, screen.dkim, screen.arc) = (false, false, false);
        let address = format!("unix:{}", socket.display());
        screen.milter = vec![Milter { address, on_failure: "tempfail".into(), timeout: Duration::from_secs(30) }];
    })
}

/// A domain with keys, and a signer over them.
struct Keys {
    folder: tempfile::TempDir,
    domain: Domain,
    record: DomainRecord,
    signer: Arc<Signer>,
}

async fn keys() -> Keys {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { hostname: "mx.example.org".into(), ..Config::default() };
    config.paths.state = folder.path().to_owned();
    let domain: Domain = "example.org".parse().unwrap();
    let made = dkim::generate_keys(&[], OffsetDateTime::now_utc()).unwrap();
    for key in &made {
        dkim::keys::store(folder.path(), &domain, key).unwrap();
    }
    let record = DomainRecord {
        name: domain.clone(),
        created: "2026-01-01T00:00:00Z".into(),
        deliver_to: None,
        dkim: made.into_iter().map(|key| key.record).collect(),
    };
    let directory = Arc::new(MemoryDirectory::new());
    directory.apply(vec![Change::PutDomain(record.clone())]).await.unwrap();
    Keys { signer: Signer::new(&config, directory), folder, domain, record }
}

impl Keys {
    fn records(&self) -> Vec<(String, String)> {
        dkim::records(&self.record, OffsetDateTime::now_utc())
    }

    async fn server(&self) -> Server {
        let mut script = Script::default();
        for (name, text) in self.records() {
            script.txt(&name, &text);
        }
        Server::start(script).await
    }

    async fn signed(&self) -> String {
        let message = Bytes::from(MESSAGE.replace('\n', "\r\n"));
        let fields = self.signer.sign(&self.domain, message.clone()).await.unwrap().unwrap();
        String::from_utf8([&fields[..], &message].concat()).unwrap()
    }
}

async fn opendkim(folder: &Path, settings: &str) -> Option<(Child, PathBuf)> {
    let opendkim = program("opendkim")?;
    let (file, socket) = (folder.join("opendkim.conf"), folder.join("opendkim.sock"));
    std::fs::write(folder.join("everyone"), "0.0.0.0/0\n").unwrap();
    std::fs::write(folder.join("nobody"), "192.0.2.255\n").unwrap();
    let common = format!("Socket local:{}\nBackground no\nRequireSafeKeys no\nAuthservID peer.example\nUMask 077\n", socket.display());
    std::fs::write(&file, common + settings).unwrap();
    let mut child = Command::new(opendkim).arg("-f").arg("-x").arg(&file).kill_on_drop(true).spawn().unwrap();
    listening(&socket, &mut child).await;
    Some((child, socket))
}

#[tokio::test]
async fn opendkim_verifies_what_we_sign() {
    let keys = keys().await;
    let folder = keys.folder.path();
    let table: String = keys.records().iter().map(|(name, text)| format!("{name} {text}\n")).collect();
    std::fs::write(folder.join("dns"), table).unwrap();
    let settings = format!("Mode v\nAlwaysAddARHeader yes\nInternalHosts {0}/nobody\nTestDNSData file:{0}/dns\n", folder.display());
    let Some((_child, socket)) = opendkim(folder, &settings).await else { return };
    let world = World::new(&only(&socket), |_| {}).await;
    let signed = keys.signed().await.replace("\r\n", "\n");
    let verdict = world.send(CLIENT, "alice@example.org", &signed).await.unwrap();
    let stored_ = stored(&verdict, &signed);
    let results = stored_.split("Authentication-Results: peer.example").nth(1).unwrap_or_else(|| unreachable!("{stored_}"));
    let results = results.split("\nAuthentication").next().unwrap();
    assert_eq!(results.matches("dkim=pass").count(), 2, "{stored_}");
}

#[tokio::test]
async fn we_verify_what_opendkim_signs() {
    let keys = keys().await;
    let folder = keys.folder.path();
    let selector = &keys.record.dkim[0].selector;
    let settings = format!(
        "Mode s\nInternalHosts {0}/everyone\nDomain example.org\nSelector {selector}\nKeyFile {0}/dkim/example.org/{selector}.pem\n\
         Canonicalization relaxed/simple\nOversignHeaders From\n",
        folder.display()
    );
    let Some((_child, socket)) = opendkim(folder, &settings).await else { return };
    let world = World::new(&only(&socket), |_| {}).await;
    let verdict = world.send(CLIENT, "alice@example.org", MESSAGE).await.unwrap();
    let signed = stored(&verdict, MESSAGE);
    assert!(signed.contains("DKIM-Signature:"), "{signed}");
    let checks = Checks { dkim: true, dmarc: false, arc: false };
    let message = Bytes::from(signed.replace('\n', "\r\n"));
    let found = authenticate(&keys.server().await.dns(), checks, &ReversePath::Null, None, message).await;
    assert_eq!(found.dkim.iter().map(|check| check.result).collect::<Vec<_>>(), [AuthResult::Pass], "{:?}", found.dkim);
}

/// Runs a script with dkimpy; standard input is the message. `None`: dkimpy is not installed.
async fn dkimpy(keys: &Keys, script: &str, message: &str) -> Option<String> {
    let python = program("python3")?;
    if !Command::new(&python).args(["-c", "import dkim, nacl, authres"]).stderr(Stdio::null()).status().await.unwrap().success() {
        assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "dkimpy is not installed");
        eprintln!("skipped: dkimpy is not installed");
        return None;
    }
    let records: String = keys.records().iter().map(|(name, text)| format!("b'{name}.': b'{text}', ")).collect();
    let script = format!(
        "import dkim, sys\nrecords = {{{records}}}\ndef dns(name, timeout=5): return records.get(name if isinstance(name, bytes) else name.encode())\nmessage = sys.stdin.buffer.read()\n{script}"
    );
    let mut child =
        Command::new(python).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(message.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn dkimpy_verifies_our_signatures_and_our_seal() {
    let keys = keys().await;
    let signed = keys.signed().await;
    let script = "d = dkim.DKIM(message)\nprint(d.verify(idx=0, dnsfunc=dns), dkim.DKIM(message).verify(idx=1, dnsfunc=dns))";
    let Some(answer) = dkimpy(&keys, script, &signed).await else { return };
    assert_eq!(answer.trim(), "True True");

    let judged = format!("Authentication-Results: mx.example.org; dmarc=pass header.from=example.org\r\n{signed}");
    let set = keys.signer.seal(&keys.domain, Bytes::from(judged.clone())).await.unwrap().unwrap();
    let sealed = String::from_utf8(set).unwrap() + &judged;
    let answer = dkimpy(&keys, "print(dkim.arc_verify(message, dnsfunc=dns)[0].decode())", &sealed).await.unwrap();
    assert_eq!(answer.trim(), "pass");
}

#[tokio::test]
async fn we_verify_dkimpys_signatures_and_seal() {
    let keys = keys().await;
    let pem = |nth: usize| {
        let selector = keys.record.dkim[nth].selector.clone();
        (std::fs::read_to_string(dkim::keys::path(keys.folder.path(), &keys.domain, &selector)).unwrap(), selector)
    };
    let ((rsa, rsa_selector), (ed, ed_selector)) = (pem(0), pem(1));
    // dkimpy takes an Ed25519 key as its seed, which is the end of our file.
    let script = format!(
        "import base64\nrsa, ed = b'''{rsa}''', '''{ed}'''\n\
         seed = base64.b64encode(base64.b64decode(''.join(ed.splitlines()[1:-1]))[-32:])\n\
         first = dkim.sign(message, b'{rsa_selector}', b'example.org', rsa)\n\
         second = dkim.sign(message, b'{ed_selector}', b'example.org', seed, signature_algorithm=b'ed25519-sha256')\n\
         signed = first + second + message\n\
         signed = b''.join(dkim.arc_sign(signed, b'{rsa_selector}', b'example.org', rsa, b'list.example')) + signed\n\
         sys.stdout.buffer.write(signed)"
    );
    let message = format!("Authentication-Results: list.example; dmarc=pass\r\n{}", MESSAGE.replace('\n', "\r\n"));
    let Some(signed) = dkimpy(&keys, &script, &message).await else { return };
    let dns = keys.server().await.dns();
    let checks = Checks { dkim: true, dmarc: false, arc: true };
    let found = authenticate(&dns, checks, &ReversePath::Null, None, Bytes::from(signed.clone())).await;
    assert_eq!(found.dkim.iter().map(|check| check.result).collect::<Vec<_>>(), [AuthResult::Pass; 2], "{:?}", found.dkim);
    assert_eq!(found.dkim.iter().map(|check| check.algorithm).collect::<Vec<_>>(), ["rsa-sha256", "ed25519-sha256"]);
    let arc = found.arc.unwrap();
    assert_eq!((arc.result, arc.dmarc_passed, arc.sealer.as_str()), (AuthResult::Pass, true, "example.org"), "{:?}", arc.reason);

    // Our set upon dkimpy's: a chain of two hands, which dkimpy believes as well.
    let judged = format!("Authentication-Results: mx.example.org; arc=pass; dmarc=pass header.from=example.org\r\n{signed}");
    let set = keys.signer.seal(&keys.domain, Bytes::from(judged.clone())).await.unwrap().unwrap();
    let sealed = String::from_utf8(set).unwrap() + &judged;
    let found = authenticate(&dns, checks, &ReversePath::Null, None, Bytes::from(sealed.clone())).await;
    assert_eq!(found.arc.map(|arc| (arc.result, arc.instances)), Some((AuthResult::Pass, 2)));
    let answer = dkimpy(&keys, "print(dkim.arc_verify(message, dnsfunc=dns)[0].decode())", &sealed).await.unwrap();
    assert_eq!(answer.trim(), "pass");
    // And does not, once somebody changed the message under the seals.
    let changed = sealed.replace("Hello  there", "Hello there, buy this");
    assert_ne!(changed, sealed);
    let answer = dkimpy(&keys, "print(dkim.arc_verify(message, dnsfunc=dns)[0].decode())", &changed).await.unwrap();
    assert_eq!(answer.trim(), "fail");
}
