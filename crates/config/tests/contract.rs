//! The configuration that users were promised: every key of it is known, and its values are the defaults.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use pillarbox_config::Config;

const PROMISED: &str = r#"
hostname = "mail.example.org"      # banner, EHLO, Received; default: the machine's fully qualified name

[paths]
state   = "/var/lib/pillarbox"     # directory.sled/ queue/ tls/ dkim/
mail    = "/var/vmail"             # MAIL/<domain>/<localpart>/Maildir/{tmp,new,cur}
runtime = "/run/pillarbox"         # control.sock

[listen]                           # each a list; "[::]:25", "127.0.0.1:2525", "unix:/path", "systemd:NAME"
smtp        = ["[::]:25"]
submission  = ["[::]:587"]
submissions = ["[::]:465"]
lmtp        = []
http        = []                   # autoconfig, MTA-STS policy, ACME http-01, /healthz
metrics     = []                   # Prometheus
proxy_protocol_from = []           # networks whose connections must open with a PROXY v1/v2 header

[limits]
message_size = "50M"
recipients = 1000                  # per transaction
connections = 10000
connections_per_client = 50        # per IPv4 address or IPv6 /64
command_timeout = "5m"
data_timeout = "10m"               # whole DATA phase
protocol_errors = 10               # then 421
banner_delay = "0s"                # on port 25, with early-talker detection when above 0

[tls]
certificate = ""                   # PEM chain; none: a self-signed one made with rcgen and kept in STATE/tls
private_key = ""
minimum_version = "1.2"
certificates = []                  # further {certificate, private_key}, chosen by SNI
# [tls.acme] contact = "mailto:…", directory = "https://…", challenge = "http-01"

[auth]
mechanisms = ["PLAIN", "LOGIN"]    # also "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"; none is offered without TLS
argon2 = { memory_kib = 19456, iterations = 2, parallelism = 1 }
failures_per_client = 10           # in failure_window, then 421 for failure_window
failure_window = "10m"

[directory]
backend = "sled"                   # or "postgres"
url = ""                           # postgres://…

[mailbox]
default_quota = "none"
recipient_delimiter = "+"
junk_folder = "Junk"
deliver_to = "maildir"             # or "lmtp:unix:/run/dovecot/lmtp", "lmtp:HOST:PORT"

[queue]
lifetime = "5d"
delay_warning = "4h"
retry = ["1m", "5m", "15m", "30m", "1h", "2h", "4h"]   # the last repeats, with jitter

[relay]
smarthost = ""                     # "smtps://user@host:465", "smtp://user@host:587"; password in smarthost_password_file
smarthost_password_file = ""
port = 25                          # for MX delivery
per_destination = 10               # concurrent connections to one destination
source_addresses = []              # one per family at most
routes = []                        # [{ domain = "example.net", via = "smtp://host:25" | "lmtp:…" | "mx" }], [{ sender = … }]
dane = true
mta_sts = true
deny_networks = ["127.0.0.0/8", "::1/128", "0.0.0.0/8"]   # never relay to these

[dns]
servers = []                       # empty: the system's; e.g. ["127.0.0.1:5353"]

[screen]                           # inbound, unauthenticated mail
spf = true
dkim = true
dmarc = "enforce"                  # "report-only", "off"
arc = true
dnsbl = []                         # [{ zone = "zen.spamhaus.org", action = "reject" }]
greylist = false
connection_rate = ""               # "100/m" per client
milter = []                        # [{ address = "unix:/run/rspamd/milter.sock", on_failure = "accept"|"tempfail" }]

[submission]
rate_per_user = "500/h"
sign_dkim = true

[log]
level = "info"
format = "auto"                    # "text", "json", "journald"
"#;

#[test]
fn the_promised_file_is_the_defaults() {
    let read = Config::from_text(PROMISED, Path::new("promised.toml"), []).unwrap();
    assert_eq!(read.hostname, "mail.example.org");
    assert_eq!(Config { hostname: String::new(), ..read }, Config::default());
}
