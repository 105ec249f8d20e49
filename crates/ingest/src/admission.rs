//! How many connections may be open: in all, and from one client (an IPv4 address or an IPv6 /64).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The server as a whole.
    Server,
    /// This client.
    Client,
}

/// Counts open connections.
#[derive(Debug, Default)]
pub struct Admission {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    clients: HashMap<IpAddr, usize>,
}

/// A place for one connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    client: Option<IpAddr>,
}

impl Admission {
    /// Takes a place, or says what is full. Unix sockets have no client address and count only in total.
    pub fn enter(self: &Arc<Self>, client: Option<IpAddr>, total: usize, per_client: usize) -> Result<Permit, Full> {
        let client = client.map(network_of);
        let mut open = self.open.lock();
        if open.total >= total {
            return Err(Full::Server);
        }
        if let Some(client) = client {
            let count = open.clients.entry(client).or_insert(0);
            if *count >= per_client {
                return Err(Full::Client);
            }
            *count += 1;
        }
        open.total += 1;
        Ok(Permit { admission: self.clone(), client })
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.lock().total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(client) = self.client
            && let Some(count) = open.clients.get_mut(&client)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.clients.remove(&client);
            }
        }
    }
}

/// The network that limits are counted by: the address itself for IPv4, its /64 for IPv6, since one host commands a whole /64.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_the_server_have_bounds_and_places_come_back() {
        let admission = Arc::new(Admission::default());
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff".parse().unwrap();
        let c: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admission.enter(Some(a), 3, 2).unwrap();
        let _second = admission.enter(Some(b), 3, 2).unwrap();
        assert_eq!(admission.enter(Some(a), 3, 2).unwrap_err(), Full::Client);
        let _third = admission.enter(Some(c), 3, 2).unwrap();
        assert_eq!(admission.enter(None, 3, 2).unwrap_err(), Full::Server);
        drop(first);
        assert!(admission.enter(Some(b), 3, 2).is_ok());
        assert_eq!(admission.open(), 2);
    }
}
