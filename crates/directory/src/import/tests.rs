//! Files as people have them.

use proptest::prelude::*;

use super::*;
use crate::memory::MemoryDirectory;
use crate::password::verify;
use crate::suite::build;

const SHA: &str = "$6$saltstring$SqyhDWidy1FyYQvxJS0mCfscyB71Ni5Yi9UsukwaGkrvtN5uj8uxcQrCB9XRTz8SWHp08vMi14NTi36I1YPJR.";

fn options() -> ImportOptions {
    let cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
    ImportOptions { default_domain: Some("example.org".parse().unwrap()), cost, ..Default::default() }
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

async fn run(d: &MemoryDirectory, text: &str, format: Format, options: &ImportOptions) -> Imported {
    let mut last = None;
    let done = import(d, parse(text, format, options), options, std::time::SystemTime::now(), |n, of| last = Some((n, of))).await.unwrap();
    assert!(last.is_some_and(|(n, of)| n == of), "the end is told");
    done
}

#[tokio::test]
async fn a_passwd_file_brings_its_hashes() {
    let text = format!(
        "# users\n\
         bob@example.org:{{BLF-CRYPT}}$2y$05$5laOKfV8gn.RK30IZzqGmetxTxRIKobRH25eaA.BlGSElu1IsPUfq:5000:5000:Bob Builder,room 1:/home/bob::userdb_quota_rule=*:storage=2G\n\
         ann:{SHA}:1000:1000:Ann:/home/ann:/bin/sh\n\
         \n\
         daemon@example.org:*:1:1:::\r\n\
         bad@example.org:hunter2:1:1:::\n\
         odd@example.org:{{DES-CRYPT}}ab:1:1:::\n\
         x@nowhere.example:{{PLAIN}}x\n\
         no field\n"
    );
    assert_eq!(Format::detect("users", &text), Format::Passwd);
    let d = MemoryDirectory::new();
    build(&d, &["example.org"]).await;
    let done = run(&d, &text, Format::Passwd, &options()).await;
    assert_eq!((done.users, done.domains), (3, 0));
    assert_eq!(done.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert!(!format!("{:?}", done.errors).contains("hunter2"), "no password in a message");
    let bob = d.user(&mailbox("bob@example.org")).await.unwrap().unwrap();
    assert_eq!((bob.quota, bob.name.as_deref()), (Some(Quota::Bytes(2 << 30)), Some("Bob Builder")));
    for name in ["bob@example.org", "ann@example.org"] {
        let stored = d.credential(&mailbox(name)).await.unwrap().unwrap().password.unwrap();
        assert!(verify(&stored, b"pleaseletmein").unwrap(), "{name}");
    }
    assert!(d.credential(&mailbox("daemon@example.org")).await.unwrap().unwrap().password.is_none());

    let again = run(&d, &text, Format::Passwd, &options()).await;
    assert_eq!((again.users, again.existing), (0, 3), "twice changes nothing");
    let more = ImportOptions { add_domains: true, ..options() };
    assert_eq!(run(&d, &text, Format::Passwd, &more).await.domains, 1);
}

#[tokio::test]
async fn csv_with_and_without_a_header() {
    let d = MemoryDirectory::new();
    build(&d, &["example.org"]).await;
    let plain = format!("bob@example.org,s3cret,1G,\"Builder, Bob\"\nann,{SHA},,\nzoe@example.org\n,x,,\neve@example.org,x,lots,\n");
    assert_eq!(Format::detect("users.csv", &plain), Format::Csv);
    let done = run(&d, &plain, Format::Csv, &options()).await;
    assert_eq!(done.users, 3);
    assert_eq!(done.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [4, 5]);
    let bob = d.user(&mailbox("bob@example.org")).await.unwrap().unwrap();
    assert_eq!(bob.name.as_deref(), Some("Builder, Bob"));
    let stored = d.credential(&bob.address).await.unwrap().unwrap().password.unwrap();
    assert!(stored.starts_with("$argon2id$") && verify(&stored, b"s3cret").unwrap(), "plain text is hashed, never stored");

    let named = "\u{feff}Name;E-Mail;Password\nBob B;bob@example.org;new\n";
    let replace = ImportOptions { replace: true, ..options() };
    assert_eq!(run(&d, named, Format::Csv, &replace).await.users, 1);
    let bob = d.user(&bob.address).await.unwrap().unwrap();
    assert_eq!((bob.name.as_deref(), bob.quota), (Some("Bob B"), Some(Quota::Bytes(1 << 30))), "what the file does not say stays");
    let stored = d.credential(&bob.address).await.unwrap().unwrap().password.unwrap();
    assert!(verify(&stored, b"new").unwrap());
}

#[tokio::test]
async fn postfix_maps() {
    let d = MemoryDirectory::new();
    build(&d, &["example.org"]).await.user("bob@example.org").await;
    let text = "# comment\nexample.org  anything\ninfo@example.org bob@example.org,\n   ann@elsewhere.example\n@example.org\tbob\n\
                info@example.org third@elsewhere.example\npipe@example.org |/bin/sh\nall@example.org @other.example\nlonely@example.org\n";
    assert_eq!(Format::detect("virtual", text), Format::VirtualAliases);
    let done = run(&d, text, Format::VirtualAliases, &options()).await;
    assert_eq!(done.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [7, 8, 9]);
    let info = d.alias(&"info@example.org".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(info.targets, [mailbox("bob@example.org"), mailbox("ann@elsewhere.example"), mailbox("third@elsewhere.example")]);
    assert_eq!(d.alias(&"@example.org".parse().unwrap()).await.unwrap().unwrap().targets, [mailbox("bob@example.org")]);
    assert_eq!(run(&d, text, Format::VirtualAliases, &options()).await.existing, 3);
}

proptest! {
    #[test]
    fn no_file_makes_the_parsers_panic(text in "([a-z@:,;{}$|\"# .\\n\\t-]|é){0,200}") {
        for format in [Format::Passwd, Format::Csv, Format::VirtualAliases] {
            let parsed = parse(&text, format, &options());
            let lines = text.lines().count().max(1);
            prop_assert!(parsed.errors.iter().all(|e| e.line <= lines));
        }
    }
}
