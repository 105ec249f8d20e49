//! All sockets of the configuration, bound while the process may still be root.

use anyhow::Context;
use pillarbox_config::Config;
use pillarbox_ingest::Socket;
use pillarbox_ingest::listener::Passed;

/// A bound socket with the name of its service.
pub(crate) struct Bound {
    /// `smtp`, `submission`, `submissions`, `lmtp`, `http`, `https` or `metrics`.
    pub(crate) service: &'static str,
    pub(crate) socket: Socket,
}

/// Binds everything that `[listen]` names.
pub(crate) fn bind(config: &Config) -> anyhow::Result<Vec<Bound>> {
    let mut passed = passed_by_systemd()?;
    let mut bound = Vec::new();
    for (service, addresses) in config.listen.services() {
        for address in addresses {
            let socket = Socket::bind(address, &mut passed).with_context(|| format!("listen.{service}"))?;
            bound.push(Bound { service, socket });
        }
    }
    Ok(bound)
}

/// `LISTEN_FDS` with their names from `LISTEN_FDNAMES`; sockets without a name are called by their number, from 0.
fn passed_by_systemd() -> anyhow::Result<Passed> {
    let names: Vec<String> = std::env::var("LISTEN_FDNAMES").unwrap_or_default().split(':').map(str::to_owned).collect();
    let mut fds = listenfd::ListenFd::from_env();
    let mut passed = Vec::new();
    for at in 0..fds.len() {
        if let Some(socket) = fds.take_tcp_listener(at).context("a socket that systemd passed is not usable")? {
            let name = names.get(at).filter(|n| !n.is_empty()).cloned().unwrap_or_else(|| at.to_string());
            passed.push((name, socket));
        }
    }
    Ok(passed)
}
