//! A name server on a loopback port that answers from a table.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

#[derive(Default)]
struct Table {
    records: HashMap<(Name, RecordType), Vec<RData>>,
    failing: Vec<Name>,
    asked: Vec<(Name, RecordType)>,
}

/// The server; it stops with the test's runtime.
pub(crate) struct FakeDns {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

impl FakeDns {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let table = Arc::new(Mutex::new(Table::default()));
        let shared = table.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let Ok(request) = Message::from_vec(&buffer[..n]) else { continue };
                let answer = answer(&mut shared.lock(), &request);
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { address, table }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds `zone`-like lines: `NAME MX 10 host`, `NAME A 192.0.2.1`, `NAME AAAA ::1`, `NAME CNAME other`, `NAME TXT text`.
    pub(crate) fn add(&self, line: &str) -> &Self {
        let mut words = line.splitn(3, ' ');
        let (owner, kind, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (kind, data) = match kind {
            "MX" => {
                let (preference, host) = rest.split_once(' ').unwrap();
                (RecordType::MX, RData::MX(MX::new(preference.parse().unwrap(), name(host))))
            }
            "A" => (RecordType::A, RData::A(A(rest.parse().unwrap()))),
            "AAAA" => (RecordType::AAAA, RData::AAAA(AAAA(rest.parse().unwrap()))),
            "CNAME" => (RecordType::CNAME, RData::CNAME(CNAME(name(rest)))),
            "TXT" => (RecordType::TXT, RData::TXT(TXT::new(vec![rest.to_owned()]))),
            other => panic!("unknown type {other}"),
        };
        self.table.lock().records.entry((name(owner), kind)).or_default().push(data);
        self
    }

    /// SERVFAIL for this name.
    pub(crate) fn fail(&self, owner: &str) -> &Self {
        self.table.lock().failing.push(name(owner));
        self
    }

    /// How often this question came.
    pub(crate) fn asked(&self, owner: &str, kind: RecordType) -> usize {
        self.table.lock().asked.iter().filter(|asked| **asked == (name(owner), kind)).count()
    }
}

fn answer(table: &mut Table, request: &Message) -> Message {
    let mut answer = Message::response(request.id, OpCode::Query);
    let Some(query) = request.queries.first().cloned() else { return answer };
    answer.add_query(query.clone());
    table.asked.push((query.name().clone(), query.query_type()));
    if table.failing.contains(query.name()) {
        answer.metadata.response_code = ResponseCode::ServFail;
        return answer;
    }
    let mut at = query.name().clone();
    for _ in 0..8 {
        if let Some(found) = table.records.get(&(at.clone(), query.query_type())) {
            answer.add_answers(found.iter().map(|data| Record::from_rdata(at.clone(), 60, data.clone())));
            return answer;
        }
        match table.records.get(&(at.clone(), RecordType::CNAME)).and_then(|found| found.first()) {
            Some(RData::CNAME(target)) => {
                answer.add_answer(Record::from_rdata(at.clone(), 60, RData::CNAME(target.clone())));
                at = target.0.clone();
            }
            _ => break,
        }
    }
    if !table.records.keys().any(|(owner, _)| *owner == at) {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer
}
