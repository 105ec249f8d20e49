//! A name server on a loopback port that answers from a script, over UDP and TCP.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use pillarbox_screen::Dns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const ANY: u16 = 255;

/// What the server knows. Names in lower case, without the last dot.
#[derive(Default)]
pub struct Script {
    records: HashMap<String, Vec<(u16, Vec<u8>)>>,
    /// SERVFAIL, for any type that has no record of its own.
    failing: HashSet<String>,
    /// No answer at all.
    silent: HashSet<String>,
}

impl Script {
    pub fn a(&mut self, name: &str, ip: &str) -> &mut Self {
        match ip.parse().expect("an address") {
            IpAddr::V4(v4) => self.add(name, A, v4.octets().to_vec()),
            IpAddr::V6(v6) => self.add(name, AAAA, v6.octets().to_vec()),
        }
    }

    pub fn mx(&mut self, name: &str, preference: u16, exchange: &str) -> &mut Self {
        let mut data = preference.to_be_bytes().to_vec();
        wire_name(exchange, &mut data);
        self.add(name, MX, data)
    }

    pub fn txt(&mut self, name: &str, text: &str) -> &mut Self {
        self.txt_bytes(name, &text.as_bytes().chunks(255).collect::<Vec<_>>())
    }

    pub fn txt_bytes(&mut self, name: &str, strings: &[&[u8]]) -> &mut Self {
        let mut data = Vec::new();
        for text in strings {
            data.push(u8::try_from(text.len()).expect("a short string"));
            data.extend_from_slice(text);
        }
        self.add(name, TXT, data)
    }

    pub fn ptr(&mut self, name: &str, target: &str) -> &mut Self {
        let mut data = Vec::new();
        wire_name(target, &mut data);
        self.add(name, PTR, data)
    }

    pub fn cname(&mut self, name: &str, target: &str) -> &mut Self {
        let mut data = Vec::new();
        wire_name(target, &mut data);
        self.add(name, CNAME, data)
    }

    /// The server fails on this name.
    pub fn fails(&mut self, name: &str) -> &mut Self {
        self.failing.insert(key(name));
        self
    }

    /// The server never answers about this name.
    pub fn is_silent(&mut self, name: &str) -> &mut Self {
        self.silent.insert(key(name));
        self
    }

    fn add(&mut self, name: &str, kind: u16, data: Vec<u8>) -> &mut Self {
        self.records.entry(key(name)).or_default().push((kind, data));
        self
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn wire_name(name: &str, out: &mut Vec<u8>) {
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a label"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

/// The running server. It stops when the runtime of the test does.
pub struct Server {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    queries: Arc<AtomicUsize>,
}

impl Server {
    /// Starts with a script that can be added to later.
    pub async fn start(script: Script) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")).await {
                break (udp, tcp);
            }
        };
        let server = Self { address: udp.local_addr().expect("an address"), script: Arc::new(Mutex::new(script)), queries: Arc::default() };
        let (script, queries) = (server.script.clone(), server.queries.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                queries.fetch_add(1, Ordering::Relaxed);
                let answer = answer(&script.lock().expect("the script"), &buffer[..length]);
                if let Some(mut answer) = answer {
                    if answer.len() > 1232 {
                        answer[2] |= 2; // truncated: ask by TCP
                        let question = 12 + answer[12..].iter().position(|octet| *octet == 0).expect("a name") + 5;
                        answer.truncate(question);
                        answer[6..12].fill(0);
                    }
                    let _ = udp.send_to(&answer, peer).await;
                }
            }
        });
        let script = server.script.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let script = script.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        if stream.read_exact(&mut query).await.is_err() {
                            break;
                        }
                        let answer = answer(&script.lock().expect("the script"), &query);
                        if let Some(answer) = answer {
                            let length = u16::try_from(answer.len()).expect("a message");
                            let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await;
                        }
                    }
                });
            }
        });
        server
    }

    /// Starts with what `write` puts into the script.
    pub async fn with(write: impl FnOnce(&mut Script)) -> Self {
        let mut script = Script::default();
        write(&mut script);
        Self::start(script).await
    }

    /// The screen's resolver, asking this server alone.
    pub fn dns(&self) -> Dns {
        let config = pillarbox_config::Dns { servers: vec![self.address], ..Default::default() };
        Dns::new(&config).expect("a resolver")
    }

    /// A resolver that gives up after a moment.
    pub fn impatient_dns(&self) -> Dns {
        let mut server = NameServerConfig::udp(self.address.ip());
        for connection in &mut server.connections {
            connection.port = self.address.port();
        }
        let mut options = ResolverOpts::default();
        (options.timeout, options.attempts) = (Duration::from_millis(20), 1);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build();
        Dns::with_resolver(resolver.expect("a resolver"))
    }

    /// Queries by UDP so far.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

/// The answer to a query; `None`: silence.
fn answer(script: &Script, query: &[u8]) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(12..at + 4)?;
    let name = labels.join(".");
    if script.silent.contains(&name) {
        return None;
    }
    let (mut answers, mut code) = (Vec::new(), 0);
    let mut current = name;
    for _ in 0..9 {
        let records = script.records.get(&current);
        let found: Vec<_> = records.into_iter().flatten().filter(|(k, _)| *k == kind || *k == CNAME || kind == ANY).collect();
        if found.is_empty() {
            if script.failing.contains(&current) {
                code = 2;
            } else if records.is_none() && !script.records.keys().any(|other| other.ends_with(&format!(".{current}"))) {
                code = 3;
            }
            break;
        }
        let mut next = None;
        for (k, data) in found {
            answers.push((current.clone(), *k, data));
            if *k == CNAME && kind != CNAME {
                next = Some(unwire(data));
            }
        }
        match next {
            Some(target) => current = target,
            None => break,
        }
    }
    let mut out = Vec::new();
    out.extend_from_slice(query.get(..2)?);
    out.extend([0x84, 0x80 | code]);
    out.extend(1_u16.to_be_bytes());
    out.extend(u16::try_from(answers.len()).ok()?.to_be_bytes());
    out.extend(u16::from(answers.is_empty()).to_be_bytes());
    out.extend([0, 0]);
    out.extend_from_slice(question);
    for (owner, kind, data) in answers {
        wire_name(&owner, &mut out);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend_from_slice(data);
    }
    if out[6..8] == [0, 0] {
        // The SOA that says how long "no" holds.
        out.extend([0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
        out.extend([0; 16]);
        out.extend([0, 0, 0, 60]);
    }
    Some(out)
}

fn unwire(data: &[u8]) -> String {
    let (mut at, mut labels) = (0, Vec::new());
    while let Some(&length) = data.get(at) {
        if length == 0 {
            break;
        }
        let end = at + 1 + usize::from(length);
        labels.push(String::from_utf8_lossy(&data[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    labels.join(".")
}
