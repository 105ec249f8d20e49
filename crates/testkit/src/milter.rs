//! A milter that does as it is told: it notes what it hears and answers from a script.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// A packet: its letter and its data.
pub type Packet = (u8, Vec<u8>);
/// What was heard, in order.
type Log = Arc<Mutex<Vec<Packet>>>;

/// What the filter says.
#[derive(Clone)]
pub struct Behaviour {
    /// Answer to the option negotiation: version, actions, steps.
    pub options: [u32; 3],
    /// Macros it asks for, as `(stage, names)`.
    pub macros: Vec<(u32, &'static str)>,
    /// Answers by command letter, and a text that must come with it (empty: any): packets, each a letter and data. Others get "continue".
    pub answers: Vec<(u8, &'static str, Vec<Packet>)>,
    /// Octets to send instead of the answer to this command.
    pub garbage: Option<(u8, Vec<u8>)>,
    /// Closes the connection at this command.
    pub hangs_up: Option<u8>,
    /// Says nothing more at this command.
    pub falls_silent: Option<u8>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { options: [6, 0x1ff, 0], macros: vec![], answers: vec![], garbage: None, hangs_up: None, falls_silent: None }
    }
}

impl Behaviour {
    /// Answers this command with these packets.
    pub fn answer(self, command: u8, packets: &[(u8, &[u8])]) -> Self {
        self.answer_when(command, "", packets)
    }

    /// Answers this command with these packets where this text comes with it.
    pub fn answer_when(mut self, command: u8, text: &'static str, packets: &[(u8, &[u8])]) -> Self {
        self.answers.push((command, text, packets.iter().map(|(letter, data)| (*letter, data.to_vec())).collect()));
        self
    }
}

/// The running filter.
pub struct Milter {
    /// For `screen.milter`.
    pub address: String,
    heard: Log,
    _folder: Option<tempfile::TempDir>,
}

impl Milter {
    /// On a TCP port.
    pub async fn inet(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("inet:127.0.0.1:{}", listener.local_addr().unwrap().port());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, behaviour.clone(), log.clone()));
            }
        });
        Self { address, heard, _folder: None }
    }

    /// On a Unix socket.
    pub async fn unix(behaviour: Behaviour) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("milter.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, behaviour.clone(), log.clone()));
            }
        });
        Self { address: format!("unix:{}", path.display()), heard, _folder: Some(folder) }
    }

    /// The letters heard so far, macros left out.
    pub fn letters(&self) -> String {
        self.heard.lock().iter().map(|(letter, _)| char::from(*letter)).filter(|letter| *letter != 'D').collect()
    }

    /// What came with a command, NULs shown as `|`; one line each time.
    pub fn data(&self, command: u8) -> String {
        let heard = self.heard.lock();
        let lines = heard.iter().filter(|(letter, _)| *letter == command);
        lines.map(|(_, data)| String::from_utf8_lossy(data).replace('\0', "|")).collect::<Vec<_>>().join("\n")
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, behaviour: Behaviour, heard: Log) {
    while let Ok(length) = stream.read_u32().await {
        let mut packet = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        let (command, data) = (packet[0], packet[1..].to_vec());
        heard.lock().push((command, data));
        if behaviour.hangs_up == Some(command) {
            return;
        }
        if behaviour.falls_silent == Some(command) {
            std::future::pending::<()>().await;
        }
        if let Some((when, octets)) = &behaviour.garbage
            && *when == command
        {
            let _ = stream.write_all(octets).await;
            continue;
        }
        let text = String::from_utf8_lossy(&packet[1..]);
        let fits = |(when, with, _): &&(u8, &str, Vec<Packet>)| *when == command && text.contains(with);
        let scripted = behaviour.answers.iter().find(fits).map(|(_, _, packets)| packets.clone());
        let packets = match command {
            b'O' => {
                let mut data = behaviour.options.map(u32::to_be_bytes).concat();
                for (stage, names) in &behaviour.macros {
                    data.extend(stage.to_be_bytes());
                    data.extend(names.as_bytes());
                    data.push(0);
                }
                vec![(b'O', data)]
            }
            b'D' | b'A' => vec![],
            b'Q' => return,
            _ => scripted.unwrap_or_else(|| if muted(command, behaviour.options[2]) { vec![] } else { vec![(b'c', vec![])] }),
        };
        for (letter, data) in packets {
            let length = u32::try_from(data.len() + 1).unwrap();
            if stream.write_all(&[&length.to_be_bytes()[..], &[letter], &data].concat()).await.is_err() {
                return;
            }
        }
    }
}

/// Whether the filter said that it will not answer this command.
fn muted(command: u8, steps: u32) -> bool {
    let bit = match command {
        b'L' => 0x80,
        b'C' => 0x1000,
        b'H' => 0x2000,
        b'M' => 0x4000,
        b'R' => 0x8000,
        b'T' => 0x1_0000,
        b'N' => 0x4_0000,
        b'B' => 0x8_0000,
        _ => 0,
    };
    steps & bit != 0
}
