//! Playing a dialogue.

use super::parse::{expand, unescape};
use super::{Dialog, Step, Target, scram};
use crate::client::{Client, ReplyLines};
use crate::pattern;

/// Where a server did not do as the dialogue says.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}: {why}\n{}", transcript.join("\n"))]
pub struct DialogError {
    /// The file.
    pub path: String,
    /// The line in it.
    pub line: usize,
    /// What was expected and what came.
    pub why: String,
    /// What was said up to there.
    pub transcript: Vec<String>,
}

pub(super) async fn run(dialog: &Dialog, target: &Target) -> Result<Vec<String>, DialogError> {
    let mut player = Player { target, client: None, said: Vec::new(), reply: ReplyLines::default(), group: None };
    for (line, step) in &dialog.steps {
        if let Err(why) = player.step(step).await {
            player.keep_transcript();
            return Err(DialogError { path: dialog.path.display().to_string(), line: *line, why, transcript: player.said });
        }
    }
    if player.group.is_some() {
        return Err(DialogError {
            path: dialog.path.display().to_string(),
            line: dialog.steps.last().map_or(0, |(line, _)| *line),
            why: "X: group without X: send".into(),
            transcript: Vec::new(),
        });
    }
    player.keep_transcript();
    Ok(player.said)
}

struct Player<'a> {
    target: &'a Target,
    client: Option<Client>,
    /// Transcripts of earlier connections.
    said: Vec<String>,
    reply: ReplyLines,
    group: Option<Vec<u8>>,
}

impl Player<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Line(text) => {
                let mut bytes = self.expand(text)?.into_bytes();
                bytes.extend_from_slice(b"\r\n");
                self.send(bytes).await
            }
            Step::Raw(text) => {
                let bytes = unescape(&self.expand(text)?)?;
                self.send(bytes).await
            }
            Step::Reply { count, codes, pattern } => {
                let pattern = self.expand(pattern)?;
                for _ in 0..*count {
                    self.expect(codes, &pattern).await?;
                }
                Ok(())
            }
            Step::ExactLine(text) => {
                let expected = self.expand(text)?;
                let line = self.client().await?.try_line().await.map_err(|e| format!("expected {expected:?}, got: {e}"))?;
                if pattern::matches(&expected, &line) { Ok(()) } else { Err(format!("expected {expected:?}, got {line:?}")) }
            }
            Step::SomeLine(text) => {
                let wanted = self.expand(text)?;
                if self.reply.has(&wanted) { Ok(()) } else { Err(format!("no line matches {wanted:?} in: {}", self.reply)) }
            }
            Step::NoLine(text) => {
                let unwanted = self.expand(text)?;
                if self.reply.has(&unwanted) { Err(format!("a line matches {unwanted:?} in: {}", self.reply)) } else { Ok(()) }
            }
            Step::StartTls => {
                let (tls, name) = (self.target.tls.clone(), self.target.server_name.clone());
                self.client().await?.start_tls(tls, &name).await.map_err(|e| format!("the handshake failed: {e}"))
            }
            Step::Split(octets) => {
                self.client().await?.split = *octets;
                Ok(())
            }
            Step::Group => {
                self.group = Some(Vec::new());
                Ok(())
            }
            Step::Send => {
                let bytes = self.group.take().ok_or("X: send without X: group")?;
                self.send(bytes).await
            }
            Step::Closed => {
                let client = self.client().await?;
                if client.closed().await {
                    Ok(())
                } else {
                    Err(format!("expected the end, got {:?}", String::from_utf8_lossy(client.unread())))
                }
            }
            Step::ShutDown => {
                self.client().await?.shut_down().await;
                Ok(())
            }
            Step::Reconnect => {
                self.keep_transcript();
                self.client().await.map(|_| ())
            }
            Step::Auth { mechanism, user, password } => {
                let (user, password) = (self.expand(user)?, self.expand(password)?);
                let last = scram::log_in(self.client().await?, mechanism, &user, &password).await?;
                self.client().await?.put_back(&last);
                Ok(())
            }
        }
    }

    async fn expect(&mut self, codes: &[String], pattern: &str) -> Result<(), String> {
        let wanted = codes.join("|");
        self.reply = self.client().await?.try_reply().await.map_err(|e| format!("expected {wanted}, got: {e}"))?;
        let code = self.reply.code();
        if !codes.iter().any(|c| pattern::matches(&c.replace('x', "?"), code)) {
            return Err(format!("expected {wanted}, got: {}", self.reply));
        }
        if !pattern.is_empty() && !self.reply.has(pattern) {
            return Err(format!("expected {wanted} {pattern}, got: {}", self.reply));
        }
        Ok(())
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        expand(text, &self.target.variables)
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        if let Some(group) = &mut self.group {
            group.extend_from_slice(&bytes);
            return Ok(());
        }
        // A server that closed early is caught by what the dialogue expects next.
        let _ = self.client().await?.try_send(&bytes).await;
        Ok(())
    }

    async fn client(&mut self) -> Result<&mut Client, String> {
        if self.client.is_none() {
            self.client = Some(self.connect().await?);
        }
        self.client.as_mut().ok_or_else(|| "no connection".to_owned())
    }

    async fn connect(&self) -> Result<Client, String> {
        let target = self.target;
        let mut client = match &target.unix {
            Some(path) => {
                let stream = tokio::net::UnixStream::connect(path).await.map_err(|e| format!("cannot connect: {e}"))?;
                Client::over(Box::new(stream))
            }
            None => Client::try_connect(target.address).await.map_err(|e| format!("cannot connect: {e}"))?,
        };
        let greeting = if target.starttls {
            let greeting = client.try_reply().await.map_err(|e| format!("no greeting: {e}"))?;
            for (line, code) in [("EHLO client.test", "250"), ("STARTTLS", "220")] {
                let _ = client.try_send(format!("{line}\r\n").as_bytes()).await;
                let reply = client.try_reply().await.map_err(|e| format!("no reply to {line}: {e}"))?;
                if reply.code() != code {
                    return Err(format!("{line} before the dialogue got {reply}"));
                }
            }
            Some(greeting)
        } else {
            None
        };
        if target.implicit_tls || target.starttls {
            let start = client.start_tls(target.tls.clone(), &target.server_name);
            start.await.map_err(|e| format!("the handshake failed: {e}"))?;
        }
        if let Some(greeting) = greeting {
            client.put_back(&greeting);
        }
        client.split = target.split;
        Ok(client)
    }

    fn keep_transcript(&mut self) {
        if let Some(client) = self.client.take() {
            self.said.extend(client.transcript);
        }
    }
}
