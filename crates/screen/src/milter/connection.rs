//! One connection to a filter: dialling, agreeing on options, sending, waiting for answers.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::options::{Options, agree, offer};
use super::wire::{self, Failure, Response, command};

/// Longest wait for a filter to take the connection.
const DIAL: Duration = Duration::from_secs(10);

/// Where a filter listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host and port.
    Inet(String, u16),
}

/// An address that is neither form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("screen.milter: {0:?} is no address; write \"unix:/path\" or \"inet:HOST:PORT\"")]
pub struct BadAddress(pub String);

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads `unix:/path` and `inet:host:port` (also `inet6:`, and `inet:port@host` as Sendmail writes it).
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.strip_prefix("local:")) {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let rest = text.strip_prefix("inet:").or_else(|| text.strip_prefix("inet6:")).ok_or_else(bad)?;
        let (host, port) = match rest.split_once('@') {
            Some((port, host)) => (host, port),
            None => rest.rsplit_once(':').ok_or_else(bad)?,
        };
        let host = host.trim_matches(['[', ']']);
        match port.parse() {
            Ok(port) if port > 0 && !host.is_empty() => Ok(Self::Inet(host.to_owned(), port)),
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet(host, port) => write!(f, "inet:{host}:{port}"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// An open connection.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    patience: Duration,
    /// Packets not yet sent.
    out: Vec<u8>,
    pub(super) options: Options,
}

impl Connection {
    /// Dials and negotiates. `patience` is the wait for each answer.
    pub(super) async fn open(address: &Address, patience: Duration) -> Result<Self, Failure> {
        let dial = async {
            Ok::<Box<dyn Stream>, std::io::Error>(match address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Address::Inet(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            })
        };
        let stream = timeout(DIAL.min(patience), dial).await.map_err(|_| Failure::Timeout)??;
        let mut connection = Self { stream: BufReader::new(stream), patience, out: Vec::new(), options: Options::default() };
        offer(&mut connection.out);
        let (letter, data) = connection.packet().await?;
        connection.options = agree(letter, &data)?;
        Ok(connection)
    }

    /// The packets waiting to be sent; more can be added.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends what waits.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        if !self.out.is_empty() {
            timeout(self.patience, self.stream.write_all(&self.out)).await.map_err(|_| Failure::Timeout)??;
            self.out.clear();
            self.out.shrink_to(wire::CHUNK);
        }
        Ok(())
    }

    /// Sends what waits and reads the next answer. "Still at it" answers begin the wait anew.
    pub(super) async fn answer(&mut self) -> Result<Response, Failure> {
        loop {
            let (letter, data) = self.packet().await?;
            match wire::parse(letter, data)? {
                Response::Progress => {}
                Response::Shutdown => return Err(Failure::Shutdown),
                response => return Ok(response),
            }
        }
    }

    async fn packet(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        self.flush().await?;
        timeout(self.patience, wire::read(&mut self.stream)).await.map_err(|_| Failure::Timeout)?
    }

    /// Says goodbye; whether it is heard does not matter.
    pub(super) async fn quit(mut self) {
        self.out.clear();
        wire::put(&mut self.out, command::QUIT, &[]);
        let _ = timeout(Duration::from_secs(1), self.stream.write_all(&self.out)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_spellings() {
        let inet = |host: &str, port| Address::Inet(host.into(), port);
        for (text, address) in [
            ("unix:/run/x.sock", Address::Unix("/run/x.sock".into())),
            ("inet:localhost:11332", inet("localhost", 11332)),
            ("inet:[::1]:99", inet("::1", 99)),
            ("inet:8891@localhost", inet("localhost", 8891)),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for text in ["", "localhost:1", "unix:", "inet:localhost", "inet::1", "inet:h:0", "inet:h:99999"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
