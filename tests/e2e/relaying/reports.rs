//! Delivery reports (RFC 3461, 3464, 6522), read by Python's own parser.

use pillarbox_testkit::{Client, Daemon, Sink, Stage};

use super::{ALICE, Submission, emptied, friendly_dns, message, settings, with_alice, world};
use crate::peers;

/// Reads a report and prints what it is made of.
const READER: &str = r#"
import email, email.policy, json, sys
message = email.message_from_binary_file(open(sys.argv[1], "rb"), policy=email.policy.default)
parts = list(message.iter_parts())
status = [{k.lower(): str(v) for k, v in block.items()} for block in parts[1].get_payload()]
returned = parts[2]
content = returned.get_payload(0).as_bytes().decode() if returned.get_content_type() == "message/rfc822" else returned.get_payload(decode=True).decode()
defects = [repr(d) for part in message.walk() for d in part.defects]
print(json.dumps(dict(
    type=message.get_content_type(), report=message.get_param("report-type"), to=str(message["To"]), subject=str(message["Subject"]),
    automatic=str(message["Auto-Submitted"]), path=str(message["Return-Path"]), date=bool(message["Date"]), id=bool(message["Message-ID"]),
    parts=[p.get_content_type() for p in parts], text=parts[0].get_content(), status=status, returned=content, defects=defects)))
"#;

/// The only report that Alice has, taken apart.
async fn report(daemon: &Daemon) -> serde_json::Value {
    let mut mail = daemon.mail(ALICE, 1).await;
    assert_eq!(mail.len(), 1);
    let path = mail.remove(0).path.display().to_string();
    let output = peers::run("python3", &["-c", READER, &path]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((read["type"].as_str(), read["report"].as_str()), (Some("multipart/report"), Some("delivery-status")), "{read}");
    assert_eq!(read["defects"], serde_json::json!([]), "{read}");
    assert_eq!(read["parts"][0], "text/plain");
    assert_eq!(read["parts"][1], "message/delivery-status");
    assert_eq!((read["path"].as_str(), read["automatic"].as_str()), (Some("<>"), Some("auto-replied")), "{read}");
    assert!(read["date"] == true && read["id"] == true && read["to"].as_str().unwrap().contains(ALICE), "{read}");
    assert_eq!(read["status"][0]["reporting-mta"], "dns; mail.example.test");
    read
}

/// A sink that refuses mail for `nobody` in its own words.
async fn refusing() -> (Daemon, Sink, pillarbox_testkit::DnsServer) {
    let (daemon, sink, dns) = world().await;
    sink.on(Stage::Rcpt, "nobody*", "550-5.1.1 There is nobody\n550 5.1.1 of that name");
    (daemon, sink, dns)
}

#[tokio::test]
async fn failures_return_the_message_or_its_header_as_the_sender_says() {
    for (ret, part, whole) in
        [("RET=FULL", "message/rfc822", true), ("RET=HDRS", "text/rfc822-headers", false), ("", "message/rfc822", true)]
    {
        let (daemon, _sink, _dns) = refusing().await;
        let mut session = Submission::open(&daemon).await;
        let from = format!("<alice@example.test> {ret}");
        let content = message("report", "the body\r\n.a dot leads\r\n");
        session.send(from.trim(), &["<nobody@friend.test>"], &content).await;
        let read = report(&daemon).await;
        assert_eq!(read["parts"][2], part, "{ret:?}");
        let returned = read["returned"].as_str().unwrap();
        assert!(returned.contains("Subject: report"), "{returned}");
        assert_eq!(returned.contains("the body") && returned.contains("\n.a dot leads"), whole, "{returned}");
        let about = &read["status"][1];
        assert_eq!(about["final-recipient"], "rfc822; nobody@friend.test");
        assert_eq!((about["action"].as_str(), about["status"].as_str()), (Some("failed"), Some("5.1.1")));
        assert_eq!(about["remote-mta"], "dns; mx.friend.test");
        let words = about["diagnostic-code"].as_str().unwrap();
        assert!(words.starts_with("smtp; 550") && words.contains("There is nobody") && words.contains("of that name"), "{words}");
        assert!(read["text"].as_str().unwrap().contains("There is nobody"), "{}", read["text"]);
        assert_eq!(read["subject"], "Your message could not be delivered");
    }
}

#[tokio::test]
async fn the_senders_own_names_come_back() {
    let (daemon, _sink, _dns) = refusing().await;
    let mut session = Submission::open(&daemon).await;
    let to = "<nobody@friend.test> NOTIFY=FAILURE ORCPT=rfc822;first+2Bname@old.test";
    session.send("<alice@example.test> ENVID=QQ+2B314159", &[to], &message("names", "hello")).await;
    let read = report(&daemon).await;
    assert_eq!(read["status"][0]["original-envelope-id"], "QQ+314159");
    assert_eq!(read["status"][1]["original-recipient"], "rfc822; first+name@old.test");
}

#[tokio::test]
async fn one_report_tells_of_all_that_failed_together() {
    let (daemon, sink, _dns) = refusing().await;
    let mut session = Submission::open(&daemon).await;
    let to = ["<nobody1@friend.test>", "<carol@friend.test>", "<nobody2@friend.test>", "<nobody3@friend.test> NOTIFY=NEVER"];
    session.send("<alice@example.test>", &to, &message("some", "hello")).await;
    sink.messages(1).await;
    let read = report(&daemon).await;
    let mut about: Vec<&str> =
        read["status"].as_array().unwrap().iter().skip(1).filter_map(|block| block["final-recipient"].as_str()).collect();
    about.sort_unstable();
    assert_eq!(about, ["rfc822; nobody1@friend.test", "rfc822; nobody2@friend.test"]);
    emptied(&daemon).await;
    assert_eq!(daemon.mailbox(ALICE).messages.len(), 1);
}

#[tokio::test]
async fn never_is_never() {
    let (daemon, _sink, _dns) = refusing().await;
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<nobody@friend.test> NOTIFY=NEVER"], &message("silence", "hello")).await;
    daemon.event("bounce", |e| e.text("to") == "nobody@friend.test").await;
    emptied(&daemon).await;
    assert!(daemon.mailbox(ALICE).messages.is_empty());
}

#[tokio::test]
async fn parameters_are_passed_on_to_hosts_that_know_them() {
    let (daemon, sink, _dns) = world().await;
    let mut session = Submission::open(&daemon).await;
    let to = "<carol@friend.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;carol+40old@friend.test";
    session.send("<alice@example.test> RET=HDRS ENVID=a+2Bb", &[to, "<dave@friend.test>"], &message("dsn", "hello")).await;
    let received = sink.messages(1).await.remove(0);
    for parameter in ["RET=HDRS", "ENVID=a+2Bb"] {
        assert!(received.from_parameters.iter().any(|p| p == parameter), "{received:?}");
    }
    let carol = received.recipients.iter().find(|(address, _)| address == "carol@friend.test").unwrap();
    assert!(carol.1.iter().any(|p| p == "NOTIFY=SUCCESS,DELAY"), "{carol:?}");
    assert!(carol.1.iter().any(|p| p == "ORCPT=rfc822;carol+40old@friend.test" || p == "ORCPT=rfc822;carol@old@friend.test"), "{carol:?}");
    emptied(&daemon).await;
    // Who takes the request takes the report with it.
    assert!(daemon.mailbox(ALICE).messages.is_empty());
}

#[tokio::test]
async fn success_is_told_where_the_next_host_will_not() {
    let (sink, dns) = (Sink::builder().capabilities(&["PIPELINING", "8BITMIME"]).start().await, friendly_dns().await);
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let mut session = Submission::open(&daemon).await;
    let to = "<carol@friend.test> NOTIFY=SUCCESS ORCPT=rfc822;carol@friend.test";
    session.send("<alice@example.test> ENVID=one RET=FULL", &[to], &message("relayed", "hello")).await;
    let received = sink.messages(1).await.remove(0);
    assert!(received.from_parameters.iter().all(|p| !p.starts_with("RET") && !p.starts_with("ENVID")), "{received:?}");
    assert_eq!(received.recipients[0].1, Vec::<String>::new());
    let read = report(&daemon).await;
    let about = &read["status"][1];
    assert_eq!((about["action"].as_str(), about["status"].as_str().map(|s| &s[..1])), (Some("relayed"), Some("2")));
    assert_eq!(read["status"][0]["original-envelope-id"], "one");
    // RET speaks of failures alone (RFC 3461 section 4.3).
    assert_eq!(read["parts"][2], "text/rfc822-headers");
}

#[tokio::test]
async fn success_in_a_mailbox_of_ours_is_told() {
    let (daemon, _sink, _dns) = world().await;
    daemon.add_user("bob@example.test", "builder").await;
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<bob@example.test> NOTIFY=SUCCESS"], &message("local", "hello")).await;
    daemon.mail("bob@example.test", 1).await;
    let read = report(&daemon).await;
    assert_eq!(
        (read["status"][1]["action"].as_str(), read["status"][1]["final-recipient"].as_str()),
        (Some("delivered"), Some("rfc822; bob@example.test"))
    );
    assert_eq!(read["subject"], "Your message was delivered");
}

#[tokio::test]
async fn delay_says_how_long_we_shall_try() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    sink.on(Stage::Rcpt, "*", "450 4.2.1 Mailbox busy");
    let daemon = with_alice(settings(&dns, sink.port()).set("queue.delay_warning", "1s").set("queue.retry", vec!["1h"])).await;
    let mut session = Submission::open(&daemon).await;
    session
        .send("<alice@example.test> RET=FULL", &["<carol@friend.test>", "<dave@friend.test> NOTIFY=FAILURE"], &message("late", "hello"))
        .await;
    let read = report(&daemon).await;
    assert_eq!(read["status"].as_array().unwrap().len(), 2, "Dave's delay is not to be told: {read}");
    let about = &read["status"][1];
    assert_eq!((about["action"].as_str(), about["status"].as_str()), (Some("delayed"), Some("4.2.1")));
    assert_eq!(about["final-recipient"], "rfc822; carol@friend.test");
    assert!(about["will-retry-until"].is_string(), "{about}");
    assert_eq!(read["parts"][2], "text/rfc822-headers");
    assert!(read["text"].as_str().unwrap().contains("You need not send it"), "{}", read["text"]);
}

#[tokio::test]
async fn nobody_is_told_of_mail_without_a_sender() {
    let (daemon, sink, dns) = refusing().await;
    dns.mx("client.test", 10, "mx.client.test").address_of("mx.client.test", "192.0.2.25");
    daemon.add_alias("info@example.test", &["nobody@friend.test"]).await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO mx.client.test", "250").await;
    client.command("MAIL FROM:<>", "250").await;
    client.command("RCPT TO:<info@example.test>", "250").await;
    client.command("DATA", "354").await;
    let content = message("no sender", "hello").replace("alice@example.test", "postmaster@client.test");
    client.send(format!("{content}\r\n.\r\n").as_bytes()).await;
    client.expect("250").await;
    daemon.event("bounce", |e| e.text("to") == "nobody@friend.test").await;
    emptied(&daemon).await;
    assert!(daemon.mailbox(ALICE).messages.is_empty());
    assert!(sink.transactions().is_empty(), "{:?}", sink.transactions());
    assert!(sink.commands().iter().all(|(_, line)| !line.starts_with("MAIL") || line.starts_with("MAIL FROM:<>")), "{:?}", sink.commands());
}
