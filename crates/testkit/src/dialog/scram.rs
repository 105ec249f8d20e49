//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), written apart from the product's so that the two check each other.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::{Client, ReplyLines};

/// Goes through an exchange; returns the reply that ends it, once the server has proved itself when it is a 235.
pub(super) async fn log_in(client: &mut Client, mechanism: &str, user: &str, password: &str) -> Result<ReplyLines, String> {
    let mut nonce = [0; 18];
    rand::fill(&mut nonce).map_err(|_| "no randomness")?;
    let bare = format!("n={},r={}", user.replace('=', "=3D").replace(',', "=2C"), STANDARD.encode(nonce));
    let (header, binding) = if mechanism.ends_with("-PLUS") {
        let exporter = client.tls.as_ref().and_then(|tls| tls.exporter.clone());
        // Outside TLS there is nothing to bind to; what the server says to a made-up value is the dialogue's business.
        ("p=tls-exporter,,", exporter.unwrap_or_else(|| vec![0; 32]))
    } else {
        ("n,,", Vec::new())
    };
    let first = STANDARD.encode(format!("{header}{bare}"));
    let reply = say(client, &format!("AUTH {mechanism} {first}")).await?;
    if reply.code() != "334" {
        return Ok(reply);
    }
    let challenge = challenge(&reply)?;
    let field = |name: &str| challenge.split(',').find_map(|f| f.strip_prefix(name)).ok_or(format!("no {name} in {challenge:?}"));
    let (salt, rounds) = (STANDARD.decode(field("s=")?).map_err(|e| e.to_string())?, field("i=")?);
    let rounds: NonZeroU32 = rounds.parse().map_err(|_| format!("{rounds:?} rounds"))?;
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
    let cbind = STANDARD.encode([header.as_bytes(), &binding].concat());
    let without_proof = format!("c={cbind},r={}", field("r=")?);
    let exchange = format!("{bare},{challenge},{without_proof}");
    let client_key = mac(&salted, b"Client Key");
    let signature = mac(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref(), exchange.as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let last = STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof)));
    let reply = say(client, &last).await?;
    if reply.code() != "334" {
        return Ok(reply);
    }
    let expected = format!("v={}", STANDARD.encode(mac(mac(&salted, b"Server Key").as_ref(), exchange.as_bytes())));
    let shown = self::challenge(&reply)?;
    if shown != expected {
        return Err(format!("the server's own proof is wrong: {shown:?}"));
    }
    say(client, "").await
}

async fn say(client: &mut Client, line: &str) -> Result<ReplyLines, String> {
    let _ = client.try_send(format!("{line}\r\n").as_bytes()).await;
    client.try_reply().await.map_err(|e| format!("no reply in an AUTH exchange: {e}"))
}

fn challenge(reply: &ReplyLines) -> Result<String, String> {
    let text = reply.texts().next().unwrap_or_default();
    let octets = STANDARD.decode(text).map_err(|_| format!("a challenge that is not base64: {text:?}"))?;
    String::from_utf8(octets).map_err(|_| format!("a challenge that is not UTF-8: {text:?}"))
}

fn mac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}
