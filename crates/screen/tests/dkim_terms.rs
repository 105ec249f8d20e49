//! What a key's record and a signature's own tags restrict: expiry, identities, hash algorithms, services, tests (RFC 6376 §3.5, §3.6.1).

#![allow(clippy::unwrap_used)]

mod support;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox_screen::auth::{AuthResult, Authentication, Checks, authenticate};
use pillarbox_smtp::ReversePath;
use support::dns::Server;

/// A message signed by hand, the signature with these further tags, the key's record with those; judged by a server of `example.org`.
async fn judged(record: &str, tags: &str, body: &str) -> Authentication {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = STANDARD.encode(pair.public_key().as_ref());
    let server = Server::with(|script| {
        script.txt("k._domainkey.example.org", &format!("v=DKIM1; k=ed25519; {record}p={key}"));
        script.txt("_dmarc.example.org", "v=DMARC1; p=reject");
    })
    .await;
    // Written as relaxed canonicalisation leaves it, so that what is hashed stands here to be read.
    let hash = STANDARD.encode(digest(&SHA256, b"Hello\r\n"));
    let value = format!("v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=k; {tags}h=from; bh={hash}; b=");
    let hashed = digest(&SHA256, format!("from:a@example.org\r\ndkim-signature:{value}").as_bytes());
    let signature = STANDARD.encode(pair.sign(hashed.as_ref()));
    let message = format!("DKIM-Signature: {value}{signature}\r\nFrom: a@example.org\r\n\r\n{body}");
    authenticate(&server.dns(), Checks { dkim: true, dmarc: true, arc: false }, &ReversePath::Null, None, message.into()).await
}

#[tokio::test]
async fn keys_and_signatures_hold_for_what_they_say() {
    use AuthResult::{Fail, Neutral, Pass, PermError};
    for (record, tags, expected) in [
        ("", "", Pass),
        ("t=s; ", "i=a@example.org; ", Pass),
        ("t=s; ", "i=a@sub.example.org; ", Fail),
        ("", "i=a@sub.example.org; ", Pass),
        ("", "i=a@example.net; ", PermError),
        ("", "t=1700000000; x=1700000001; ", Neutral),
        ("", "t=1700000000; x=1600000000; ", Neutral),
        ("", "t=1700000000; x=99999999999; ", Pass),
        ("h=sha1; ", "", PermError),
        ("h=sha512:sha1; ", "", PermError),
        ("h=sha1:sha256; ", "", Pass),
        ("s=tlsrpt; ", "", PermError),
        ("s=tlsrpt:email; ", "", Pass),
        ("s=*; ", "", Pass),
        ("t=y; ", "", Pass),
        ("n=no longer in use; p=; x=", "", PermError),
    ] {
        let found = judged(record, tags, "Hello\r\n").await;
        assert_eq!(found.dkim[0].result, expected, "{record:?} {tags:?}: {:?}", found.dkim[0].reason);
        // What does not hold proves nothing to DMARC either.
        let dmarc = found.dmarc.unwrap();
        assert_eq!(dmarc.result, if expected == Pass { Pass } else { Fail }, "{record:?} {tags:?}");
        assert_eq!(found.dkim[0].testing, record == "t=y; ", "{record:?}");
    }
}

#[tokio::test]
async fn what_is_only_tested_is_known_when_it_fails() {
    let found = judged("t=y:s; ", "i=a@sub.example.org; ", "Hello\r\n").await;
    assert_eq!((found.dkim[0].result, found.dkim[0].testing), (AuthResult::Fail, true));
    // A body that was changed is seen before the key is asked for.
    assert_eq!(judged("", "", "Goodbye\r\n").await.dkim[0].result, AuthResult::Neutral);
}
