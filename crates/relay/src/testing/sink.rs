//! The scripted mail host: set up in one value, and asked for what it was given in the client's own words.

use std::sync::Arc;

use pillarbox_testkit::sink::{Answer, Sink as Host, SinkTls, Stage};

/// What the host does.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// EHLO keywords in place of the usual ones.
    pub(crate) extensions: Option<Vec<String>>,
    /// STARTTLS, or TLS from the first byte.
    pub(crate) tls: SinkTls,
    /// LMTP.
    pub(crate) lmtp: bool,
    /// Refuses mail without this login.
    pub(crate) login: Option<(&'static str, &'static str)>,
    /// Sent in plain text right behind the 220 to STARTTLS.
    pub(crate) injected: &'static str,
    /// Times, every so many, stage, pattern, answer.
    pub(crate) rules: Vec<(usize, usize, Stage, String, Answer)>,
}

impl Script {
    pub(crate) fn with(extensions: &[&str]) -> Self {
        Self { extensions: Some(extensions.iter().map(|e| (*e).to_owned()).collect()), ..Self::default() }
    }

    /// With STARTTLS and this certificate.
    pub(crate) fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self { tls: SinkTls::StartTls(config), ..Self::with(&["PIPELINING", "8BITMIME", "SIZE 100000"]) }
    }

    /// The plain host of most tests.
    pub(crate) fn usual() -> Self {
        Self::with(&["PIPELINING", "8BITMIME", "SIZE 100000", "ENHANCEDSTATUSCODES"])
    }

    /// With one more extension.
    pub(crate) fn and(mut self, extension: &str) -> Self {
        self.extensions.get_or_insert_default().push(extension.to_owned());
        self
    }

    /// Answers so once at this stage.
    pub(crate) fn once(mut self, stage: Stage, pattern: &str, answer: impl Into<Answer>) -> Self {
        self.rules.push((1, 1, stage, pattern.to_owned(), answer.into()));
        self
    }

    /// Answers so always at this stage.
    pub(crate) fn always(mut self, stage: Stage, answer: impl Into<Answer>) -> Self {
        self.rules.push((usize::MAX, 1, stage, "*".to_owned(), answer.into()));
        self
    }

    /// Answers so every `nth` time at this stage.
    pub(crate) fn every(mut self, nth: usize, stage: Stage, answer: impl Into<Answer>) -> Self {
        self.rules.push((usize::MAX, nth, stage, "*".to_owned(), answer.into()));
        self
    }
}

/// A message the host took.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// As MAIL was said.
    pub(crate) mail: String,
    /// As each RCPT was said.
    pub(crate) rcpts: Vec<String>,
    /// Dots undone.
    pub(crate) body: Vec<u8>,
    /// Inside TLS.
    pub(crate) tls: bool,
}

/// The running host.
pub(crate) struct Sink(Host);

impl Sink {
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1", 0, script).await
    }

    pub(crate) async fn start_at(ip: &str, port: u16, script: Script) -> Self {
        let mut builder = Host::builder().ip(ip).port(port).tls(script.tls).inject_after_starttls(script.injected.as_bytes());
        if let Some(extensions) = &script.extensions {
            builder = builder.capabilities(&extensions.iter().map(String::as_str).collect::<Vec<_>>());
        }
        if let Some((user, password)) = script.login {
            builder = builder.login(user, password);
        }
        if script.lmtp {
            builder = builder.lmtp();
        }
        let host = builder.start().await;
        for (times, nth, stage, pattern, answer) in script.rules {
            match (times, nth) {
                (1, _) => host.next(1, stage, &pattern, answer),
                (_, 1) => host.on(stage, &pattern, answer),
                _ => host.every(nth, stage, &pattern, answer),
            };
        }
        Self(host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.0.address()
    }

    /// The messages it took, provided that the client kept to the protocol.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        assert_eq!(self.0.violations(), Vec::<String>::new());
        let said = |verb: &str, path: &str, parameters: &[String]| [&[format!("{verb}:<{path}>")], parameters].concat().join(" ");
        let accepted = self.0.transactions().into_iter().filter(|message| message.accepted());
        accepted
            .map(|message| Taken {
                mail: said("MAIL FROM", &message.from, &message.from_parameters),
                rcpts: message.recipients.iter().map(|(path, parameters)| said("RCPT TO", path, parameters)).collect(),
                tls: message.tls.is_some(),
                body: message.body,
            })
            .collect()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.0.connections()
    }

    /// The commands that start with this.
    pub(crate) fn heard(&self, start: &str) -> Vec<String> {
        self.0.commands().into_iter().map(|(_, command)| command).filter(|command| command.starts_with(start)).collect()
    }

    /// Waits until it has heard a command that starts with this.
    pub(crate) async fn hears(&self, start: &str) {
        self.0.command(&format!("{start}*")).await;
    }
}
