//! Real messages through both: whatever came in by SMTP is what a mail program reads over IMAP, octet for octet, behind our own trace fields.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pillarbox_testkit::{Client, Daemon};

use super::imap::Imap;
use super::server::{Dovecot, Place};
use super::{ALICE, PASSWORD};
use crate::peers;

/// Refused by rule, with the reason.
const REFUSED: &[(&str, &str)] = &[
    // A lone CR in the text: no line end of RFC 5321 §2.3.8, and how one message is smuggled inside another.
    ("mail/legacy/049.eml", "bare CR"),
];

/// Sends each file as a client with LF files does, line ends made CRLF, nothing else touched; prints how each was answered.
const SMTPLIB: &str = r#"
import re, smtplib, sys
for n, path in enumerate(sys.argv[2:]):
    data = re.sub(rb"(?<!\r)\n", b"\r\n", open(path, "rb").read())
    server = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), local_hostname="client.test")
    server.ehlo()
    assert server.mail("m%d@client.test" % n, ["BODY=8BITMIME", "SMTPUTF8"] if "/eai/" in path else [])[0] == 250
    assert server.rcpt("alice@example.test")[0] == 250
    code, text = server.data(data)
    print(n, code, text.decode().replace("\n", " "))
    server.close()
"#;

/// All real messages, by a name that a person finds again.
fn files(data: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for folder in ["mail/legacy", "mail/rfc", "eai"] {
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            found.insert(format!("{folder}/{}", path.file_name().unwrap().to_string_lossy()), path);
        }
    }
    assert!(found.len() >= 70, "{found:?}");
    found
}

/// As it goes over the wire: every line ends in CRLF.
fn wire(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|&b| b == b'\n') {
        wire.extend_from_slice(line.strip_suffix(b"\n").map_or(line, |l| l.strip_suffix(b"\r").unwrap_or(l)));
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// Waits for so many deliveries; then the messages as IMAP serves them, by the local part of their `Return-Path`. Those that name their author in a way no
/// policy can be asked about are in Junk.
async fn served(daemon: &Daemon, dovecot: &Dovecot, count: usize) -> BTreeMap<String, Vec<u8>> {
    daemon.event("deliver", |_| daemon.events().iter().filter(|event| event.name == "deliver").count() >= count).await;
    let mut imap = Imap::login(dovecot.imaps, ALICE, PASSWORD).await.unwrap();
    let mut messages = Vec::new();
    for folder in ["INBOX", "Junk"] {
        if imap.select(folder).await > 0 {
            messages.append(&mut imap.messages().await);
        }
    }
    assert_eq!(messages.len(), count);
    let mut by_sender = BTreeMap::new();
    for message in messages {
        let text = String::from_utf8_lossy(&message).into_owned();
        let (sender, _) = text.strip_prefix("Return-Path: <").and_then(|t| t.split_once("@client.test>\r\n")).unwrap();
        assert!(by_sender.insert(sender.to_owned(), message).is_none(), "twice: {sender}");
    }
    by_sender
}

/// The message must be what was sent behind nothing but whole trace fields of ours.
fn assert_same(name: &str, served: &[u8], sent: &[u8]) {
    let Some(trace) = served.strip_suffix(sent) else {
        let (ours, theirs) = (String::from_utf8_lossy(served), String::from_utf8_lossy(sent));
        panic!("{name} came back changed:\n{}\n----- sent:\n{}", ours.escape_debug(), theirs.escape_debug());
    };
    let trace = String::from_utf8(trace.to_vec()).unwrap();
    assert!(trace.ends_with("\r\n"), "{name}: {trace:?}");
    let fields: Vec<&str> =
        trace.lines().filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split_once(':').unwrap().0).collect();
    assert_eq!(fields[..3], ["Return-Path", "Delivered-To", "Received"], "{name}: {trace}");
    assert!(fields[3..].iter().all(|field| ["X-Pillarbox-Verdict", "Authentication-Results"].contains(field)), "{name}: {trace}");
}

async fn daemon() -> Daemon {
    let daemon = Daemon::builder().for_dovecot().start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    daemon
}

#[tokio::test]
async fn every_real_message_comes_back_as_it_was_sent() {
    let (Some(place), Some(data)) = (Place::new().await, peers::data()) else { return };
    let daemon = daemon().await;
    let dovecot = place.start(&daemon, false).await;
    let files = files(&data);
    let port = daemon.address("smtp").port().to_string();
    let mut arguments = vec!["-c".to_owned(), SMTPLIB.to_owned(), port];
    arguments.extend(files.values().map(|path| path.display().to_string()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = peers::run("python3", &arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).unwrap();
    let replies: Vec<&str> = output.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(replies.len(), files.len(), "{output}");
    let mut accepted = BTreeMap::new();
    for (n, ((name, path), reply)) in files.iter().zip(&replies).enumerate() {
        match REFUSED.iter().find(|(refused, _)| refused == name) {
            Some((_, why)) => assert!(reply.starts_with("550 5.6.0 ") || reply.starts_with("550 5.5.2 "), "{name} ({why}): {reply}"),
            None => {
                assert!(reply.starts_with("250 2."), "{name}: {reply}");
                accepted.insert(format!("m{n}"), (name, wire(&std::fs::read(path).unwrap())));
            }
        }
    }
    let served = served(&daemon, &dovecot, accepted.len()).await;
    for (sender, (name, sent)) in &accepted {
        assert_same(name, served.get(sender).unwrap_or_else(|| panic!("{name} is missing")), sent);
    }
    dovecot.stop().await;
}

#[tokio::test]
async fn odd_messages_come_back_as_they_were_sent_and_dangerous_ones_are_refused() {
    let Some(place) = Place::new().await else { return };
    let daemon = daemon().await;
    let dovecot = place.start(&daemon, false).await;
    let long = format!("Subject: long\r\n\r\n{}\r\n.{}\r\n", "x".repeat(998), "y".repeat(997));
    let odd: Vec<(&str, &[u8])> = vec![
        ("dots", b"Subject: dots\r\n\r\n.\r\n..\r\n...three\r\n.one\r\n. \r\n"),
        ("raw", b"Subject: \xe9t\xe9\r\n\r\n\x80\xff\x01\x7f\xc3\x28\r\n"),
        ("bodyless", b"Subject: no body\r\n"),
        ("blank", b"\r\n"),
        ("nothing", b""),
        ("headless", b"\r\nno header at all\r\n"),
        ("text", b"this is no header field\r\nnor this\r\n\r\nbody\r\n"),
        ("folded", b"Subject: folded\r\n \r\n\tfurther\r\n\r\n \r\n\t\r\n\r\n"),
        ("from_", b"From someone Mon Jan  1 00:00:00 2024\r\nSubject: mbox\r\n\r\nFrom here on\r\n>From there\r\n"),
        ("forged", b"Return-Path: <forged@client.test>\r\nDelivered-To: forged@client.test\r\nSubject: traces\r\n\r\nbody\r\n"),
        ("long", long.as_bytes()),
    ];
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    for (name, content) in &odd {
        client.command(&format!("MAIL FROM:<{name}@client.test>"), "250").await;
        client.command("RCPT TO:<alice@example.test>", "250").await;
        client.command("DATA", "354").await;
        client.send(&stuffed(content)).await;
        client.send(b".\r\n").await;
        client.expect("250").await;
    }
    for dangerous in [&b"Subject: NUL\r\n\r\na\0b\r\n"[..], b"Subject: CR\r\n\r\na\rb\r\n", b"Subject: LF\r\n\r\na\nb\r\n"] {
        let mut client = Client::connect(daemon.address("smtp")).await;
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        client.command("MAIL FROM:<dangerous@client.test>", "250").await;
        client.command("RCPT TO:<alice@example.test>", "250").await;
        client.command("DATA", "354").await;
        client.send(dangerous).await;
        client.send(b".\r\n").await;
        client.expect("550").await;
    }
    let served = served(&daemon, &dovecot, odd.len()).await;
    for (name, sent) in &odd {
        assert_same(name, &served[*name], sent);
    }
    dovecot.stop().await;
}

/// Dots at the start of lines doubled (RFC 5321 §4.5.2).
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire
}

/// swaks takes `\n` in the text of a message for a new line, and ends every message with an empty one.
fn as_swaks_sends(content: &[u8]) -> Vec<u8> {
    let mut sent = Vec::with_capacity(content.len() + 1);
    let mut rest = content;
    while let Some((first, more)) = rest.split_first() {
        if rest.starts_with(b"\\n") {
            sent.push(b'\n');
            rest = &rest[2..];
        } else {
            sent.push(*first);
            rest = more;
        }
    }
    sent.push(b'\n');
    sent
}

#[tokio::test]
async fn what_swaks_sends_is_what_imap_serves() {
    let (Some(place), Some(data)) = (Place::new().await, peers::data()) else { return };
    if !peers::have("swaks") {
        return;
    }
    let daemon = daemon().await;
    let dovecot = place.start(&daemon, false).await;
    let server = daemon.address("smtp").to_string();
    let files: Vec<(String, PathBuf)> =
        files(&data).into_iter().filter(|(name, _)| !REFUSED.iter().any(|(refused, _)| refused == name)).collect();
    let mut running = tokio::task::JoinSet::new();
    for (n, (name, path)) in files.iter().enumerate() {
        let (server, name, sender, data) = (server.clone(), name.clone(), format!("m{n}@client.test"), format!("@{}", path.display()));
        // Four at a time.
        if running.len() == 4 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(async move {
            let arguments = ["--server", &server, "--ehlo", "client.test", "--from", &sender, "--to", ALICE, "--data", &data];
            let output = peers::run("swaks", &arguments).await;
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let served = served(&daemon, &dovecot, files.len()).await;
    for (n, (name, path)) in files.iter().enumerate() {
        assert_same(name, &served[&format!("m{n}")], &wire(&as_swaks_sends(&std::fs::read(path).unwrap())));
    }
    dovecot.stop().await;
}
