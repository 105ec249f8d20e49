//! The client's side of SCRAM: two messages out, the server's proof checked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    MAX_ITERATIONS, MAX_MESSAGE, MIN_ITERATIONS, ScramError, attribute, binding_value, hmac, is_nonce, prepare, salted_password, xor,
};
use crate::secret::Secret;

/// One exchange: [`first`](Self::first), [`last`](Self::last), [`verify`](Self::verify).
pub struct ScramClient {
    gs2_header: &'static str,
    binding: Option<Vec<u8>>,
    nonce: String,
    first_bare: String,
    /// What the server must prove with; set by `last`.
    server_signature: Option<[u8; 32]>,
}

impl ScramClient {
    /// `binding`: the `tls-exporter` value, for the PLUS mechanism. Without it `could_bind` tells the server that we would have,
    /// had it offered PLUS, which exposes an attacker who edited its offer (RFC 5802 §6).
    pub fn new(user: &str, nonce: &str, binding: Option<&[u8]>, could_bind: bool) -> Self {
        let gs2_header = match (binding, could_bind) {
            (Some(_), _) => "p=tls-exporter,,",
            (None, true) => "y,,",
            (None, false) => "n,,",
        };
        let name = prepare(user).replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        Self { gs2_header, binding: binding.map(<[u8]>::to_vec), nonce: nonce.to_owned(), first_bare, server_signature: None }
    }

    /// `client-first-message`.
    pub fn first(&self) -> String {
        format!("{}{}", self.gs2_header, self.first_bare)
    }

    /// `client-final-message` in answer to `server-first-message`. Runs PBKDF2: a few milliseconds and more.
    pub fn last(&mut self, server_first: &str, password: &Secret) -> Result<String, ScramError> {
        if server_first.len() > MAX_MESSAGE {
            return Err(ScramError::Malformed);
        }
        if server_first.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let (nonce, rest) = attribute(server_first, 'r')?;
        let (salt, rest) = attribute(rest, 's')?;
        let (iterations, _) = attribute(rest, 'i')?;
        if !is_nonce(nonce) || nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let salt = BASE64.decode(salt).map_err(|_| ScramError::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramError::Iterations)?;
        if salt.is_empty() || !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Iterations);
        }
        let without_proof = format!("c={},r={nonce}", binding_value(self.gs2_header, self.binding.as_deref()));
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let salted = salted_password(password, &salt, iterations);
        let client_key = hmac(salted.as_ref(), &[b"Client Key"]);
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let proof = xor(&client_key, &hmac(&stored_key, &[auth_message.as_bytes()]));
        let server_key = hmac(salted.as_ref(), &[b"Server Key"]);
        self.server_signature = Some(hmac(&server_key, &[auth_message.as_bytes()]));
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    /// Checks `server-final-message`.
    pub fn verify(&self, server_final: &str) -> Result<(), ScramError> {
        let expected = self.server_signature.ok_or(ScramError::Proof)?;
        let (value, _) = attribute(server_final, 'v').map_err(|_| ScramError::Proof)?;
        let signature = BASE64.decode(value).map_err(|_| ScramError::Proof)?;
        if bool::from(signature.as_slice().ct_eq(&expected)) { Ok(()) } else { Err(ScramError::Proof) }
    }
}
