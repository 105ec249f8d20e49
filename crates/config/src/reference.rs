//! Every key with its explanation: what `config explain` says, what `config defaults` prints as comments, and which words are known.

/// One key of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Dotted path; items of lists of tables as `relay.routes[].via`.
    pub path: &'static str,
    /// What may stand there.
    pub kind: &'static str,
    /// What it does, in sentences.
    pub text: &'static str,
}

const fn key(path: &'static str, kind: &'static str, text: &'static str) -> Key {
    Key { path, kind, text }
}

/// Every key, in the order in which the file is written. A test holds it against the types.
pub const KEYS: &[Key] = &[
    key(
        "hostname",
        "name",
        "Name in the banner, EHLO and Received; it should resolve to this machine and its address back to it. Default: the machine's fully qualified name.",
    ),
    key("paths", "table", "Folders. The user that the daemon runs as owns them."),
    key("paths.state", "folder", "What must survive: directory.sled/ queue/ tls/ dkim/ drop/."),
    key("paths.mail", "folder", "Mailboxes: MAIL/<domain>/<localpart>/Maildir."),
    key("paths.runtime", "folder", "What need not survive a restart: control.sock."),
    key(
        "listen",
        "table",
        "Where each service listens, as a list of \"[::]:25\", \"127.0.0.1:2525\", \"unix:/path\" or \"systemd:NAME\"; an empty list switches it off. \"[::]\" takes IPv4 too.",
    ),
    key("listen.smtp", "list of addresses", "Mail from other servers (port 25)."),
    key("listen.submission", "list of addresses", "Mail from your users, TLS by STARTTLS (port 587)."),
    key("listen.submissions", "list of addresses", "Mail from your users, TLS from the first byte (port 465)."),
    key("listen.lmtp", "list of addresses", "LMTP, for another MTA on this machine that hands mail over."),
    key("listen.http", "list of addresses", "HTTP: autoconfig and autodiscover, the MTA-STS policy, ACME http-01, /healthz."),
    key(
        "listen.https",
        "list of addresses",
        "The same pages over TLS, as others ask for the MTA-STS policy. With [tls.acme], names mta-sts, autoconfig and autodiscover of each hosted domain that lead here get a certificate of their own.",
    ),
    key("listen.metrics", "list of addresses", "Prometheus metrics at /metrics."),
    key(
        "listen.proxy_protocol_from",
        "list of networks",
        "Networks whose connections must open with a PROXY v1 or v2 header, as a load balancer sends it.",
    ),
    key("limits", "table", "Bounds on what clients may do."),
    key("limits.message_size", "size", "Largest message, announced by SIZE."),
    key("limits.recipients", "number", "Recipients in one transaction; the next gets 452 4.5.3 and may come in another."),
    key("limits.connections", "number", "Connections at once, all services together; the next gets 421."),
    key("limits.connections_per_client", "number", "Connections at once from one IPv4 address or IPv6 /64."),
    key("limits.command_timeout", "duration", "Longest wait for a command."),
    key("limits.data_timeout", "duration", "Longest time for a whole message, from DATA to its end."),
    key("limits.protocol_errors", "number", "Refused or unknown commands before the session ends with 421."),
    key(
        "limits.banner_delay",
        "duration",
        "Wait before the banner on port 25; a client that talks during it is refused with 554. \"0s\" switches it off.",
    ),
    key("limits.body_memory", "size", "Memory for message bodies of all sessions together; beyond it bodies go to files at once."),
    key("limits.free_space", "size", "Free space to keep on the file systems of state and mail; below it MAIL gets 452 4.3.1."),
    key("limits.hops", "number", "Received fields before a message counts as looping (554 5.4.6)."),
    key("tls", "table", "Certificates and versions."),
    key(
        "tls.certificate",
        "file",
        "PEM chain, leaf first. Empty: a self-signed one is made and kept in STATE/tls, good for tests and DANE only.",
    ),
    key("tls.private_key", "file", "PEM private key of tls.certificate."),
    key("tls.minimum_version", "\"1.2\" or \"1.3\"", "Oldest TLS version spoken."),
    key("tls.certificates", "list of tables", "Further certificates, chosen by the name that the client asks for (SNI)."),
    key("tls.certificates[].certificate", "file", "PEM chain, leaf first."),
    key("tls.certificates[].private_key", "file", "PEM private key."),
    key("tls.acme", "table", "Certificates ordered and renewed from an ACME authority (RFC 8555). Off unless the table is there."),
    key("tls.acme.contact", "mailto: address", "Given to the authority, which writes to it before a certificate ends."),
    key("tls.acme.directory", "https URL", "The authority."),
    key(
        "tls.acme.challenge",
        "\"http-01\" or \"dns-01\"",
        "How ownership is proved. http-01 needs listen.http on port 80 or tls.acme.webroot; dns-01 needs a hook or an update server.",
    ),
    key("tls.acme.domains", "list of names", "Names to order; empty: hostname alone."),
    key("tls.acme.webroot", "folder", "Folder that another web server serves at /.well-known/acme-challenge/."),
    key("tls.acme.dns_hook", "file", "Program called as HOOK add|remove NAME VALUE for dns-01."),
    key("tls.acme.dns_update_server", "host:port", "Name server that takes RFC 2136 updates for dns-01."),
    key("tls.acme.dns_update_key_file", "file", "TSIG key for those updates, as name:algorithm:base64."),
    key("tls.acme.ca_file", "file", "Extra root certificates (PEM) for the authority's own HTTPS."),
    key("tls.acme.renew_before", "duration", "Renew when a certificate has less than this left."),
    key("auth", "table", "Logging in. No mechanism is offered before TLS."),
    key(
        "auth.mechanisms",
        "list of \"PLAIN\", \"LOGIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-256-PLUS\"",
        "SASL mechanisms offered. SCRAM works for users whose password was set while it was switched on.",
    ),
    key("auth.argon2", "table", "Cost of new password hashes (argon2id); older hashes go on working."),
    key("auth.argon2.memory_kib", "number", "Memory in KiB."),
    key("auth.argon2.iterations", "number", "Passes over the memory."),
    key("auth.argon2.parallelism", "number", "Lanes."),
    key("auth.failures_per_client", "number", "Failed logins from one client in auth.failure_window; after that it gets 421 for as long."),
    key("auth.failure_window", "duration", "See auth.failures_per_client."),
    key("directory", "table", "Where domains, users and aliases are kept."),
    key("directory.backend", "\"sled\" or \"postgres\"", "sled: in STATE/directory.sled, one machine. postgres: shared by several."),
    key("directory.url", "postgres:// URL", "The PostgreSQL database; the password in it is never shown."),
    key("directory.serve_stale", "duration", "With PostgreSQL: how long known users are served from memory while the database is away."),
    key(
        "directory.node_lease",
        "duration, at least 2s",
        "With PostgreSQL: how long a node that says nothing keeps its queue folder before another may take it over (pillarbox queue evacuate).",
    ),
    key(
        "directory.without_lease",
        "\"continue\" or \"stop\"",
        "With PostgreSQL: what a node does that could not renew its claim to its queue for three quarters of directory.node_lease. continue: it takes and delivers mail as before. stop: it does neither until it has the claim again, so that one that is only cut off may be evacuated; while the database is away all nodes stop.",
    ),
    key(
        "directory.cache_memory",
        "size, at least 1M",
        "With PostgreSQL: memory for what was looked up, some 700 octets a user. Whoever is not in it is asked for again, and not served while the database is away.",
    ),
    key(
        "directory.connections",
        "number, 2 to 1000",
        "With PostgreSQL: connections of this node that look up and change; one more listens for changes. All nodes' together must stay below the server's max_connections.",
    ),
    key("mailbox", "table", "Mailboxes."),
    key("mailbox.default_quota", "size or \"none\"", "Quota of users without their own."),
    key(
        "mailbox.recipient_delimiter",
        "one character",
        "Separates user and detail: user+lists@ reaches user, in the folder \"lists\" if there is one. Empty: none.",
    ),
    key("mailbox.junk_folder", "folder name", "Where mail judged junk is filed."),
    key(
        "mailbox.deliver_to",
        "\"maildir\", \"lmtp:unix:/path\" or \"lmtp:HOST:PORT\"",
        "Who stores mail: Pillarbox itself, or Dovecot over LMTP (then Sieve runs).",
    ),
    key("mailbox.deliver_to_domains", "table", "The same for single domains: \"example.net\" = \"lmtp:…\"."),
    key("mailbox.over_quota", "\"defer\" or \"reject\"", "A full mailbox answers 452 (the sender tries again) or 552 (it is returned)."),
    key("mailbox.suspended", "\"reject\" or \"hold\"", "Mail for a suspended user is refused or kept in the queue."),
    key("queue", "table", "The queue."),
    key("queue.lifetime", "duration", "After this a message that could not be delivered is returned."),
    key("queue.delay_warning", "duration", "After this the sender is told that it is late; \"0s\" switches that off."),
    key(
        "queue.retry",
        "list of durations",
        "Waits between attempts; the last repeats. Each is varied a little, so that mail does not come in waves.",
    ),
    key(
        "queue.park_after",
        "duration",
        "A recipient unfinished after this moves from the journal to a file of its own in STATE/queue/deferred.",
    ),
    key("queue.segment_size", "size", "Size of a journal segment."),
    key("relay", "table", "Mail to the world."),
    key(
        "relay.smarthost",
        "smtp:// or smtps:// URL",
        "Host that takes all outgoing mail, such as \"smtps://user@host:465\"; empty: deliver to each domain's MX.",
    ),
    key("relay.smarthost_password_file", "file", "File whose first line is the smarthost's password."),
    key("relay.port", "number", "Port for MX delivery."),
    key("relay.per_destination", "number", "Connections at once to one destination."),
    key("relay.source_addresses", "list of addresses", "Addresses to connect from, one per family at most."),
    key("relay.routes", "list of tables", "Exceptions by recipient domain or by sender; the first that matches wins."),
    key("relay.routes[].domain", "name", "Recipient domain, or \".example.net\" for all below it."),
    key("relay.routes[].sender", "address or @domain", "Sender."),
    key(
        "relay.routes[].via",
        "next hop",
        "\"smtp://host:25\", \"smtps://user@host:465\", \"lmtp:host:port\", \"lmtp:unix:/path\" or \"mx\".",
    ),
    key("relay.routes[].password_file", "file", "File with the password, where via names a user."),
    key("relay.dane", "true or false", "Verify servers by TLSA records where DNSSEC proves them (RFC 7672)."),
    key("relay.mta_sts", "true or false", "Obey MTA-STS policies (RFC 8461)."),
    key("relay.deny_networks", "list of networks", "Never relay to these."),
    key("relay.ca_file", "file", "Extra root certificates (PEM) for smarthosts and MTA-STS hosts."),
    key("relay.connect_timeout", "duration", "Longest wait to connect to one address."),
    key("relay.mta_sts_port", "number", "Port of MTA-STS policy hosts; other than 443 only in tests."),
    key("relay.tls_reports", "true or false", "Send TLS reports (RFC 8460) to domains that ask for them."),
    key("dns", "table", "Name servers."),
    key("dns.servers", "list of address:port", "Servers to ask, such as \"127.0.0.1:53\"; empty: the system's."),
    key("dns.trust_anchor", "file", "DNSKEY trust anchors in zone format; empty: the root's."),
    key("screen", "table", "Judging mail from outside. Mail from logged-in users never passes here."),
    key("screen.spf", "true or false", "Check SPF."),
    key("screen.dkim", "true or false", "Verify DKIM signatures."),
    key(
        "screen.dmarc",
        "\"enforce\", \"report-only\" or \"off\"",
        "Whether mail that fails its domain's DMARC policy is refused or filed as junk.",
    ),
    key("screen.arc", "true or false", "Verify ARC chains."),
    key("screen.dnsbl", "list of tables", "Block and allow lists in DNS."),
    key("screen.dnsbl[].zone", "name", "Zone, such as \"zen.spamhaus.org\"."),
    key("screen.dnsbl[].action", "\"reject\", \"score\" or \"allow\"", "What a listing does."),
    key(
        "screen.dnsbl[].codes",
        "list of networks",
        "Return codes that count. Default: 127.0.0.2 to 127.0.0.254, so that a list's refusals to answer never do.",
    ),
    key("screen.dnsbl[].score", "number", "Points for \"score\"."),
    key("screen.greylist", "true or false", "Ask unknown servers to come again."),
    key("screen.connection_rate", "rate", "Connections from one client, such as \"100/m\"; empty: any."),
    key("screen.message_rate", "rate", "Messages from one client network; empty: any."),
    key("screen.recipient_rate", "rate", "Recipients from one client network; empty: any."),
    key("screen.sender_rate", "rate", "Messages from one envelope sender, whatever client brings them, such as \"100/h\"; empty: any."),
    key("screen.mailbox_rate", "rate", "Messages to one recipient, whoever sends them, such as \"300/h\"; empty: any."),
    key("screen.milter", "list of tables", "Milters, asked in order."),
    key("screen.milter[].address", "\"unix:/path\" or \"inet:HOST:PORT\"", "Where it listens."),
    key("screen.milter[].on_failure", "\"accept\" or \"tempfail\"", "What happens to mail while it is away."),
    key("screen.milter[].timeout", "duration", "Longest wait for one answer."),
    key("screen.allow", "list", "Networks, addresses (\"user@host\") and domains that are never judged."),
    key("screen.deny", "list", "Networks, HELO names and senders (\"user@host\", \"@domain\") that are always refused."),
    key("screen.trusted_forwarders", "list of names", "Domains whose ARC seals are believed when DMARC fails."),
    key("screen.dmarc_reports", "true or false", "Send DMARC aggregate reports to domains that ask for them."),
    key("screen.junk_score", "number", "Score from which a message is filed as junk."),
    key("screen.reject_score", "number", "Score from which a message is refused; 0: never by score."),
    key("submission", "table", "Mail from your own users."),
    key("submission.rate_per_user", "rate", "Recipients that one user may send to, such as \"500/h\"; empty: any number."),
    key(
        "submission.new_recipients_per_user",
        "rate",
        "Recipients that the user never wrote to before; a stolen password shows here first. Empty: any number.",
    ),
    key("submission.sign_dkim", "true or false", "Sign with the sender domain's DKIM keys."),
    key("submission.milter", "true or false", "Run screen.milter on submitted mail too."),
    key("log", "table", "Logs, on standard error or in the journal."),
    key(
        "log.level",
        "\"error\", \"warn\", \"info\", \"debug\", \"trace\", or a filter",
        "How much is logged; tracing's filter syntax (\"info,pillarbox_relay=debug\") works too.",
    ),
    key("log.format", "\"auto\", \"text\", \"json\" or \"journald\"", "auto: journald when started by systemd, else text."),
    key("log.event_log_size", "size", "Size of the event log that `pillarbox trace` reads; the oldest events go first."),
    key("security", "table", "What the daemon shuts itself in with, beside what systemd's unit does."),
    key(
        "security.sandbox",
        "\"auto\", \"required\" or \"off\"",
        "Once ports are bound: files outside state, mail, runtime and what the configuration names are out of reach (landlock), and no program can be started (seccomp). auto: as much as the kernel has; required: all of it or no start. A file in a new folder then takes a restart rather than a reload.",
    ),
    key(
        "security.folders",
        "list of folders",
        "Further folders that the daemon may read and write, such as that on which a dead node's disk is mounted (pillarbox queue evacuate); they must exist at the start.",
    ),
];

/// Keys below these are the user's own words.
const FREE_TABLES: &[&str] = &["mailbox.deliver_to_domains"];

/// `relay.routes[3].via` → `relay.routes[].via`.
fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Whether a dotted path, with or without list indexes, is a key or table of the file.
pub fn is_known(path: &str) -> bool {
    find(path).is_some() || FREE_TABLES.iter().any(|t| path.strip_prefix(t).is_some_and(|rest| rest.starts_with('.')))
}

/// The entry for a dotted path.
pub fn find(path: &str) -> Option<&'static Key> {
    let plain = without_indexes(path);
    KEYS.iter().find(|k| k.path == plain)
}

/// The known key that was probably meant, if any is near enough: the same word elsewhere, or a similar word.
pub fn nearest(path: &str) -> Option<&'static str> {
    let plain = without_indexes(path);
    let (table, word) = plain.rsplit_once('.').unwrap_or(("", &plain));
    let siblings = KEYS.iter().filter_map(|k| {
        let (key_table, key_word) = k.path.rsplit_once('.').unwrap_or(("", k.path));
        (key_table == table).then(|| (similarity(key_word, word), k.path))
    });
    let best = |found: &mut dyn Iterator<Item = (f64, &'static str)>, least: f64| {
        found.filter(|(s, _)| *s >= least).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, path)| path)
    };
    // A word in the table where it was written beats the same word elsewhere.
    let mut elsewhere = KEYS.iter().map(|k| {
        let word_score = similarity(k.path.rsplit_once('.').map_or(k.path, |(_, w)| w), word);
        (word_score.max(similarity(k.path, &plain)), k.path)
    });
    best(&mut siblings.into_iter(), 0.65).or_else(|| best(&mut elsewhere, 0.85))
}

/// From 0 (nothing alike) to 1 (the same); swapped letters count once.
fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b).max(strsim::normalized_damerau_levenshtein(a, b))
}

/// The nearest of a few words, if any is near enough.
pub fn nearest_word<'a>(word: &str, of: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    of.iter()
        .map(|w| (similarity(&w.to_ascii_lowercase(), &lower), *w))
        .filter(|(s, _)| *s >= 0.65)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, w)| w)
}

/// What `config explain KEY` prints: the key, what may stand there, its default, what it does, and for a table its keys.
pub fn explain(path: &str) -> Option<String> {
    let key = find(path)?;
    let mut out = format!("{} ({})\n", key.path, key.kind);
    if let Some(default) = crate::render::default_of(key.path) {
        out.push_str(&format!("default: {default}\n"));
    }
    out.push_str(&format!("\n{}\n", key.text));
    let below: Vec<&Key> = KEYS.iter().filter(|k| is_child(key.path, k.path)).collect();
    if !below.is_empty() {
        out.push('\n');
        for k in below {
            out.push_str(&format!("{} ({})\n    {}\n", k.path, k.kind, k.text));
        }
    }
    let variable = key.path.to_ascii_uppercase().replace('.', "__");
    if key.kind != "table" && !key.path.contains('[') {
        out.push_str(&format!("\nEnvironment: PILLARBOX_{variable}\n"));
    }
    Some(out)
}

/// All keys as a page of Markdown: the configuration reference.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration reference\n\nGenerated by `pillarbox config reference`; do not edit.\n\nThe file is TOML, by default `/etc/pillarbox/pillarbox.toml`. Every key has a default; an empty file is valid. Sizes are `\"25M\"` or octets, durations `\"5m\"`, rates `\"500/h\"`. The environment overrides keys: `PILLARBOX_LIMITS__RECIPIENTS=100`.\n",
    );
    for key in KEYS {
        if key.kind == "table" && !key.path.contains(['[', '.']) {
            out.push_str(&format!("\n## `[{}]`\n\n{}\n\n", key.path, key.text));
            continue;
        }
        if key.path == "hostname" {
            out.push_str("\n## Top level\n\n");
        }
        let default = crate::render::default_of(key.path).map(|d| format!("; default `{d}`")).unwrap_or_default();
        out.push_str(&format!("- **`{}`** ({}{default}). {}\n", key.path, key.kind, key.text));
    }
    out
}

/// The same as a manual page, pillarbox.toml(5).
pub fn manual() -> String {
    let escape = |text: &str| text.replace('\\', "\\e").replace('-', "\\-").replace("\n.", "\n\\&.").replace('\'', "\\(aq");
    let mut out = String::from(
        ".TH PILLARBOX.TOML 5 \"\" \"Pillarbox\" \"File Formats\"\n.SH NAME\npillarbox.toml \\- configuration of the Pillarbox mail server\n.SH DESCRIPTION\nThe file is TOML, by default /etc/pillarbox/pillarbox.toml. Every key has a default; an empty file is valid.\n",
    );
    for key in KEYS {
        if key.kind == "table" && !key.path.contains(['[', '.']) {
            out.push_str(&format!(".SH [{}]\n{}\n", escape(key.path).to_uppercase(), escape(key.text)));
            continue;
        }
        let default = crate::render::default_of(key.path).map(|d| format!(" Default: {}.", escape(&d))).unwrap_or_default();
        out.push_str(&format!(".TP\n.B {}\n({}) {}{default}\n", escape(key.path), escape(key.kind), escape(key.text)));
    }
    out.push_str(".SH SEE ALSO\n.BR pillarbox (1), pillarboxd (8)\n");
    out
}

fn is_child(table: &str, path: &str) -> bool {
    let rest = path.strip_prefix(table).and_then(|r| r.strip_prefix("[].").or_else(|| r.strip_prefix('.')));
    rest.is_some_and(|r| !r.contains(['.', '[']))
}

/// Every leaf and table of the types with an entry in each list: what the table above must name.
#[cfg(test)]
fn paths_of_types() -> std::collections::BTreeSet<String> {
    fn walk(value: &serde_json::Value, path: &str, out: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if !path.is_empty() {
                    out.insert(path.to_owned());
                }
                if FREE_TABLES.contains(&path) {
                    return;
                }
                for (k, v) in map {
                    walk(v, &if path.is_empty() { k.clone() } else { format!("{path}.{k}") }, out);
                }
            }
            serde_json::Value::Array(items) if items.first().is_some_and(|i| i.is_object()) => {
                out.insert(path.to_owned());
                for item in items {
                    if let serde_json::Value::Object(map) = item {
                        for (k, v) in map {
                            walk(v, &format!("{path}[].{k}"), out);
                        }
                    }
                }
            }
            _ => {
                out.insert(path.to_owned());
            }
        }
    }
    use crate::types::Config;
    let mut config = Config::default();
    config.tls.acme = Some(crate::types::Acme::default());
    config.tls.certificates = vec![crate::types::CertificatePair { certificate: "/c".into(), private_key: "/k".into() }];
    config.relay.routes = vec![crate::types::RelayRoute {
        domain: Some("a.org".into()),
        sender: Some("b@c.org".into()),
        via: "mx".into(),
        password_file: "/p".into(),
    }];
    config.screen.dnsbl = toml::from_str::<Config>("screen.dnsbl = [{ zone = \"z.org\" }]").unwrap().screen.dnsbl;
    config.screen.milter = toml::from_str::<Config>("screen.milter = [{ address = \"unix:/m\" }]").unwrap().screen.milter;
    let mut out = std::collections::BTreeSet::new();
    walk(&serde_json::to_value(&config).unwrap(), "", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_exactly_the_keys_of_the_types() {
        let types = paths_of_types();
        let table: std::collections::BTreeSet<String> = KEYS.iter().map(|k| k.path.to_owned()).collect();
        assert_eq!(table.len(), KEYS.len(), "a key stands twice");
        let missing: Vec<_> = types.difference(&table).collect();
        let surplus: Vec<_> = table.difference(&types).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
    }

    #[test]
    fn the_pages_name_every_key_and_default() {
        for page in [markdown(), manual().replace("\\-", "-")] {
            for key in KEYS.iter().filter(|k| k.kind != "table") {
                assert!(page.contains(key.path), "{}", key.path);
            }
            assert!(page.contains("\"50M\""));
        }
        assert!(manual().lines().all(|l| !l.starts_with('\'')), "a line that roff would take for a request");
    }

    #[test]
    fn explanations_name_default_and_variable() {
        let text = explain("limits.message_size").unwrap();
        assert!(text.contains("default: \"50M\"") && text.contains("PILLARBOX_LIMITS__MESSAGE_SIZE"), "{text}");
        assert!(explain("relay.routes").unwrap().contains("relay.routes[].via"));
        assert!(explain("limits").unwrap().contains("limits.hops"));
        assert!(explain("nothing").is_none());
    }
}
