//! The defaults of the contract.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::*;
use crate::units::{ByteSize, Rate};

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: "/var/lib/pillarbox".into(), mail: "/var/vmail".into(), runtime: "/run/pillarbox".into() }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            smtp: vec!["[::]:25".into()],
            submission: vec!["[::]:587".into()],
            submissions: vec!["[::]:465".into()],
            lmtp: vec![],
            http: vec![],
            https: vec![],
            metrics: vec![],
            proxy_protocol_from: vec![],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: ByteSize::mib(50),
            recipients: 1000,
            connections: 10_000,
            connections_per_client: 50,
            command_timeout: minutes(5),
            data_timeout: minutes(10),
            protocol_errors: 10,
            banner_delay: Duration::ZERO,
            body_memory: ByteSize::mib(256),
            free_space: ByteSize::mib(100),
            hops: 50,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: PathBuf::new(), private_key: PathBuf::new(), minimum_version: "1.2".into(), certificates: vec![], acme: None }
    }
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            contact: String::new(),
            directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            challenge: "http-01".into(),
            domains: vec![],
            webroot: PathBuf::new(),
            dns_hook: PathBuf::new(),
            dns_update_server: String::new(),
            dns_update_key_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            renew_before: minutes(30 * 24 * 60),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mechanisms: vec!["PLAIN".into(), "LOGIN".into()],
            argon2: Argon2Cost::default(),
            failures_per_client: 10,
            failure_window: minutes(10),
        }
    }
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self { memory_kib: 19456, iterations: 2, parallelism: 1 }
    }
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            backend: "sled".into(),
            url: String::new(),
            serve_stale: minutes(60),
            node_lease: Duration::from_secs(30),
            without_lease: "continue".into(),
            cache_memory: ByteSize::mib(64),
            connections: 8,
        }
    }
}

impl Default for MailboxConfig {
    fn default() -> Self {
        Self {
            default_quota: "none".into(),
            recipient_delimiter: "+".into(),
            junk_folder: "Junk".into(),
            deliver_to: "maildir".into(),
            deliver_to_domains: BTreeMap::new(),
            over_quota: "defer".into(),
            suspended: "reject".into(),
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            lifetime: minutes(5 * 24 * 60),
            delay_warning: minutes(4 * 60),
            retry: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            park_after: Duration::from_secs(30),
            segment_size: ByteSize::mib(64),
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            smarthost: String::new(),
            smarthost_password_file: PathBuf::new(),
            port: 25,
            per_destination: 10,
            source_addresses: vec![],
            routes: vec![],
            dane: true,
            mta_sts: true,
            deny_networks: ["127.0.0.0/8", "::1/128", "0.0.0.0/8"].iter().filter_map(|n| n.parse().ok()).collect(),
            ca_file: PathBuf::new(),
            connect_timeout: Duration::from_secs(30),
            mta_sts_port: 443,
            tls_reports: false,
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            spf: true,
            dkim: true,
            dmarc: "enforce".into(),
            arc: true,
            dnsbl: vec![],
            greylist: false,
            connection_rate: Rate::NONE,
            message_rate: Rate::NONE,
            recipient_rate: Rate::NONE,
            sender_rate: Rate::NONE,
            mailbox_rate: Rate::NONE,
            milter: vec![],
            allow: vec![],
            deny: vec![],
            trusted_forwarders: vec![],
            dmarc_reports: false,
            junk_score: 6.0,
            reject_score: 15.0,
        }
    }
}

impl Default for Submission {
    fn default() -> Self {
        Self { rate_per_user: Rate::per_hour(500), new_recipients_per_user: Rate::NONE, sign_dkim: true, milter: false }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: "auto".into(), event_log_size: ByteSize::mib(64) }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self { sandbox: "auto".into(), folders: Vec::new() }
    }
}
