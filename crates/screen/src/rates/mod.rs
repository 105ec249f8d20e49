//! How often somebody may come: token buckets in bounded memory, one for each client network, sender or recipient.

mod buckets;
mod user;

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use pillarbox_config::Rate;
use pillarbox_smtp::Mailbox;

use buckets::Buckets;

pub use user::UserRates;
pub(crate) use user::is_correspondent;

/// One limit, kept per client: an IPv4 address or an IPv6 /64.
pub struct ClientRate(Buckets<IpAddr>);

impl ClientRate {
    /// A limit; [`Rate::NONE`] never refuses.
    pub fn new(rate: Rate) -> Self {
        Self(Buckets::new(rate))
    }

    /// Takes one token. `false`: there is none.
    pub fn take(&self, client: IpAddr) -> bool {
        self.0.take(network(client))
    }
}

/// One limit, kept per address. Addresses are remembered by a keyed hash: strangers choose them, and may choose them long.
pub struct AddressRate {
    buckets: Buckets<u64>,
    hash: RandomState,
}

impl AddressRate {
    /// A limit; [`Rate::NONE`] never refuses.
    pub fn new(rate: Rate) -> Self {
        Self { buckets: Buckets::new(rate), hash: RandomState::new() }
    }

    /// Takes one token. `false`: there is none.
    pub fn take(&self, address: &Mailbox) -> bool {
        !self.buckets.is_limited() || self.buckets.take(self.hash.hash_one(address.key()))
    }
}

/// What one client is for limits: the IPv4 address, or the /64 that one IPv6 customer holds at least.
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: Rate = Rate { count: 1, period: Duration::from_secs(3600) };

    #[test]
    fn one_ipv6_customer_is_one_client() {
        let limit = ClientRate::new(ONE);
        assert!(limit.take("2001:db8::1".parse().unwrap()));
        assert!(!limit.take("2001:db8::2".parse().unwrap()));
        assert!(limit.take("2001:db8:0:1::1".parse().unwrap()));
        assert!(limit.take("192.0.2.1".parse().unwrap()));
        assert!(!limit.take("::ffff:192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn one_address_is_one_however_it_is_spelled() {
        let limit = AddressRate::new(ONE);
        assert!(limit.take(&"bob@example.org".parse().unwrap()));
        assert!(!limit.take(&"Bob@EXAMPLE.org".parse().unwrap()));
        assert!(limit.take(&"bob@example.net".parse().unwrap()));
        let open = AddressRate::new(Rate::NONE);
        assert!((0..10).all(|_| open.take(&"bob@example.org".parse().unwrap())));
    }
}
