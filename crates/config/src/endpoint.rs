//! Addresses in the file: what to listen on, and where mail can be sent to instead of the recipient's MX.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// One entry of `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `"[::]:25"`, `"127.0.0.1:2525"`.
    Tcp(SocketAddr),
    /// `"unix:/path"`.
    Unix(PathBuf),
    /// `"systemd:NAME"`: a socket passed by systemd with `FileDescriptorName=NAME`.
    Systemd(String),
}

/// A host that mail is handed to: `relay.smarthost`, `relay.routes[].via`, `mailbox.deliver_to`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// `"mx"`: the recipient domain's own.
    Mx,
    /// `"smtp://user@host:587"` (STARTTLS) or, with `implicit_tls`, `"smtps://user@host:465"`.
    Smtp {
        /// TLS from the first byte.
        implicit_tls: bool,
        /// Who to log in as.
        user: Option<String>,
        /// Name or address, without brackets.
        host: String,
        /// 25, 587 or 465 where none is written: 465 for smtps, 587 with a user, else 25.
        port: u16,
    },
    /// `"lmtp:HOST:PORT"`.
    LmtpTcp {
        /// Name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `"lmtp:unix:/path"`.
    LmtpUnix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return absolute(path).map(Self::Unix).ok_or_else(|| format!("{text:?} needs an absolute path after \"unix:\""));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            return fine.then(|| Self::Systemd(name.into())).ok_or_else(|| format!("{text:?} needs a name after \"systemd:\""));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("{text:?} is not an address to listen on: write \"[::]:25\", \"192.0.2.1:25\", \"unix:/path\" or \"systemd:NAME\"")
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl FromStr for NextHop {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is not a next hop: write \"smtp://user@host:587\", \"smtps://user@host:465\", \"lmtp:unix:/path\", \"lmtp:host:24\" or \"mx\""
            )
        };
        if text.eq_ignore_ascii_case("mx") {
            return Ok(Self::Mx);
        }
        if let Some(path) = text.strip_prefix("lmtp:unix:") {
            return absolute(path).map(Self::LmtpUnix).ok_or_else(bad);
        }
        if let Some(rest) = text.strip_prefix("lmtp:") {
            let (host, port) = host_port(rest.strip_prefix("//").unwrap_or(rest)).ok_or_else(bad)?;
            return Ok(Self::LmtpTcp { host, port: port.unwrap_or(24) });
        }
        let (implicit_tls, rest) = match (text.strip_prefix("smtps://"), text.strip_prefix("smtp://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(bad()),
        };
        // The user may itself be an address, so the last @ separates it from the host.
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(percent_decode(user).filter(|u| !u.is_empty()).ok_or_else(bad)?), host),
            None => (None, rest),
        };
        if user.as_ref().is_some_and(|u| u.contains(':')) {
            return Err(format!("\"{}\" names a password: keep it in a file and name that instead", mask_url(text)));
        }
        let (host, port) = host_port(host.strip_suffix('/').unwrap_or(host)).ok_or_else(bad)?;
        let usual = match (implicit_tls, &user) {
            (true, _) => 465,
            (false, Some(_)) => 587,
            (false, None) => 25,
        };
        Ok(Self::Smtp { implicit_tls, user, host, port: port.unwrap_or(usual) })
    }
}

fn absolute(path: &str) -> Option<PathBuf> {
    (path.starts_with('/') && path.len() > 1).then(|| path.into())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<IpAddr>().ok()?;
            (inside, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    let port = match port {
        Some(p) => Some(p.parse::<u16>().ok().filter(|&p| p > 0)?),
        None => None,
    };
    named.then(|| (host.to_owned(), port))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

/// A URL with its password, if any, replaced by `***`: what may be shown.
pub fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, tail) =
        rest.split_at(rest.find(['/', '?']).filter(|&at| rest.get(at..).is_some_and(|t| !t.contains('@'))).unwrap_or(rest.len()));
    let masked = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}"),
            None => format!("{user}@{host}"),
        },
        None => authority.to_owned(),
    };
    // libpq also takes `?password=…`.
    let tail = match tail.find("password=") {
        Some(at) => {
            let (head, value) = tail.split_at(at);
            let after = value.find('&').and_then(|end| value.get(end..)).unwrap_or("");
            format!("{head}password=***{after}")
        }
        None => tail.to_owned(),
    };
    format!("{scheme}://{masked}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_come_back_as_written() {
        for text in ["[::]:25", "127.0.0.1:2525", "unix:/run/x", "systemd:smtp"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "25", ":25", "localhost:25", "unix:relative", "systemd:", "127.0.0.1:99999", "*:25"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn next_hops() {
        let smtp = |implicit_tls, user: Option<&str>, host: &str, port| NextHop::Smtp {
            implicit_tls,
            user: user.map(Into::into),
            host: host.into(),
            port,
        };
        assert_eq!("smtp://host".parse(), Ok(smtp(false, None, "host", 25)));
        assert_eq!("smtp://u@host".parse(), Ok(smtp(false, Some("u"), "host", 587)));
        assert_eq!("smtps://u@x.org@host".parse(), Ok(smtp(true, Some("u@x.org"), "host", 465)));
        assert_eq!("smtps://u%40x.org@[::1]:4650".parse(), Ok(smtp(true, Some("u@x.org"), "::1", 4650)));
        assert_eq!("lmtp:unix:/run/d".parse(), Ok(NextHop::LmtpUnix("/run/d".into())));
        assert_eq!("lmtp:localhost:24".parse(), Ok(NextHop::LmtpTcp { host: "localhost".into(), port: 24 }));
        assert_eq!("mx".parse(), Ok(NextHop::Mx));
        for text in ["", "host", "smtp://", "smtp://host:0", "smtp://u:p@host", "http://host", "smtp://[::1", "smtp://a b"] {
            assert!(text.parse::<NextHop>().is_err(), "{text}");
        }
        assert!(!"smtp://u:geheim@host".parse::<NextHop>().unwrap_err().contains("geheim"));
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(mask_url("postgres://u:secret@db/x"), "postgres://u:***@db/x");
        assert_eq!(mask_url("postgres://u:se/cr@et@db/x"), "postgres://u:***@db/x");
        assert_eq!(mask_url("postgres://u@db/x?password=secret&a=b"), "postgres://u@db/x?password=***&a=b");
        assert_eq!(mask_url("smtps://u@h:465"), "smtps://u@h:465");
        assert_eq!(mask_url(""), "");
    }
}
