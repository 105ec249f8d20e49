//! Values that have the right type and still cannot be.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use pillarbox_smtp::{Domain, Mailbox};

use crate::endpoint::{ListenAddress, NextHop};
use crate::reference::nearest_word;
use crate::types::*;
use crate::units::ByteSize;

/// Every impossible value as (key, what is wrong).
pub(crate) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Found(Vec::new());
    found.hostname(config);
    found.paths(&config.paths);
    found.listen(&config.listen);
    found.limits(&config.limits);
    found.tls(&config.tls);
    found.auth(&config.auth);
    found.directory(&config.directory);
    found.mailbox(&config.mailbox);
    found.queue(&config.queue);
    found.relay(&config.relay);
    found.screen(&config.screen);
    found.log(&config.log);
    for folder in &config.security.folders {
        found.absolute("security.folders", folder);
    }
    found.one_of("security.sandbox", &config.security.sandbox, &["auto", "required", "off"]);
    found.0
}

struct Found(Vec<(String, String)>);

impl Found {
    fn say(&mut self, key: impl Display, why: impl Display) {
        self.0.push((key.to_string(), why.to_string()));
    }

    fn check<T, E: Display>(&mut self, key: impl Display, result: Result<T, E>) {
        if let Err(why) = result {
            self.say(key, why);
        }
    }

    fn one_of(&mut self, key: impl Display, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            let list = allowed.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
            let hint = nearest_word(value, allowed).map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
            self.say(key, format!("{value:?} is none of {list}{hint}"));
        }
    }

    fn at_least(&mut self, key: &str, value: u64, least: u64, why: &str) {
        if value < least {
            self.say(key, format!("{value} is too small: it must be at least {least}{why}"));
        }
    }

    fn not_zero(&mut self, key: &str, value: Duration) {
        if value.is_zero() {
            self.say(key, "must be longer than 0s");
        }
    }

    fn absolute(&mut self, key: impl Display, path: &Path) {
        if !path.as_os_str().is_empty() && !path.is_absolute() {
            self.say(
                key,
                format!("{:?} must be an absolute path, since the daemon's working folder is not yours", path.display().to_string()),
            );
        }
    }

    fn hostname(&mut self, config: &Config) {
        if config.hostname.is_empty() {
            return;
        }
        match Domain::new(&config.hostname) {
            Ok(domain) if domain.ip().is_none() => {}
            _ => self.say(
                "hostname",
                format!("{:?} is not a host name: write a fully qualified one such as \"mail.example.org\"", config.hostname),
            ),
        }
    }

    fn paths(&mut self, paths: &Paths) {
        for (key, path) in [("paths.state", &paths.state), ("paths.mail", &paths.mail), ("paths.runtime", &paths.runtime)] {
            if path.as_os_str().is_empty() {
                self.say(key, "must name a folder");
            }
            self.absolute(key, path);
        }
        if paths.state == paths.mail {
            self.say("paths.mail", "must not be the state folder, which holds keys and the queue");
        }
    }

    fn listen(&mut self, listen: &Listen) {
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for (service, addresses) in listen.services() {
            for (n, text) in addresses.iter().enumerate() {
                let key = format!("listen.{service}[{n}]");
                match text.parse::<ListenAddress>() {
                    // Port 0 is whatever is free, so it is never taken twice.
                    Ok(ListenAddress::Tcp(address)) if address.port() == 0 => {}
                    Ok(address) => {
                        if !taken.insert(address.to_string()) {
                            self.say(key, format!("{text:?} is listened on twice"));
                        }
                    }
                    Err(why) => self.say(key, why),
                }
            }
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.at_least("limits.message_size", limits.message_size.bytes(), 1024, " octets");
        if limits.message_size.bytes() > 4 << 30 {
            self.say("limits.message_size", format!("{} is too large: at most 4G", limits.message_size));
        }
        self.at_least("limits.recipients", limits.recipients as u64, 1, "");
        self.at_least("limits.connections", limits.connections as u64, 1, "");
        self.at_least("limits.connections_per_client", limits.connections_per_client as u64, 1, "");
        self.at_least("limits.protocol_errors", limits.protocol_errors.into(), 1, "");
        self.at_least("limits.hops", limits.hops as u64, 2, "");
        self.not_zero("limits.command_timeout", limits.command_timeout);
        self.not_zero("limits.data_timeout", limits.data_timeout);
        if limits.banner_delay > Duration::from_secs(60) {
            self.say("limits.banner_delay", "longer than 60s makes honest clients give up");
        }
    }

    fn tls(&mut self, tls: &Tls) {
        self.one_of("tls.minimum_version", &tls.minimum_version, &["1.2", "1.3"]);
        self.absolute("tls.certificate", &tls.certificate);
        self.absolute("tls.private_key", &tls.private_key);
        match (tls.certificate.as_os_str().is_empty(), tls.private_key.as_os_str().is_empty()) {
            (false, true) => self.say("tls.private_key", "is missing: tls.certificate needs its private key"),
            (true, false) => self.say("tls.certificate", "is missing: tls.private_key needs its certificate"),
            _ => {}
        }
        for (n, pair) in tls.certificates.iter().enumerate() {
            for (name, path) in [("certificate", &pair.certificate), ("private_key", &pair.private_key)] {
                let key = format!("tls.certificates[{n}].{name}");
                if path.as_os_str().is_empty() {
                    self.say(&key, "must name a PEM file");
                }
                self.absolute(&key, path);
            }
        }
        if let Some(acme) = &tls.acme {
            self.acme(acme);
        }
    }

    fn acme(&mut self, acme: &Acme) {
        self.one_of("tls.acme.challenge", &acme.challenge, &["http-01", "dns-01"]);
        if !acme.contact.is_empty() && acme.contact.strip_prefix("mailto:").and_then(|a| a.parse::<Mailbox>().ok()).is_none() {
            self.say("tls.acme.contact", format!("{:?} is not a \"mailto:\" address", acme.contact));
        }
        if !acme.directory.starts_with("https://") {
            self.say("tls.acme.directory", format!("{:?} is not an https:// URL", acme.directory));
        }
        for (n, name) in acme.domains.iter().enumerate() {
            self.check(format!("tls.acme.domains[{n}]"), Domain::new(name.strip_prefix("*.").unwrap_or(name)));
        }
        let files = [
            ("webroot", &acme.webroot),
            ("dns_hook", &acme.dns_hook),
            ("dns_update_key_file", &acme.dns_update_key_file),
            ("ca_file", &acme.ca_file),
        ];
        for (name, path) in files {
            self.absolute(format!("tls.acme.{name}"), path);
        }
        if acme.challenge == "dns-01" && acme.dns_hook.as_os_str().is_empty() && acme.dns_update_server.is_empty() {
            self.say("tls.acme.challenge", "\"dns-01\" needs tls.acme.dns_hook or tls.acme.dns_update_server");
        }
        if !acme.dns_hook.as_os_str().is_empty() && !acme.dns_update_server.is_empty() {
            self.say("tls.acme.dns_hook", "and tls.acme.dns_update_server do the same: name one of them");
        }
        if !acme.dns_update_server.is_empty() && !is_host_port(&acme.dns_update_server) {
            self.say("tls.acme.dns_update_server", format!("{:?} is not \"host:port\"", acme.dns_update_server));
        }
        self.not_zero("tls.acme.renew_before", acme.renew_before);
    }

    fn auth(&mut self, auth: &Auth) {
        for (n, mechanism) in auth.mechanisms.iter().enumerate() {
            self.one_of(format!("auth.mechanisms[{n}]"), mechanism, &["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]);
        }
        let cost = auth.argon2;
        self.at_least("auth.argon2.parallelism", cost.parallelism.into(), 1, "");
        self.at_least("auth.argon2.iterations", cost.iterations.into(), 1, "");
        self.at_least("auth.argon2.memory_kib", cost.memory_kib.into(), 8 * u64::from(cost.parallelism.max(1)), " (8 KiB a lane)");
        if cost.memory_kib > 1 << 20 {
            self.say("auth.argon2.memory_kib", "more than 1048576 (1 GiB a login) would let a few logins use up the machine");
        }
        if cost.iterations > 100 || cost.parallelism > 64 {
            self.say("auth.argon2", "at most 100 iterations and 64 lanes");
        }
        self.at_least("auth.failures_per_client", auth.failures_per_client.into(), 1, "");
        self.not_zero("auth.failure_window", auth.failure_window);
    }

    fn directory(&mut self, directory: &DirectoryConfig) {
        self.one_of("directory.backend", &directory.backend, &["sled", "postgres"]);
        let is_url = directory.url.starts_with("postgres://") || directory.url.starts_with("postgresql://");
        if directory.backend == "postgres" && !is_url {
            self.say("directory.url", "backend \"postgres\" needs a URL such as \"postgres://user@host/database\"");
        }
        self.at_least("directory.node_lease", directory.node_lease.as_secs(), 2, " seconds");
        self.one_of("directory.without_lease", &directory.without_lease, &["continue", "stop"]);
        self.at_least("directory.cache_memory", directory.cache_memory.bytes(), 1 << 20, " (1 MiB)");
        self.at_least("directory.connections", directory.connections as u64, 2, "");
        if directory.connections > 1000 {
            self.say("directory.connections", "at most 1000; PostgreSQL takes 100 from all its clients by default");
        }
    }

    fn mailbox(&mut self, mailbox: &MailboxConfig) {
        if mailbox.default_quota != "none" {
            match mailbox.default_quota.parse::<ByteSize>() {
                Ok(size) if size.bytes() > 0 => {}
                _ => {
                    self.say("mailbox.default_quota", format!("{:?} is neither a size such as \"2G\" nor \"none\"", mailbox.default_quota))
                }
            }
        }
        let delimiter = &mailbox.recipient_delimiter;
        if delimiter.chars().count() > 1
            || delimiter.chars().any(|c| c.is_alphanumeric() || c == '@' || c == '.' || c.is_control() || c.is_whitespace())
        {
            self.say(
                "mailbox.recipient_delimiter",
                format!("{delimiter:?} must be one punctuation mark such as \"+\" or \"-\", or empty for none"),
            );
        }
        if mailbox.junk_folder.is_empty() || mailbox.junk_folder.contains(['/', '\0']) || mailbox.junk_folder.starts_with('.') {
            self.say("mailbox.junk_folder", format!("{:?} is not a folder name", mailbox.junk_folder));
        }
        self.check("mailbox.deliver_to", deliver_to(&mailbox.deliver_to));
        for (domain, to) in &mailbox.deliver_to_domains {
            self.check(format!("mailbox.deliver_to_domains.{domain}"), Domain::new(domain));
            self.check(format!("mailbox.deliver_to_domains.{domain}"), deliver_to(to));
        }
        self.one_of("mailbox.over_quota", &mailbox.over_quota, &["defer", "reject"]);
        self.one_of("mailbox.suspended", &mailbox.suspended, &["reject", "hold"]);
    }

    fn queue(&mut self, queue: &QueueConfig) {
        self.not_zero("queue.lifetime", queue.lifetime);
        self.not_zero("queue.park_after", queue.park_after);
        if queue.retry.is_empty() {
            self.say("queue.retry", "must name at least one wait");
        }
        for (n, wait) in queue.retry.iter().enumerate() {
            self.not_zero(&format!("queue.retry[{n}]"), *wait);
        }
        let size = queue.segment_size.bytes();
        if !(1 << 20..=1 << 30).contains(&size) {
            self.say("queue.segment_size", format!("{} is outside 1M to 1G", queue.segment_size));
        }
    }

    fn relay(&mut self, relay: &Relay) {
        if !relay.smarthost.is_empty() {
            self.next_hop("relay.smarthost", &relay.smarthost, &relay.smarthost_password_file, "relay.smarthost_password_file");
        }
        self.absolute("relay.smarthost_password_file", &relay.smarthost_password_file);
        self.absolute("relay.ca_file", &relay.ca_file);
        self.at_least("relay.port", relay.port.into(), 1, "");
        self.at_least("relay.mta_sts_port", relay.mta_sts_port.into(), 1, "");
        self.at_least("relay.per_destination", relay.per_destination as u64, 1, "");
        self.not_zero("relay.connect_timeout", relay.connect_timeout);
        if relay.source_addresses.iter().filter(|a| a.is_ipv4()).count() > 1
            || relay.source_addresses.iter().filter(|a| a.is_ipv6()).count() > 1
        {
            self.say("relay.source_addresses", "at most one IPv4 and one IPv6 address");
        }
        for (n, route) in relay.routes.iter().enumerate() {
            let key = format!("relay.routes[{n}]");
            match (&route.domain, &route.sender) {
                (Some(domain), None) => self.check(format!("{key}.domain"), Domain::new(domain.strip_prefix('.').unwrap_or(domain))),
                (None, Some(sender)) => match sender.strip_prefix('@') {
                    Some(domain) => self.check(format!("{key}.sender"), Domain::new(domain)),
                    None => self.check(format!("{key}.sender"), sender.parse::<Mailbox>()),
                },
                _ => self.say(&key, "needs exactly one of \"domain\" and \"sender\""),
            }
            self.next_hop(&format!("{key}.via"), &route.via, &route.password_file, "password_file");
            self.absolute(format!("{key}.password_file"), &route.password_file);
        }
    }

    fn next_hop(&mut self, key: &str, text: &str, password_file: &Path, password_key: &str) {
        match text.parse::<NextHop>() {
            Ok(NextHop::Smtp { user: Some(_), .. }) if password_file.as_os_str().is_empty() => {
                self.say(key, format!("names a user, so {password_key} must name the file with the password"));
            }
            Ok(NextHop::Mx) if key == "relay.smarthost" => self.say(key, "leave it empty to deliver to the recipients' own MX"),
            Ok(_) => {}
            Err(why) => self.say(key, why),
        }
    }

    fn screen(&mut self, screen: &Screen) {
        self.one_of("screen.dmarc", &screen.dmarc, &["enforce", "report-only", "off"]);
        for (n, list) in screen.dnsbl.iter().enumerate() {
            self.check(format!("screen.dnsbl[{n}].zone"), Domain::new(&list.zone));
            self.one_of(format!("screen.dnsbl[{n}].action"), &list.action, &["reject", "score", "allow"]);
        }
        for (n, milter) in screen.milter.iter().enumerate() {
            self.one_of(format!("screen.milter[{n}].on_failure"), &milter.on_failure, &["accept", "tempfail"]);
            let address = &milter.address;
            let fine = match (address.strip_prefix("unix:"), address.strip_prefix("inet:")) {
                (Some(path), _) => path.starts_with('/'),
                (_, Some(rest)) => is_host_port(rest),
                _ => false,
            };
            if !fine {
                self.say(format!("screen.milter[{n}].address"), format!("{address:?} is neither \"unix:/path\" nor \"inet:HOST:PORT\""));
            }
            self.not_zero(&format!("screen.milter[{n}].timeout"), milter.timeout);
        }
        for (name, list) in [("allow", &screen.allow), ("deny", &screen.deny)] {
            for (n, entry) in list.iter().enumerate() {
                if !is_match_entry(entry) {
                    let key = format!("screen.{name}[{n}]");
                    self.say(key, format!("{entry:?} is neither a network (\"192.0.2.0/24\"), a name, an address nor an \"@domain\""));
                }
            }
        }
        for (n, domain) in screen.trusted_forwarders.iter().enumerate() {
            self.check(format!("screen.trusted_forwarders[{n}]"), Domain::new(domain));
        }
        for (key, score) in [("screen.junk_score", screen.junk_score), ("screen.reject_score", screen.reject_score)] {
            if !score.is_finite() || score < 0.0 {
                self.say(key, format!("{score} must be 0 or more"));
            }
        }
    }

    fn log(&mut self, log: &Log) {
        // Anything with punctuation is the filter syntax of tracing, which the daemon checks.
        if log.level.bytes().all(|b| b.is_ascii_alphanumeric()) {
            self.one_of("log.level", &log.level, &["error", "warn", "info", "debug", "trace"]);
        }
        self.one_of("log.format", &log.format, &["auto", "text", "json", "journald"]);
    }
}

fn deliver_to(text: &str) -> Result<(), String> {
    // Several back ends are joined by commas; the later ones may leave "lmtp:" out.
    let lmtp = |part: &str| {
        let part = part.trim();
        matches!(format!("lmtp:{}", part.strip_prefix("lmtp:").unwrap_or(part)).parse(), Ok(NextHop::LmtpTcp { .. } | NextHop::LmtpUnix(_)))
    };
    if text == "maildir" || (text.starts_with("lmtp:") && text.split(',').all(lmtp)) {
        return Ok(());
    }
    Err(format!("{text:?} is none of \"maildir\", \"lmtp:unix:/path\", \"lmtp:HOST:PORT\""))
}

fn is_host_port(text: &str) -> bool {
    let named = text.rsplit_once(':').is_some_and(|(host, port)| Domain::new(host).is_ok() && port.parse::<u16>().is_ok_and(|p| p > 0));
    named || text.parse::<SocketAddr>().is_ok()
}

fn is_match_entry(text: &str) -> bool {
    text.parse::<IpNet>().is_ok()
        || text.parse::<std::net::IpAddr>().is_ok()
        || text.parse::<Mailbox>().is_ok()
        || Domain::new(text.trim_start_matches(['@', '.'])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn each_impossible_value_is_told_at_its_key() {
        let cases = [
            ("hostname = \"a b\"", "hostname"),
            ("hostname = \"[192.0.2.1]\"", "hostname"),
            ("paths.state = \"var\"", "paths.state"),
            ("paths.state = \"/a\"\npaths.mail = \"/a\"", "paths.mail"),
            ("listen.lmtp = [\"unix:x\"]", "listen.lmtp[0]"),
            ("listen.smtp = [\"[::]:25\", \"[::]:25\"]", "listen.smtp[1]"),
            ("limits.message_size = 10", "limits.message_size"),
            ("limits.message_size = \"5G\"", "limits.message_size"),
            ("limits.recipients = 0", "limits.recipients"),
            ("limits.connections = 0", "limits.connections"),
            ("limits.protocol_errors = 0", "limits.protocol_errors"),
            ("limits.command_timeout = \"0s\"", "limits.command_timeout"),
            ("limits.banner_delay = \"5m\"", "limits.banner_delay"),
            ("tls.minimum_version = \"1.1\"", "tls.minimum_version"),
            ("tls.certificate = \"/x.pem\"", "tls.private_key"),
            ("tls.private_key = \"/x.pem\"", "tls.certificate"),
            ("tls.certificates = [{ certificate = \"x\", private_key = \"/k\" }]", "tls.certificates[0].certificate"),
            ("[tls.acme]\nchallenge = \"tls-alpn-01\"", "tls.acme.challenge"),
            ("[tls.acme]\nchallenge = \"dns-01\"", "tls.acme.challenge"),
            ("[tls.acme]\ncontact = \"me\"", "tls.acme.contact"),
            ("[tls.acme]\ndirectory = \"http://x\"", "tls.acme.directory"),
            ("auth.mechanisms = [\"CRAM-MD5\"]", "auth.mechanisms[0]"),
            ("auth.argon2.memory_kib = 4", "auth.argon2.memory_kib"),
            ("auth.argon2.memory_kib = 4000000", "auth.argon2.memory_kib"),
            ("auth.argon2.iterations = 0", "auth.argon2.iterations"),
            ("directory.backend = \"mysql\"", "directory.backend"),
            ("directory.backend = \"postgres\"", "directory.url"),
            ("directory.without_lease = \"wait\"", "directory.without_lease"),
            ("directory.cache_memory = \"64K\"", "directory.cache_memory"),
            ("directory.connections = 1", "directory.connections"),
            ("directory.connections = 5000", "directory.connections"),
            ("mailbox.default_quota = \"lots\"", "mailbox.default_quota"),
            ("mailbox.recipient_delimiter = \"a\"", "mailbox.recipient_delimiter"),
            ("mailbox.recipient_delimiter = \"+-\"", "mailbox.recipient_delimiter"),
            ("mailbox.junk_folder = \"../x\"", "mailbox.junk_folder"),
            ("mailbox.deliver_to = \"mbox\"", "mailbox.deliver_to"),
            ("mailbox.deliver_to_domains = { \"a.org\" = \"smtp://x\" }", "mailbox.deliver_to_domains.a.org"),
            ("mailbox.suspended = \"drop\"", "mailbox.suspended"),
            ("queue.retry = []", "queue.retry"),
            ("queue.retry = [\"0s\"]", "queue.retry[0]"),
            ("queue.lifetime = \"0s\"", "queue.lifetime"),
            ("queue.segment_size = \"1K\"", "queue.segment_size"),
            ("relay.smarthost = \"smtp://u@h\"", "relay.smarthost"),
            ("relay.smarthost = \"h:25\"", "relay.smarthost"),
            ("relay.port = 0", "relay.port"),
            ("relay.per_destination = 0", "relay.per_destination"),
            ("relay.source_addresses = [\"192.0.2.1\", \"192.0.2.2\"]", "relay.source_addresses"),
            ("relay.routes = [{ via = \"mx\" }]", "relay.routes[0]"),
            ("relay.routes = [{ via = \"x\", domain = \"a.org\" }]", "relay.routes[0].via"),
            ("relay.routes = [{ via = \"mx\", sender = \"bob\" }]", "relay.routes[0].sender"),
            ("screen.dnsbl = [{ zone = \"a b\" }]", "screen.dnsbl[0].zone"),
            ("screen.dnsbl = [{ zone = \"a.b\", action = \"drop\" }]", "screen.dnsbl[0].action"),
            ("screen.milter = [{ address = \"/run/x\" }]", "screen.milter[0].address"),
            ("screen.milter = [{ address = \"inet:localhost:11332\", on_failure = \"drop\" }]", "screen.milter[0].on_failure"),
            ("screen.allow = [\"192.0.2.0/99\"]", "screen.allow[0]"),
            ("screen.junk_score = -1.0", "screen.junk_score"),
            ("screen.junk_score = nan", "screen.junk_score"),
            ("log.level = \"loud\"", "log.level"),
            ("security.sandbox = \"on\"", "security.sandbox"),
            ("security.folders = [\"mnt\"]", "security.folders"),
            ("log.format = \"xml\"", "log.format"),
        ];
        for (text, key) in cases {
            match Config::from_text(text, Path::new("p"), []) {
                Err(crate::ConfigError::Invalid(problems)) => {
                    assert_eq!(problems.len(), 1, "{text}: {problems:?}");
                    assert_eq!(problems.first().unwrap().key, key, "{text}: {problems:?}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_the_contract_shows_is_possible() {
        let text = r#"
            hostname = "mail.example.org"
            listen.smtp = ["[::]:25", "127.0.0.1:2525", "unix:/run/x", "systemd:smtp", "127.0.0.1:0", "127.0.0.1:0"]
            listen.proxy_protocol_from = ["10.0.0.0/8"]
            auth.mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
            relay.smarthost = "smtps://user@host:465"
            relay.smarthost_password_file = "/etc/pillarbox/smarthost"
            relay.routes = [{ domain = ".example.net", via = "smtp://host:25" }, { sender = "@example.com", via = "lmtp:unix:/x" }]
            screen.dnsbl = [{ zone = "zen.spamhaus.org", action = "reject" }]
            screen.connection_rate = "100/m"
            screen.milter = [{ address = "unix:/run/rspamd/milter.sock", on_failure = "accept" }]
            mailbox.deliver_to = "lmtp:unix:/run/dovecot/lmtp"
            mailbox.deliver_to_domains = { "a.org" = "lmtp:b1.example:24,lmtp:b2.example:24", "b.org" = "lmtp:b1:24, b2:24" }
            tls.acme = { contact = "mailto:a@example.org" }
            log.level = "info,pillarbox=debug"
        "#;
        Config::from_text(text, Path::new("p"), []).unwrap();
    }
}
