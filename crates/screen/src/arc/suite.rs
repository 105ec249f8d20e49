//! The ARC signing suite of ValiMail: our sealer makes the very octets that the vectors hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;

use super::Sealer;

#[path = "../../tests/support/data.rs"]
mod data;

#[test]
fn the_published_vectors() {
    let Some(text) = data::read("arc/arc-draft-sign-tests.yml") else { return };
    let mut run = 0;
    let published = squeezed(&text);
    for scenario in data::yaml(&text) {
        let key = Rsa::from_pem(scenario["privatekey"].as_str().unwrap());
        for (name, case) in scenario["tests"].as_hash().unwrap() {
            let text = |key: &str| case[key].as_str().unwrap_or_default();
            let headers: Vec<&str> = text("sig-headers").split(':').collect();
            let sealer = Sealer {
                hostname: text("srv-id"),
                domain: scenario["domain"].as_str().unwrap(),
                selector: scenario["sel"].as_str().unwrap(),
                algorithm: "rsa-sha256",
                key: &|octets| Some(key.sign(octets)),
                headers: Some(&headers),
            };
            let message = text("message").replace('\n', "\r\n");
            let sealed = sealer.seal(message.as_bytes(), case["t"].as_i64().unwrap()).unwrap();
            let sealed = String::from_utf8(sealed.unwrap_or_default()).unwrap();
            let value = |field: &str| {
                let at = sealed.find(&format!("{field}: ")).map_or("", |at| &sealed[at + field.len() + 2..]);
                squeezed(at.split("\r\nARC-").next().unwrap())
            };
            for (field, expected) in [("ARC-Message-Signature", "AMS"), ("ARC-Authentication-Results", "AAR")] {
                assert_eq!(value(field), squeezed(text(expected)), "{name:?} {field}");
            }
            let (seal, expected) = (value("ARC-Seal"), squeezed(text("AS")));
            assert_eq!(without_signature(&seal), without_signature(&expected), "{name:?}");
            // The seals that the vectors expect are over fields folded in a way the vectors do not show; those that stand in the
            // messages of the next hop's cases are over the fields as shown, and ours are the same.
            if seal.contains(";i=1;") {
                assert!(published.contains(signature(&seal)), "{name:?} {seal}");
            }
            run += 1;
        }
    }
    assert_eq!(run, 17);
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

fn signature(field: &str) -> &str {
    field.split(';').find_map(|tag| tag.strip_prefix("b=")).unwrap_or_default()
}

fn without_signature(field: &str) -> String {
    field.split(';').filter(|tag| !tag.starts_with("b=")).collect::<Vec<_>>().join(";")
}

/// RSA by arithmetic: the vectors have keys of 1024 bits, which the library rightly refuses to sign with.
struct Rsa {
    modulus: BigUint,
    exponent: BigUint,
}

impl Rsa {
    fn from_pem(pem: &str) -> Self {
        let body: String = pem.lines().filter(|line| !line.contains("-----")).map(str::trim).collect();
        let der = STANDARD.decode(body).unwrap();
        // SEQUENCE { version, modulus, public exponent, private exponent, ... }
        let mut rest = element(&der).0;
        let mut numbers = Vec::new();
        for _ in 0..4 {
            let (number, after) = element(rest);
            numbers.push(BigUint::from_bytes_be(number));
            rest = after;
        }
        Self { modulus: numbers[1].clone(), exponent: numbers[3].clone() }
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2).
    fn sign(&self, octets: &[u8]) -> Vec<u8> {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, octets);
        let info = [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
        let mut padded = vec![0, 1];
        padded.resize(128 - 1 - info.len() - 32, 0xff);
        padded.push(0);
        padded.extend(info);
        padded.extend(hash.as_ref());
        let signature = BigUint::from_bytes_be(&padded).modpow(&self.exponent, &self.modulus).to_bytes_be();
        [vec![0; 128 - signature.len()], signature].concat()
    }
}

/// The content of a DER element, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..=127 => (usize::from(short), 2),
        long => {
            let octets = usize::from(long & 127);
            (der[2..2 + octets].iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), 2 + octets)
        }
    };
    (&der[start..start + length], &der[start + length..])
}
