//! A driver that decides by simple rules, and the reader of dialogs.

use std::sync::Arc;

use bytes::BytesMut;
use pillarbox_smtp::sasl::scram::Keys;
use pillarbox_smtp::server::{Abort, AuthRequest, AuthResult, Event, Limits, Role, ServerConfig, ServerSession, Step, TlsInfo};
use pillarbox_smtp::{EnhancedCode, ForwardPath, Mechanism, Reply, Secret, replies};

/// The `tls-exporter` value of every handshake here.
pub(crate) const EXPORTER: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Rules: recipients named `unknown…` and `full…` are refused, and so is the sender `banned@…`; `421…` closes. `ann@example.org`
/// logs in with `secret`. Every message is accepted but one whose body holds `REFUSE`.
pub(crate) struct Driver {
    pub(crate) session: ServerSession,
    input: BytesMut,
    /// Everything said to the client.
    pub(crate) said: Vec<u8>,
    /// Events, content run together.
    pub(crate) events: Vec<String>,
    /// Bodies of complete messages.
    pub(crate) messages: Vec<Vec<u8>>,
    body: Vec<u8>,
    pub(crate) closed: bool,
    pub(crate) handshakes: usize,
}

/// Whether a rule of the [`Driver`] is about this address.
pub(crate) fn has_rule(address: &str) -> bool {
    ["unknown", "full", "banned@", "421"].iter().any(|start| address.starts_with(start))
}

pub(crate) fn config(role: Role) -> ServerConfig {
    let mut config = ServerConfig::new(role, "mail.example.org");
    config.tls_available = matches!(role, Role::Mta | Role::Submission);
    if role.is_submission() {
        config.mechanisms = Mechanism::ALL.to_vec();
    }
    config.limits = Limits { message_size: 1000, recipients: 3, text_line: 100, ..Limits::default() };
    config
}

pub(crate) fn tls() -> TlsInfo {
    TlsInfo { protocol: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into(), server_name: None, exporter: Some(EXPORTER.to_vec()) }
}

impl Driver {
    pub(crate) fn new(config: ServerConfig) -> Self {
        let role = config.role;
        let mut session = ServerSession::with_nonce(Arc::new(config), "nonce");
        if role == Role::SubmissionTls {
            session.tls_started(tls());
        }
        session.greet();
        let mut driver = Self {
            session,
            input: BytesMut::new(),
            said: Vec::new(),
            events: Vec::new(),
            messages: Vec::new(),
            body: Vec::new(),
            closed: false,
            handshakes: 0,
        };
        driver.flush();
        driver
    }

    fn flush(&mut self) -> Vec<u8> {
        let out = self.session.output().split().to_vec();
        self.said.extend_from_slice(&out);
        out
    }

    /// Feeds octets as one segment and returns what is said in answer.
    pub(crate) fn feed(&mut self, octets: &[u8]) -> Vec<u8> {
        let from = self.said.len();
        self.input.extend_from_slice(octets);
        loop {
            match self.session.poll(&mut self.input) {
                Step::NeedInput => break,
                Step::Closed => {
                    self.closed = true;
                    break;
                }
                Step::StartTls => {
                    self.flush();
                    self.input.clear();
                    self.session.tls_started(tls());
                    self.handshakes += 1;
                }
                Step::Event(event) => self.decide(event),
            }
        }
        self.flush();
        self.said.get(from..).unwrap().to_vec()
    }

    fn decide(&mut self, event: Event) {
        match &event {
            Event::Content(octets) => {
                self.body.extend_from_slice(octets);
                if self.events.last().map(String::as_str) != Some("Content") {
                    self.events.push("Content".into());
                }
                return;
            }
            other => {
                // How much of a spoilt message is handed out before it is given up depends on how it comes.
                if matches!(other, Event::MessageAborted { .. }) && self.events.last().is_some_and(|e| e == "Content") {
                    self.events.pop();
                }
                self.events.push(format!("{other:?}"));
            }
        }
        let wants = event.wants_reply();
        assert_eq!(wants, self.session.wants_reply(), "{event:?}");
        match event {
            Event::Helo { .. } => self.session.accept_helo(),
            Event::Mail { path, .. } => {
                let banned = path.to_string().starts_with("banned@");
                let no = Reply::new(550, EnhancedCode(5, 7, 1), "No");
                self.session.reply(if banned { no } else { replies::sender_ok() });
            }
            Event::Rcpt { path, .. } => self.session.reply(rcpt(&path)),
            Event::DataStart => {
                self.body.clear();
                self.session.reply(replies::start_input());
            }
            Event::MessageEnd => {
                let refused = self.body.windows(6).any(|w| w == b"REFUSE");
                self.messages.push(std::mem::take(&mut self.body));
                let recipients = self.session.transaction().recipients.clone();
                let count = if self.session.config().role == Role::Lmtp { recipients.len() } else { 1 };
                for (path, _) in recipients.iter().take(count) {
                    let reply = match refused {
                        true => Reply::new(554, EnhancedCode(5, 6, 0), "Content refused"),
                        false if count > 1 => replies::delivered("id", &path.to_string()),
                        false => replies::queued("id"),
                    };
                    self.session.reply(reply);
                }
            }
            Event::MessageAborted { .. } => self.body.clear(),
            Event::Auth(request) => self.login(request),
            _ => {}
        }
    }

    fn login(&mut self, request: AuthRequest) {
        let accepted = || AuthResult::Accepted { user: "ann@example.org".parse().unwrap() };
        match request {
            AuthRequest::Password { authcid, password, .. } => {
                let right = authcid == "ann@example.org" && password == Secret::new("secret");
                self.session.auth_result(if right { accepted() } else { AuthResult::Rejected });
            }
            AuthRequest::ScramLookup { authcid, .. } => {
                let known = authcid == "ann@example.org";
                self.session.scram_keys(known.then(|| Keys::derive(&Secret::new("secret"), b"salt", 4096)));
            }
            // A careless driver that accepts everyone: the session must not let it.
            AuthRequest::ScramDone { .. } => self.session.auth_result(accepted()),
        }
    }

    pub(crate) fn saw(&self, prefix: &str) -> usize {
        self.events.iter().filter(|e| e.starts_with(prefix)).count()
    }

    pub(crate) fn aborted(&self, why: Abort) -> bool {
        self.events.iter().any(|e| *e == format!("{:?}", Event::MessageAborted { why }))
    }
}

fn rcpt(path: &ForwardPath) -> Reply {
    let text = path.to_string();
    if text.starts_with("unknown") {
        replies::unknown_recipient(&text)
    } else if text.starts_with("full") {
        replies::mailbox_full(&text)
    } else if text.starts_with("421") {
        replies::shutting_down()
    } else {
        replies::recipient_ok()
    }
}

/// Runs a dialog against a fresh session.
///
/// `C:` lines that stand together are one segment; `S:` lines are all that is said next, `*` standing for any end of a line;
/// `X` says that the session is closed. The greeting is passed over unless the dialog starts with it.
pub(crate) fn dialog(config: ServerConfig, text: &str) -> Driver {
    let mut driver = Driver::new(config);
    let mut said = String::from_utf8(driver.said.clone()).unwrap();
    let mut segment = String::new();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    if lines.first().is_some_and(|line| line.starts_with("C:")) {
        said.clear();
    }
    for line in lines {
        if let Some(command) = line.strip_prefix("C:") {
            assert_eq!(said, "", "said and not expected, before {line:?} of\n{text}");
            segment.push_str(command.strip_prefix(' ').unwrap_or(command));
            segment.push_str("\r\n");
            continue;
        }
        if !segment.is_empty() {
            said = String::from_utf8(driver.feed(std::mem::take(&mut segment).as_bytes())).unwrap();
        }
        if line == "X" {
            assert!(driver.closed, "still open at\n{text}\n{}", String::from_utf8_lossy(&driver.said));
            continue;
        }
        let expected = line.strip_prefix("S:").unwrap_or_else(|| panic!("what is {line:?}?")).trim_start();
        let (first, rest) =
            said.split_once("\r\n").unwrap_or_else(|| panic!("expected {expected:?}, nothing is said; events {:?}", driver.events));
        let matches = match expected.strip_suffix('*') {
            Some(prefix) => first.starts_with(prefix),
            None => first == expected,
        };
        assert!(matches, "expected {expected:?}, said {first:?} in\n{text}");
        said = rest.to_owned();
    }
    assert!(segment.is_empty() && said.is_empty(), "left over: {segment:?} {said:?} in\n{text}");
    driver
}
