//! The PROXY protocol, versions 1 and 2: who the client behind a balancer is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest v1 header with its CRLF, by the protocol's own arithmetic.
const V1_MAX: usize = 107;
/// Longest v2 header taken; addresses need 52 octets, the rest is extensions.
const V2_MAX: usize = 4096;
/// What every v2 header begins with.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// The client and the address it connected to.
    Client {
        /// Who connected to the balancer.
        source: SocketAddr,
        /// Where.
        destination: SocketAddr,
    },
    /// The balancer speaks for itself (health checks).
    Local,
}

/// Why there is no usable header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection failed or ended.
    #[error("the connection ended within the PROXY header: {0}")]
    Io(#[from] io::Error),
    /// Something else than a header came.
    #[error("no valid PROXY header came from a network that must send one: {0}")]
    Malformed(String),
}

/// Reads exactly one header and not an octet more, so that what follows belongs to TLS or SMTP.
pub async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxyError> {
    let mut header = vec![0u8; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        let mut fixed = [0u8; 4];
        stream.read_exact(&mut fixed).await?;
        header.extend_from_slice(&fixed);
        let [_, _, high, low] = fixed;
        let rest = usize::from(u16::from_be_bytes([high, low]));
        if rest > V2_MAX {
            return Err(ProxyError::Malformed(format!("a v2 header of {rest} octets")));
        }
        let start = header.len();
        header.resize(start + rest, 0);
        stream.read_exact(header.get_mut(start..).unwrap_or_default()).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            if header.len() >= V1_MAX {
                return Err(ProxyError::Malformed("a v1 header without an end".into()));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(ProxyError::Malformed("the first octets are no PROXY header".into()));
    }
    parse(&header)
}

/// Parses a whole header.
pub fn parse(header: &[u8]) -> Result<Proxied, ProxyError> {
    let malformed = |e: &dyn std::fmt::Display| ProxyError::Malformed(e.to_string());
    let pair =
        |a: IpAddr, ap: u16, b: IpAddr, bp: u16| Proxied::Client { source: SocketAddr::new(a, ap), destination: SocketAddr::new(b, bp) };
    match ppp::HeaderResult::parse(header) {
        ppp::HeaderResult::V1(result) => match result.map_err(|e| malformed(&e))?.addresses {
            ppp::v1::Addresses::Tcp4(a) => {
                Ok(pair(a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port))
            }
            ppp::v1::Addresses::Tcp6(a) => {
                Ok(pair(a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port))
            }
            ppp::v1::Addresses::Unknown => Ok(Proxied::Local),
        },
        ppp::HeaderResult::V2(result) => {
            let header = result.map_err(|e| malformed(&e))?;
            if header.command == ppp::v2::Command::Local {
                return Ok(Proxied::Local);
            }
            match header.addresses {
                ppp::v2::Addresses::IPv4(a) => {
                    Ok(pair(a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port))
                }
                ppp::v2::Addresses::IPv6(a) => {
                    Ok(pair(a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port))
                }
                ppp::v2::Addresses::Unspecified | ppp::v2::Addresses::Unix(_) => Ok(Proxied::Local),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn read(bytes: &[u8]) -> (Result<Proxied, ProxyError>, Vec<u8>) {
        let mut stream = bytes;
        let result = read_header(&mut stream).await;
        (result, stream.to_vec())
    }

    #[tokio::test]
    async fn both_versions_are_read_and_nothing_behind_them() {
        let (v1, rest) = read(b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 25\r\nEHLO x\r\n").await;
        let expected = Proxied::Client { source: "192.0.2.7:5555".parse().unwrap(), destination: "198.51.100.1:25".parse().unwrap() };
        assert_eq!(v1.unwrap(), expected);
        assert_eq!(rest, b"EHLO x\r\n");
        let mut v2 = V2_SIGNATURE.to_vec();
        v2.extend_from_slice(&[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x15, 0xb3, 0, 25]);
        v2.extend_from_slice(b"EHLO");
        let (v2, rest) = read(&v2).await;
        assert_eq!(v2.unwrap(), expected);
        assert_eq!(rest, b"EHLO");
        assert_eq!(read(b"PROXY UNKNOWN\r\n").await.0.unwrap(), Proxied::Local);
    }

    #[tokio::test]
    async fn garbage_is_refused_with_bounded_reading() {
        assert!(read(b"EHLO client.example\r\n").await.0.is_err());
        assert!(read(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 4000]].concat()).await.0.is_err());
        let mut huge = V2_SIGNATURE.to_vec();
        huge.extend_from_slice(&[0x21, 0x11, 0xff, 0xff]);
        huge.resize(70000, 0);
        assert!(read(&huge).await.0.is_err());
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
