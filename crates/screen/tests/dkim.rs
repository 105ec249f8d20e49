//! DKIM both ways: the examples of RFC 6376 and RFC 8463 verified, our own signatures and seals verified, and signatures made to hurt.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use pillarbox_config::Config;
use pillarbox_directory::{Change, Directory, DomainRecord, MemoryDirectory};
use pillarbox_screen::auth::{AuthResult, Authentication, Checks, authenticate};
use pillarbox_screen::{Signer, dkim};
use pillarbox_smtp::{Domain, ReversePath};
use support::dns::{Script, Server};
use time::OffsetDateTime;

const BODY: &str = "Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n";
const HEADER: &str = "From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n";

async fn checked(server: &Server, message: impl Into<Bytes>) -> Authentication {
    authenticate(&server.dns(), Checks { dkim: true, dmarc: false, arc: true }, &ReversePath::Null, None, message.into()).await
}

fn results(found: &Authentication) -> Vec<AuthResult> {
    found.dkim.iter().map(|check| check.result).collect()
}

/// RFC 6376 appendix A.2: simple canonicalisation of header and body.
#[tokio::test]
async fn the_example_of_rfc_6376() {
    let server = Server::with(|script| {
        script.txt(
            "brisbane._domainkey.example.com",
            "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq\
             631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
        );
    })
    .await;
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n      \
        h=Received : From : To : Subject : Date : Message-ID;\r\n      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n      \
        b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n      \
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n      4bmp/YzhwvcubU4=;\r\n";
    let received = "Received: from client1.football.example.com  [192.0.2.1]\r\n      by submitserver.example.com with SUBMISSION;\r\n      \
        Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n";
    let message = format!("{signature}{received}{HEADER}\r\n{BODY}");
    let found = checked(&server, message.clone()).await;
    assert_eq!(results(&found), [AuthResult::Pass], "{found:?}");
    assert_eq!((found.dkim[0].domain.as_str(), found.dkim[0].algorithm), ("example.com", "rsa-sha256"));
    let changed = checked(&server, message.replace("dinner", "supper")).await;
    assert_eq!(results(&changed), [AuthResult::Fail]);
    let body = checked(&server, message.replace("hungry", "thirsty")).await;
    assert_ne!(results(&body), [AuthResult::Pass]);
}

/// RFC 8463 appendix A.3: Ed25519 and RSA side by side.
#[tokio::test]
async fn the_example_of_rfc_8463() {
    let server = Server::with(|script| {
        script.txt("brisbane._domainkey.football.example.com", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        script.txt(
            "test._domainkey.football.example.com",
            "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/\
             byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        );
    })
    .await;
    let signatures = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n \
        q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : message-id : from : subject : date;\r\n \
        bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n \
        Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n\
        DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n \
        q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n date : message-id : from : subject : date;\r\n \
        bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n \
        DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n";
    let found = checked(&server, format!("{signatures}{HEADER}\r\n{BODY}")).await;
    assert_eq!(results(&found), [AuthResult::Pass, AuthResult::Pass], "{found:?}");
}

/// A domain with fresh keys in a folder, their records in DNS, and a signer over them.
struct Ours {
    directory: Arc<MemoryDirectory>,
    signer: Arc<Signer>,
    server: Server,
    config: Config,
    domain: Domain,
    _state: tempfile::TempDir,
}

async fn ours() -> Ours {
    let state = tempfile::tempdir().expect("a folder");
    let mut config = Config { hostname: "mx.example.org".into(), ..Config::default() };
    config.paths.state = state.path().to_owned();
    let domain: Domain = "example.org".parse().expect("a name");
    let keys = dkim::generate_keys(&[], OffsetDateTime::now_utc()).expect("keys");
    for key in &keys {
        dkim::keys::store(state.path(), &domain, key).expect("a file");
    }
    let record = DomainRecord {
        name: domain.clone(),
        created: "2026-01-01T00:00:00Z".into(),
        deliver_to: None,
        dkim: keys.into_iter().map(|key| key.record).collect(),
    };
    let mut script = Script::default();
    for (name, text) in dkim::records(&record, OffsetDateTime::now_utc()) {
        script.txt(&name, &text);
    }
    let directory = Arc::new(MemoryDirectory::new());
    directory.apply(vec![Change::PutDomain(record)]).await.expect("a domain");
    let signer = Signer::new(&config, directory.clone());
    Ours { directory, signer, server: Server::start(script).await, config, domain, _state: state }
}

fn message() -> Bytes {
    Bytes::from(
        "From: a@example.org\r\nTo: b@example.net\r\nSubject: one\r\n two\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         Content-Type: text/plain\r\n\r\nHello  \r\n.dots\r\n\r\n",
    )
}

fn joined(fields: &[u8], message: &Bytes) -> Bytes {
    [fields, message].concat().into()
}

#[tokio::test]
async fn what_we_sign_verifies_and_cannot_be_added_to() {
    let ours = ours().await;
    let fields = ours.signer.sign(&ours.domain, message()).await.expect("signed").expect("keys");
    let text = String::from_utf8(fields.clone()).expect("ASCII");
    assert_eq!(text.matches("DKIM-Signature: ").count(), 2);
    assert!(text.lines().all(|line| line.len() <= 78), "{text}");
    assert!(!text.contains("l="));
    let signed = joined(&fields, &message());
    assert_eq!(results(&checked(&ours.server, signed.clone()).await), [AuthResult::Pass, AuthResult::Pass]);
    for added in ["From: evil@example.com\r\n", "Subject: other\r\n", "Content-Type: text/html\r\n", "Reply-To: evil@example.com\r\n"] {
        let found = checked(&ours.server, joined(added.as_bytes(), &signed)).await;
        assert_eq!(results(&found), [AuthResult::Fail, AuthResult::Fail], "{added}");
    }
    let longer = [&signed[..], b"more\r\n"].concat();
    assert!(!results(&checked(&ours.server, longer).await).contains(&AuthResult::Pass));
}

#[tokio::test]
async fn a_foreign_domain_is_not_signed_for() {
    let ours = ours().await;
    assert!(ours.signer.sign(&"example.com".parse().expect("a name"), message()).await.expect("an answer").is_none());
}

#[tokio::test]
async fn rotation_overlaps() {
    let ours = ours().await;
    let now = OffsetDateTime::now_utc();
    let day = std::time::Duration::from_secs(86_400);
    let rotation = dkim::rotate(ours.directory.as_ref(), Some(&ours.config.paths.state), &ours.domain, day, now).await.expect("rotated");
    assert_eq!((rotation.publish.len(), rotation.retiring.len(), rotation.remove.len()), (2, 2, 0));
    let selectors = |fields: Vec<u8>| {
        let text = String::from_utf8(fields).expect("ASCII");
        text.split("; s=").skip(1).map(|rest| rest.split(';').next().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    let before = selectors(ours.signer.sign_at(&ours.domain, message(), now).await.expect("signed").expect("keys"));
    let after = selectors(ours.signer.sign_at(&ours.domain, message(), now + day).await.expect("signed").expect("keys"));
    assert_eq!(before, rotation.retiring);
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|selector| !before.contains(selector) && rotation.publish.iter().any(|(name, _)| name.starts_with(selector))));
    let record = ours.directory.domain(&ours.domain).await.expect("an answer").expect("a domain");
    assert_eq!(dkim::records(&record, now).len(), 4);
    assert_eq!(dkim::records(&record, now + day * 20).len(), 2);
}

/// A domain that was removed and is added again on the same day gets keys of its own.
#[tokio::test]
async fn keys_that_a_removed_domain_left_behind_are_not_in_the_way() {
    let ours = ours().await;
    let mut record = ours.directory.domain(&ours.domain).await.expect("an answer").expect("a domain");
    let old: Vec<String> = record.dkim.drain(..).map(|key| key.selector).collect();
    ours.directory.apply(vec![Change::PutDomain(record)]).await.expect("written");
    let now = OffsetDateTime::now_utc();
    let made = dkim::rotate(ours.directory.as_ref(), Some(&ours.config.paths.state), &ours.domain, std::time::Duration::ZERO, now).await;
    let names: Vec<String> = made.expect("keys").publish.into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| old.iter().all(|old| !name.starts_with(&format!("{old}.")))), "{names:?} {old:?}");
    assert!(ours.signer.sign(&ours.domain, message()).await.expect("signed").is_some());
}

#[tokio::test]
async fn a_sealed_chain_verifies_hop_by_hop() {
    let ours = ours().await;
    let mut sealed = message();
    for (hop, arc) in ["", "; arc=pass", "; arc=pass"].iter().enumerate() {
        let results = format!("Authentication-Results: mx.example.org; dmarc=pass header.from=example.org{arc}\r\n");
        let judged = joined(results.as_bytes(), &sealed);
        let set = ours.signer.seal(&ours.domain, judged.clone()).await.expect("sealed").expect("a set");
        sealed = joined(&set, &judged);
        let found = checked(&ours.server, sealed.clone()).await.arc.expect("a chain");
        assert_eq!((found.result, found.instances), (AuthResult::Pass, hop + 1), "{:?}", found.reason);
        assert_eq!(found.sealer, "example.org");
        assert!(found.dmarc_passed);
        // What our own server wrote goes at the next one, and so it does here.
        sealed = Bytes::from(String::from_utf8_lossy(&sealed).replace(&results, ""));
    }
    let changed = Bytes::from(String::from_utf8_lossy(&sealed).replace("Hello", "Howdy"));
    assert_eq!(checked(&ours.server, changed).await.arc.expect("a chain").result, AuthResult::Fail);
    assert!(ours.signer.seal(&ours.domain, message()).await.expect("an answer").is_none(), "nothing of ours to seal");
}

/// THREATS: a thousand signatures, of which ours is the last.
#[tokio::test]
async fn many_signatures_cost_few_look_ups_and_hide_none_of_the_authors() {
    let ours = ours().await;
    let fields = ours.signer.sign(&ours.domain, message()).await.expect("signed").expect("keys");
    let junk: String = (0..1000)
        .map(|n| {
            format!(
                "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=junk{n}.example; s=s; h=from;\r\n\
                 \tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAAAAAAAAAAAAAA\r\n"
            )
        })
        .collect();
    let signed = joined(junk.as_bytes(), &joined(&fields, &message()));
    let found = checked(&ours.server, signed).await;
    assert!(found.dkim.len() <= 20, "{}", found.dkim.len());
    assert_eq!(results(&found).iter().filter(|result| **result == AuthResult::Pass).count(), 2);
    assert!(ours.server.queries() <= 20, "{}", ours.server.queries());
}

/// THREATS: keys too small and too large, SHA-1, `l=`, a signature over no From.
#[tokio::test]
async fn odd_keys_and_signatures_do_not_pass() {
    let ours = ours().await;
    let fields = String::from_utf8(ours.signer.sign(&ours.domain, message()).await.expect("signed").expect("keys")).expect("ASCII");
    let rsa = fields.find("DKIM-Signature: v=1; a=ed").map_or(fields.as_str(), |at| &fields[..at]);
    for (from, to) in [("a=rsa-sha256", "a=rsa-sha1"), ("c=relaxed/relaxed;", "c=relaxed/relaxed; l=5;"), ("h=from:from", "h=fromm:fromm")]
    {
        let odd = rsa.replacen(from, to, 1);
        assert_ne!(odd, rsa);
        let found = checked(&ours.server, joined(odd.as_bytes(), &message())).await;
        assert!(!results(&found).contains(&AuthResult::Pass), "{to}: {found:?}");
    }
    // RSA public keys of 512 and 16384 bits: a SEQUENCE of a modulus and 65537.
    for bits in [512_usize, 16_384] {
        let octets = bits / 8;
        let mut modulus = vec![0x02, 0x82];
        modulus.extend(u16::try_from(octets + 1).expect("short").to_be_bytes());
        modulus.push(0);
        modulus.extend(std::iter::repeat_n(0xc5, octets));
        let exponent = [2, 3, 1, 0, 1];
        let mut key = vec![0x30, 0x82];
        key.extend(u16::try_from(modulus.len() + exponent.len()).expect("short").to_be_bytes());
        key.extend(modulus);
        key.extend(exponent);
        use base64::Engine as _;
        let public = base64::engine::general_purpose::STANDARD.encode(key);
        let selector = format!("odd{bits}");
        ours.server.script.lock().expect("the script").txt(&format!("{selector}._domainkey.example.org"), &format!("v=DKIM1; p={public}"));
        let start = rsa.find(" s=").expect("a selector") + 3;
        let end = start + rsa[start..].find(';').expect("an end");
        let odd = format!("{}{selector}{}", &rsa[..start], &rsa[end..]);
        let found = checked(&ours.server, joined(odd.as_bytes(), &message())).await;
        assert!(!results(&found).contains(&AuthResult::Pass), "{bits}: {found:?}");
    }
}

/// THREATS: a million header fields, and one field of ten megabytes.
#[tokio::test]
async fn monstrous_headers_are_not_looked_through() {
    let server = Server::start(Script::default()).await;
    for message in ["A: b\r\n".repeat(1_000_000), format!("A: {}\r\n\r\n", "x".repeat(10 << 20))] {
        let found = checked(&server, format!("From: a@example.org\r\n{message}")).await;
        assert!(found.dkim.is_empty());
    }
    assert_eq!(server.queries(), 0);
}
