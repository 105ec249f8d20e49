//! The pages over HTTP and HTTPS as strangers ask for them, their limits, and what Prometheus' own tool says of the metrics.

use std::net::SocketAddr;
use std::process::Stdio;

use pillarbox_testkit::certificates::trusting_client_config;
use pillarbox_testkit::stream::{BoxedIo, connect_tls};
use pillarbox_testkit::{Client, Daemon, DaemonBuilder, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers;

/// An answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends octets and reads until the other side closes.
pub(crate) async fn talk(mut io: BoxedIo, request: &[u8]) -> Option<Page> {
    let talk = async {
        // A server that has seen enough may close before the end.
        let _ = io.write_all(request).await;
        let mut answer = Vec::new();
        let _ = io.read_to_end(&mut answer).await;
        answer
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| panic!("no end of the answer"));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Page { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

async fn plain(address: SocketAddr) -> BoxedIo {
    Box::new(TcpStream::connect(address).await.unwrap())
}

fn request(method: &str, path: &str, host: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}\r\n{body}").into_bytes()
}

fn autodiscover(address: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\">\
         <Request><EMailAddress>{address}</EMailAddress><AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a\
         </AcceptableResponseSchema></Request></Autodiscover>"
    )
}

fn listening() -> DaemonBuilder {
    let any = || vec!["127.0.0.1:0".to_owned()];
    Daemon::builder().set("listen.http", any()).set("listen.https", any()).set("listen.metrics", any())
}

#[tokio::test]
async fn each_page_is_for_those_who_ask_rightly() {
    let daemon = listening().start().await;
    daemon.add_user("alice@example.test", "a good password").await;
    let alice = autodiscover("alice@example.test");
    let big = "x".repeat(70_000);
    let long = format!("/{}", "y".repeat(20_000));
    let thunderbird = "/mail/config-v1.1.xml";
    let by_address = "/.well-known/autoconfig/mail/config-v1.1.xml?emailaddress=alice%40example.test";
    // Method, path, host, body; status, and what the body holds.
    let cases: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("GET", "/healthz", "whoever", "", 200, "ok"),
        ("HEAD", "/healthz", "whoever", "", 200, ""),
        (
            "GET",
            "/.well-known/mta-sts.txt",
            "mta-sts.example.test",
            "",
            200,
            "version: STSv1\r\nmode: testing\r\nmx: mail.example.test\r\nmax_age: ",
        ),
        ("GET", "/.well-known/mta-sts.txt", "MTA-STS.Example.Test:443", "", 200, "STSv1"),
        ("GET", "/.well-known/mta-sts.txt", "mta-sts.elsewhere.test", "", 404, ""),
        ("GET", "/.well-known/mta-sts.txt", "example.test", "", 404, ""),
        ("POST", "/.well-known/mta-sts.txt", "mta-sts.example.test", "x", 405, ""),
        ("GET", thunderbird, "autoconfig.example.test", "", 200, "<hostname>mail.example.test</hostname>"),
        ("GET", by_address, "mail.example.test", "", 200, "<emailProvider id=\"example.test\">"),
        ("GET", thunderbird, "autoconfig.elsewhere.test", "", 404, ""),
        ("GET", "/mail/config-v1.1.xml?emailaddress=%00%0d%0a", "autoconfig.elsewhere.test", "", 404, ""),
        ("POST", thunderbird, "autoconfig.example.test", "x", 405, ""),
        ("POST", "/autodiscover/autodiscover.xml", "autodiscover.example.test", &alice, 200, "<LoginName>alice@example.test</LoginName>"),
        ("POST", "/Autodiscover/Autodiscover.xml", "autodiscover.example.test", &alice, 200, "<Server>mail.example.test</Server>"),
        ("POST", "/autodiscover/autodiscover.xml", "x", &autodiscover("bob@elsewhere.test"), 404, ""),
        ("POST", "/autodiscover/autodiscover.xml", "x", "<EMailAddress>no address", 400, ""),
        ("POST", "/autodiscover/autodiscover.xml", "x", &big, 413, ""),
        ("GET", "/autodiscover/autodiscover.xml", "x", "", 405, ""),
        ("GET", "/.well-known/acme-challenge/unknown", "mail.example.test", "", 404, ""),
        ("GET", "/metrics", "x", "", 404, ""),
        ("GET", "/", "x", "", 404, ""),
        ("GET", &long, "x", "", 431, ""),
        ("BREW", "/healthz", "x", "", 405, ""),
    ];
    for (method, path, host, body, status, holds) in cases {
        for service in ["http", "https"] {
            let mut io = plain(daemon.address(service)).await;
            if service == "https" {
                io = connect_tls(io, trusting_client_config(), "mail.example.test").await.unwrap().0;
            }
            let what = format!("{service} {method} {:.60} {host}", path);
            let page = talk(io, &request(method, path, host, body)).await.unwrap_or_else(|| panic!("{what}: no answer"));
            assert_eq!(page.status, *status, "{what}: {page:?}");
            assert!(page.body.contains(holds), "{what}: {page:?}");
        }
    }
    // What is no HTTP gets no page either.
    let answer = talk(plain(daemon.address("http")).await, b"EHLO client.test\r\n\r\n").await;
    assert!(answer.is_none_or(|page| page.status == 400));
}

#[tokio::test]
async fn slow_clients_and_crowds_are_bounded() {
    let daemon = listening().set("limits.command_timeout", "4s").set("limits.connections_per_client", 3).start().await;
    let address = daemon.address("http");
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut io = TcpStream::connect(address).await.unwrap();
        io.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        slow.push(io);
    }
    // All places of this client are taken. Its next connection is closed without a word, and others have places of their own.
    let refused = talk(plain(address).await, &request("GET", "/healthz", "x", "")).await;
    assert!(refused.is_none(), "{refused:?}");
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let other = Box::new(other.connect(address).await.unwrap());
    assert_eq!(talk(other, &request("GET", "/healthz", "x", "")).await.unwrap().status, 200);
    // Those who do not go on are cut off, before TLS and after it.
    for io in slow {
        let answer = talk(Box::new(io), b"").await;
        assert!(answer.is_none_or(|page| page.status == 408), "a half request was answered");
    }
    let answer = talk(plain(daemon.address("https")).await, b"").await;
    assert!(answer.is_none(), "a silent client was answered: {answer:?}");
    assert_eq!(talk(plain(address).await, &request("GET", "/healthz", "x", "")).await.unwrap().status, 200);
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_metrics() {
    if !peers::have("promtool") {
        return;
    }
    let daemon = listening().start().await;
    daemon.add_user("alice@example.test", "a good password").await;
    // Something of each kind, so that metrics with labels are there too.
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<x@client.test>", "250").await;
    client.command("RCPT TO:<nobody@example.test>", "550").await;
    client.command("RCPT TO:<alice@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.command("From: x@client.test\r\nSubject: hello\r\n\r\nhello\r\n.", "250").await;
    client.command("STARTTLS", "220").await;
    client.start_tls(trusting_client_config(), "mail.example.test").await.unwrap();
    client.command("QUIT", "221").await;
    daemon.mail("alice@example.test", 1).await;
    let page = talk(plain(daemon.address("metrics")).await, &request("GET", "/metrics", "x", "")).await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/plain"), "{}", page.head);
    for wanted in [
        "# HELP pillarbox_ingest_messages_accepted_total Messages answered 250.",
        "pillarbox_ingest_messages_accepted_total 1",
        "pillarbox_ingest_connections_total{service=\"smtp\"} 1",
        "pillarbox_ingest_panics_total 0",
        "# TYPE pillarbox_queue_messages gauge",
    ] {
        assert!(page.body.contains(wanted), "{wanted} is not in\n{}", page.body);
    }
    let mut command = tokio::process::Command::new(peers::path("promtool").unwrap());
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(page.body.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
