//! A sender that keeps several sessions busy and remembers what was acknowledged: for load, and for counting after a crash.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::wait::Changes;

/// The header field that carries each message's mark.
pub const MARK: &str = "X-Load-Mark";

/// What to send.
#[derive(Clone)]
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// Sessions at once.
    pub sessions: usize,
    /// Messages in all; each session takes the next one until none is left.
    pub messages: usize,
    /// Distinguishes the marks of several runs.
    pub name: String,
    /// Reverse path, without brackets.
    pub from: String,
    /// Recipients; message n goes to the one at n modulo their number.
    pub to: Vec<String>,
    /// Octets of each body, at least.
    pub size: usize,
    /// Handshake by STARTTLS first, believing any certificate.
    pub starttls: bool,
    /// User and password for AUTH PLAIN.
    pub login: Option<(String, String)>,
}

impl Load {
    /// 4 KiB messages from nobody in particular over one session.
    pub fn new(address: SocketAddr, to: &str, messages: usize) -> Self {
        Self {
            address,
            sessions: 1,
            messages,
            name: "load".into(),
            from: "load@client.test".into(),
            to: vec![to.to_owned()],
            size: 4096,
            starttls: false,
            login: None,
        }
    }

    /// Starts sending.
    pub fn start(self) -> LoadRun {
        let state = Arc::new(State {
            load: self,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            ended: AtomicUsize::new(0),
            acknowledged: Mutex::default(),
            refused: Mutex::default(),
            changes: Changes::default(),
        });
        let mut tasks = JoinSet::new();
        for session in 0..state.load.sessions.max(1) {
            let state = state.clone();
            tasks.spawn(async move {
                if let Err(why) = session_of(&state, session).await {
                    state.refused.lock().push(why);
                }
                state.ended.fetch_add(1, Ordering::SeqCst);
                state.changes.note();
            });
        }
        LoadRun { state, tasks }
    }

    /// The content of a message, dots stuffed where needed, without the final dot.
    fn body(&self, mark: &str, to: &str) -> String {
        let mut body =
            format!("From: <{}>\r\nTo: <{to}>\r\nSubject: load\r\nMessage-ID: <{mark}@client.test>\r\n{MARK}: {mark}\r\n\r\n", self.from);
        while body.len() < self.size {
            body.push_str("The quick brown fox jumps over the lazy dog and runs on.\r\n");
        }
        body
    }
}

/// A run under way; it stops when dropped.
pub struct LoadRun {
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    load: Load,
    next: AtomicUsize,
    stop: AtomicBool,
    ended: AtomicUsize,
    acknowledged: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    changes: Changes,
}

impl LoadRun {
    /// The marks that were acknowledged with 250 so far.
    pub fn acknowledged(&self) -> Vec<String> {
        self.state.acknowledged.lock().clone()
    }

    /// What went wrong so far: refusals and lost connections, each ending its session.
    pub fn failures(&self) -> Vec<String> {
        self.state.refused.lock().clone()
    }

    /// Waits until at least `n` messages were acknowledged. Panics as soon as all sessions ended with fewer.
    pub async fn reached(&self, n: usize) {
        let look = || {
            let all_ended = self.state.ended.load(Ordering::SeqCst) >= self.state.load.sessions.max(1);
            let reached = self.state.acknowledged.lock().len() >= n;
            assert!(reached || !all_ended, "all sessions ended before {n} acknowledgements: {:?}", self.failures());
            reached.then_some(())
        };
        let state = || format!("{} acknowledged, failures: {:?}", self.acknowledged().len(), self.failures());
        self.state.changes.until(&format!("{n} acknowledgements"), look, state).await;
    }

    /// Lets each session finish its message and no more.
    pub fn stop(&self) {
        self.state.stop.store(true, Ordering::SeqCst);
    }

    /// Waits for all sessions to end; returns the acknowledged marks and the failures.
    pub async fn finish(mut self) -> (Vec<String>, Vec<String>) {
        while self.tasks.join_next().await.is_some() {}
        (self.acknowledged(), self.failures())
    }
}

async fn session_of(state: &State, session: usize) -> Result<(), String> {
    let load = &state.load;
    let lost = |e: std::io::Error| format!("session {session}: {e}");
    let mut client = Client::try_connect(load.address).await.map_err(lost)?;
    greet(&mut client, load).await.map_err(|e| format!("session {session}: {e}"))?;
    while !state.stop.load(Ordering::SeqCst) {
        let n = state.next.fetch_add(1, Ordering::SeqCst);
        if n >= load.messages {
            break;
        }
        let mark = format!("{}-{n}", load.name);
        let to = load.to.get(n % load.to.len().max(1)).map_or("", String::as_str);
        client.transcript.clear();
        let envelope = format!("MAIL FROM:<{}>\r\nRCPT TO:<{to}>\r\nDATA\r\n", load.from);
        client.try_send(envelope.as_bytes()).await.map_err(lost)?;
        for expected in ["250", "250", "354"] {
            let reply = client.try_reply().await.map_err(lost)?;
            if reply.code() != expected {
                return Err(format!("session {session}, {mark}: expected {expected}, got {reply}"));
            }
        }
        let body = load.body(&mark, to) + ".\r\n";
        client.try_send(body.as_bytes()).await.map_err(lost)?;
        let reply = client.try_reply().await.map_err(lost)?;
        if reply.code() != "250" {
            return Err(format!("session {session}, {mark}: expected 250, got {reply}"));
        }
        state.acknowledged.lock().push(mark);
        state.changes.note();
    }
    let _ = client.try_send(b"QUIT\r\n").await;
    let _ = client.try_reply().await;
    Ok(())
}

async fn greet(client: &mut Client, load: &Load) -> Result<(), String> {
    expect(client, None, "220").await?;
    expect(client, Some("EHLO client.test".into()), "250").await?;
    if load.starttls {
        expect(client, Some("STARTTLS".into()), "220").await?;
        client.start_tls(crate::certificates::trusting_client_config(), "localhost").await.map_err(|e| e.to_string())?;
        expect(client, Some("EHLO client.test".into()), "250").await?;
    }
    if let Some((user, password)) = &load.login {
        use base64::Engine as _;
        let response = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        expect(client, Some(format!("AUTH PLAIN {response}")), "235").await?;
    }
    Ok(())
}

async fn expect(client: &mut Client, line: Option<String>, code: &str) -> Result<(), String> {
    if let Some(line) = line {
        client.try_send(format!("{line}\r\n").as_bytes()).await.map_err(|e| e.to_string())?;
    }
    let reply = client.try_reply().await.map_err(|e| e.to_string())?;
    if reply.code() == code { Ok(()) } else { Err(format!("expected {code}, got {reply}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Sink, Stage};

    #[tokio::test]
    async fn what_is_acknowledged_is_there() {
        let sink = Sink::start().await;
        let mut load = Load::new(sink.address(), "b@sink.test", 500);
        load.sessions = 5;
        let run = load.start();
        run.reached(100).await;
        let (mut marks, failures) = run.finish().await;
        assert!(failures.is_empty(), "{failures:?}");
        let mut stored: Vec<String> = sink
            .messages(500)
            .await
            .iter()
            .filter_map(|m| m.text().lines().find_map(|l| l.strip_prefix("X-Load-Mark: ").map(str::to_owned)))
            .collect();
        marks.sort();
        stored.sort();
        assert_eq!(marks, stored);
        assert_eq!(sink.connections(), 5);
    }

    #[tokio::test]
    async fn refusals_end_a_session_and_are_told() {
        let sink = Sink::start().await;
        sink.on(Stage::Rcpt, "*", "550 5.1.1 No");
        let (marks, failures) = Load::new(sink.address(), "b@sink.test", 5).start().finish().await;
        assert!(marks.is_empty());
        assert!(failures[0].contains("550 5.1.1 No"), "{failures:?}");
    }
}
