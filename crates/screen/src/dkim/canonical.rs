//! Relaxed canonicalisation (RFC 6376 §3.4.2 and §3.4.4), the only kind we sign with.

use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::dkim::Canonicalization;

/// Appends a header field in relaxed form: name in lower case, folds undone, white space runs made one space, CRLF at the end.
pub(crate) fn relaxed_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    relaxed_value(value, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a value in relaxed form, without a line end.
fn relaxed_value(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut space = false;
    for &octet in value {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' => space = true,
            _ => {
                if space && out.len() > start {
                    out.push(b' ');
                }
                space = false;
                out.push(octet);
            }
        }
    }
}

/// SHA-256 of the body in relaxed form.
pub(crate) fn body_hash(body: &[u8]) -> Vec<u8> {
    HashAlgorithm::Sha256.hash(Canonicalization::Relaxed.canonical_body(body, 0)).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    /// The example of RFC 6376 §3.4.5.
    #[test]
    fn fields_are_relaxed_as_the_rfc_shows() {
        let mut out = Vec::new();
        relaxed_field(b"A", b" X\r\n", &mut out);
        relaxed_field(b"B ".trim_ascii_end(), b" Y\t\r\n\tZ  \r\n", &mut out);
        assert_eq!(out, b"a:X\r\nb:Y Z\r\n");
    }

    /// The hash of an empty body (RFC 6376 §3.4.4).
    #[test]
    fn an_empty_body_has_the_known_hash() {
        let hash = base64::engine::general_purpose::STANDARD.encode(body_hash(b""));
        assert_eq!(hash, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(body_hash(b" C \r\nD \t E\r\n\r\n\r\n"), body_hash(b" C\r\nD E\r\n"));
    }
}
