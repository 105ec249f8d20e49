//! The name a host must show in its certificate, and that SNI tells it.

use std::net::IpAddr;

use rustls::pki_types::ServerName;

/// From a host name or an address, with or without brackets. A name that TLS cannot carry falls back to the address, so
/// that opportunistic TLS still works.
pub fn server_name(host: &str, address: Option<IpAddr>) -> Option<ServerName<'static>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let bare = bare.strip_prefix("IPv6:").unwrap_or(bare);
    let name = ServerName::try_from(bare.trim_end_matches('.').to_owned()).ok();
    name.or_else(|| address.map(|ip| ServerName::IpAddress(ip.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_addresses() {
        assert!(matches!(server_name("[192.0.2.1]", None), Some(ServerName::IpAddress(_))));
        assert!(matches!(server_name("[IPv6:2001:db8::1]", None), Some(ServerName::IpAddress(_))));
        assert!(matches!(server_name("mx.test.", None), Some(ServerName::DnsName(_))));
        assert_eq!(server_name("a b", None), None);
        assert!(server_name("a b", Some(IpAddr::from([192, 0, 2, 1]))).is_some());
    }
}
