//! Three hosts on port 25 in network namespaces of their own: the daemon, and two MX hosts, one of which is Postfix where it is installed.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use pillarbox_testkit::{Daemon, DnsServer, Sink};
use rustix::thread::LinkNameSpaceType;

use super::postfix::Postfix;
use super::{count, send, with_alice};
use crate::peers;

/// Namespaces with cables between them; gone when dropped.
struct Net {
    prefix: String,
    home: File,
}

/// The host that the daemon is on, and the two others.
const HOSTS: [&str; 3] = ["a", "b", "c"];

impl Net {
    /// Lays `a`–`b` as 10.77.1.0/24 and fd77:1::/64, and `a`–`c` as 10.77.2.0/24. `None`, with a word, where that is not permitted.
    async fn new() -> Option<Self> {
        if !peers::have("ip") {
            return None;
        }
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let this = Self { prefix: format!("pillarbox-{}", std::process::id()), home };
        let (a, b, c) = (this.name("a"), this.name("b"), this.name("c"));
        for (n, name) in [&a, &b, &c].into_iter().enumerate() {
            let output = peers::run("ip", &["netns", "add", name]).await;
            if n == 0 && !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let required = std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_some_and(|v| v == "1");
                assert!(!required, "network namespaces are not permitted: {why}");
                eprintln!("skipped: network namespaces are not permitted: {why}");
                return None;
            }
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            this.ip(name, "link set lo up").await;
        }
        for (other, number) in [(&b, 1), (&c, 2)] {
            this.ip(&a, &format!("link add to{number} type veth peer name back netns {other}")).await;
            this.ip(&a, &format!("addr add 10.77.{number}.1/24 dev to{number}")).await;
            this.ip(&a, &format!("link set to{number} up")).await;
            this.ip(other, &format!("addr add 10.77.{number}.2/24 dev back")).await;
            this.ip(other, "link set back up").await;
        }
        this.ip(&a, "addr add fd77:1::1/64 dev to1 nodad").await;
        this.ip(&b, "addr add fd77:1::2/64 dev back nodad").await;
        Some(this)
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// `ip` within a namespace.
    async fn ip(&self, name: &str, words: &str) {
        let arguments: Vec<&str> = ["-n", name].into_iter().chain(words.split(' ')).collect();
        let output = peers::run("ip", &arguments).await;
        assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }

    /// Moves this thread, and with it whatever socket it opens and program it starts from now on.
    fn enter(&self, host: &str) {
        let file = File::open(format!("/run/netns/{}", self.name(host))).unwrap();
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = rustix::thread::move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        for host in HOSTS {
            let _ = std::process::Command::new("ip").args(["netns", "del", &self.name(host)]).output();
        }
    }
}

#[tokio::test]
async fn three_hosts_on_port_25() {
    let Some(net) = Net::new().await else { return };
    net.enter("b");
    let first = Sink::builder().ip("10.77.1.2").port(25).start().await;
    let sixth = Sink::builder().ip("fd77:1::2").port(25).start().await;
    net.enter("c");
    let address: SocketAddr = "10.77.2.2:25".parse().unwrap();
    let second = Postfix::start(address, &[], None).await;
    let Some(second) = second else { return };
    net.enter("a");
    let dns = DnsServer::start().await;
    dns.mx("friend.test", 10, "mx1.friend.test").address_of("mx1.friend.test", "10.77.1.2").address_of("mx1.friend.test", "fd77:1::2");
    dns.mx("friend.test", 20, "mx2.friend.test").address_of("mx2.friend.test", "10.77.2.2");
    dns.mx("six.test", 10, "six.friend.test").address_of("six.friend.test", "fd77:1::2");
    let settings = Daemon::builder().dns(dns.address()).set("relay.deny_networks", Vec::<String>::new());
    let settings = settings.set("relay.connect_timeout", "2s").set("queue.retry", vec!["1s"]);
    // An address without a PTR record, for which others would refuse our mail: IPv6 is for hosts alone that have nothing else.
    let settings = settings.set("relay.source_addresses", vec!["fd77:1::1".to_owned()]);
    // No port is named: it is 25.
    let daemon = with_alice(settings).await;
    daemon.log_line("our IPv6 address has no matching PTR record").await;
    assert!(daemon.admin(&["status"]).await.contains("fd77:1::1 has no PTR record"));

    send(&daemon, &["carol@friend.test"], "to the best").await;
    let received = first.messages(1).await.remove(0);
    assert_eq!(received.peer.ip().to_string(), "10.77.1.1");
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(event.text("relay"), "mx1.friend.test[10.77.1.2]:25");

    send(&daemon, &["dave@six.test"], "by IPv6").await;
    let received = sixth.messages(1).await.remove(0);
    assert_eq!(received.peer.ip().to_string(), "fd77:1::1");
    assert_eq!(sixth.connections(), 1);

    // The cable is pulled while no connection waits for more: the second host takes over, without an attempt that counts.
    first.idle().await;
    net.ip(&net.name("b"), "link set back down").await;
    send(&daemon, &["dave@friend.test"], "to the second").await;
    assert!(second.mail("dave").await.contains("Subject: to the second"));
    let event = daemon.event("deliver", |e| e.text("to") == "dave@friend.test").await;
    assert_eq!(event.text("relay"), "mx2.friend.test[10.77.2.2]:25");
    assert_eq!(count(&daemon, "defer", "dave@friend.test"), 0);

    // Both are gone, with no connection open to either, then the first is back.
    second.line("disconnect from").await;
    net.ip(&net.name("c"), "link set back down").await;
    send(&daemon, &["erin@friend.test"], "in the end").await;
    daemon.event("defer", |e| e.text("to") == "erin@friend.test").await;
    net.ip(&net.name("b"), "link set back up").await;
    let last = first.message("the last one", |r| r.to() == ["erin@friend.test"]).await;
    assert!(last.text().contains("Subject: in the end"));
    daemon.event("deliver", |e| e.text("to") == "erin@friend.test").await;
}
