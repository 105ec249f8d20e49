//! Finding the TLSA records of a mail host (RFC 7672 §2.2): only where DNSSEC proves every step to them.

use std::sync::Arc;

use pillarbox_smtp::Reply;

use super::{TlsaSet, usable};
use crate::dns::hosts::MailHost;
use crate::dns::{Answer, Resolver, fqdn};
use crate::replies;

/// What DANE says about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No secure TLSA records: DANE has no say.
    None,
    /// Usable records.
    Usable(Arc<TlsaSet>),
    /// Secure records, none of them usable: TLS is mandatory, authentication is not possible (RFC 7672 §2.2).
    Unusable,
    /// The look-up failed or validation did: the host must not be used now (RFC 7672 §2.1.2).
    Failed(Reply),
}

/// Looks up the records of `host`, reached by secure MX records for `domain`, at `port`.
///
/// Where CNAMEs led from the host's name by secure steps, the name they led to is asked first, then the name itself.
pub async fn find(resolver: &Resolver, host: &MailHost, domain: &str, port: u16) -> Finding {
    if !host.secure {
        return Finding::None;
    }
    for base in host.expanded.iter().chain([&host.name]) {
        let Some(name) = fqdn(&format!("_{port}._tcp.{base}")) else { continue };
        match resolver.tlsa(&name).await {
            Answer::Secure(records) => {
                let records = usable(&records);
                if records.is_empty() {
                    return Finding::Unusable;
                }
                let mut names = vec![base.clone()];
                for other in [domain, host.name.as_str()] {
                    if !names.iter().any(|n| n == other) {
                        names.push(other.to_owned());
                    }
                }
                return Finding::Usable(Arc::new(TlsaSet { records, names }));
            }
            Answer::Insecure(_) | Answer::NoData | Answer::NxDomain => {}
            Answer::Bogus => return Finding::Failed(replies::bogus(&format!("_{port}._tcp.{base}"))),
            Answer::TempFail(why) => return Finding::Failed(replies::dns_failure(&format!("_{port}._tcp.{base}"), &why)),
        }
    }
    Finding::None
}
