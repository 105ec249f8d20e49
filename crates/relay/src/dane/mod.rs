//! DANE for SMTP (RFC 7672): which TLSA records bind a mail host's certificate.

mod lookup;
mod verifier;

use hickory_proto::rr::rdata::TLSA;

pub use lookup::{Finding, find};
pub use verifier::DaneVerifier;

/// Records looked at for one host.
const MAX_RECORDS: usize = 32;

/// A usable TLSA record: usage 2 or 3, selector 0 or 1, matching type 0 to 2 with a digest of the right length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsaRecord {
    /// DANE-TA(2) or DANE-EE(3).
    pub usage: Usage,
    /// What part of the certificate is compared.
    pub selector: Selector,
    /// How it is compared.
    pub matching: Matching,
    /// The certificate association data.
    pub data: Vec<u8>,
}

/// Certificate usages that SMTP clients honour (RFC 7672 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// DANE-TA(2): the certificate chains to this authority, and names and dates count.
    TrustAnchor,
    /// DANE-EE(3): this is the host's own certificate or key; names and dates do not count.
    EndEntity,
}

/// RFC 6698 §2.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Cert(0).
    Certificate,
    /// SPKI(1).
    PublicKey,
}

/// RFC 6698 §2.1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matching {
    /// Full(0).
    Exact,
    /// SHA2-256(1).
    Sha256,
    /// SHA2-512(2).
    Sha512,
}

/// The usable records of one host, and the names its certificate may carry under DANE-TA.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsaSet {
    /// After digest agility (RFC 7671 §9).
    pub records: Vec<TlsaRecord>,
    /// Reference identifiers (RFC 7672 §3.2.2): the TLSA base domain first.
    pub names: Vec<String>,
}

impl TlsaRecord {
    /// `None` for a record that RFC 7672 §3.1 calls unusable.
    pub fn usable(tlsa: &TLSA) -> Option<Self> {
        let usage = match u8::from(tlsa.cert_usage) {
            2 => Usage::TrustAnchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let selector = match u8::from(tlsa.selector) {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let (matching, length) = match u8::from(tlsa.matching) {
            0 => (Matching::Exact, None),
            1 => (Matching::Sha256, Some(32)),
            2 => (Matching::Sha512, Some(64)),
            _ => return None,
        };
        let data = tlsa.cert_data.clone();
        let fits = length.map_or(!data.is_empty(), |length| data.len() == length);
        fits.then_some(Self { usage, selector, matching, data })
    }
}

impl std::fmt::Display for TlsaRecord {
    /// As in a zone file: `3 1 1 ABCD…`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usage = match self.usage {
            Usage::TrustAnchor => 2,
            Usage::EndEntity => 3,
        };
        let selector = match self.selector {
            Selector::Certificate => 0,
            Selector::PublicKey => 1,
        };
        let matching = match self.matching {
            Matching::Exact => 0,
            Matching::Sha256 => 1,
            Matching::Sha512 => 2,
        };
        write!(f, "{usage} {selector} {matching} ")?;
        self.data.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// The usable records among `all`, with those of a weaker digest dropped where a stronger one stands beside them (RFC 7671 §9).
pub fn usable(all: &[TLSA]) -> Vec<TlsaRecord> {
    let records: Vec<TlsaRecord> = all.iter().take(MAX_RECORDS).filter_map(TlsaRecord::usable).collect();
    let strongest = |of: &TlsaRecord| {
        let peers = records.iter().filter(|r| (r.usage, r.selector) == (of.usage, of.selector));
        peers.map(|r| r.matching).max()
    };
    records.iter().filter(|r| r.matching == Matching::Exact || Some(r.matching) == strongest(r)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlsa(usage: u8, selector: u8, matching: u8, length: usize) -> TLSA {
        TLSA::new(usage.into(), selector.into(), matching.into(), vec![7; length])
    }

    #[test]
    fn unusable_records_are_left_out() {
        for (record, good) in [
            (tlsa(3, 1, 1, 32), true),
            (tlsa(2, 0, 2, 64), true),
            (tlsa(3, 0, 0, 300), true),
            (tlsa(0, 1, 1, 32), false),
            (tlsa(1, 1, 1, 32), false),
            (tlsa(3, 2, 1, 32), false),
            (tlsa(3, 1, 3, 32), false),
            (tlsa(3, 1, 1, 31), false),
            (tlsa(3, 1, 2, 32), false),
            (tlsa(3, 1, 0, 0), false),
            (tlsa(255, 1, 1, 32), false),
        ] {
            assert_eq!(TlsaRecord::usable(&record).is_some(), good, "{record}");
        }
    }

    #[test]
    fn weaker_digests_yield_to_stronger_ones_of_the_same_kind() {
        let all = [tlsa(3, 1, 1, 32), tlsa(3, 1, 2, 64), tlsa(3, 0, 1, 32), tlsa(3, 1, 0, 10), tlsa(2, 1, 1, 32)];
        let kept: Vec<_> = usable(&all).iter().map(|r| (r.usage, r.selector, r.matching)).collect();
        assert_eq!(
            kept,
            [
                (Usage::EndEntity, Selector::PublicKey, Matching::Sha512),
                (Usage::EndEntity, Selector::Certificate, Matching::Sha256),
                (Usage::EndEntity, Selector::PublicKey, Matching::Exact),
                (Usage::TrustAnchor, Selector::PublicKey, Matching::Sha256),
            ]
        );
    }
}
