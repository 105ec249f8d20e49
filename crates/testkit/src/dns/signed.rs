//! DNSSEC for the scripted server: one zone, the root, signed by one key that tests give out as trust anchor (RFC 4034, RFC 4035).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use hickory_proto::dnssec::crypto::Ed25519SigningKey;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_proto::dnssec::{Algorithm, DnssecSigner, PublicKey as _, SigningKey as _};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};

use super::{Zone, answer, key};

/// The root's key.
pub(super) struct Signing {
    signer: DnssecSigner,
    dnskey: DNSKEY,
    anchor: String,
}

impl Signing {
    pub(super) fn new() -> Self {
        let pkcs8 = Ed25519SigningKey::generate_pkcs8().unwrap();
        let signing = Ed25519SigningKey::from_pkcs8(&pkcs8).unwrap();
        let public = signing.to_public_key().unwrap();
        let dnskey = DNSKEY::from_key(&public);
        let text = base64::engine::general_purpose::STANDARD.encode(public.public_bytes());
        let anchor = format!(". 3600 IN DNSKEY {} 3 {} {text}\n", dnskey.flags(), u8::from(Algorithm::ED25519));
        // Fifty years from 2020: nothing here depends on today.
        let signer = DnssecSigner::new(dnskey.clone(), Box::new(signing), Name::root(), Duration::from_secs(50 * 365 * 86_400));
        Self { signer, dnskey, anchor }
    }

    /// The DNSKEY in zone format.
    pub(super) fn anchor(&self) -> &str {
        &self.anchor
    }

    /// Adds what a validating client needs: the key when asked for it, proofs for what does not exist, signatures over all that belongs to the root.
    pub(super) fn complete(&self, zone: &Zone, message: &mut Message, spoil: bool) {
        let Some(query) = message.queries.first().cloned() else { return };
        if query.query_type() == RecordType::DNSKEY && query.name().is_root() {
            message.authorities.clear();
            message.add_answer(Record::from_rdata(Name::root(), 0, RData::DNSSEC(DNSSECRData::DNSKEY(self.dnskey.clone()))));
        }
        let last = message.answers.iter().rev().find_map(|r| match &r.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        let asked = last.unwrap_or_else(|| query.name().clone());
        let negative = !message.authorities.is_empty() || message.metadata.response_code == ResponseCode::NXDomain;
        let child_side = zone
            .cut_above(&key(&asked.to_ascii()))
            .is_some_and(|cut| cut != key(&asked.to_ascii()) || query.query_type() != RecordType::DS);
        if negative && !child_side {
            for proof in proofs(zone, &asked, message.metadata.response_code) {
                message.add_authority(proof);
            }
        }
        for section in [&mut message.answers, &mut message.authorities] {
            let signatures = self.signatures(zone, section, spoil);
            section.extend(signatures);
        }
    }

    /// A signature for each set of records that is not below a cut.
    fn signatures(&self, zone: &Zone, section: &[Record], spoil: bool) -> Vec<Record> {
        let mut sets: BTreeMap<(Name, u16), RecordSet> = BTreeMap::new();
        for record in section {
            let owner = key(&record.name.to_ascii());
            // At a cut the parent signs DS and NSEC alone.
            let parents = matches!(record.record_type(), RecordType::NSEC | RecordType::DS);
            if zone.cut_above(&owner).is_some_and(|cut| cut != owner || !parents) {
                continue;
            }
            let kind = record.record_type();
            let set = sets.entry((record.name.clone(), kind.into())).or_insert_with(|| RecordSet::new(record.name.clone(), kind, 0));
            set.insert(record.clone(), 0);
        }
        let sign = |set: &RecordSet| {
            let signature = RRSIG::from_rrset(set, DNSClass::IN, rcgen::date_time_ymd(2020, 1, 1), &self.signer).unwrap();
            let signature = if spoil {
                let mut octets = signature.sig().to_vec();
                octets.iter_mut().take(1).for_each(|b| *b ^= 1);
                RRSIG::from_sig(signature.input().clone(), octets)
            } else {
                signature
            };
            Record::from_rdata(set.name().clone(), 0, RData::DNSSEC(DNSSECRData::RRSIG(signature)))
        };
        sets.values().map(sign).collect()
    }
}

/// NSEC records that prove an answer's absence (RFC 4035 §3.1.3).
fn proofs(zone: &Zone, asked: &Name, code: ResponseCode) -> Vec<Record> {
    // Every owner in canonical order, which is how names compare; those below a cut belong to somebody else.
    let mut owners: BTreeMap<Name, Vec<RecordType>> = BTreeMap::new();
    owners.insert(Name::root(), vec![RecordType::SOA, RecordType::NS, RecordType::DNSKEY]);
    for (owner, records) in &zone.records {
        if zone.cut_above(owner).is_none() {
            owners.insert(answer::name(owner), records.iter().map(|data| answer::rdata(data).record_type()).collect());
        }
    }
    for cut in &zone.unsigned {
        owners.insert(answer::name(cut), vec![RecordType::NS]);
    }
    let covering = |name: &Name| -> Option<Record> {
        let (owner, types) = owners.range(..=name.clone()).next_back()?;
        let next = owners.range(name.clone()..).find(|(n, _)| *n > name).map_or_else(Name::root, |(n, _)| n.clone());
        let nsec = NSEC::new_cover_self(next, types.iter().copied());
        Some(Record::from_rdata(owner.clone(), 0, RData::DNSSEC(DNSSECRData::NSEC(nsec))))
    };
    let mut all: Vec<Record> = covering(asked).into_iter().collect();
    if code == ResponseCode::NXDomain {
        // No wildcard at the closest name that exists either.
        let mut encloser = asked.base_name();
        while !encloser.is_root() && !owners.keys().any(|owner| encloser.zone_of(owner)) {
            encloser = encloser.base_name();
        }
        if let Ok(wildcard) = encloser.prepend_label("*") {
            all.extend(covering(&wildcard).filter(|record| !all.contains(record)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;
    use std::sync::Arc;

    use hickory_proto::dnssec::{Proof, TrustAnchors};
    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;

    use super::super::{DnsServer, Misbehaviour};
    use super::*;

    fn resolver(server: &DnsServer) -> TokioResolver {
        let mut name_server = NameServerConfig::udp_and_tcp(server.address().ip());
        for connection in &mut name_server.connections {
            connection.port = server.address().port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
        let mut options = ResolverOpts::default();
        options.validate = true;
        options.cache_size = 0;
        options.attempts = 1;
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .with_trust_anchor(Arc::new(TrustAnchors::from_str(server.trust_anchor()).unwrap()))
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn a_validating_resolver_is_convinced() {
        let server = DnsServer::start_signed().await;
        server.mx("example.test", 10, "mx.example.test").address_of("mx.example.test", "192.0.2.1").tlsa(
            "mx.example.test",
            25,
            3,
            1,
            1,
            &[7; 32],
        );
        server.cname("alias.test", "mx.example.test").unsigned_zone("plain.test").address_of("mx.plain.test", "192.0.2.2");
        let resolver = resolver(&server);
        let proof = async |name: &str, kind: RecordType| -> Proof {
            let found = resolver.lookup(name, kind).await.unwrap_or_else(|e| panic!("{name} {kind}: {e}"));
            found.answers().iter().filter(|r| r.record_type() != RecordType::RRSIG).map(|r| r.proof).min().unwrap()
        };
        assert_eq!(proof("example.test.", RecordType::MX).await, Proof::Secure);
        assert_eq!(proof("_25._tcp.mx.example.test.", RecordType::TLSA).await, Proof::Secure);
        assert_eq!(proof("alias.test.", RecordType::A).await, Proof::Secure);
        assert_eq!(proof("mx.plain.test.", RecordType::A).await, Proof::Insecure);
        for (name, kind) in [
            ("mx.example.test.", RecordType::AAAA),
            ("_26._tcp.mx.example.test.", RecordType::TLSA),
            ("_tcp.mx.example.test.", RecordType::TLSA),
            ("nowhere.test.", RecordType::A),
            ("_25._tcp.mx.plain.test.", RecordType::TLSA),
        ] {
            let error = resolver.lookup(name, kind).await.unwrap_err();
            assert!(error.is_no_records_found() || error.is_nx_domain(), "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn spoilt_signatures_are_bogus() {
        let server = DnsServer::start_signed().await;
        server.address_of("mx.example.test", "192.0.2.1");
        server.misbehave("mx.example.test", None, Misbehaviour::BadSignature);
        let secure = match resolver(&server).lookup("mx.example.test.", RecordType::A).await {
            Ok(found) => found.answers().iter().any(|r| r.proof == Proof::Secure),
            Err(_) => false,
        };
        assert!(!secure);
    }
}
