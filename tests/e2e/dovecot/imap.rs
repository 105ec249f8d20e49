//! As much of an IMAP client (RFC 3501) as the tests need: TLS, a login, commands, answers with literals.

use std::net::SocketAddr;

use base64::Engine as _;
use pillarbox_testkit::stream::{BoxedIo, connect_tls};
use pillarbox_testkit::{PATIENCE, certificates};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection. What is not as expected panics with the dialogue so far.
pub(crate) struct Imap {
    io: BufReader<BoxedIo>,
    tag: u32,
    transcript: Vec<String>,
}

/// An untagged answer: its text with `{n}` where literals stood, and the literals.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) literals: Vec<Vec<u8>>,
}

/// What a command brought.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) lines: Vec<Line>,
    /// `OK …`, `NO …` or `BAD …`.
    pub(crate) status: String,
}

impl Imap {
    /// Connects with TLS from the first octet and reads the greeting.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (io, _) = connect_tls(Box::new(stream), certificates::trusting_client_config(), "mail.example.test").await.unwrap();
        Self::over(io).await
    }

    /// Connects without TLS and reads the greeting.
    pub(crate) async fn connect_plain(address: SocketAddr) -> Self {
        Self::over(Box::new(TcpStream::connect(address).await.unwrap())).await
    }

    async fn over(io: BoxedIo) -> Self {
        let mut this = Self { io: BufReader::new(io), tag: 0, transcript: Vec::new() };
        let greeting = this.line().await;
        assert!(greeting.text.starts_with("* OK "), "{greeting:?}");
        this
    }

    /// Connects and logs in, or says what the server answered.
    pub(crate) async fn login(address: SocketAddr, user: &str, password: &str) -> Result<Self, String> {
        let mut this = Self::connect(address).await;
        // Octets of any kind pass this way (RFC 4616, RFC 4959).
        let secret = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        let answer = this.command(&format!("AUTHENTICATE PLAIN {secret}")).await;
        if answer.status.starts_with("OK") { Ok(this) } else { Err(answer.status) }
    }

    /// Sends a command and reads to its end.
    pub(crate) async fn command(&mut self, text: &str) -> Answer {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        self.transcript.push(format!("C: {tag}{text}"));
        self.io.get_mut().write_all(format!("{tag}{text}\r\n").as_bytes()).await.unwrap();
        self.io.get_mut().flush().await.unwrap();
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            match line.text.strip_prefix(&tag) {
                Some(status) => return Answer { lines, status: status.to_owned() },
                None => lines.push(line),
            }
        }
    }

    /// Sends a command that must succeed.
    pub(crate) async fn ok(&mut self, text: &str) -> Vec<Line> {
        let answer = self.command(text).await;
        if !answer.status.starts_with("OK") {
            self.fail(&format!("{text}: {}", answer.status));
        }
        answer.lines
    }

    /// Opens a folder; how many messages it holds.
    pub(crate) async fn select(&mut self, folder: &str) -> usize {
        let lines = self.ok(&format!("SELECT \"{folder}\"")).await;
        let exists = lines.iter().find_map(|line| line.text.strip_prefix("* ")?.strip_suffix(" EXISTS")?.parse().ok());
        exists.unwrap_or_else(|| self.fail("SELECT told no EXISTS"))
    }

    /// All messages of the open folder, octet for octet.
    pub(crate) async fn messages(&mut self) -> Vec<Vec<u8>> {
        let lines = self.ok("FETCH 1:* (BODY.PEEK[])").await;
        lines.into_iter().filter(|line| line.text.contains(" FETCH (")).flat_map(|line| line.literals).collect()
    }

    /// What GETQUOTAROOT tells of the inbox (RFC 2087): KiB used and allowed, or `None` without a limit.
    pub(crate) async fn quota(&mut self) -> Option<(u64, u64)> {
        let lines = self.ok("GETQUOTAROOT INBOX").await;
        let line = lines.iter().find(|line| line.text.starts_with("* QUOTA "))?;
        let (_, storage) = line.text.split_once("STORAGE ")?;
        let mut numbers = storage.split([' ', ')']).map_while(|n| n.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    }

    /// The names that LIST tells, with their attributes in front.
    pub(crate) async fn list(&mut self) -> Vec<String> {
        self.ok("LIST \"\" \"*\"").await.into_iter().filter_map(|line| Some(line.text.strip_prefix("* LIST ")?.to_owned())).collect()
    }

    async fn line(&mut self) -> Line {
        match tokio::time::timeout(PATIENCE, self.read_line()).await {
            Ok(Ok(line)) => line,
            Ok(Err(e)) => self.fail(&format!("a line was to come: {e}")),
            Err(_) => self.fail("a line was to come"),
        }
    }

    async fn read_line(&mut self) -> std::io::Result<Line> {
        let mut line = Line { text: String::new(), literals: Vec::new() };
        loop {
            let mut octets = Vec::new();
            if self.io.read_until(b'\n', &mut octets).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&octets).trim_end().to_owned();
            line.text.push_str(&text);
            let Some(length) = text.strip_suffix('}').and_then(|t| t.rsplit_once('{')?.1.parse().ok()) else { break };
            let mut literal = vec![0; length];
            self.io.read_exact(&mut literal).await?;
            line.literals.push(literal);
        }
        self.transcript.push(format!("S: {}", line.text));
        Ok(line)
    }

    fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.transcript.join("\n"))
    }
}
