//! Whether a report could ever reach the envelope sender: its domain exists and takes mail.

use hickory_resolver::proto::rr::{RData, RecordType};
use pillarbox_smtp::{Domain, Reply};

use crate::dns::{Answer, Dns};
use crate::replies;

/// Refuses a domain that is not in DNS, and one with a null MX (RFC 7505 §4.2). What cannot be found out passes.
pub(crate) async fn check(dns: &Dns, domain: &Domain) -> Result<(), Reply> {
    if domain.ip().is_some() {
        return Ok(());
    }
    let name = format!("{domain}.");
    match dns.lookup(&name, RecordType::MX).await {
        Answer::Found(lookup) => {
            let null = lookup
                .answers()
                .iter()
                .filter_map(|r| if let RData::MX(mx) = &r.data { Some(mx) } else { None })
                .all(|mx| mx.exchange.is_root());
            return if null { Err(replies::sender_null_mx(domain)) } else { Ok(()) };
        }
        Answer::NxDomain => return Err(replies::sender_domain_unknown(domain)),
        Answer::Unknown => return Ok(()),
        Answer::NoData => {}
    }
    // No MX: the addresses of the name itself stand for one (RFC 5321 §5.1).
    let (v4, v6) = tokio::join!(dns.lookup(&name, RecordType::A), dns.lookup(&name, RecordType::AAAA));
    match (v4, v6) {
        (Answer::NoData | Answer::NxDomain, Answer::NoData | Answer::NxDomain) => Err(replies::sender_domain_unknown(domain)),
        _ => Ok(()),
    }
}
