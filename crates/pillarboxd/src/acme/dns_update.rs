//! TXT records for dns-01 by dynamic update (RFC 2136), signed with a TSIG key (RFC 8945) as BIND, Knot, PowerDNS and others take it.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};
use base64::Engine;
use hickory_proto::op::{Message, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType, TSigner};
use pillarbox_config::Acme;
use pillarbox_screen::Dns;
use pillarbox_screen::dns::Answer;
use time::OffsetDateTime;

use super::question::{ask, exchange};

/// Seconds that resolvers may keep the record.
const TTL: u32 = 60;
/// Seconds that the clocks of both servers may differ (RFC 8945 §10).
const FUDGE: u16 = 300;
/// Aliases that are followed from `_acme-challenge.NAME` to where the record is kept.
const ALIASES: usize = 8;

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// Adds or removes one TXT record at `tls.acme.dns_update_server`.
pub(super) async fn change(acme: &Acme, dns: &Dns, change: Change, name: &str, value: &str) -> anyhow::Result<()> {
    let server = address(&acme.dns_update_server).await?;
    let key = read_key(&acme.dns_update_key_file).await?;
    let name = followed(dns, name).await?;
    let zone = zone(server, &name).await?;
    let mut set = RecordSet::with_ttl(name.clone(), RecordType::TXT, TTL);
    set.set_dns_class(DNSClass::IN);
    set.insert(Record::from_rdata(name.clone(), TTL, RData::TXT(TXT::new(vec![value.to_owned()]))), 0);
    let message = match change {
        Change::Add => update_message::append(set, zone.clone(), false, false),
        Change::Remove => update_message::delete_by_rdata(set, zone.clone(), false),
    };
    send(server, message, key.as_ref()).await.with_context(|| format!("the update of {name} in the zone {zone} failed"))
}

/// Sends an update, signed where there is a key, and verifies the answer with the same key.
async fn send(server: SocketAddr, mut message: Message, key: Option<&TSigner>) -> anyhow::Result<()> {
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default();
    let verifier = match key {
        Some(key) => message.finalize(key, now)?,
        None => None,
    };
    let octets = exchange(server, &message).await?;
    let answer = Message::from_vec(&octets)?;
    if answer.response_code != ResponseCode::NoError {
        // A refused key is answered without a signature (RFC 8945 §5.3.2), so nothing could be verified here.
        let key = answer.signature().and_then(|tsig| tsig.data.error.as_ref()).map(|error| format!(", {error:?}")).unwrap_or_default();
        bail!("{server} says {}{key}: {}", answer.response_code, meaning(answer.response_code));
    }
    if let Some(mut verifier) = verifier {
        verifier.verify(&octets).map_err(|error| anyhow::anyhow!("the answer of {server} is not signed with our key: {error}"))?;
    }
    Ok(())
}

fn meaning(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::Refused => "the key may not change this record; see update-policy or allow-update there",
        ResponseCode::NotAuth | ResponseCode::BADSIG | ResponseCode::BADKEY => {
            "it does not know the key (name, algorithm, secret, and the clocks of both must agree), or does not serve the zone"
        }
        ResponseCode::NotZone => "the record lies outside the zone",
        ResponseCode::NotImp => "it takes no updates",
        ResponseCode::ServFail => "see its log; often it may not write its journal file",
        _ => "see its log",
    }
}

/// `host:port` as an address; a name is looked up by the system.
async fn address(server: &str) -> anyhow::Result<SocketAddr> {
    let found = tokio::net::lookup_host(server).await.ok().and_then(|mut found| found.next());
    found.with_context(|| format!("tls.acme.dns_update_server {server:?} has no address"))
}

/// `name:algorithm:base64` from the first line of the file; no file means no signature.
async fn read_key(file: &Path) -> anyhow::Result<Option<TSigner>> {
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = tokio::fs::read_to_string(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    parse_key(&text).map(Some).with_context(|| format!("{} holds no TSIG key (name:algorithm:base64)", file.display()))
}

fn parse_key(text: &str) -> anyhow::Result<TSigner> {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut parts = line.trim().splitn(3, ':').map(str::trim);
    let (Some(name), Some(algorithm), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("there are not three parts");
    };
    let algorithm = match algorithm.to_ascii_lowercase().as_str() {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        _ => bail!("the algorithm is none of hmac-sha256, hmac-sha384, hmac-sha512"),
    };
    let secret = base64::engine::general_purpose::STANDARD.decode(secret).ok().context("the secret is not base64")?;
    let name = Name::from_str(name).ok().context("the name is no domain name")?;
    Ok(TSigner::new(secret, algorithm, name, FUDGE)?)
}

/// Where the record is kept: the name itself, or what it is an alias of (so a zone that takes no updates can point to one that does).
async fn followed(dns: &Dns, name: &str) -> anyhow::Result<Name> {
    let mut name = Name::from_str(name)?;
    name.set_fqdn(true);
    for _ in 0..ALIASES {
        let Answer::Found(lookup) = dns.lookup_name(name.clone(), RecordType::CNAME).await else { break };
        let target = lookup.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == name => Some(target.0.clone()),
            _ => None,
        });
        match target {
            Some(target) => name = target,
            None => break,
        }
    }
    Ok(name)
}

/// The zone of the server that holds a name, by the SOA record that it answers with.
async fn zone(server: SocketAddr, name: &Name) -> anyhow::Result<Name> {
    let answer = ask(server, name, RecordType::SOA).await?;
    let mut sections = answer.answers.iter().chain(answer.authorities.iter());
    let zone =
        sections.find(|record| record.record_type() == RecordType::SOA && record.name.zone_of(name)).map(|record| record.name.clone());
    zone.with_context(|| format!("{server} serves no zone with {name} ({})", answer.response_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_and_nonsense_named() {
        let key = parse_key("\n acme.example:hmac-sha512:c2VjcmV0c2VjcmV0\n").unwrap();
        assert_eq!(key.signer_name().to_ascii(), "acme.example.");
        assert_eq!(key.key(), b"secretsecret");
        for (text, why) in [
            ("", "three parts"),
            ("acme.example:c2VjcmV0", "three parts"),
            ("acme.example:hmac-md5:c2VjcmV0", "algorithm"),
            ("acme.example:hmac-sha256:no base64!", "base64"),
        ] {
            let error = parse_key(text).err().unwrap().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
