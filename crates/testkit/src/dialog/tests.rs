//! Dialogues against the sink.

use super::*;
use crate::certificates::CertificateAuthority;
use crate::sink::{Sink, SinkTls};

fn dialog(text: &str) -> Dialog {
    Dialog::parse(text, Path::new("test.dialog")).unwrap()
}

#[tokio::test]
async fn a_whole_dialogue() {
    let authority = CertificateAuthority::new();
    let tls = SinkTls::StartTls(authority.issue(&["localhost"]).server_config());
    let sink = Sink::builder().tls(tls).login("u", "p").start().await;
    let dialog = dialog(
        r"@rfc 5321 §4.1
@about everything the runner can do

# the greeting
S: 220 sink.test …
C: EHLO ${me}
S: 250
S+ PIPELINING
S+ size *
S! NOSUCH*
C: STARTTLS
S= 220 2.0.0 Go ahead
X: starttls
X: split 1
C: EHLO ${me}
S: 250
X: split 0
C: AUTH PLAIN ${base64:\0u\0p}
S: 235
X: group
C: MAIL FROM:<a@b.test>
C: RCPT TO:<${repeat:3:x}@b.test>
C: DATA
X: send
S: 2xx
S: 250|251
S: 354
R: a\x41\r\n.\r\n
S: 250
C: QUIT
S: 221
X: closed
X: reconnect
S: 220
R: NOOP\r\nNOOP\r\nNOOP\r\n
S*3 250
",
    );
    assert_eq!(dialog.connections(), 2);
    assert_eq!(dialog.fact("rfc"), "5321 §4.1");
    let transcript = dialog.run(&Target::new(sink.address()).set("me", "client.test")).await.unwrap();
    assert!(transcript.iter().any(|l| l.starts_with("T: TLSv1_3")));
    let message = sink.messages(1).await.remove(0);
    assert_eq!((message.text(), message.to()), ("aA\r\n".to_owned(), vec!["xxx@b.test"]));
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}

#[tokio::test]
async fn the_failing_line_is_named() {
    let sink = Sink::start().await;
    let target = Target::new(sink.address());
    for (text, line) in [
        ("S: 220\nC: NOSUCH\nS: 250\n", 3),
        ("S: 220 wrong text\n", 1),
        ("S: 220\n\nC: EHLO x\nS: 250\nS! PIPELINING\n", 5),
        ("S: 220\nC: ${unknown}\n", 2),
        ("S: 220\nC: NOOP\nX: closed\n", 3),
        ("S= 221 *\n", 1),
    ] {
        let text = text.replace("C: NOOP\nX: closed", "C: NOOP\nC: QUIT\nX: closed");
        let error = dialog(&text).run(&target).await.unwrap_err();
        let expected = if text.contains("QUIT") { 4 } else { line };
        assert_eq!(error.line, expected, "{error}");
    }
}

#[tokio::test]
async fn starttls_before_the_first_step() {
    let tls = SinkTls::StartTls(CertificateAuthority::new().issue(&["localhost"]).server_config());
    let sink = Sink::builder().tls(tls).start().await;
    let dialog = dialog("S: 220 sink.test …\nC: EHLO x\nS: 250\nS! STARTTLS\nX: reconnect\nS: 220\n");
    dialog.run(&Target::new(sink.address()).starttls()).await.unwrap();
}

#[test]
fn bad_files_are_refused() {
    for text in ["S* 250", "X: auth PLAIN u p", "Q: x", "S: 25", "X: nonsense", "C: a\n@late fact", "S: abc"] {
        assert!(Dialog::parse(text, Path::new("t")).is_err(), "{text}");
    }
}
