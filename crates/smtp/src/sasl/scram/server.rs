//! The server's side of SCRAM. It never learns the password; the keys come from the directory, or are a decoy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Keys, MAX_MESSAGE, ScramError, attribute, binding_value, hmac, is_nonce, prepare, xor};
use crate::sasl::plain::MAX_FIELD;

/// A parsed `client-first-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    gs2_header: String,
    binds: bool,
    authzid: String,
    username: String,
    nonce: String,
    bare: String,
}

impl ClientFirst {
    /// Parses the message. `plus`: the PLUS mechanism was chosen; `plus_offered`: EHLO offered it on this connection.
    pub fn parse(text: &str, plus: bool, plus_offered: bool) -> Result<Self, ScramError> {
        if text.len() > MAX_MESSAGE || text.chars().any(char::is_control) {
            return Err(ScramError::Malformed);
        }
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        let binds = match flag {
            "n" => false,
            "y" if plus_offered => return Err(ScramError::Binding),
            "y" => false,
            "p=tls-exporter" => true,
            // RFC 9266 makes tls-exporter the binding of TLS 1.3, and rustls has no other.
            _ if flag.starts_with("p=") => return Err(ScramError::Binding),
            _ => return Err(ScramError::Malformed),
        };
        if binds != plus {
            return Err(ScramError::Binding);
        }
        let authzid = match authzid {
            "" => String::new(),
            _ => unescape(authzid.strip_prefix("a=").ok_or(ScramError::Malformed)?)?,
        };
        if bare.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let (name, rest) = attribute(bare, 'n')?;
        let (nonce, _extensions) = attribute(rest, 'r')?;
        let username = prepare(&unescape(name)?).into_owned();
        if username.is_empty() || !is_nonce(nonce) {
            return Err(ScramError::Malformed);
        }
        let gs2_header = text.get(..text.len() - bare.len()).ok_or(ScramError::Malformed)?.to_owned();
        Ok(Self { gs2_header, binds, authzid, username, nonce: nonce.to_owned(), bare: bare.to_owned() })
    }

    /// Who logs in, prepared with SASLprep.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Whom to act as; empty: the same.
    pub fn authzid(&self) -> &str {
        &self.authzid
    }
}

/// One exchange after the client's first message: [`first`](Self::first), then [`last`](Self::last).
pub struct ScramServer {
    client: ClientFirst,
    keys: Keys,
    nonce: String,
    binding: Option<Vec<u8>>,
}

impl ScramServer {
    /// `nonce`: ours, printable and fresh; `binding`: the connection's `tls-exporter` value.
    pub fn new(client: ClientFirst, keys: Keys, nonce: &str, binding: Option<Vec<u8>>) -> Self {
        let nonce = format!("{}{nonce}", client.nonce);
        Self { client, keys, nonce, binding }
    }

    /// `server-first-message`.
    pub fn first(&self) -> String {
        format!("r={},s={},i={}", self.nonce, BASE64.encode(&self.keys.salt), self.keys.iterations)
    }

    /// Checks `client-final-message`; the answer is `server-final-message`, to be sent before success is declared.
    pub fn last(&mut self, client_final: &str) -> Result<String, ScramError> {
        if client_final.len() > MAX_MESSAGE {
            return Err(ScramError::Malformed);
        }
        let (without_proof, proof) = client_final.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let (binding, rest) = attribute(without_proof, 'c')?;
        let (nonce, _extensions) = attribute(rest, 'r')?;
        let expected = binding_value(&self.client.gs2_header, if self.client.binds { self.binding.as_deref() } else { None });
        if self.client.binds && self.binding.is_none() {
            return Err(ScramError::Binding);
        }
        if binding != expected {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        let proof: [u8; 32] = BASE64.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or(ScramError::Malformed)?;
        let auth_message = format!("{},{},{without_proof}", self.client.bare, self.first());
        let signature = hmac(&self.keys.stored_key, &[auth_message.as_bytes()]);
        let client_key = xor(&proof, &signature);
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        if !bool::from(stored_key.ct_eq(&self.keys.stored_key)) {
            return Err(ScramError::Proof);
        }
        Ok(format!("v={}", BASE64.encode(hmac(&self.keys.server_key, &[auth_message.as_bytes()]))))
    }
}

/// `saslname`: `=2C` is a comma, `=3D` an equals sign, no other `=` may stand.
fn unescape(text: &str) -> Result<String, ScramError> {
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('=');
    out.push_str(parts.next().unwrap_or(""));
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        out.push(c);
        out.push_str(rest);
    }
    if out.is_empty() || out.len() > MAX_FIELD { Err(ScramError::Malformed) } else { Ok(out) }
}
