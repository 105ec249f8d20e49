//! A name server that answers from a script: records and misbehaviour set in code, changed at any time, queries counted.
//!
//! It is authoritative for everything. Names without records do not exist; names with records of other types have no data.
//! With [`DnsServer::start_signed`] it signs what it says. Time to live is 0, so that a change is seen by the next question. Answers too large for a datagram are truncated there and whole over TCP.

mod answer;
mod signed;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;
pub use hickory_proto::rr::RecordType;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::wait::Changes;
use signed::Signing;

/// The data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address, A or AAAA by its kind.
    Address(IpAddr),
    /// A mail exchanger; `.` with preference 0 is a null MX.
    Mx(u16, String),
    /// Text of any length; split into strings of 255 octets.
    Txt(Vec<u8>),
    /// Another name.
    Cname(String),
    /// A name for an address.
    Ptr(String),
    /// Priority, weight, port, target.
    Srv(u16, u16, u16, String),
    /// Usage, selector, matching type, data.
    Tlsa(u8, u8, u8, Vec<u8>),
}

/// What is answered instead of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// The name does not exist, whatever records it has.
    NxDomain,
    /// The name exists, without data of the type asked for.
    NoData,
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// No answer at all.
    Silence,
    /// The right answer after this time.
    Late(Duration),
    /// Octets that are no DNS message.
    Garbage,
    /// From a signed server: the right answer with signatures that do not fit it.
    BadSignature,
}

/// Addresses tried for port 53 by this process.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// The server; it stops when dropped.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    signing: Option<Signing>,
    changes: Changes,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<Data>>,
    /// Zones delegated without a DS record.
    unsigned: BTreeSet<String>,
    misbehaviour: HashMap<(String, Option<RecordType>), Misbehaviour>,
    asked: Vec<(String, RecordType)>,
    over_tcp: usize,
}

/// Lower case, without the trailing dot.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl DnsServer {
    /// Starts one without records.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts one whose answers are signed by a key of its own; see [`trust_anchor`](Self::trust_anchor).
    pub async fn start_signed() -> Self {
        Self::start_with(Some(Signing::new())).await
    }

    async fn start_with(signing: Option<Signing>) -> Self {
        // The same port for both, as clients expect; another process may hold the TCP one, hence the loop.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        Self::serving(udp, tcp, signing)
    }

    /// Starts one on port 53 of an address of the loopback network that nobody else uses, for programs that know no other port. `None`
    /// where that is not permitted.
    pub async fn start_on_port_53() -> Option<Self> {
        for _ in 0..20 {
            let [.., a, b, c] = std::process::id().wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
            let ip = [127, 64 | (a & 63), b, c.clamp(1, 254)];
            match UdpSocket::bind((IpAddr::from(ip), 53)).await {
                Ok(udp) => match TcpListener::bind(udp.local_addr().unwrap()).await {
                    Ok(tcp) => return Some(Self::serving(Arc::new(udp), tcp, None)),
                    Err(_) => continue,
                },
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
                Err(_) => continue,
            }
        }
        None
    }

    fn serving(udp: Arc<UdpSocket>, tcp: TcpListener, signing: Option<Signing>) -> Self {
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared { signing, ..Shared::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, shared.clone()));
        tasks.spawn(serve_tcp(tcp, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    /// Where it listens, UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key of a signed server as a DNSKEY record in zone format: what `dns.trust_anchor` names a file of. Empty for others.
    pub fn trust_anchor(&self) -> &str {
        self.shared.signing.as_ref().map_or("", Signing::anchor)
    }

    /// From now on a signed server treats this name and all below it as a zone delegated without DNSSEC.
    pub fn unsigned_zone(&self, name: &str) -> &Self {
        self.shared.zone.lock().unsigned.insert(key(name));
        self
    }

    /// Adds a record.
    pub fn add(&self, name: &str, data: Data) -> &Self {
        self.shared.zone.lock().records.entry(key(name)).or_default().push(data);
        self
    }

    /// Adds an A or AAAA record.
    pub fn address_of(&self, name: &str, ip: &str) -> &Self {
        self.add(name, Data::Address(ip.parse().unwrap()))
    }

    /// Adds an MX record.
    pub fn mx(&self, name: &str, preference: u16, exchange: &str) -> &Self {
        self.add(name, Data::Mx(preference, exchange.to_owned()))
    }

    /// Adds a TXT record.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        self.add(name, Data::Txt(text.as_bytes().to_vec()))
    }

    /// Adds a CNAME record.
    pub fn cname(&self, name: &str, target: &str) -> &Self {
        self.add(name, Data::Cname(target.to_owned()))
    }

    /// Adds the PTR record of an address.
    pub fn ptr(&self, ip: &str, name: &str) -> &Self {
        let reverse = hickory_proto::rr::Name::from(ip.parse::<IpAddr>().unwrap()).to_ascii();
        self.add(&reverse, Data::Ptr(name.to_owned()))
    }

    /// Adds a TLSA record for a port of a host.
    pub fn tlsa(&self, host: &str, port: u16, usage: u8, selector: u8, matching: u8, data: &[u8]) -> &Self {
        self.add(&format!("_{port}._tcp.{host}"), Data::Tlsa(usage, selector, matching, data.to_vec()))
    }

    /// Forgets all records and misbehaviour of a name.
    pub fn remove(&self, name: &str) -> &Self {
        let mut zone = self.shared.zone.lock();
        zone.records.remove(&key(name));
        zone.misbehaviour.retain(|(n, _), _| *n != key(name));
        drop(zone);
        self
    }

    /// From now on a name misbehaves, for one type or for all.
    pub fn misbehave(&self, name: &str, kind: Option<RecordType>, how: Misbehaviour) -> &Self {
        self.shared.zone.lock().misbehaviour.insert((key(name), kind), how);
        self
    }

    /// From now on a name behaves again.
    pub fn behave(&self, name: &str) -> &Self {
        self.shared.zone.lock().misbehaviour.retain(|(n, _), _| *n != key(name));
        self
    }

    /// How often a question was asked.
    pub fn count(&self, name: &str, kind: RecordType) -> usize {
        self.shared.zone.lock().count(name, kind)
    }

    /// All questions so far, in order.
    pub fn asked(&self) -> Vec<(String, RecordType)> {
        self.shared.zone.lock().asked.clone()
    }

    /// How many questions came over TCP.
    pub fn asked_over_tcp(&self) -> usize {
        self.shared.zone.lock().over_tcp
    }

    /// Waits until a question was asked `at_least` so often.
    pub async fn questions(&self, name: &str, kind: RecordType, at_least: usize) -> usize {
        let look = || Some(self.count(name, kind)).filter(|n| *n >= at_least);
        let state = || format!("questions so far: {:?}", self.asked());
        self.shared.changes.until(&format!("{at_least} questions for {name} {kind}"), look, state).await
    }
}

impl Zone {
    /// The unsigned zone that a name lies in or at.
    fn cut_above(&self, name: &str) -> Option<&str> {
        self.unsigned.iter().map(String::as_str).find(|cut| name == *cut || name.strip_suffix(cut).is_some_and(|rest| rest.ends_with('.')))
    }

    fn count(&self, name: &str, kind: RecordType) -> usize {
        let name = key(name);
        self.asked.iter().filter(|(n, k)| *n == name && *k == kind).count()
    }
}

/// What to send for a question, and after which wait; nothing for silence.
fn respond(shared: &Shared, packet: &[u8], tcp: bool) -> Option<(Vec<u8>, Option<Duration>)> {
    let request = Message::from_vec(packet).ok()?;
    let query = request.queries.first()?;
    let (name, kind) = (key(&query.name().to_ascii()), query.query_type());
    let mut zone = shared.zone.lock();
    zone.asked.push((name.clone(), kind));
    zone.over_tcp += usize::from(tcp);
    let how = [Some(kind), None].into_iter().find_map(|k| zone.misbehaviour.get(&(name.clone(), k)).copied());
    let answer = match how {
        Some(Misbehaviour::Silence) => None,
        Some(Misbehaviour::Garbage) => Some((b"garbage".to_vec(), None)),
        Some(Misbehaviour::Late(wait)) => {
            answer::encode(&zone, shared.signing.as_ref(), &request, None, tcp).map(|bytes| (bytes, Some(wait)))
        }
        other => answer::encode(&zone, shared.signing.as_ref(), &request, other, tcp).map(|bytes| (bytes, None)),
    };
    drop(zone);
    shared.changes.note();
    answer
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; 4096];
    let mut late = JoinSet::new();
    // On Linux an earlier answer to a closed port comes back as an error here; it is not ours.
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        match respond(&shared, &buffer[..length], false) {
            Some((answer, None)) => {
                let _ = socket.send_to(&answer, peer).await;
            }
            Some((answer, Some(wait))) => {
                let socket = socket.clone();
                late.spawn(async move {
                    tokio::time::sleep(wait).await;
                    let _ = socket.send_to(&answer, peer).await;
                });
            }
            None => {}
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            // A client that goes away is no concern of ours.
            let _ = serve_tcp_connection(stream, &shared).await;
        });
    }
}

async fn serve_tcp_connection(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut packet = vec![0; usize::from(length)];
        stream.read_exact(&mut packet).await?;
        let Some((answer, wait)) = respond(shared, &packet, true) else { continue };
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        stream.write_u16(u16::try_from(answer.len()).map_err(std::io::Error::other)?).await?;
        stream.write_all(&answer).await?;
    }
}

#[cfg(test)]
mod tests;
