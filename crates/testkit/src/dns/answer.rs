//! From a question and the script's records to the octets of an answer.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::signed::Signing;
use super::{Data, Misbehaviour, Zone, key};

/// Aliases followed before the rest is left to the client.
const MAX_ALIASES: usize = 16;

/// The answer, ready to send. Over UDP it is truncated when it does not fit what the client said it can take.
pub(super) fn encode(
    zone: &Zone,
    signing: Option<&Signing>,
    request: &Message,
    instead: Option<Misbehaviour>,
    tcp: bool,
) -> Option<Vec<u8>> {
    let query = request.queries.first()?;
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    answer.add_query(query.clone());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.set_version(asked.version());
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        answer.set_edns(edns);
    }
    match instead {
        Some(Misbehaviour::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Misbehaviour::Refused) => answer.metadata.response_code = ResponseCode::Refused,
        Some(Misbehaviour::NxDomain) => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.add_authority(soa(zone, query.name()));
        }
        Some(Misbehaviour::NoData) => {
            answer.add_authority(soa(zone, query.name()));
        }
        _ => fill(zone, &mut answer, query.name(), query.query_type()),
    }
    if let (Some(signing), true) = (signing, request.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok)) {
        signing.complete(zone, &mut answer, instead == Some(Misbehaviour::BadSignature));
    }
    let bytes = answer.to_vec().ok()?;
    let room =
        if tcp { usize::from(u16::MAX) } else { request.edns.as_ref().map_or(512, |e| usize::from(e.max_payload()).clamp(512, 1232)) };
    if bytes.len() <= room {
        return Some(bytes);
    }
    answer.answers.clear();
    answer.authorities.clear();
    answer.metadata.truncation = true;
    answer.to_vec().ok()
}

/// Puts in what is known, over aliases.
fn fill(zone: &Zone, answer: &mut Message, name: &Name, kind: RecordType) {
    let mut name = name.clone();
    for _ in 0..MAX_ALIASES {
        let at = key(&name.to_ascii());
        if kind == RecordType::NS && zone.unsigned.contains(&at) {
            answer.add_answer(Record::from_rdata(name, 0, RData::NS(NS(self::name("ns.test")))));
            return;
        }
        let Some(known) = zone.records.get(&at) else {
            // A name with others below it exists (RFC 8020).
            let below = format!(".{at}");
            if !at.is_empty() && !zone.records.keys().chain(&zone.unsigned).any(|n| *n == at || n.ends_with(&below)) {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            answer.add_authority(soa(zone, &name));
            return;
        };
        let mut next = None;
        let before = answer.answers.len();
        for data in known {
            let rdata = rdata(data);
            if let RData::CNAME(target) = &rdata {
                if kind != RecordType::CNAME {
                    next = Some(target.0.clone());
                }
                answer.add_answer(Record::from_rdata(name.clone(), 0, rdata));
            } else if rdata.record_type() == kind {
                answer.add_answer(Record::from_rdata(name.clone(), 0, rdata));
            }
        }
        match next {
            Some(target) => name = target,
            None => {
                if answer.answers.len() == before {
                    answer.add_authority(soa(zone, &name));
                }
                return;
            }
        }
    }
}

/// For negative answers (RFC 2308); not to be remembered. It belongs to the zone of the name.
fn soa(zone: &Zone, asked: &Name) -> Record {
    let owner = zone.cut_above(&key(&asked.to_ascii())).map_or_else(Name::root, name);
    Record::from_rdata(owner, 0, RData::SOA(SOA::new(name("ns.test"), name("hostmaster.test"), 1, 60, 60, 60, 0)))
}

/// A name from a script.
pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_else(|e| panic!("{text:?} is no name for a test's DNS: {e}"));
    name.set_fqdn(true);
    name
}

/// A record's data from a script.
pub(super) fn rdata(data: &Data) -> RData {
    match data {
        Data::Address(IpAddr::V4(ip)) => RData::A(A(*ip)),
        Data::Address(IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
        Data::Mx(preference, exchange) => RData::MX(MX::new(*preference, name(exchange))),
        Data::Txt(text) => RData::TXT(TXT::from_bytes(text.chunks(255).collect())),
        Data::Cname(target) => RData::CNAME(CNAME(name(target))),
        Data::Ptr(target) => RData::PTR(PTR(name(target))),
        Data::Srv(priority, weight, port, target) => RData::SRV(SRV::new(*priority, *weight, *port, name(target))),
        Data::Tlsa(usage, selector, matching, data) => {
            RData::TLSA(TLSA::new((*usage).into(), (*selector).into(), (*matching).into(), data.clone()))
        }
    }
}
