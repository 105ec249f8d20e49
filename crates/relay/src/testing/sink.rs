//! A mail host on a loopback port that does what its script says, and remembers what it was given.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpListener;

/// What the host does.
#[derive(Clone)]
pub(crate) struct Script {
    /// The greeting line.
    pub(crate) greeting: String,
    /// EHLO keywords; `STARTTLS` is offered besides where `tls` is set.
    pub(crate) extensions: Vec<String>,
    /// The reply to EHLO, instead of the keywords.
    pub(crate) ehlo: Option<String>,
    /// For STARTTLS.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// TLS from the first byte.
    pub(crate) implicit: bool,
    /// Sent in the same segment as the 220 to STARTTLS.
    pub(crate) injected: String,
    /// Replies for commands that start with this text (upper case), each used once, before the ordinary ones.
    pub(crate) replies: Vec<(String, String)>,
    /// Hang up when a command starts with this text (upper case), each used once; `.` is the end of the message.
    pub(crate) hang_up: Vec<String>,
    /// 452 for recipients beyond so many.
    pub(crate) max_rcpts: usize,
    /// LMTP.
    pub(crate) lmtp: bool,
    /// Close after so many messages of one connection.
    pub(crate) close_after: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            greeting: "220 sink.test ready".into(),
            extensions: ["PIPELINING", "8BITMIME", "SIZE 100000", "ENHANCEDSTATUSCODES"].map(Into::into).into(),
            ehlo: None,
            tls: None,
            implicit: false,
            injected: String::new(),
            replies: vec![],
            hang_up: vec![],
            max_rcpts: usize::MAX,
            lmtp: false,
            close_after: usize::MAX,
        }
    }
}

impl Script {
    pub(crate) fn with(extensions: &[&str]) -> Self {
        Self { extensions: extensions.iter().map(|e| (*e).to_owned()).collect(), ..Self::default() }
    }

    pub(crate) fn reply(mut self, to: &str, with: &str) -> Self {
        self.replies.push((to.to_owned(), with.to_owned()));
        self
    }

    pub(crate) fn hang_up_at(mut self, command: &str) -> Self {
        self.hang_up.push(command.to_owned());
        self
    }
}

/// A message the host took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) mail: String,
    pub(crate) rcpts: Vec<String>,
    /// Dots undone.
    pub(crate) body: Vec<u8>,
    /// Inside TLS.
    pub(crate) tls: bool,
}

#[derive(Default)]
struct Log {
    taken: Vec<Taken>,
    commands: Vec<String>,
    connections: usize,
}

/// The running host.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Wire = BufReader<BufWriter<Pin<Box<dyn Duplex>>>>;

impl Sink {
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    pub(crate) async fn start_at(address: &str, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = log.clone();
        // One-time replies and hang-ups are used up across connections.
        let script = Arc::new(Mutex::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().connections += 1;
                let (script, log) = (script.clone(), shared.clone());
                tokio::spawn(async move {
                    let _ = serve(Box::pin(stream), &script, &log).await;
                });
            }
        });
        Self { address, log }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.log.lock().taken.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.log.lock().connections
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.log.lock().commands.clone()
    }

    /// The commands that start with this.
    pub(crate) fn heard(&self, start: &str) -> Vec<String> {
        self.commands().into_iter().filter(|c| c.starts_with(start)).collect()
    }
}

async fn say(wire: &mut Wire, text: &str) -> std::io::Result<()> {
    let text = text.replace('\n', "\r\n");
    wire.write_all(format!("{text}\r\n").as_bytes()).await
}

async fn serve(stream: Pin<Box<dyn Duplex>>, script: &Mutex<Script>, log: &Mutex<Log>) -> std::io::Result<()> {
    let fixed = script.lock().clone();
    let mut tls = fixed.implicit;
    let stream = match (&fixed.tls, fixed.implicit) {
        (Some(config), true) => Box::pin(tokio_rustls::TlsAcceptor::from(config.clone()).accept(stream).await?),
        _ => stream,
    };
    let mut wire: Wire = BufReader::new(BufWriter::new(stream));
    say(&mut wire, &fixed.greeting).await?;
    let mut now: Option<Taken> = None;
    let mut messages = 0;
    let mut logins: VecDeque<&str> = VecDeque::new();
    loop {
        if wire.buffer().is_empty() {
            wire.flush().await?;
        }
        let mut line = String::new();
        if wire.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        let upper = line.to_ascii_uppercase();
        log.lock().commands.push(line.clone());
        if let Some(reply) = logins.pop_front() {
            say(&mut wire, reply).await?;
            continue;
        }
        if take(&mut script.lock().hang_up, |at| upper.starts_with(at.as_str())).is_some() {
            return Ok(());
        }
        let special = take(&mut script.lock().replies, |(to, _)| upper.starts_with(to.as_str())).map(|(_, reply)| reply);
        if upper.starts_with("BDAT ") {
            let mut words = line.split(' ').skip(1);
            let mut chunk = vec![0; words.next().and_then(|n| n.parse().ok()).unwrap_or(0)];
            wire.read_exact(&mut chunk).await?;
            if let Some(reply) = special {
                say(&mut wire, &reply).await?;
                continue;
            }
            let Some(taken) = now.as_mut().filter(|taken| !taken.rcpts.is_empty()) else {
                say(&mut wire, "503 5.5.1 No recipients").await?;
                continue;
            };
            taken.body.extend_from_slice(&chunk);
            if words.next().is_some() {
                log.lock().taken.extend(now.take());
                messages += 1;
            }
            say(&mut wire, "250 2.0.0 Taken").await?;
        } else if let Some(reply) = special {
            say(&mut wire, &reply).await?;
            if reply.starts_with("421") {
                return wire.flush().await;
            }
        } else if upper.starts_with("EHLO") || upper.starts_with("LHLO") {
            let mut lines = vec!["sink.test".to_owned()];
            lines.extend(fixed.extensions.iter().cloned());
            if fixed.tls.is_some() && !tls {
                lines.push("STARTTLS".into());
            }
            let last = lines.len() - 1;
            let text = lines.iter().enumerate().map(|(i, l)| format!("250{}{l}", if i == last { ' ' } else { '-' }));
            let text = fixed.ehlo.clone().unwrap_or_else(|| text.collect::<Vec<_>>().join("\n"));
            say(&mut wire, &text).await?;
        } else if upper.starts_with("HELO") {
            say(&mut wire, "250 sink.test").await?;
        } else if upper == "STARTTLS" {
            let injected = if fixed.injected.is_empty() { String::new() } else { format!("\n{}", fixed.injected) };
            say(&mut wire, &format!("220 2.0.0 Go{injected}")).await?;
            wire.flush().await?;
            let config = fixed.tls.clone().unwrap();
            wire = BufReader::new(BufWriter::new(Box::pin(tokio_rustls::TlsAcceptor::from(config).accept(wire).await?)));
            tls = true;
            now = None;
        } else if upper.starts_with("AUTH PLAIN") {
            say(&mut wire, "235 2.7.0 Welcome").await?;
        } else if upper == "AUTH LOGIN" {
            logins.extend(["334 UGFzc3dvcmQ6", "235 2.7.0 Welcome"]);
            say(&mut wire, "334 VXNlcm5hbWU6").await?;
        } else if upper.starts_with("MAIL FROM") {
            now = Some(Taken { mail: line, tls, ..Taken::default() });
            say(&mut wire, "250 2.1.0 Sender fine").await?;
        } else if upper.starts_with("RCPT TO") {
            match &mut now {
                Some(taken) if taken.rcpts.len() >= fixed.max_rcpts => say(&mut wire, "452 4.5.3 Too many").await?,
                Some(taken) => {
                    taken.rcpts.push(line);
                    say(&mut wire, "250 2.1.5 Recipient fine").await?;
                }
                None => say(&mut wire, "503 5.5.1 MAIL first").await?,
            }
        } else if upper == "DATA" {
            let Some(mut taken) = now.take().filter(|taken| !taken.rcpts.is_empty()) else {
                say(&mut wire, "503 5.5.1 No recipients").await?;
                continue;
            };
            say(&mut wire, "354 Go ahead").await?;
            wire.flush().await?;
            loop {
                let mut line = Vec::new();
                if wire.read_until(b'\n', &mut line).await? == 0 {
                    return Ok(());
                }
                if line == b".\r\n" {
                    break;
                }
                taken.body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
            if take(&mut script.lock().hang_up, |at| at == ".").is_some() {
                return Ok(());
            }
            let count = if fixed.lmtp { taken.rcpts.len() } else { 1 };
            for _ in 0..count {
                let special = take(&mut script.lock().replies, |(to, _)| to == ".").map(|(_, reply)| reply);
                say(&mut wire, special.as_deref().unwrap_or("250 2.0.0 Taken")).await?;
            }
            log.lock().taken.push(taken);
            messages += 1;
        } else if upper == "RSET" {
            now = None;
            say(&mut wire, "250 2.0.0 Forgotten").await?;
        } else if upper == "QUIT" {
            say(&mut wire, "221 2.0.0 Bye").await?;
            return wire.flush().await;
        } else {
            say(&mut wire, "500 5.5.2 What?").await?;
        }
        if messages >= fixed.close_after {
            wire.flush().await?;
            return Ok(());
        }
    }
}

/// Takes the first entry that fits out of a list.
fn take<T>(list: &mut Vec<T>, fits: impl Fn(&T) -> bool) -> Option<T> {
    let at = list.iter().position(fits)?;
    Some(list.remove(at))
}
