//! Addresses as the configuration writes them, bound to sockets.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Neither an address, `unix:` nor `systemd:`.
    #[error("{0:?} is no address to listen on: write \"[::]:25\", \"127.0.0.1:2525\", \"unix:/path\" or \"systemd:NAME\"")]
    Syntax(String),
    /// The system refuses.
    #[error("cannot listen on {address}: {why}")]
    System {
        /// As configured.
        address: String,
        /// The system's words, with a hint where one is known.
        why: String,
    },
    /// systemd passed no socket of that name.
    #[error("systemd passed no socket named {0:?}: add FileDescriptorName={0} to the socket unit, or listen on an address")]
    NotPassed(String),
}

/// A socket bound before the runtime starts, while the process may still be root.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix, with its path.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// A listening socket inside the runtime.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix, with the path to remove at the end.
    Unix(UnixListener, PathBuf),
}

/// A connection as accepted.
#[derive(Debug)]
pub enum Accepted {
    /// TCP with the peer's address.
    Tcp(TcpStream, SocketAddr),
    /// Unix.
    Unix(UnixStream),
}

/// Sockets that systemd passed, by name (`LISTEN_FDNAMES`).
pub type Passed = Vec<(String, std::net::TcpListener)>;

impl Socket {
    /// Binds one configured address.
    pub fn bind(address: &str, passed: &mut Passed) -> Result<Self, BindError> {
        let system = |e: io::Error| BindError::System { address: address.to_owned(), why: explain(&e) };
        if let Some(path) = address.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            remove_dead_socket(&path).map_err(system)?;
            let listener = std::os::unix::net::UnixListener::bind(&path).map_err(system)?;
            // The folder decides who gets in, as it does for Dovecot's and Postfix's sockets.
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).map_err(system)?;
            listener.set_nonblocking(true).map_err(system)?;
            return Ok(Self::Unix(listener, path));
        }
        if let Some(name) = address.strip_prefix("systemd:") {
            let at = passed.iter().position(|(n, _)| n == name).ok_or_else(|| BindError::NotPassed(name.to_owned()))?;
            let (_, socket) = passed.swap_remove(at);
            socket.set_nonblocking(true).map_err(system)?;
            return Ok(Self::Tcp(socket));
        }
        let socket_address: SocketAddr = address.parse().map_err(|_| BindError::Syntax(address.to_owned()))?;
        listen_tcp(socket_address).map(Self::Tcp).map_err(system)
    }

    /// Joins the runtime; must be called inside one.
    pub fn into_listener(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => {
                // Without this, small replies wait for the peer's delayed acknowledgements. Connections have it from their listener.
                rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
                TcpListener::from_std(socket).map(Listener::Tcp)
            }
            Self::Unix(socket, path) => UnixListener::from_std(socket).map(|listener| Listener::Unix(listener, path)),
        }
    }
}

impl Listener {
    /// The next connection.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, peer))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }

    /// Where it really listens: `127.0.0.1:40123` for port 0, `unix:/path`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|a| a.to_string()).unwrap_or_default(),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let SocketAddr::V6(v6) = address {
        // "[::]" serves both families, as administrators expect of Postfix and Dovecot; a specific address serves its own.
        sockopt::set_ipv6_v6only(&socket, !v6.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    // Room for a burst of connections; the kernel caps it at net.core.somaxconn.
    rustix::net::listen(&socket, 4096)?;
    Ok(std::net::TcpListener::from(socket))
}

/// Removes a socket file that nobody serves. A live one stays, so that bind fails and says so.
fn remove_dead_socket(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket")),
            Err(_) => std::fs::remove_file(path),
        },
        _ => Ok(()),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{error}; another server has the port (see: ss -ltnp)"),
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need root, CAP_NET_BIND_SERVICE or a systemd socket unit")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: &str) -> Result<Socket, BindError> {
        Socket::bind(address, &mut Vec::new())
    }

    #[tokio::test]
    async fn addresses_are_bound_and_named() {
        let tcp = bind("127.0.0.1:0").unwrap().into_listener().unwrap();
        assert!(!tcp.address().ends_with(":0"));
        let taken = bind(&tcp.address()).unwrap_err().to_string();
        assert!(taken.contains("ss -ltnp"), "{taken}");
        assert!(matches!(bind("port 25"), Err(BindError::Syntax(_))));
        assert!(matches!(bind("systemd:smtp"), Err(BindError::NotPassed(_))));
    }

    #[tokio::test]
    async fn connections_do_not_hold_small_replies_back() {
        let listener = bind("127.0.0.1:0").unwrap().into_listener().unwrap();
        let _client = TcpStream::connect(listener.address()).await.unwrap();
        let Accepted::Tcp(stream, _) = listener.accept().await.unwrap() else { panic!("not TCP") };
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lmtp.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = format!("unix:{}", path.display());
        let live = bind(&address).unwrap().into_listener().unwrap();
        assert!(bind(&address).is_err());
        drop(live);
        assert!(!path.exists());
    }
}
