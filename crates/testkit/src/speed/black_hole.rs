//! A receiver that takes every message and keeps none, on a thread of its own; it can be made to hold its greeting back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections at once; more wait in the kernel.
const CONNECTIONS: usize = 4096;
/// Octets read at once.
const READ: usize = 64 * 1024;
/// Longest command line.
const LINE: usize = 4096;

/// A running one. It ends when dropped.
pub struct BlackHole {
    address: SocketAddr,
    counts: Arc<Counts>,
    open: watch::Sender<bool>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    messages: AtomicU64,
    connections: AtomicU64,
}

impl BlackHole {
    /// Listens on 127.0.0.1; port 0 lets the system choose. `open`: greets at once.
    pub fn start(port: u16, open: bool) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let (open, gate) = watch::channel(open);
        let (end, ended) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("black-hole".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve(listener, of_thread, gate) => {
                        if let Err(error) = result {
                            eprintln!("the black hole closed: {error}");
                        }
                    }
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { address, counts, open, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages taken so far.
    pub fn messages(&self) -> u64 {
        self.counts.messages.load(Ordering::Relaxed)
    }

    /// Connections so far, those that wait for the greeting included.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Greets all who wait and whoever comes; `false`: whoever comes waits.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, counts: Arc<Counts>, gate: watch::Receiver<bool>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            // Out of descriptors: some session will end.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let (counts, mut gate) = (Arc::clone(&counts), gate.clone());
        tokio::spawn(async move {
            // The sender lives as long as the thread; a client that goes away ends its own session alone.
            let _ = gate.wait_for(|open| *open).await;
            let _ = session(stream, &counts).await;
            drop(place);
        });
    }
}

/// What the next octets are.
#[derive(PartialEq, Eq)]
enum Phase {
    Commands,
    Content,
    Over,
}

async fn session(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink.test ESMTP\r\n").await?;
    let (mut input, mut output) = (Vec::with_capacity(READ), Vec::with_capacity(256));
    let mut phase = Phase::Commands;
    while phase != Phase::Over {
        input.reserve(READ);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let used = consume(&input, &mut phase, &mut output, counts)?;
        input.copy_within(used.., 0);
        input.truncate(input.len() - used);
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
    }
    Ok(())
}

/// Takes all commands and content that are whole, and answers into `output`; returns how many octets it took.
fn consume(input: &[u8], phase: &mut Phase, output: &mut Vec<u8>, counts: &Counts) -> io::Result<usize> {
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        match phase {
            Phase::Over => return Ok(at),
            Phase::Commands => {
                let Some(length) = memchr::memchr(b'\n', rest) else {
                    return if rest.len() > LINE { Err(io::Error::other("a line without end")) } else { Ok(at) };
                };
                let line = rest.get(..length).unwrap_or_default();
                let reply: &[u8] = match line.get(..4).unwrap_or(line).to_ascii_uppercase().as_slice() {
                    b"EHLO" => b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n",
                    b"DATA" => {
                        *phase = Phase::Content;
                        b"354 go\r\n"
                    }
                    b"QUIT" => {
                        *phase = Phase::Over;
                        b"221 bye\r\n"
                    }
                    b"HELO" | b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" => b"250 ok\r\n",
                    _ => b"500 what\r\n",
                };
                output.extend_from_slice(reply);
                at += length + 1;
                if *phase == Phase::Content {
                    // The line end of DATA begins the content, so that a message of nothing but a dot ends, too.
                    at -= usize::from(line.ends_with(b"\r")) + 1;
                }
            }
            Phase::Content => match memmem::find(rest, b"\r\n.\r\n") {
                Some(length) => {
                    counts.messages.fetch_add(1, Ordering::Relaxed);
                    output.extend_from_slice(b"250 ok\r\n");
                    *phase = Phase::Commands;
                    at += length + 5;
                }
                // What may be the beginning of the end stays.
                None => return Ok(at + rest.len().saturating_sub(4)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn it_speaks_smtp_however_the_octets_are_cut() {
        let hole = BlackHole::start(0, true).unwrap();
        for split in [0, 1, 3] {
            let mut client = Client::connect(hole.address()).await;
            client.split = split;
            client.expect("220").await;
            assert!(client.command("EHLO client.test", "250").await.has("PIPELINING"));
            client.send(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n").await;
            for code in ["250", "250", "354"] {
                client.expect(code).await;
            }
            client.send(b"a\r\n..\r\n.b\r\n\r\n.\r\nDATA\r\n.\r\nVRFY x\r\nQUIT\r\n").await;
            for code in ["250", "354", "250", "500", "221"] {
                client.expect(code).await;
            }
        }
        assert_eq!((hole.messages(), hole.connections()), (6, 3));
    }

    #[tokio::test]
    async fn it_greets_nobody_before_it_opens() {
        let hole = BlackHole::start(0, false).unwrap();
        let mut early = Client::connect(hole.address()).await;
        hole.set_open(true);
        early.expect("220").await;
        hole.set_open(false);
        let mut late = Client::connect(hole.address()).await;
        early.command("NOOP", "250").await;
        hole.set_open(true);
        late.expect("220").await;
    }
}
