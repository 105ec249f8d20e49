//! Real messages, stored and read back with the `maildir` crate.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

use common::{House, envelope, mailbox};
use pillarbox_lda::import::{Import, Quoting, Source, import};
use pillarbox_queue::Outcome;

/// The published collections of messages; `None`, said loudly, where they are missing.
fn data() -> Option<PathBuf> {
    let path = std::env::var_os("PILLARBOX_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    if path.join("mail").is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no collection of messages at {}; set PILLARBOX_DATA", path.display());
    None
}

fn messages(folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            messages(&path, all);
        } else {
            let content = std::fs::read(&path).unwrap();
            all.push((path, content));
        }
    }
    all.sort();
}

#[tokio::test]
async fn real_messages_come_back_as_they_were_sent() {
    let Some(data) = data() else { return };
    let mut all = Vec::new();
    messages(&data.join("mail"), &mut all);
    messages(&data.join("eai"), &mut all);
    assert!(all.len() > 50);
    let house = House::new().await;
    for (id, (path, content)) in (0..).zip(&all) {
        let outcome = house.deliver_one(envelope(id, "ann@example.net", &["bob@example.org"]), content.clone()).await;
        assert_eq!(outcome, Outcome::Delivered, "{}", path.display());
    }
    let reader = maildir::Maildir::from(house.maildir("bob@example.org"));
    let mut entries: Vec<_> = reader.list_new().map(|entry| entry.unwrap()).collect();
    entries.sort_by(|a, b| a.id().cmp(b.id()));
    assert_eq!(entries.len(), all.len());
    let head = b"Return-Path: <ann@example.net>\nDelivered-To: bob@example.org\n";
    for (entry, (path, sent)) in entries.iter_mut().zip(&all) {
        let stored = std::fs::read(entry.path()).unwrap();
        let body = stored.strip_prefix(head).unwrap();
        let mut expected = pillarbox_message::lines::crlf_to_lf(sent);
        if expected.last() != Some(&b'\n') {
            expected.push(b'\n');
        }
        assert!(body == expected, "{}", path.display());
        let size = format!(",S={},", stored.len());
        assert!(entry.id().contains(&size), "{} {size}", entry.id());
        let wire = stored.iter().enumerate().filter(|&(at, &b)| b == b'\n' && (at == 0 || stored[at - 1] != b'\r')).count() + stored.len();
        assert!(entry.id().ends_with(&format!(",W={wire}")), "{} {wire}", entry.id());
    }
}

#[tokio::test]
async fn real_messages_survive_an_mbox() {
    let Some(data) = data() else { return };
    let mut all = Vec::new();
    messages(&data.join("mail/rfc"), &mut all);
    let house = House::new().await;
    let mut text = Vec::new();
    let mut expected = Vec::new();
    for (_, content) in &all {
        let mut lf = pillarbox_message::lines::crlf_to_lf(content);
        if !lf.ends_with(b"\n") {
            lf.push(b'\n');
        }
        text.extend_from_slice(b"From ann@example.net Tue Nov 14 22:13:20 2023\n");
        for line in lf.split_inclusive(|&b| b == b'\n') {
            if line.iter().find(|&&b| b != b'>').is_some() && line[line.iter().take_while(|&&b| b == b'>').count()..].starts_with(b"From ")
            {
                text.push(b'>');
            }
            text.extend_from_slice(line);
        }
        text.push(b'\n');
        expected.push(lf);
    }
    let path = house.folder.path().join("mbox");
    std::fs::write(&path, text).unwrap();
    let (to, state) = (mailbox("bob@example.org"), house.folder.path().join("state"));
    let order = Import { source: Source::Mbox(path, Quoting::Rd), to: &to, folder: None, state: &state, hostname: "h" };
    let progress = import(house.transport.root(), &order, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(progress.stored, all.len() as u64);
    let mut stored: Vec<Vec<u8>> = ["new", "cur"]
        .iter()
        .flat_map(|sub| house.names("bob@example.org", sub).into_iter().map(move |name| (sub, name)))
        .map(|(sub, name)| std::fs::read(house.maildir("bob@example.org").join(sub).join(name)).unwrap())
        .collect();
    stored.sort();
    expected.sort();
    assert!(stored == expected);
}
