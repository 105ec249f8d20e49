//! LMTP out, against a scripted server on a Unix socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{House, envelope, mailbox, user};
use parking_lot::Mutex;
use pillarbox_directory::{Change, Directory, DomainRecord};
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Envelope, Outcome, Route, Transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const BODY: &str = "Subject: hi\r\n\r\n.dot\r\nend\r\n";

/// What one connection was told, line by line; a message's lines are joined as `<…>`.
type Log = Arc<Mutex<Vec<Vec<String>>>>;

/// How the server answers.
#[derive(Clone, Default)]
struct Script {
    extensions: Vec<&'static str>,
    /// Replies by the start of the command, instead of the usual ones.
    replies: Vec<(&'static str, &'static str)>,
    /// After the message, for each recipient in turn instead of 250.
    ends: Vec<&'static str>,
    /// Hang up after so many messages.
    hang_up_after: Option<usize>,
}

struct Server {
    log: Log,
    path: PathBuf,
}

impl Server {
    fn start(folder: &std::path::Path, name: &str, script: Script) -> Self {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let log: Log = Arc::default();
        let keep = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let at = {
                    let mut log = keep.lock();
                    log.push(Vec::new());
                    log.len() - 1
                };
                tokio::spawn(serve(stream, script.clone(), Arc::clone(&keep), at));
            }
        });
        Self { log, path }
    }

    fn way(&self) -> String {
        format!("lmtp:unix:{}", self.path.display())
    }

    fn lines(&self) -> Vec<Vec<String>> {
        self.log.lock().clone()
    }
}

async fn serve(stream: UnixStream, script: Script, log: Log, at: usize) {
    let mut stream = BufReader::new(stream);
    let say = |text: &str| text.to_owned() + "\r\n";
    let special = |command: &str| script.replies.iter().find(|(start, _)| command.starts_with(start)).map(|(_, reply)| (*reply).to_owned());
    let greeting = special("greeting").unwrap_or("220 lmtp.example ready".into());
    stream.write_all(say(&greeting).as_bytes()).await.unwrap();
    let (mut accepted, mut messages) = (0, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let command = line.trim_end().to_owned();
        log.lock()[at].push(command.clone());
        let reply = match special(&command) {
            Some(reply) => reply,
            None if command.starts_with("LHLO") => {
                let mut lines = vec!["lmtp.example".to_owned()];
                lines.extend(script.extensions.iter().map(|e| (*e).to_owned()));
                let last = lines.pop().unwrap();
                lines.iter().map(|l| format!("250-{l}\r\n")).collect::<String>() + &format!("250 {last}")
            }
            None if command == "DATA" => "354 go".into(),
            None => "250 2.0.0 ok".into(),
        };
        if command.starts_with("MAIL") {
            accepted = 0;
        }
        if command.starts_with("RCPT") && reply.starts_with("25") {
            accepted += 1;
        }
        if let (Some(size), true) = (command.strip_prefix("BDAT "), !reply.starts_with('5')) {
            let mut octets = vec![0; size.trim_end_matches(" LAST").parse().unwrap()];
            stream.read_exact(&mut octets).await.unwrap();
            log.lock()[at].push(format!("<{}>", String::from_utf8_lossy(&octets).escape_debug()));
        } else if command == "DATA" && reply.starts_with("354") {
            stream.write_all(say(&reply).as_bytes()).await.unwrap();
            let mut text = String::new();
            while !text.ends_with("\r\n.\r\n") {
                if stream.read_line(&mut text).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            log.lock()[at].push(format!("<{}>", text.replace("\r\n", "|")));
        } else {
            stream.write_all(say(&reply).as_bytes()).await.unwrap();
            if command == "QUIT" {
                return;
            }
            continue;
        }
        for n in 0..accepted {
            let end = script.ends.get(n).copied().unwrap_or("250 2.0.0 stored");
            stream.write_all(say(end).as_bytes()).await.unwrap();
        }
        messages += 1;
        if script.hang_up_after == Some(messages) {
            return;
        }
    }
}

fn pipelining() -> Script {
    Script { extensions: vec!["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"], ..Script::default() }
}

async fn house_with(script: Script) -> (House, Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "lmtp", script);
    let house = House::with(|config| config.mailbox.deliver_to = server.way()).await;
    (house, server, folder)
}

fn codes(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Delivered => "delivered".into(),
            Outcome::Deferred { reply } => format!("deferred {reply}"),
            Outcome::Failed { reply } => format!("failed {reply}"),
            other => format!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn a_dialogue_as_dovecot_sees_it() {
    let (house, server, _folder) = house_with(pipelining()).await;
    let mut mail = envelope(7, "ann@example.net", &["bob@example.org", "eve@example.org"]);
    mail.recipients[1].route = Route::Mailbox { folder: Some("lists".into()) };
    let outcomes = house.deliver(mail, BODY).await;
    assert_eq!(outcomes.each, vec![Outcome::Delivered; 2]);
    assert_eq!(outcomes.relay, server.way());
    let lines = server.lines();
    assert_eq!(
        lines[0].iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "LHLO mail.example.org",
            "MAIL FROM:<ann@example.net>",
            "RCPT TO:<bob@example.org>",
            "RCPT TO:<eve+lists@example.org>",
            "DATA",
            "<Subject: hi||..dot|end|.|>",
            "QUIT",
        ]
    );
    assert!(!house.maildir("bob@example.org").exists());
}

#[tokio::test]
async fn each_recipient_has_its_own_answer() {
    for extensions in [vec!["PIPELINING"], vec![]] {
        let script = Script {
            extensions,
            replies: vec![("RCPT TO:<b@", "550 5.1.1 no such user"), ("RCPT TO:<c@", "450 4.2.0 busy")],
            ends: vec!["250 2.0.0 stored", "452 4.2.2 full"],
            ..Script::default()
        };
        let (house, _server, _folder) = house_with(script).await;
        let to = ["a@example.org", "b@example.org", "c@example.org", "d@example.org"];
        let outcomes = house.deliver(envelope(7, "ann@example.net", &to), BODY).await;
        assert_eq!(
            codes(&outcomes.each),
            ["delivered", "failed 550 5.1.1 no such user", "deferred 450 4.2.0 busy", "deferred 452 4.2.2 full"]
        );
    }
}

#[tokio::test]
async fn refusals_at_each_step_leave_the_session_usable() {
    for (step, reply, expected) in [
        ("MAIL", "451 4.3.0 later", "deferred 451 4.3.0 later"),
        ("MAIL", "550 5.7.1 never", "failed 550 5.7.1 never"),
        ("RCPT", "550 5.1.1 nobody", "failed 550 5.1.1 nobody"),
        ("DATA", "452 4.3.1 full", "deferred 452 4.3.1 full"),
    ] {
        let (house, server, _folder) = house_with(Script { replies: vec![(step, reply)], ..pipelining() }).await;
        let outcomes = house.deliver(envelope(7, "ann@example.net", &["bob@example.org"]), BODY).await;
        assert_eq!(codes(&outcomes.each), [expected], "{step}");
        assert_eq!(server.lines()[0].last().unwrap(), "QUIT", "{step}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_lets_its_mail_wait_together() {
    let house = House::with(|config| config.mailbox.deliver_to = "lmtp:unix:/nonexistent/socket".into()).await;
    let queue = FakeQueue::new();
    let mail = envelope(7, "", &["bob@example.org"]);
    let destination = house.transport.destination(&mail, &mail.recipients[0]);
    assert_eq!(&*destination.0, "lmtp:unix:/nonexistent/socket");
    let pushed = queue.push(mail, vec![0], Body::from_bytes(BODY));
    house.transport.run(destination, queue.feed()).await;
    let outcomes = pushed.outcomes().await.unwrap();
    assert!(codes(&outcomes.each)[0].starts_with("deferred 451 4.4.1 "), "{outcomes:?}");
    assert!(queue.down().is_some());

    for (greeting, expected) in
        [("421 4.3.2 going down", "deferred 421 4.3.2 going down"), ("554 5.7.1 not you", "deferred 454 4.7.1 not you")]
    {
        let (house, _server, _folder) = house_with(Script { replies: vec![("greeting", greeting)], ..pipelining() }).await;
        let outcomes = house.deliver(envelope(7, "", &["bob@example.org"]), BODY).await;
        assert_eq!(codes(&outcomes.each), [expected]);
    }
}

#[tokio::test]
async fn one_connection_serves_many_messages_and_a_lost_one_is_replaced() {
    for (hang_up_after, connections) in [(None, 1), (Some(2), 3)] {
        let (house, server, _folder) = house_with(Script { hang_up_after, ..pipelining() }).await;
        let queue = FakeQueue::new();
        let mut pushed = Vec::new();
        for id in 0..5 {
            pushed.push(queue.push(envelope(id, "", &["bob@example.org"]), vec![0], Body::from_bytes(BODY)));
        }
        let mail = envelope(0, "", &["bob@example.org"]);
        house.transport.run(house.transport.destination(&mail, &mail.recipients[0]), queue.feed()).await;
        for one in pushed {
            assert_eq!(one.outcomes().await.unwrap().each, [Outcome::Delivered]);
        }
        assert_eq!(server.lines().len(), connections);
    }
}

#[tokio::test]
async fn binary_goes_as_it_is_to_a_server_that_takes_it() {
    let mut mail = envelope(7, "", &["bob@example.org"]);
    mail.body = pillarbox_smtp::BodyType::BinaryMime;
    let script = Script { extensions: vec!["PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME"], ..Script::default() };
    let (house, server, _folder) = house_with(script).await;
    let body = "Subject: x\r\n\r\na\nb\0";
    assert_eq!(house.deliver_one(mail.clone(), body).await, Outcome::Delivered);
    let lines = server.lines();
    assert!(lines[0].contains(&"MAIL FROM:<> BODY=BINARYMIME".to_owned()), "{lines:?}");
    assert!(lines[0].contains(&format!("<{}>", body.escape_debug())), "{lines:?}");

    let (house, server, _folder) = house_with(pipelining()).await;
    assert_eq!(house.deliver_one(mail, body).await, Outcome::Delivered);
    let lines = server.lines();
    let message = lines[0].iter().find(|line| line.starts_with('<')).unwrap();
    assert!(message.contains("base64") || message.contains("quoted-printable"), "{message}");
}

#[tokio::test]
async fn suspended_users_and_junk_are_known_here_too() {
    let (house, server, _folder) = house_with(pipelining()).await;
    let mut bob = user("bob@example.org");
    bob.suspended = true;
    house.put(bob).await;
    let mut mail = envelope(7, "", &["bob@example.org", "eve@example.org"]);
    mail.junk = true;
    let outcomes = house.deliver(mail, BODY).await;
    assert!(codes(&outcomes.each)[0].starts_with("failed 550 5.2.1 "));
    assert_eq!(outcomes.each[1], Outcome::Delivered);
    let lines = server.lines();
    assert!(lines[0].iter().any(|line| line.starts_with("<X-Spam-Flag: YES|Subject: hi|")), "{lines:?}");
    assert!(!lines[0].iter().any(|line| line.contains("bob@")));
}

#[tokio::test]
async fn a_domain_can_have_its_own_way() {
    let house = House::with(|config| {
        config.mailbox.deliver_to_domains.insert("example.com".into(), "lmtp:unix:/a".into());
    })
    .await;
    let to = |address: &str| {
        let mail: Envelope = envelope(7, "", &[address]);
        house.transport.destination(&mail, &mail.recipients[0]).0.to_string()
    };
    assert_eq!((to("x@example.org"), to("x@example.com")), ("maildir".into(), "lmtp:unix:/a".into()));
    let domain = |deliver_to: Option<&str>| {
        Change::PutDomain(DomainRecord {
            name: "example.com".parse().unwrap(),
            created: "2023-11-14T00:00:00Z".into(),
            deliver_to: deliver_to.map(Into::into),
            dkim: vec![],
        })
    };
    for (deliver_to, expected) in [(Some("lmtp:h:24"), "lmtp:h:24"), (Some("maildir"), "maildir"), (None, "lmtp:unix:/a")] {
        house.directory.apply(vec![domain(deliver_to)]).await.unwrap();
        while to("x@example.com") != expected {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn users_stay_with_their_back_end() {
    let of = |list: &'static str| async move {
        let house = House::with(|config| config.mailbox.deliver_to = list.into()).await;
        (0..200)
            .map(|n| house.transport.destination(&envelope(1, "", &[]), &common::recipient(&format!("u{n}@example.org"))).0.to_string())
            .collect::<Vec<_>>()
    };
    let two = of("lmtp:a:24,lmtp:b:24").await;
    assert_eq!(two, of("lmtp:b:24, lmtp:a:24").await);
    let on_a = two.iter().filter(|d| *d == "lmtp:a:24").count();
    assert!((60..140).contains(&on_a), "{on_a}");
    let three = of("lmtp:a:24,lmtp:b:24,lmtp:c:24").await;
    assert!(two.iter().zip(&three).all(|(before, after)| before == after || after == "lmtp:c:24"));
    assert_eq!(mailbox("u1@example.org").key(), "u1@example.org");
}
