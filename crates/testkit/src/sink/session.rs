//! One connection to a sink.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Answer, Received, Shared, SinkTls, Stage};
use crate::stream::{BoxedIo, TlsFacts, accept_tls};

/// What a client may send in one command line (RFC 5321 §4.5.3.1.4, with room for extensions).
const LINE_LIMIT: usize = 12_288 + 512;

struct Session {
    io: Option<BoxedIo>,
    input: BytesMut,
    output: Vec<u8>,
    shared: Arc<Shared>,
    number: u64,
    peer: SocketAddr,
    helo: String,
    extended: bool,
    tls: Option<TlsFacts>,
    user: Option<String>,
    mail: Option<(String, Vec<String>)>,
    recipients: Vec<(String, Vec<String>)>,
    chunks: Option<Vec<u8>>,
    messages: usize,
}

/// Why a session ends.
enum End {
    Closed,
    Hang,
    Failed,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

pub(super) async fn run(io: BoxedIo, peer: SocketAddr, number: u64, shared: Arc<Shared>) {
    let open = OpenGuard(shared.clone());
    let mut session = Session {
        io: Some(io),
        input: BytesMut::new(),
        output: Vec::new(),
        shared,
        number,
        peer,
        helo: String::new(),
        extended: false,
        tls: None,
        user: None,
        mail: None,
        recipients: Vec::new(),
        chunks: None,
        messages: 0,
    };
    if let Err(End::Hang) = session.serve().await {
        let _ = session.flush().await;
        // Read and forget until the client gives up.
        while let Ok(1..) = session.fill().await {
            session.input.clear();
        }
    } else {
        let _ = session.flush().await;
        if let Some(mut io) = session.io.take() {
            let _ = io.shutdown().await;
        }
    }
    drop(open);
}

/// Counts the connection as open, however it ends.
struct OpenGuard(Arc<Shared>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.changes.note();
    }
}

impl Session {
    async fn serve(&mut self) -> Result<(), End> {
        if let SinkTls::Implicit(config) = &self.shared.config.tls {
            let config = config.clone();
            self.start_tls(config).await?;
        }
        let config = self.shared.config.clone();
        if !config.banner_delay.is_zero() {
            tokio::time::sleep(config.banner_delay).await;
            self.expect_silence("before the greeting");
        }
        let greeting = format!("220 {} {} sink", config.hostname, if config.lmtp { "LMTP" } else { "ESMTP" });
        self.answer(Stage::Connect, &self.peer.ip().to_string(), &greeting).await?;
        loop {
            let line = self.line().await?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
            let verb = verb.to_ascii_uppercase();
            let shown = if verb == "AUTH" { format!("AUTH {}", argument.split(' ').next().unwrap_or_default()) } else { text.clone() };
            self.shared.commands.lock().push((self.number, shown));
            self.shared.changes.note();
            match verb.as_str() {
                "EHLO" | "LHLO" | "HELO" => self.helo(&verb, argument).await?,
                "STARTTLS" => self.starttls().await?,
                "AUTH" => self.auth(argument).await?,
                "MAIL" => self.mail(argument).await?,
                "RCPT" => self.rcpt(argument).await?,
                "DATA" => self.data().await?,
                "BDAT" => self.bdat(argument).await?,
                "RSET" => {
                    self.reset();
                    self.answer(Stage::Rset, "", "250 2.0.0 Ok").await?;
                }
                "NOOP" => self.say("250 2.0.0 Ok").await?,
                "QUIT" => {
                    self.answer(Stage::Quit, "", "221 2.0.0 Bye").await?;
                    return Err(End::Closed);
                }
                _ => self.say("500 5.5.2 Unknown command").await?,
            }
        }
    }

    async fn helo(&mut self, verb: &str, argument: &str) -> Result<(), End> {
        let config = self.shared.config.clone();
        if (verb == "LHLO") != config.lmtp {
            return self.say("500 5.5.1 Wrong protocol").await;
        }
        self.reset();
        self.helo = argument.to_owned();
        self.extended = verb != "HELO";
        if !self.extended {
            self.answer(Stage::Helo, argument, &format!("250 {}", config.hostname)).await?;
            return Ok(());
        }
        let mut lines = vec![config.hostname.clone()];
        lines.extend(config.capabilities.iter().cloned());
        if self.tls.is_none() && matches!(config.tls, SinkTls::StartTls(_) | SinkTls::Broken) {
            lines.push("STARTTLS".into());
        }
        if !config.credentials.is_empty() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        let last = lines.len() - 1;
        let reply: Vec<String> = lines.iter().enumerate().map(|(i, l)| format!("250{}{l}", if i == last { ' ' } else { '-' })).collect();
        self.answer(Stage::Ehlo, argument, &reply.join("\n")).await.map(|_| ())
    }

    async fn starttls(&mut self) -> Result<(), End> {
        let tls = self.shared.config.tls.clone();
        let (SinkTls::StartTls(_) | SinkTls::Broken, None) = (&tls, &self.tls) else {
            return self.say("502 5.5.1 TLS is not available").await;
        };
        if !self.answer(Stage::StartTls, "", "220 2.0.0 Go ahead").await?.starts_with('2') {
            return Ok(());
        }
        let injected = self.shared.config.after_starttls.clone();
        self.output.extend_from_slice(&injected);
        self.flush().await?;
        if !self.input.is_empty() {
            // What was pipelined behind STARTTLS belongs to nobody (RFC 3207 §4.2).
            self.violation("octets right behind STARTTLS");
            self.input.clear();
        }
        match tls {
            SinkTls::StartTls(config) => self.start_tls(config).await?,
            _ => {
                // Once the client has begun: a handshake that fails, and no injection.
                self.fill().await?;
                self.input.clear();
                self.output.extend_from_slice(b"this is no handshake\r\n");
                return Err(End::Closed);
            }
        }
        self.reset();
        self.helo.clear();
        Ok(())
    }

    async fn start_tls(&mut self, config: Arc<rustls::ServerConfig>) -> Result<(), End> {
        let io = self.io.take().ok_or(End::Failed)?;
        let (io, facts) = accept_tls(io, config).await?;
        self.io = Some(io);
        self.tls = Some(facts);
        Ok(())
    }

    async fn auth(&mut self, argument: &str) -> Result<(), End> {
        if let Some(answer) = self.rule(Stage::Auth, argument) {
            return self.give(answer).await.map(|_| ());
        }
        let mut words = argument.split(' ');
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words.next().map(|w| if w == "=" { String::new() } else { w.to_owned() });
        let (user, password) = match mechanism.as_str() {
            "PLAIN" => {
                let response = match initial {
                    Some(response) => response,
                    None => self.ask("334 ").await?,
                };
                let decoded = STANDARD.decode(response).unwrap_or_default();
                let mut parts = decoded.split(|&b| b == 0).skip(1).map(|p| String::from_utf8_lossy(p).into_owned());
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
            "LOGIN" => {
                let user = match initial {
                    Some(user) => user,
                    None => self.ask("334 VXNlcm5hbWU6").await?,
                };
                let password = self.ask("334 UGFzc3dvcmQ6").await?;
                let decode = |text: &str| String::from_utf8_lossy(&STANDARD.decode(text).unwrap_or_default()).into_owned();
                (decode(&user), decode(&password))
            }
            _ => return self.say("504 5.5.4 Unknown mechanism").await,
        };
        if self.shared.config.credentials.contains(&(user.clone(), password)) {
            self.user = Some(user);
            self.say("235 2.7.0 Welcome").await
        } else {
            self.say("535 5.7.8 Wrong user or password").await
        }
    }

    async fn ask(&mut self, challenge: &str) -> Result<String, End> {
        self.say(challenge).await?;
        let line = self.line().await?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    async fn mail(&mut self, argument: &str) -> Result<(), End> {
        let Some((path, parameters)) = path_of(argument, "FROM:") else {
            return self.say("501 5.5.4 Syntax: MAIL FROM:<address>").await;
        };
        let config = &self.shared.config;
        if config.tls_required && self.tls.is_none() {
            return self.say("530 5.7.0 STARTTLS first").await;
        }
        if !config.credentials.is_empty() && self.user.is_none() {
            return self.say("530 5.7.0 Log in first").await;
        }
        if self.helo.is_empty() || self.mail.is_some() {
            self.violation("MAIL out of sequence");
            return self.say("503 5.5.1 Out of sequence").await;
        }
        if self.messages >= config.messages_per_connection {
            self.say("421 4.7.0 Enough for one connection").await?;
            return Err(End::Closed);
        }
        if self.answer(Stage::Mail, &path, "250 2.1.0 Ok").await?.starts_with('2') {
            self.mail = Some((path, parameters));
        }
        Ok(())
    }

    async fn rcpt(&mut self, argument: &str) -> Result<(), End> {
        let Some((path, parameters)) = path_of(argument, "TO:") else {
            return self.say("501 5.5.4 Syntax: RCPT TO:<address>").await;
        };
        if self.mail.is_none() {
            // Legal behind a refused MAIL in a pipelined group.
            return self.say("503 5.5.1 No sender").await;
        }
        if self.answer(Stage::Rcpt, &path, "250 2.1.5 Ok").await?.starts_with('2') {
            self.recipients.push((path, parameters));
        }
        Ok(())
    }

    async fn data(&mut self) -> Result<(), End> {
        if self.chunks.is_some() {
            self.violation("DATA after BDAT");
            return self.say("503 5.5.1 BDAT was begun").await;
        }
        if self.recipients.is_empty() {
            return self.say("554 5.5.1 No valid recipients").await;
        }
        if !self.answer(Stage::Data, "", "354 End with a dot on a line by itself").await?.starts_with('3') {
            return Ok(());
        }
        self.flush().await?;
        let body = self.content().await?;
        self.end(body, false).await
    }

    async fn bdat(&mut self, argument: &str) -> Result<(), End> {
        let mut words = argument.split(' ');
        let Some(size) = words.next().and_then(|w| w.parse::<usize>().ok()) else {
            return self.say("501 5.5.4 Syntax: BDAT size [LAST]").await;
        };
        let last = words.next().is_some_and(|w| w.eq_ignore_ascii_case("LAST"));
        let instead = self.rule(Stage::Bdat, argument);
        while self.input.len() < size {
            if self.fill().await? == 0 {
                return Err(End::Failed);
            }
        }
        let chunk = self.input.split_to(size);
        if let Some(answer) = instead {
            self.give(answer).await?;
            return Ok(());
        }
        if self.recipients.is_empty() {
            return self.say("554 5.5.1 No valid recipients").await;
        }
        self.chunks.get_or_insert_with(Vec::new).extend_from_slice(&chunk);
        if !last {
            return self.say(&format!("250 2.0.0 {size} octets")).await;
        }
        let body = self.chunks.take().unwrap_or_default();
        self.end(body, true).await
    }

    /// Reads content up to exactly CRLF `.` CRLF, undoing dots.
    async fn content(&mut self) -> Result<Vec<u8>, End> {
        let mut raw = BytesMut::new();
        // The first line may itself be the dot: pretend that a line end came before it.
        raw.extend_from_slice(b"\r\n");
        let finder = memmem::Finder::new(b"\r\n.\r\n");
        let mut searched = 0usize;
        loop {
            raw.extend_from_slice(&self.input.split());
            if let Some(at) = finder.find(raw.get(searched..).unwrap_or_default()).map(|n| n + searched) {
                let mut content = raw.split_to(at + 2);
                raw.advance(3);
                self.input = raw;
                content.advance(2);
                return Ok(self.undo_dots(&content));
            }
            searched = raw.len().saturating_sub(4);
            if self.fill().await? == 0 {
                return Err(End::Failed);
            }
        }
    }

    fn undo_dots(&self, content: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(content.len());
        let mut rest = content;
        if let Some(undone) = rest.strip_prefix(b".") {
            rest = undone;
        }
        let mut from = 0;
        for at in memmem::find_iter(rest, b"\r\n.") {
            body.extend_from_slice(&rest[from..at + 2]);
            from = at + 3;
        }
        body.extend_from_slice(&rest[from..]);
        let bare = memchr::memchr2_iter(b'\r', b'\n', content).any(|at| match content[at] {
            b'\r' => content.get(at + 1) != Some(&b'\n'),
            _ => at == 0 || content[at - 1] != b'\r',
        });
        if bare {
            self.violation("a bare CR or LF in DATA");
        }
        body
    }

    /// The message is complete: keeps it and answers.
    async fn end(&mut self, body: Vec<u8>, chunked: bool) -> Result<(), End> {
        self.messages += 1;
        let (from, from_parameters) = self.mail.take().unwrap_or_default();
        let recipients = std::mem::take(&mut self.recipients);
        let number = self.shared.accepted.load(Ordering::SeqCst);
        let usual = format!("250 2.0.0 Ok: taken as {number}");
        // LMTP answers for each recipient, SMTP once: then any recipient's rule counts.
        let mut answers: Vec<Answer> = recipients
            .iter()
            .map(|(address, _)| self.rule(Stage::Message, address).unwrap_or_else(|| Answer::Say(usual.clone())))
            .collect();
        if !self.shared.config.lmtp {
            let other = answers.iter().position(|a| *a != Answer::Say(usual.clone())).unwrap_or(0);
            answers = answers.into_iter().skip(other).take(1).collect();
        }
        let reply = match answers.last() {
            Some(Answer::Say(reply)) => reply.clone(),
            _ => String::new(),
        };
        let received = Received {
            connection: self.number,
            peer: self.peer,
            helo: self.helo.clone(),
            extended: self.extended,
            tls: self.tls.clone(),
            user: self.user.clone(),
            from,
            from_parameters,
            recipients,
            body: if self.shared.config.keep_bodies { body } else { Vec::new() },
            chunked,
            reply,
        };
        if answers.iter().any(|a| matches!(a, Answer::Say(r) if r.starts_with('2'))) {
            self.shared.accepted.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.transactions.lock().push(received);
        self.shared.changes.note();
        for answer in answers {
            self.give(answer).await?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.mail = None;
        self.recipients.clear();
        self.chunks = None;
    }

    fn rule(&self, stage: Stage, argument: &str) -> Option<Answer> {
        self.shared.rules.lock().answer(stage, argument)
    }

    fn violation(&self, what: &str) {
        self.shared.violations.lock().push(format!("connection {}: {what}", self.number));
        self.shared.changes.note();
    }

    fn expect_silence(&self, when: &str) {
        if !self.input.is_empty() {
            self.violation(&format!("octets {when}"));
        }
    }

    /// Gives the rule's answer or the usual one, and returns what was said.
    async fn answer(&mut self, stage: Stage, argument: &str, usual: &str) -> Result<String, End> {
        let answer = self.rule(stage, argument).unwrap_or_else(|| Answer::Say(usual.to_owned()));
        self.give(answer).await
    }

    async fn give(&mut self, answer: Answer) -> Result<String, End> {
        match answer {
            Answer::Say(reply) => {
                self.say(&reply).await?;
                if reply.starts_with("421") { Err(End::Closed) } else { Ok(reply) }
            }
            Answer::Close => {
                self.output.clear();
                Err(End::Closed)
            }
            Answer::Hang => Err(End::Hang),
            Answer::Usual => Ok(String::new()),
        }
    }

    async fn say(&mut self, reply: &str) -> Result<(), End> {
        let wait = self.shared.config.tarpit;
        if !wait.is_zero() {
            self.flush().await?;
            tokio::time::sleep(wait).await;
        }
        for line in reply.split('\n') {
            self.output.extend_from_slice(line.trim_end_matches('\r').as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// A command line without its end. Replies are written before waiting, so that a pipelined group gets them together.
    async fn line(&mut self) -> Result<Vec<u8>, End> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', self.input.get(searched..).unwrap_or_default()).map(|n| n + searched) {
                let mut line = self.input.split_to(at + 1).to_vec();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                } else {
                    self.violation("a command that ends in a bare LF");
                }
                return Ok(line);
            }
            if self.input.len() > LINE_LIMIT {
                self.violation("an overlong command line");
                self.say("500 5.5.2 Line too long").await?;
                return Err(End::Closed);
            }
            searched = self.input.len();
            if self.fill().await? == 0 {
                return Err(End::Closed);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.flush().await?;
        self.input.reserve(64 << 10);
        match &mut self.io {
            Some(io) => io.read_buf(&mut self.input).await,
            None => Ok(0),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if let (Some(io), false) = (&mut self.io, self.output.is_empty()) {
            io.write_all(&self.output).await?;
            io.flush().await?;
            self.output.clear();
        }
        Ok(())
    }
}

/// The path without brackets and the parameters of MAIL or RCPT.
fn path_of(argument: &str, keyword: &str) -> Option<(String, Vec<String>)> {
    let rest = argument.get(keyword.len()..).filter(|_| argument.get(..keyword.len()).is_some_and(|k| k.eq_ignore_ascii_case(keyword)))?;
    let inner = rest.trim_start().strip_prefix('<')?;
    // A quoted local part may hold a bracket.
    let mut quoted = false;
    let mut escaped = false;
    let end = inner.char_indices().find_map(|(at, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
        None
    })?;
    let parameters = inner[end + 1..].split_whitespace().map(str::to_owned).collect();
    Some((inner[..end].to_owned(), parameters))
}
