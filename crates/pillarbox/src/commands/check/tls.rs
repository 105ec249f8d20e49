//! Certificates: when they end, whether others can verify them, and whether what is served is what lies on disk.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use pillarbox_config::Config;
use pillarbox_control::Client;
use pillarbox_control::api::{CertificateInfo, Probe, StatusInfo};
use pillarbox_control::dns::certificate_file;
use pillarbox_relay::tls::{Policy, TlsClients, server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::socket_addresses;
use crate::failure::Failure;

/// Longest wait for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// An authority's certificate that ends within this should have been renewed.
const SOON: time::Duration = time::Duration::days(14);

pub(super) async fn probes(config: &Config, api: &Client) -> Result<Vec<Probe>, Failure> {
    let status: StatusInfo = api.get("/v1/status").await?;
    let hostname = config.hostname();
    let mut probes = Vec::new();
    if status.running {
        probes.extend(status.certificates.iter().map(|c| expiry(c, OffsetDateTime::now_utc())));
        let covers = |c: &CertificateInfo| c.names.iter().any(|n| matches(n, &hostname));
        if !status.certificates.is_empty() && !status.certificates.iter().any(covers) {
            probes.push(Probe::fail(
                "tls name",
                format!("no certificate is for {hostname}"),
                "order one for the hostname, or correct hostname",
            ));
        }
    }
    probes.extend(served(config, &hostname, &status).await);
    Ok(probes)
}

/// RFC 6125 §6.4.3: a star stands for one label.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => name.split_once('.').is_some_and(|(_, above)| above.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

fn expiry(certificate: &CertificateInfo, now: OffsetDateTime) -> Probe {
    let name = format!("tls {}", certificate.name);
    let Ok(end) = OffsetDateTime::parse(&certificate.not_after, &Rfc3339) else {
        return Probe::warn(name, format!("its end {} cannot be read", certificate.not_after), "");
    };
    let found = format!("until {}", certificate.not_after);
    let fix = "renew it (`pillarbox tls renew` with ACME) and reload";
    match end - now {
        left if left.is_negative() => Probe::fail(name, format!("ended {}", certificate.not_after), fix),
        _ if certificate.self_signed => Probe::warn(
            name,
            format!("{found}, signed by itself: mail programs warn of it"),
            "set tls.acme to order one that everybody trusts, or name your own in tls.certificate",
        ),
        left if left < SOON => Probe::fail(name, format!("{found}, in {} days", left.whole_days()), fix),
        _ => Probe::ok(name, found),
    }
}

/// Connects to our own TLS port and compares.
async fn served(config: &Config, hostname: &str, status: &StatusInfo) -> Option<Probe> {
    let configured = socket_addresses(&config.listen.submissions);
    let bound = status.listeners.iter().filter(|l| l.name == "submissions").filter_map(|l| l.address.parse::<SocketAddr>().ok()).next();
    let address = reachable(bound.or_else(|| configured.first().copied())?);
    if !status.running {
        return None;
    }
    let name = "tls served";
    let chain = match tokio::time::timeout(HANDSHAKE, handshake(address, hostname)).await {
        Ok(Ok(chain)) => chain,
        Ok(Err(why)) => return Some(Probe::fail(name, format!("{address}: {why}"), "see the daemon's log")),
        Err(_) => return Some(Probe::fail(name, format!("{address}: no handshake within 10 s"), "see the daemon's log")),
    };
    let file = certificate_file(config);
    let on_disk = std::fs::read(&file).ok().and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
    Some(match on_disk {
        // That others cannot verify a self-signed one has been said already.
        Some(on_disk) if chain.first() == Some(&on_disk) && status.certificates.iter().all(|c| c.self_signed) => {
            Probe::ok(name, "what is served is what lies on disk")
        }
        Some(on_disk) if chain.first() == Some(&on_disk) => verified(config, name, &chain, hostname),
        Some(_) => {
            let found = format!("{address} serves another certificate than {}", file.display());
            Probe::fail(name, found, "reload: `systemctl reload pillarbox`, and see the log if it stays so")
        }
        None => Probe::warn(name, format!("{} cannot be read to compare", file.display()), "run this as root or as the daemon's user"),
    })
}

/// As a mail program would see it.
fn verified(config: &Config, name: &str, chain: &[CertificateDer<'_>], hostname: &str) -> Probe {
    let clients = TlsClients::new(&config.relay.ca_file).ok();
    let server = ServerName::try_from(hostname.to_owned()).ok();
    match (clients, server) {
        (Some(clients), Some(server)) => match clients.would_verify(chain, &server) {
            Ok(()) => Probe::ok(name, "what is served is what lies on disk, and everybody can verify it"),
            Err(error) => Probe::warn(
                name,
                format!("what is served is what lies on disk, but others cannot verify it: {error}"),
                "set tls.acme, or put the intermediate certificates into tls.certificate",
            ),
        },
        _ => Probe::ok(name, "what is served is what lies on disk"),
    }
}

/// A socket bound to every address is reached on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn handshake(address: SocketAddr, hostname: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let clients = TlsClients::new(std::path::Path::new("")).map_err(|e| e.to_string())?;
    let config = clients.config(&Policy::Opportunistic).map_err(|e| e.to_string())?;
    let name = server_name(hostname, Some(address.ip())).ok_or("the hostname cannot be asked for")?;
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| e.to_string())?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|c| c.clone().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_control::api::Grade;

    #[test]
    fn ends_are_told_in_time() {
        let now = OffsetDateTime::parse("2026-11-24T00:00:00Z", &Rfc3339).unwrap();
        let grade = |not_after: &str, self_signed| {
            let info = CertificateInfo { name: "x".into(), not_after: not_after.into(), self_signed, names: vec![] };
            expiry(&info, now).grade
        };
        assert_eq!(grade("2027-02-01T00:00:00Z", false), Grade::Ok);
        assert_eq!(grade("2026-12-01T00:00:00Z", false), Grade::Fail);
        assert_eq!(grade("2026-11-23T00:00:00Z", false), Grade::Fail);
        assert_eq!(grade("2026-12-01T00:00:00Z", true), Grade::Warn);
        assert_eq!(grade("2026-11-01T00:00:00Z", true), Grade::Fail);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(matches("*.example.org", "mail.example.org"));
        assert!(!matches("*.example.org", "a.mail.example.org"));
        assert!(matches("MAIL.example.org", "mail.example.org"));
    }
}
