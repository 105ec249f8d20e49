//! The Debian package on a clean Debian 12 with systemd as its first process, and on one without: installed, upgraded, removed, purged.

mod deb;
mod machine;
mod root;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use pillarbox_testkit::{Client, DnsServer};

use deb::{OLD_LINE, Ready, ready, repository};
use machine::Machine;
use root::last_lines;

const CONFIG: &str = "/etc/pillarbox/pillarbox.toml";
const INBOX: &str = "/var/vmail/example.test/alice/Maildir/new";

/// A message from outside, by SMTP on port 25.
async fn send(subject: &str) {
    let address: SocketAddr = "127.0.0.1:25".parse().unwrap();
    let mut client = Client::connect(address).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<x@client.test>", "250").await;
    client.command("RCPT TO:<nobody@elsewhere.test>", "5").await;
    client.command("RCPT TO:<alice@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.command(&format!("From: x@client.test\r\nSubject: {subject}\r\n\r\nhello\r\n."), "250").await;
    client.command("QUIT", "221").await;
}

/// A name server within the machine's network, that knows the sender's domain.
async fn name_server() -> DnsServer {
    let dns = DnsServer::start().await;
    dns.mx("client.test", 10, "mx.client.test").address_of("mx.client.test", "192.0.2.25");
    dns
}

fn install(machine: &Machine, ready: &Ready, deb: &std::path::Path) -> String {
    assert!(deb.starts_with(ready.root.parent().unwrap()));
    let name = deb.file_name().unwrap();
    std::fs::copy(deb, machine.shared().join(name)).unwrap();
    machine
        .sh(&format!("apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold /srv/{} 2>&1", name.to_str().unwrap()))
}

/// Whom a process belongs to. (The owner of its folder in /proc is root, since it keeps its memory from being looked at.)
fn owner(machine: &Machine, pid: &str) -> String {
    machine.sh(&format!("id -un $(awk '/^Uid:/ {{ print $3 }}' /proc/{pid}/status)"))
}

/// Every path of the machine but those of programs that keep books: dpkg, apt, the journal.
fn paths(machine: &Machine) -> BTreeSet<String> {
    let books = "-path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log -o -path /srv -o -path /proc -o -path /sys -o -path /run \
                 -o -path /tmp -o -path /dev -o -path /var/tmp";
    machine.sh(&format!(r"find / \( {books} \) -prune -o -print")).lines().map(str::to_owned).collect()
}

/// Alice's messages are there, and nobody else's mail.
fn has_mail(machine: &Machine, subjects: &[&str]) {
    for subject in subjects {
        machine.until(&format!("mail: {subject}"), &format!("grep -rqx 'Subject: {subject}' {INBOX}"));
    }
    machine.says(&format!("ls {INBOX} | wc -l"), &subjects.len().to_string());
}

#[tokio::test]
async fn a_debian_machine_with_systemd() {
    let Some(ready) = ready() else { return };
    let machine = Machine::boot(&ready.root);
    machine.enter_network();
    let dns = name_server().await;
    install(&machine, &ready, &ready.other);
    machine.sh("dpkg -P other-mta");
    let before = paths(&machine);

    // Installed in the place of another mail server, it runs, and relays for nobody.
    install(&machine, &ready, &ready.other);
    install(&machine, &ready, &ready.older);
    assert!(!machine.holds("dpkg -s other-mta 2>/dev/null | grep -q '^Status: install ok'"));
    machine.says("systemctl is-active pillarbox; systemctl is-enabled pillarbox", "active\nenabled");
    assert_eq!(owner(&machine, "$(systemctl show -p MainPID --value pillarbox)"), "pillarbox");
    machine.says(
        "stat -c '%U %G %a' /etc/pillarbox /etc/pillarbox/pillarbox.toml /var/lib/pillarbox /var/vmail",
        "root pillarbox 750\nroot pillarbox 640\npillarbox pillarbox 711\npillarbox pillarbox 700",
    );
    let mut stranger = Client::connect("127.0.0.1:25".parse().unwrap()).await;
    stranger.expect("220").await;
    stranger.command("EHLO client.test", "250").await;
    stranger.command("MAIL FROM:<>", "250").await;
    stranger.command("RCPT TO:<victim@elsewhere.test>", "5").await;
    machine.sh(
        "systemd-analyze verify --man=no pillarbox.service pillarbox-smtp.socket pillarbox-submission.socket pillarbox-submissions.socket",
    );
    // Of 100, where more is worse.
    machine.sh("systemd-analyze security --no-pager --threshold=20 pillarbox.service");

    // An administrator's own configuration, a domain, a user, and mail by both ways in.
    machine.sh(&format!("echo 'dns.servers = [\"{}\"]' >> {CONFIG}", dns.address()));
    machine.sh("systemctl reload pillarbox");
    machine.sh("pillarbox domain add example.test && pillarbox user add alice@example.test --generate");
    machine.sh("systemctl restart pillarbox");
    send("by SMTP").await;
    machine.sh(r"printf 'Subject: by sendmail\n\nhi\n' | sendmail -i alice@example.test");
    machine.sh(r"printf 'Subject: by a stranger\n\nhi\n' | runuser -u nobody -- /usr/lib/sendmail -i alice@example.test");
    has_mail(&machine, &["by SMTP", "by sendmail", "by a stranger"]);
    in_the_journal(&machine);

    // A daemon that hangs is noticed and replaced.
    machine.sh("mkdir -p /run/systemd/system/pillarbox.service.d; printf '[Service]\nWatchdogSec=2\n' > /run/systemd/system/pillarbox.service.d/soon.conf");
    machine.sh("systemctl daemon-reload; systemctl restart pillarbox; systemctl kill -s STOP pillarbox");
    machine.until("the watchdog bites", "[ $(systemctl show -p NRestarts --value pillarbox) -ge 1 ] && systemctl is-active pillarbox");
    machine.sh("rm -r /run/systemd/system/pillarbox.service.d; systemctl daemon-reload; systemctl restart pillarbox");

    // systemd holds the port: whoever connects while the daemon is down is served by the next one.
    machine.sh(&format!("printf '[listen]\nsmtp = [\"systemd:smtp\"]\n' >> {CONFIG}"));
    machine.sh("systemctl stop pillarbox && systemctl enable --now pillarbox-smtp.socket");
    send("to a socket").await;
    machine.sh("systemctl is-active pillarbox");

    // The upgrade: another program, the same configuration, users and mail, and a port that never refused.
    let old = machine.sh("systemctl show -p MainPID --value pillarbox");
    install(&machine, &ready, &ready.current);
    machine.says("systemctl is-active pillarbox pillarbox-smtp.socket", "active\nactive");
    assert_ne!(machine.sh("systemctl show -p MainPID --value pillarbox"), old);
    let config = machine.sh(&format!("cat {CONFIG}"));
    assert!(config.starts_with(OLD_LINE) && config.contains("systemd:smtp"), "{config}");
    machine.says(&format!("stat -c '%U %G %a' {CONFIG}"), "root pillarbox 640");
    let shipped = std::fs::read_to_string(repository().join("etc/pillarbox.toml")).unwrap();
    assert_eq!(machine.sh(&format!("cat {CONFIG}.dpkg-dist")), shipped.trim());
    send("after the upgrade").await;
    let all = ["by SMTP", "by sendmail", "by a stranger", "to a socket", "after the upgrade"];
    has_mail(&machine, &all);

    // Who has masked the service keeps it so.
    machine.sh("systemctl disable --now pillarbox-smtp.socket; systemctl mask --now pillarbox");
    machine.sh("apt-get install -y --reinstall /srv/current.deb");
    machine.says("systemctl is-active pillarbox; systemctl is-enabled pillarbox; true", "inactive\nmasked");
    machine.sh("systemctl unmask pillarbox; systemctl enable pillarbox-smtp.socket; systemctl start pillarbox-smtp.socket pillarbox");

    // Removed: the programs are gone; mail, users and configuration are there. Installed again it goes on.
    machine.sh("apt-get remove -y pillarbox");
    assert!(
        !machine.holds("grep -l ^Uid:.$(id -u pillarbox) /proc/[0-9]*/status || [ -e /usr/sbin/sendmail ] || [ -e /usr/sbin/pillarboxd ]")
    );
    assert_eq!(machine.sh("journalctl -u pillarbox -o cat --no-pager | grep -c '^stopped'").parse::<usize>().map(|n| n > 3), Ok(true));
    has_mail(&machine, &all);
    machine.sh(&format!("grep -q systemd:smtp {CONFIG} && [ -d /var/lib/pillarbox/queue ]"));
    install(&machine, &ready, &ready.current);
    machine.until("the daemon is up on its socket", "systemctl is-active pillarbox pillarbox-smtp.socket");
    send("back again").await;
    let all = ["by SMTP", "by sendmail", "by a stranger", "to a socket", "after the upgrade", "back again"];
    has_mail(&machine, &all);

    // Purged, with nobody to ask: nothing is left but the mail and its owner.
    let said = machine.sh("apt-get purge -y pillarbox 2>&1");
    assert!(said.contains("Mail is still in /var/vmail"), "{said}");
    has_mail(&machine, &all);
    let left: Vec<String> = paths(&machine).difference(&before).filter(|path| !path.starts_with("/var/vmail")).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
    machine.says(&format!("stat -c %U {INBOX}"), "pillarbox");
    machine.says("systemctl --failed --no-legend; systemctl list-unit-files --no-legend 'pillarbox*'", "");
}

/// What the journal has of a delivered message: a line for people, and each field by its name.
fn in_the_journal(machine: &Machine) {
    let text = machine.sh("journalctl -u pillarbox --no-pager -o cat");
    let line = text.lines().find(|l| l.starts_with("accept ") && l.contains("from=x@client.test")).unwrap_or_else(|| panic!("{text}"));
    let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let found = machine.sh(&format!("journalctl PILLARBOX_ID={id} --no-pager -o json"));
    let events: Vec<serde_json::Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| events.iter().find(|e| e["PILLARBOX_EVENT"] == name).unwrap_or_else(|| panic!("no {name} in {found}"));
    let accept = of("accept");
    for (field, wanted) in [("FROM", "x@client.test"), ("TO", "alice@example.test"), ("CLIENT", "127.0.0.1"), ("HELO", "client.test")] {
        assert_eq!(accept[format!("PILLARBOX_{field}")], wanted, "{accept}");
    }
    assert_eq!((&accept["PRIORITY"], &accept["SYSLOG_IDENTIFIER"]), (&"6".into(), &"pillarboxd".into()));
    assert_eq!(of("deliver")["PILLARBOX_RELAY"], "maildir");
    assert!(machine.holds(&format!("journalctl -u pillarbox --no-pager -g {id} | grep -q 'deliver id={id}'")));
    machine.says("journalctl -u pillarbox -p warning --no-pager -o cat | grep -v ' yourself\\|resolver\\|DNS' || true", "");
}

#[tokio::test]
async fn a_debian_machine_without_systemd() {
    let Some(ready) = ready() else { return };
    let machine = Machine::without_systemd(&ready.root);
    machine.enter_network();
    let dns = name_server().await;
    // Mail of an earlier life must not be touched by installing.
    machine.sh("mkdir -m 0755 /var/vmail; echo kept > /var/vmail/notes");
    let before = paths(&machine);
    install(&machine, &ready, &ready.older);
    machine.says("stat -c '%U %a' /var/vmail; cat /var/vmail/notes", "root 755\nkept");
    assert!(!machine.holds("grep -l '^Name:.pillarboxd' /proc/[0-9]*/status"));
    machine.sh("chown -R pillarbox: /var/vmail");
    machine.sh(&format!("printf 'dns.servers = [\"{}\"]\n' >> {CONFIG}", dns.address()));
    machine.sh("pillarbox domain add example.test && pillarbox user add alice@example.test --generate");
    // What is handed in while no daemon runs waits.
    machine.sh(r"printf 'Subject: early\n\nhi\n' | sendmail -i alice@example.test");
    machine.sh("mkdir /run/pillarbox; chown pillarbox: /run/pillarbox; (pillarboxd >/srv/log 2>&1 & echo $! >/srv/pid)");
    // In this order: without a daemon the command opens the directory itself, and the daemon, starting, would find it in use.
    machine.until("the daemon is up", "[ -e /run/pillarbox/listeners.json ] && pillarbox domain list");
    assert_eq!(owner(&machine, "$(cat /srv/pid)"), "pillarbox");
    send("by SMTP").await;
    has_mail(&machine, &["early", "by SMTP"]);

    // An upgrade leaves a daemon that it did not start alone; here the administrator ends it.
    machine.sh("sed -i '/older version/d' /etc/pillarbox/pillarbox.toml");
    install(&machine, &ready, &ready.current);
    assert!(machine.holds("kill -0 $(cat /srv/pid)") && machine.holds(&format!("[ -e {CONFIG}.dpkg-dist ]")));
    machine.sh("kill $(cat /srv/pid)");
    machine.until("the daemon has ended", "grep -q ' stopped ' /srv/log");

    // Undelivered mail outlives a purge where nobody can be asked.
    machine.sh(r"printf 'Subject: late\n\nhi\n' | sendmail -i alice@example.test");
    let said = machine.sh("apt-get purge -y pillarbox 2>&1");
    assert!(said.contains("Undelivered mail is still in /var/lib/pillarbox"), "{said}");
    machine.says("ls /var/lib/pillarbox", "drop\nqueue");
    has_mail(&machine, &["early", "by SMTP"]);

    // Said yes to, everything goes.
    install(&machine, &ready, &ready.current);
    machine.sh("echo 'pillarbox pillarbox/purge_mail boolean true' | debconf-set-selections");
    machine.sh("apt-get purge -y pillarbox");
    let left: Vec<String> = paths(&machine).difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!machine.holds("[ -e /var/vmail ] || getent passwd pillarbox || getent group pillarbox"));
}

#[test]
fn the_package_itself() {
    let Some(ready) = ready() else { return };
    let output = Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(&ready.current).output().unwrap();
    assert!(output.status.success(), "{}", last_lines(&output));
    let field = |name: &str| {
        let output = Command::new("dpkg-deb").arg("-f").arg(&ready.current).arg(name).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for name in ["Provides", "Conflicts", "Replaces"] {
        assert_eq!(field(name), "mail-transport-agent", "{name}");
    }
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    let listed = Command::new("dpkg-deb").arg("-c").arg(&ready.current).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split(" ./").nth(1)).map(|p| p.split(" -> ").next().unwrap_or(p)).collect();
    for program in ["usr/sbin/pillarboxd", "usr/bin/pillarbox", "usr/sbin/sendmail", "usr/bin/mailq", "usr/bin/newaliases"] {
        let name = program.rsplit('/').next().unwrap();
        assert!(files.contains(program), "{program} is missing");
        let page = ["1", "8"].map(|section| format!("usr/share/man/man{section}/{name}.{section}.gz"));
        assert!(page.iter().any(|page| files.contains(page.as_str())), "{name} has no manual page");
    }
    for path in [
        "usr/lib/sendmail",
        "usr/share/man/man5/pillarbox.toml.5.gz",
        "usr/share/man/man1/pillarbox-queue-list.1.gz",
        "usr/share/bash-completion/completions/pillarbox",
        "usr/share/zsh/vendor-completions/_pillarbox",
        "usr/share/fish/vendor_completions.d/pillarbox.fish",
        "usr/share/doc/pillarbox/copyright",
    ] {
        assert!(files.contains(path), "{path} is missing");
    }
    let conffiles = Command::new("dpkg-deb").arg("-I").arg(&ready.current).arg("conffiles").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&conffiles.stdout).trim(), CONFIG);
}
