//! Bounds and manners that a single dialogue cannot show: several connections, signals, changes by the administrator meanwhile.

use std::net::SocketAddr;

use pillarbox_testkit::{Client, Daemon, certificates};

async fn greeted(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    client.expect("220").await;
    client
}

/// A client inside TLS on port 465.
async fn inside_tls(daemon: &Daemon) -> Client {
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client
}

async fn log_in(daemon: &Daemon, user: &str, password: &str) -> String {
    let mut client = inside_tls(daemon).await;
    client.line(&format!("AUTH PLAIN {}", plain(user, password))).await;
    let reply = client.reply().await;
    reply.code().to_owned()
}

fn plain(user: &str, password: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"))
}

/// A session in the middle of a message: 354 was given and some of it sent.
async fn amid_a_message(daemon: &Daemon) -> Client {
    let mut client = greeted(daemon.address("smtp")).await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.command("RCPT TO:<alice@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"Subject: to be contin").await;
    client
}

#[tokio::test]
async fn at_shut_down_open_sessions_hear_421_and_no_half_message_is_kept() {
    let mut daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let mut idle = greeted(daemon.address("smtp")).await;
    let mut secure = inside_tls(&daemon).await;
    let mut busy = amid_a_message(&daemon).await;
    let address = daemon.address("smtp");
    assert!(daemon.stop().await.success());
    for client in [&mut idle, &mut secure, &mut busy] {
        let reply = client.expect("421").await;
        assert!(reply.has("4.3.2 *"), "{reply}");
        assert!(client.closed().await);
    }
    assert!(Client::try_connect(address).await.is_err());
    daemon.restart().await;
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_gets_places_back() {
    let daemon = Daemon::builder().set("limits.connections_per_client", 2).start().await;
    let smtp = daemon.address("smtp");
    let mut first = greeted(smtp).await;
    let _second = greeted(smtp).await;
    let mut third = Client::connect(smtp).await;
    let refused = third.expect("421").await;
    assert!(refused.has("4.7.0 Too many connections from your address*"), "{refused}");
    assert!(third.closed().await);
    // Port 465 says nothing in the clear, where nobody could read it.
    let mut silent = Client::connect(daemon.address("submissions")).await;
    assert!(silent.closed().await);
    first.command("QUIT", "221").await;
    drop(first);
    daemon.event("disconnect", |e| e.text("status") == "quit").await;
    daemon.events_until("a free place", |_| Some(())).await;
    // The place is given back right behind the event; whoever comes in between is refused and may try again.
    let mut fourth = loop {
        let mut client = Client::connect(smtp).await;
        if client.reply().await.code() == "220" {
            break client;
        }
    };
    fourth.command("NOOP", "250").await;
}

#[tokio::test]
async fn behind_a_balancer_connections_are_counted_by_who_is_behind_it() {
    let daemon = Daemon::builder()
        .set("limits.connections_per_client", 1)
        .set("listen.proxy_protocol_from", vec!["127.0.0.0/8".to_owned()])
        .start()
        .await;
    let mut open = Vec::new();
    for (client, code) in [("192.0.2.7", "220"), ("192.0.2.8", "220"), ("192.0.2.7", "421")] {
        let mut connection = Client::connect(daemon.address("smtp")).await;
        connection.send(format!("PROXY TCP4 {client} 198.51.100.1 5555 25\r\n").as_bytes()).await;
        connection.expect(code).await;
        open.push(connection);
    }
}

#[tokio::test]
async fn the_server_has_so_many_connections() {
    let daemon = Daemon::builder().set("limits.connections", 2).start().await;
    let _first = greeted(daemon.address("smtp")).await;
    let _second = greeted(daemon.address("submission")).await;
    let mut third = Client::connect(daemon.address("smtp")).await;
    let refused = third.expect("421").await;
    assert!(refused.has("4.7.0 Too many connections;*"), "{refused}");
    assert!(third.closed().await);
}

#[tokio::test]
async fn a_line_that_never_ends_is_cut_off_in_time() {
    let daemon = Daemon::builder().set("limits.command_timeout", "1s").start().await;
    let mut client = greeted(daemon.address("smtp")).await;
    // An octet now and then is not enough to stay: the whole command has a time.
    loop {
        if client.try_send(b"x").await.is_err() {
            break;
        }
        if !client.silent_for(std::time::Duration::from_millis(100)).await {
            break;
        }
    }
    let reply = client.expect("421").await;
    assert!(reply.has("4.4.2 *"), "{reply}");
}

#[tokio::test]
async fn an_app_password_that_was_revoked_is_refused_at_once() {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let made = daemon.admin_json(&["app-password", "add", "alice@example.test", "phone"]).await;
    let phone = made["password"].as_str().unwrap_or_else(|| panic!("no password in {made}")).to_owned();
    let other = daemon.admin_json(&["app-password", "add", "alice@example.test", "tablet"]).await;
    let tablet = other["password"].as_str().unwrap_or_else(|| panic!("no password in {other}")).to_owned();
    for password in [phone.as_str(), tablet.as_str(), "wonderland"] {
        assert_eq!(log_in(&daemon, "alice@example.test", password).await, "235", "{password}");
    }
    let mut before = inside_tls(&daemon).await;
    daemon.admin(&["app-password", "revoke", "alice@example.test", "phone", "--yes"]).await;
    before.command(&format!("AUTH PLAIN {}", plain("alice@example.test", &phone)), "535").await;
    assert_eq!(log_in(&daemon, "alice@example.test", &tablet).await, "235");
    assert_eq!(log_in(&daemon, "alice@example.test", "wonderland").await, "235");
}

#[tokio::test]
async fn a_new_password_and_a_suspension_hold_at_once() {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    assert_eq!(log_in(&daemon, "alice@example.test", "wonderland").await, "235");
    daemon.admin_with(&["user", "passwd", "alice@example.test", "--password-stdin"], "looking glass\n").await;
    assert_eq!(log_in(&daemon, "alice@example.test", "wonderland").await, "535");
    assert_eq!(log_in(&daemon, "alice@example.test", "looking glass").await, "235");
    daemon.admin(&["user", "suspend", "alice@example.test"]).await;
    assert_eq!(log_in(&daemon, "alice@example.test", "looking glass").await, "535");
    daemon.admin(&["user", "resume", "alice@example.test"]).await;
    assert_eq!(log_in(&daemon, "alice@example.test", "looking glass").await, "235");
}

#[tokio::test]
async fn who_guesses_passwords_is_shut_out() {
    let daemon = Daemon::builder().set("auth.failures_per_client", 3).start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let mut client = inside_tls(&daemon).await;
    for _ in 0..3 {
        client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", "guess")), "535").await;
    }
    let blocked = client.command(&format!("AUTH PLAIN {}", plain("nobody@example.test", "guess")), "421").await;
    assert!(blocked.has("4.7.0 *"), "{blocked}");
    assert!(client.closed().await);
    assert_eq!(log_in(&daemon, "alice@example.test", "guess").await, "421", "from another connection too");
}

#[tokio::test]
async fn a_users_rate_counts_all_sessions_and_leaves_others_alone() {
    let daemon = Daemon::builder().set("submission.rate_per_user", "2/h").start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    let mut replies = Vec::new();
    for (user, password) in [("alice", "wonderland"), ("alice", "wonderland"), ("alice", "wonderland"), ("bob", "builder")] {
        let mut client = inside_tls(&daemon).await;
        client.command(&format!("AUTH PLAIN {}", plain(&format!("{user}@example.test"), password)), "235").await;
        client.command(&format!("MAIL FROM:<{user}@example.test>"), "250").await;
        client.line("RCPT TO:<bob@example.test>").await;
        replies.push(client.reply().await.code().to_owned());
    }
    assert_eq!(replies, ["250", "250", "450", "250"]);
}

#[tokio::test]
async fn behind_a_balancer_the_header_comes_before_tls() {
    let daemon = Daemon::builder().set("listen.proxy_protocol_from", vec!["127.0.0.0/8".to_owned()]).start().await;
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 465\r\n").await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    daemon.event("connect", |e| e.text("client") == "192.0.2.7").await;
}

#[tokio::test]
async fn a_handshake_that_is_none_ends_that_session_alone() {
    let daemon = Daemon::start().await;
    let mut client = greeted(daemon.address("smtp")).await;
    client.command("EHLO client.test", "250").await;
    client.command("STARTTLS", "220").await;
    client.send(b"MAIL FROM:<evil@client.test>\r\nRCPT TO:<alice@example.test>\r\n").await;
    daemon.event("disconnect", |e| e.text("status") == "tls-failed").await;
    greeted(daemon.address("smtp")).await.command("QUIT", "221").await;
}
