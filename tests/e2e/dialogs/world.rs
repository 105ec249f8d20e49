//! The daemon that the dialogues are played against, and who lives there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox_testkit::daemon::Mailbox;
use pillarbox_testkit::dns::{Data, Misbehaviour};
use pillarbox_testkit::{Daemon, Sink};
use tempfile::TempDir;

/// Users and their passwords. `sue` is suspended; `quinn` has a small quota; `josé` needs SMTPUTF8.
const USERS: [(&str, &str); 5] = [
    ("alice@example.test", "wonderland"),
    ("bob@example.test", "builder"),
    ("sue@example.test", "suspended"),
    ("quinn@example.test", "little room"),
    ("josé@bücher.test", "contraseña"),
];

/// A daemon with its users, and a host out there that takes mail for `elsewhere.test` and speaks no TLS.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    /// The LMTP listener's Unix socket.
    pub(crate) lmtp: PathBuf,
    _folder: TempDir,
    _elsewhere: Sink,
}

impl World {
    /// Starts it with further configuration keys, as lines of `key = value`.
    pub(crate) async fn start(settings: &str) -> Self {
        let elsewhere = Sink::start().await;
        let folder = pillarbox_testkit::folder();
        let lmtp = folder.path().join("lmtp.sock");
        let mut builder = Daemon::builder()
            .set("listen.lmtp", vec!["127.0.0.1:0".to_owned(), format!("unix:{}", lmtp.display())])
            .set("auth.mechanisms", ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"].map(str::to_owned).to_vec())
            // Many a dialogue logs in wrongly or errs on purpose, all from one address.
            .set("auth.failures_per_client", 100_000)
            .set("limits.protocol_errors", 30)
            .relay_to_loopback(elsewhere.address().port());
        for line in settings.lines() {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("@set {line}: the form is key = value"));
            let value: toml::Table = toml::from_str(&format!("value = {value}")).unwrap_or_else(|e| panic!("@set {line}: {e}"));
            builder = builder.set(key.trim(), value["value"].clone());
        }
        let daemon = builder.start().await;
        daemon.dns().mx("elsewhere.test", 10, "mx.elsewhere.test").address_of("mx.elsewhere.test", "127.0.0.1");
        daemon.dns().address_of("mail.example.test", "127.0.0.1");
        daemon.dns().mx("mixed.test", 10, "mx.client.test").mx("evil.test", 10, "mx.client.test");
        daemon.dns().add("nullmx.test", Data::Mx(0, ".".into()));
        daemon.dns().cname("alias.client.test", "mx.client.test").txt("text.client.test", "no mail here");
        daemon.dns().misbehave("failing.test", None, Misbehaviour::ServFail);
        for (address, password) in USERS {
            daemon.add_user(address, password).await;
        }
        daemon.admin(&["user", "suspend", "sue@example.test"]).await;
        daemon.admin(&["user", "quota", "quinn@example.test", "100K"]).await;
        daemon.add_alias("info@example.test", &["alice@example.test"]).await;
        daemon.add_alias("info@bücher.test", &["alice@example.test"]).await;
        Self { daemon, lmtp, _folder: folder, _elsewhere: elsewhere }
    }

    /// What lies in a user's inbox; the folder of a domain bears its A-label.
    pub(crate) fn mailbox(&self, address: &str) -> Mailbox {
        self.daemon.mailbox(&address.replace("bücher.test", "xn--bcher-kva.test"))
    }

    /// Where the mail of one who is named in `@stored` lies.
    pub(crate) fn address(short: &str) -> &'static str {
        let full = USERS.iter().map(|(address, _)| *address).find(|a| a.split('@').next().is_some_and(|local| ascii(local) == short));
        full.unwrap_or_else(|| panic!("@stored {short}: nobody here is called that"))
    }
}

/// A user's short name: the local part without accents.
fn ascii(local: &str) -> String {
    local.replace('é', "e")
}

/// What `${name}` stands for in the files.
pub(crate) fn variables() -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
    set("host", "mail.example.test");
    set("domain", "example.test");
    set("elsewhere", "elsewhere.test");
    set("client", "client.test");
    set("sender", "sender@client.test");
    let plain = |authzid: &str, user: &str, password: &str| STANDARD.encode(format!("{authzid}\0{user}\0{password}"));
    for (address, password) in USERS {
        let short = ascii(address.split('@').next().unwrap_or_default());
        set(&short, address);
        set(&format!("{short}_password"), password);
        set(&format!("{short}_password64"), &STANDARD.encode(password));
        set(&format!("{short}_plain"), &plain("", address, password));
    }
    let (alice, password) = USERS[0];
    set("alice_upper_plain", &plain("", "Alice@EXAMPLE.test", password));
    set("jose_alabel_plain", &plain("", "josé@xn--bcher-kva.test", USERS[4].1));
    set("alice_for_bob_plain", &plain("bob@example.test", alice, password));
    set("alice_for_alice_plain", &plain(alice, alice, password));
    variables
}
