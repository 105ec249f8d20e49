//! The dialogues of port 25 against Debian's Postfix: where it answers otherwise is written down in `tests/dialogs/postfix.toml`, with our reasons,
//! and this test sees to it that what is written there is true.
//!
//! `PILLARBOX_BLESS=1` writes what was seen; the reasons are for people to write.

use std::fmt::Write as _;
use std::net::SocketAddr;

use pillarbox_testkit::{CertificateAuthority, Client, Dialog, Target};

use super::{folder, name, play, world};
use crate::peers;
use crate::relaying::postfix::Postfix;

/// What `tests/dialogs/postfix.toml` holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Record {
    /// Postfix's version.
    version: String,
    played: usize,
    differences: Vec<Difference>,
}

/// The first thing in a dialogue that Postfix does otherwise.
#[derive(Debug, Default, PartialEq, Clone)]
struct Difference {
    dialog: String,
    /// What the client had said last.
    asked: String,
    expected: String,
    got: String,
    why: String,
}

impl Record {
    pub(super) fn load() -> Self {
        let text = std::fs::read_to_string(folder().join("postfix.toml")).unwrap_or_default();
        let table: toml::Table = toml::from_str(&text).unwrap_or_else(|e| panic!("postfix.toml: {e}"));
        let text = |value: &toml::Value, key: &str| value.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        let differences = table.get("difference").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let read = |d| Difference {
            dialog: text(d, "dialog"),
            asked: text(d, "asked"),
            expected: text(d, "expected"),
            got: text(d, "got"),
            why: text(d, "why"),
        };
        Self {
            version: table.get("version").and_then(toml::Value::as_str).unwrap_or_default().to_owned(),
            played: table.get("played").and_then(toml::Value::as_integer).and_then(|n| n.try_into().ok()).unwrap_or_default(),
            differences: differences.iter().map(read).collect(),
        }
    }

    fn store(&self) {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut out = format!(
            "# Where Debian's Postfix answers otherwise, as the test `dialogs::postfix` saw it; only `why` is written by people.\n\
             version = {}\nplayed = {}\n",
            quoted(&self.version),
            self.played
        );
        for d in &self.differences {
            let (dialog, asked, expected, got, why) =
                (quoted(&d.dialog), quoted(&d.asked), quoted(&d.expected), quoted(&d.got), quoted(&d.why));
            write!(out, "\n[[difference]]\ndialog = {dialog}\nasked = {asked}\nexpected = {expected}\ngot = {got}\nwhy = {why}\n").unwrap();
        }
        std::fs::write(folder().join("postfix.toml"), out).unwrap();
    }

    /// The section of the page.
    pub(super) fn page(&self) -> String {
        let mut out = format!(
            "\n## Where Debian's Postfix answers otherwise, and why we chose differently\n\n\
             Postfix {} was asked all {} dialogues that strangers have with port 25, as Debian configures it, with the same domain, users and alias, a\n\
             certificate, and `recipient_delimiter = +`. It keeps no SASL users here, so the dialogues of submission were not put to it. In {} of them\n\
             it answers otherwise somewhere; a table with the first such place in each, seen by the test `tests/e2e/dialogs/postfix.rs`. No claim is made\n\
             that one of the two is wrong where no standard decides.\n\n\
             | dialogue | the client says | expected | Postfix says | why it is otherwise here |\n| --- | --- | --- | --- | --- |\n",
            self.version,
            self.played,
            self.differences.len()
        );
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace("${", "$\u{200b}{");
        for d in &self.differences {
            let link = format!("[{0}](../tests/dialogs/{0}.dialog)", d.dialog);
            writeln!(out, "| {link} | {} | {} | {} | {} |", cell(&d.asked), cell(&d.expected), cell(&d.got), cell(&d.why)).unwrap();
        }
        out
    }
}

/// Without what differs from run to run.
fn steady(text: &str) -> String {
    let mut text = text.replace('\n', " ");
    if let Some((before, after)) = text.clone().split_once("queued as ") {
        let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
        text = format!("{before}queued as … {rest}").trim_end().to_owned();
    }
    shorten(&text, 120)
}

/// So many characters at most, and no character more than eight times in a row.
fn shorten(text: &str, most: usize) -> String {
    let mut short = String::new();
    let (mut last, mut run) = (None, 0);
    for c in text.chars() {
        run = if last == Some(c) { run + 1 } else { 1 };
        last = Some(c);
        match run {
            1..=8 => short.push(c),
            9 => short.push('…'),
            _ => {}
        }
    }
    match short.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", short[..at].trim_end_matches('…')),
        None => short,
    }
}

/// What was expected and what came, out of the words of a failed dialogue.
fn expected_and_got(why: &str) -> (String, String) {
    for (front, wanted) in [("no line matches ", "a line"), ("a line matches ", "no line")] {
        if let Some((pattern, reply)) = why.strip_prefix(front).and_then(|rest| rest.split_once(" in: ")) {
            return (format!("{wanted} {pattern}"), steady(reply));
        }
    }
    let (expected, got) = why.split_once(", got").unwrap_or((why, ""));
    let got = got.trim_start_matches([':', ' ']).trim_matches('"');
    let expected = expected.strip_prefix("expected ").unwrap_or(expected).trim_matches('"');
    let expected = if expected == "the end" { "the connection is closed" } else { expected };
    (shorten(expected, 120), steady(got))
}

/// The false ends of a message, by the names of their dialogues.
const FALSE_ENDS: [(&str, &[u8]); 10] = [
    ("smuggling/lf-dot-lf", b"\n.\n"),
    ("smuggling/cr-dot-cr", b"\r.\r"),
    ("smuggling/cr-dot-lf", b"\r.\n"),
    ("smuggling/lf-dot-cr", b"\n.\r"),
    ("smuggling/lf-dot-crlf", b"\n.\r\n"),
    ("smuggling/crlf-dot-lf", b"\r\n.\n"),
    ("smuggling/cr-dot-crlf", b"\r.\r\n"),
    ("smuggling/crlf-dot-cr", b"\r\n.\r"),
    ("smuggling/crlf-nul-dot-crlf", b"\r\n\0.\r\n"),
    ("smuggling/crlf-dot-nul-crlf", b"\r\n.\0\r\n"),
];

/// How many messages it makes of one with a false end in it and a second envelope behind.
async fn messages_made_of(address: SocketAddr, false_end: &[u8]) -> usize {
    let mut client = Client::connect(address).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.command("RCPT TO:<alice@example.test>", "250").await;
    client.command("DATA", "354").await;
    let behind = b"MAIL FROM:<evil@client.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\nQUIT\r\n";
    client.send(&[b"Subject: outer\r\n\r\nbody".as_slice(), false_end, behind].concat()).await;
    let mut taken = 0;
    while let Ok(reply) = client.try_reply().await {
        taken += usize::from(reply.has("*queued as*"));
    }
    taken
}

/// Postfix with the world of the dialogues, as far as it has words for it.
async fn start() -> Option<(SocketAddr, Postfix)> {
    let address = SocketAddr::from(([127, 0, 0, 1], pillarbox_testkit::free_port()));
    let issued = CertificateAuthority::new().issue(&["mail.example.test"]);
    let boxes = ["alice", "bob", "sue", "quinn"].map(|user| format!("{user}@example.test={user}/")).join(", ");
    let settings = [
        ("myhostname", "mail.example.test".to_owned()),
        // Who connects from here is a stranger.
        ("mynetworks", "192.0.2.0/24".to_owned()),
        ("virtual_mailbox_domains", "example.test, xn--bcher-kva.test".to_owned()),
        ("virtual_mailbox_maps", format!("inline:{{ {boxes} }}")),
        (
            "virtual_alias_maps",
            "inline:{ info@example.test=alice@example.test, postmaster@example.test=alice@example.test, \
             postmaster@mail.example.test=alice@example.test, postmaster=alice@example.test }"
                .to_owned(),
        ),
        ("recipient_delimiter", "+".to_owned()),
        ("smtpd_error_sleep_time", "0".to_owned()),
    ];
    Some((address, Postfix::start(address, &settings, Some(&issued)).await?))
}

async fn version() -> String {
    let output = peers::run("postconf", &["-dh", "mail_version"]).await;
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn postfix() {
    let Some((address, _postfix)) = start().await else { return };
    let mut seen = Record { version: version().await, ..Record::default() };
    let written = Record::load();
    let mut target = Target::new(address);
    target.variables = world::variables();
    for dialog in Dialog::load_all(&folder()).unwrap_or_else(|e| panic!("{e}")) {
        let alone = !dialog.fact("set").is_empty() || !dialog.fact("alone").is_empty();
        if play::listener(&dialog) != "smtp" || alone || dialog.fact("over") == "tls" {
            continue;
        }
        seen.played += 1;
        let Err(error) = dialog.run(&target).await else { continue };
        let (expected, mut got) = expected_and_got(&error.why);
        if let Some((_, end)) = FALSE_ENDS.iter().find(|(named, _)| *named == name(&dialog)) {
            got = format!(
                "{got}; {} of it",
                match messages_made_of(address, end).await {
                    1 => "one message".to_owned(),
                    n => format!("{n} messages"),
                }
            );
        }
        let said = error.transcript.iter().rev().find_map(|line| line.strip_prefix("C: ")).unwrap_or_default();
        seen.differences.push(Difference {
            dialog: name(&dialog),
            asked: shorten(said.trim_end_matches("\\r\\n"), 100),
            expected,
            got,
            why: written.differences.iter().find(|d| d.dialog == name(&dialog)).map(|d| d.why.clone()).unwrap_or_default(),
        });
    }
    if std::env::var_os("PILLARBOX_BLESS").is_some_and(|v| v == "1") {
        seen.store();
    } else if seen.version != written.version {
        // Another release answers otherwise in places; the page tells of the one that was asked.
        eprintln!("not compared: Postfix {} is installed, the page tells of {}", seen.version, written.version);
        return;
    } else {
        assert_eq!(seen.played, written.played, "run this test with PILLARBOX_BLESS=1");
        for d in &seen.differences {
            assert!(
                written.differences.contains(d),
                "tests/dialogs/postfix.toml does not hold what was seen; run this test with PILLARBOX_BLESS=1: {d:#?}"
            );
        }
        assert_eq!(seen.differences.len(), written.differences.len(), "some differences are gone; run this test with PILLARBOX_BLESS=1");
    }
    let unexplained: Vec<&str> = seen.differences.iter().filter(|d| d.why.is_empty()).map(|d| d.dialog.as_str()).collect();
    assert!(unexplained.is_empty(), "tests/dialogs/postfix.toml does not say why: {unexplained:?}");
}
