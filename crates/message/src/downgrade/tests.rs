//! Conversions as another parser sees them: the same contents, in what the hop can take.

use mail_parser::MessageParser;

use super::*;

const SEVEN: Hop = Hop { eight_bit: false, utf8_header: false, short_lines: true };
const EIGHT: Hop = Hop { eight_bit: true, utf8_header: true, short_lines: true };

fn contents(message: &[u8]) -> Vec<Vec<u8>> {
    fn collect(message: &mail_parser::Message<'_>, into: &mut Vec<Vec<u8>>) {
        for part in &message.parts {
            match &part.body {
                mail_parser::PartType::Message(nested) => collect(nested, into),
                mail_parser::PartType::Multipart(_) => {}
                _ => into.push(part.contents().to_vec()),
            }
        }
    }
    let mut all = Vec::new();
    collect(&MessageParser::default().parse(message).unwrap(), &mut all);
    all
}

#[test]
fn needs_tell_the_classes_apart() {
    let body = |m: &[u8]| needs(m).body;
    assert_eq!(body(b"A: b\r\n\r\nx\r\n"), BodyType::SevenBit);
    assert_eq!(body("A: b\r\n\r\nä\r\n".as_bytes()), BodyType::EightBitMime);
    assert_eq!(body(b"A: b\r\n\r\nx\ny"), BodyType::BinaryMime);
    assert_eq!(body(b"A: b\r\n\r\nx\0y"), BodyType::BinaryMime);
    assert!(needs("A: ä\r\n\r\n".as_bytes()).utf8_header);
    assert!(!needs("A: b\r\n\r\nä".as_bytes()).utf8_header);
    assert!(has_long_line(&[b'x'; 999]) && !has_long_line(&[[b'x'; 998].as_slice(), b"\r\n", &[b'y'; 998]].concat()));
    assert!(has_bare_cr_lf(b"\n") && has_bare_cr_lf(b"a\rb") && has_bare_cr_lf(b"\r\n\r") && !has_bare_cr_lf(b"\r\n\r\n"));
}

#[test]
fn what_fits_is_borrowed() {
    let message = b"Subject: x\r\n\r\nplain\r\n";
    assert!(matches!(convert(message, SEVEN).unwrap(), std::borrow::Cow::Borrowed(_)));
}

#[test]
fn a_single_part() {
    let message =
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n";
    let converted = convert(message.as_bytes(), SEVEN).unwrap();
    assert_eq!(
        converted.as_ref(),
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n"
    );
}

#[test]
fn a_message_without_mime_gets_it() {
    let converted = convert("Subject: x\r\n\r\nGrüße\r\n".as_bytes(), SEVEN).unwrap().into_owned();
    let text = String::from_utf8(converted).unwrap();
    assert!(text.starts_with("Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{text}");
}

fn nested() -> Vec<u8> {
    [
        "From: Jörg <j@example.org>\r\nSubject: Grüße =?utf-8?Q?=C3=A4?=\r\nMIME-Version: 1.0\r\n",
        "Content-Type: multipart/mixed; boundary=\"a\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nPräambel\r\n",
        "--a\r\nContent-Type: multipart/alternative; boundary=ab\r\n\r\n",
        "--ab\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nä\r\n",
        "--ab\r\nContent-Type: text/html; charset=utf-8; name=\"ü.html\"\r\n\r\n<b>plain</b>\r\n--ab--\r\n",
        "--a\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\u{0}\u{1}ö\n\r\r\n",
        "--a\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: inner ü\r\n\r\nö inside\r\n",
        "--a--\r\nEpilog: ü\r\n",
    ]
    .concat()
    .into_bytes()
}

#[test]
fn nested_parts_keep_their_contents() {
    let message = nested();
    for hop in [SEVEN, EIGHT] {
        let converted = convert(&message, hop).unwrap();
        let found = needs(&converted);
        assert_eq!(
            found.body,
            if hop.eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit },
            "{}",
            String::from_utf8_lossy(&converted)
        );
        assert_eq!(contents(&converted), contents(&message), "{}", String::from_utf8_lossy(&converted));
    }
    let converted = convert(&message, SEVEN).unwrap();
    let parsed = MessageParser::default().parse(converted.as_ref()).unwrap();
    assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some("Jörg"));
    assert_eq!(parsed.subject().map(|s| s.replace(' ', "")).as_deref(), Some("Grüßeä"));
}

#[test]
fn signatures_are_not_broken() {
    let signed = |body: &str| {
        format!(
            "Subject: ü\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nContent-Type: text/plain\r\n\r\n{body}\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
        )
    };
    assert_eq!(convert(signed("ä").as_bytes(), SEVEN), Err(Unconvertible::Signed));
    let kept = convert(signed("a").as_bytes(), SEVEN).unwrap().into_owned();
    let (body, original) = (header::split(&kept).body, signed("a"));
    assert_eq!(&kept[body..], &original.as_bytes()[header::split(original.as_bytes()).body..]);
}

#[test]
fn addresses_beyond_ascii_cannot_be_sent() {
    let message = "From: ü@example.org\r\n\r\nx\r\n";
    assert_eq!(convert(message.as_bytes(), SEVEN), Err(Unconvertible::Address("From".into())));
    assert!(convert(message.as_bytes(), EIGHT).is_ok());
}

#[test]
fn wrong_labels_are_mended() {
    for encoding in ["base64", "quoted-printable"] {
        let content = if encoding == "base64" { "aGVsbG8=ü\r\n" } else { "a=C3=A4ü=\r\nb\r\n" };
        let message = format!(
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{content}"
        );
        let converted = convert(message.as_bytes(), SEVEN).unwrap();
        assert_eq!(needs(&converted).body, BodyType::SevenBit);
    }
    let odd = "Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nü\r\n";
    assert_eq!(convert(odd.as_bytes(), SEVEN), Err(Unconvertible::UnknownEncoding));
}

#[test]
fn bombs_are_refused() {
    let mut deep = String::from("MIME-Version: 1.0\r\n");
    for i in 0..10_000 {
        deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n"));
    }
    deep.push_str("\r\nü");
    assert_eq!(convert(deep.as_bytes(), SEVEN), Err(Unconvertible::TooComplex));
    let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b\r\n\r\nü", "--b\r\n\r\nx\r\n".repeat(20_000));
    assert_eq!(convert(wide.as_bytes(), SEVEN), Err(Unconvertible::TooComplex));
    let matryoshka = format!("{}ü", "Content-Type: message/rfc822\r\n\r\n".repeat(20_000));
    assert_eq!(convert(matryoshka.as_bytes(), SEVEN), Err(Unconvertible::TooComplex));
}

proptest::proptest! {
    #[test]
    fn any_message_ends_up_clean(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "Content-Type: multipart/mixed; boundary=a\r\n", "Content-Type: message/rfc822\r\n", "Content-Transfer-Encoding: base64\r\n",
            "Content-Type: text/plain; name=ü\r\n", "Subject: ü\r\n", "\r\n", "\n", "--a\r\n", "--a--\r\n", "ü", "\r", "\0", "text", "=E", "no field ü\r\n",
            "Content-Transfer-Encoding: quoted-printable\r\n", "Content-Type: multipart/alternative; boundary=b\r\n", "--b", "--b--",
        ]), 0..40),
        eight in proptest::bool::ANY,
    ) {
        let message = pieces.concat().into_bytes();
        let hop = Hop { eight_bit: eight, utf8_header: eight, short_lines: true };
        if let Ok(converted) = convert(&message, hop) {
            proptest::prop_assert!(is_lines(&converted), "{:?}", converted);
            proptest::prop_assert!(!has_long_line(&converted));
            proptest::prop_assert!(eight || converted.is_ascii());
        }
    }
}
