//! Content transfer encodings (RFC 2045 §6.7, §6.8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appends `input` as quoted-printable. Its CRLFs are line ends and stay; a bare CR or LF is data and is escaped.
pub fn quoted_printable(input: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    /// 76 octets, the last of which is kept for the `=` of a soft line break.
    const ROOM: usize = 75;
    out.reserve(input.len() + input.len() / 8);
    let mut column = 0;
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\r' && after.first() == Some(&b'\n') {
            out.extend_from_slice(b"\r\n");
            column = 0;
            rest = after.get(1..).unwrap_or_default();
            continue;
        }
        let line_ends = after.is_empty() || after.starts_with(b"\r\n");
        // White space before a line end would be lost.
        let literal = match byte {
            b' ' | b'\t' => !line_ends,
            b'=' => false,
            other => other.is_ascii_graphic(),
        };
        // A line that begins with a dot or `From ` is best not sent raw: sloppy gateways change both.
        let risky = byte == b'.' || (byte == b'F' && after.starts_with(b"rom "));
        let width = if literal { 1 } else { 3 };
        if column + width > ROOM {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if literal && !(column == 0 && risky) {
            out.push(byte);
            column += 1;
        } else {
            let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'=', digit(byte >> 4), digit(byte & 15)]);
            column += 3;
        }
        rest = after;
    }
}

/// Appends `input` as base64 in lines of 76 characters, each ended by CRLF. Nothing for empty input.
pub fn base64_lines(input: &[u8], out: &mut Vec<u8>) {
    /// 57 octets make 76 characters.
    const OCTETS: usize = 57;
    out.reserve(input.len() / OCTETS * 78 + 80);
    let mut line = [0; 76];
    for chunk in input.chunks(OCTETS) {
        if let Ok(written) = STANDARD.encode_slice(chunk, &mut line) {
            out.extend_from_slice(line.get(..written).unwrap_or_default());
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoding: &str, body: &[u8]) -> Vec<u8> {
        let mut message = format!("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n").into_bytes();
        message.extend_from_slice(body);
        let parsed = mail_parser::MessageParser::default().parse(&message).unwrap();
        parsed.part(0).unwrap().contents().to_vec()
    }

    #[test]
    fn spaces_at_line_ends_and_leading_dots_are_safe() {
        let mut out = Vec::new();
        quoted_printable(b".x \r\n\tFrom a\r\nFrom b\r\n= \t", &mut out);
        assert_eq!(out, b"=2Ex=20\r\n\tFrom a\r\n=46rom b\r\n=3D =09");
    }

    proptest::proptest! {
        #[test]
        fn any_octets_come_back(input in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..600)) {
            let mut encoded = Vec::new();
            base64_lines(&input, &mut encoded);
            proptest::prop_assert_eq!(decode("base64", &encoded), input.clone());
            encoded.clear();
            quoted_printable(&input, &mut encoded);
            proptest::prop_assert!(encoded.split(|&b| b == b'\n').all(|l| l.len() <= 77));
            proptest::prop_assert!(encoded.iter().all(|&b| b == b'\r' || b == b'\n' || b == b'\t' || (32..127).contains(&b)));
            proptest::prop_assert!(!encoded.split(|&b| b == b'\n').any(|l| l.starts_with(b".")));
            proptest::prop_assert_eq!(decode("quoted-printable", &encoded), input);
        }
    }
}
