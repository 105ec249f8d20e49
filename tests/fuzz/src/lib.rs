//! What the targets share: cutting input into segments, and a driver for sessions that checks what must always hold.

use std::sync::Arc;

use bytes::BytesMut;
use pillarbox_smtp::sasl::scram::Keys;
use pillarbox_smtp::server::{AuthRequest, AuthResult, Event, Limits, Role, ServerConfig, ServerSession, Step, TlsInfo};
use pillarbox_smtp::{BodyType, Mechanism, Secret, replies};

/// Cuts `bytes` into segments whose lengths come from `seed`: the same seed cuts the same way.
pub fn segments(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    if seed == 0 {
        return vec![bytes];
    }
    let (mut out, mut rest, mut state) = (Vec::new(), bytes, u32::from(seed));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (1 + (state >> 16) as usize % (1 + usize::from(seed))).min(rest.len());
        let (head, tail) = rest.split_at(length);
        out.push(head);
        rest = tail;
    }
    out
}

/// The first octet as a seed, and the rest.
pub fn seeded(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(seed, rest)| (*seed, rest))
}

/// A server with every extension and small limits, so that they are met.
pub fn config(role: Role) -> ServerConfig {
    let mut config = ServerConfig::new(role, "mail.example.org");
    config.tls_available = matches!(role, Role::Mta | Role::Submission);
    config.mechanisms = Mechanism::ALL.to_vec();
    config.limits = Limits { message_size: 2000, recipients: 5, text_line: 200, ..Limits::default() };
    config
}

fn tls() -> TlsInfo {
    TlsInfo { protocol: "TLSv1.3".into(), cipher: "X".into(), server_name: None, exporter: Some(vec![7; 32]) }
}

/// A session whose driver says yes to everything that is well formed, and panics where the session breaks a promise.
pub struct Driver {
    session: ServerSession,
    input: BytesMut,
    body: Vec<u8>,
    in_message: bool,
    /// Complete messages.
    pub messages: usize,
    /// Everything that was said.
    pub said: Vec<u8>,
    /// The session is over.
    pub closed: bool,
}

impl Driver {
    /// After the greeting.
    pub fn new(role: Role) -> Self {
        let mut session = ServerSession::with_nonce(Arc::new(config(role)), "nonce");
        if role == Role::SubmissionTls {
            session.tls_started(tls());
        }
        session.greet();
        Self { session, input: BytesMut::new(), body: Vec::new(), in_message: false, messages: 0, said: Vec::new(), closed: false }
    }

    /// One segment from the client.
    pub fn feed(&mut self, segment: &[u8]) {
        if self.closed {
            return;
        }
        self.input.extend_from_slice(segment);
        loop {
            match self.session.poll(&mut self.input) {
                Step::NeedInput => {
                    assert!(!self.session.wants_reply());
                    assert!(self.input.len() <= 12_288 + segment.len(), "input piles up");
                    break;
                }
                Step::Closed => {
                    self.closed = true;
                    break;
                }
                Step::StartTls => {
                    assert!(self.input.is_empty(), "octets in the clear are left behind STARTTLS");
                    self.said.extend_from_slice(&self.session.output().split());
                    self.session.tls_started(tls());
                    // What was gathered in the clear is forgotten, a message between two chunks included.
                    self.in_message = false;
                    self.body.clear();
                }
                Step::Event(event) => {
                    assert_eq!(event.wants_reply(), self.session.wants_reply());
                    self.decide(event);
                }
            }
        }
        let out = self.session.output().split();
        assert!(out.is_empty() || out.ends_with(b"\r\n"));
        assert!(out.as_ref().split(|b| *b == b'\n').all(|line| line.len() <= 511));
        assert!(out.iter().all(|b| (b' '..=b'~').contains(b) || b"\r\n".contains(b)), "an unprintable reply");
        self.said.extend_from_slice(&out);
    }

    fn decide(&mut self, event: Event) {
        match event {
            Event::Helo { .. } => self.session.accept_helo(),
            Event::Mail { .. } => {
                assert!(!self.in_message);
                self.session.reply(replies::sender_ok());
            }
            Event::Rcpt { path, .. } => {
                assert!(!path.to_string().contains(['\r', '\n', '\0']));
                self.session.reply(replies::recipient_ok());
            }
            Event::DataStart => {
                assert!(!self.in_message && !self.session.transaction().recipients.is_empty());
                self.in_message = true;
                self.body.clear();
                self.session.reply(replies::start_input());
            }
            Event::Content(octets) => {
                assert!(self.in_message && !octets.is_empty());
                self.body.extend_from_slice(&octets);
            }
            Event::MessageEnd => {
                assert!(self.in_message);
                self.in_message = false;
                self.messages += 1;
                let transaction = self.session.transaction();
                assert!(self.body.len() <= 2002, "larger than the limit");
                if transaction.params.body != BodyType::BinaryMime {
                    assert_text(&self.body);
                }
                let lmtp = self.session.config().role == Role::Lmtp;
                let count = if lmtp { transaction.recipients.len() } else { 1 };
                (0..count).for_each(|_| self.session.reply(replies::queued("id")));
                assert!(!self.session.wants_reply());
            }
            Event::MessageAborted { .. } | Event::Reset => self.in_message = false,
            Event::Auth(request) => self.login(request),
            Event::Vrfy(text) => assert!(!text.chars().any(char::is_control)),
            Event::Refused(_) | Event::Quit | Event::Noop => {}
        }
    }

    fn login(&mut self, request: AuthRequest) {
        assert!(self.session.transaction().tls.is_some(), "a password in the clear");
        let user = "ann@example.org".parse();
        match (request, user) {
            (AuthRequest::ScramLookup { authcid, .. }, _) => {
                self.session.scram_keys((authcid == "ann").then(|| Keys::derive(&Secret::new("secret"), b"salt", 1)));
            }
            (_, Ok(user)) => self.session.auth_result(AuthResult::Accepted { user }),
            (_, Err(_)) => self.session.auth_result(AuthResult::Unavailable),
        }
    }
}

/// Text has CRLF line ends only, no NUL, an ended last line and no line over the limit.
pub fn assert_text(body: &[u8]) {
    assert!(body.is_empty() || body.ends_with(b"\r\n"));
    for (at, byte) in body.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(body.get(at + 1), Some(&b'\n')),
            b'\n' => assert!(at > 0 && body.get(at - 1) == Some(&b'\r')),
            other => assert_ne!(*other, 0),
        }
    }
    assert!(body.split(|b| *b == b'\n').all(|line| line.len() <= 201));
}
