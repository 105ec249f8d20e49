//! How often a client may come: token buckets in bounded memory.

mod user;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pillarbox_config::Rate;
use quick_cache::sync::Cache;

pub use user::UserRates;
pub(crate) use user::is_correspondent;

/// Clients remembered a limit; those seen least are forgotten first, so that a flood of addresses costs a few MiB and not all memory.
const REMEMBERED: usize = 65_536;

/// One limit, kept per client: an IPv4 address or an IPv6 /64.
///
/// A bucket is one number, the time at which it would be full again (the generic cell rate algorithm): `count` at once, refilled evenly
/// over `period`.
pub struct ClientRate {
    rate: Rate,
    start: Instant,
    buckets: Cache<IpAddr, Arc<AtomicU64>>,
}

impl ClientRate {
    /// A limit; [`Rate::NONE`] never refuses.
    pub fn new(rate: Rate) -> Self {
        Self { rate, start: Instant::now(), buckets: Cache::new(if rate.is_limited() { REMEMBERED } else { 1 }) }
    }

    /// Takes one token. `false`: there is none.
    pub fn take(&self, client: IpAddr) -> bool {
        self.take_at(client, Instant::now())
    }

    /// The same at a given time.
    pub fn take_at(&self, client: IpAddr, now: Instant) -> bool {
        if !self.rate.is_limited() {
            return true;
        }
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let period = u64::try_from(self.rate.period.as_nanos()).unwrap_or(u64::MAX);
        let step = period / u64::from(self.rate.count.max(1));
        let key = network(client);
        let bucket = match self.buckets.get(&key) {
            Some(bucket) => bucket,
            None => {
                self.buckets.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::new(AtomicU64::new(0)))).unwrap_or_default()
            }
        };
        bucket
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
                let next = full.max(now).saturating_add(step);
                (next.saturating_sub(now) <= period).then_some(next)
            })
            .is_ok()
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

    #[test]
    fn a_bucket_empties_and_refills_evenly() {
        let limit = ClientRate::new(Rate { count: 3, period: Duration::from_secs(60) });
        let client = "192.0.2.1".parse().unwrap();
        let start = Instant::now();
        let taken = |seconds, n| (0..n).filter(|_| limit.take_at(client, start + Duration::from_secs(seconds))).count();
        assert_eq!(taken(0, 10), 3);
        assert_eq!(taken(21, 10), 1);
        assert_eq!(taken(200, 10), 3);
        assert!(limit.take_at("192.0.2.2".parse().unwrap(), start));
    }

    #[test]
    fn one_ipv6_customer_is_one_client() {
        let limit = ClientRate::new(Rate { count: 1, period: Duration::from_secs(60) });
        let now = Instant::now();
        assert!(limit.take_at("2001:db8::1".parse().unwrap(), now));
        assert!(!limit.take_at("2001:db8::2".parse().unwrap(), now));
        assert!(limit.take_at("2001:db8:0:1::1".parse().unwrap(), now));
    }

    #[test]
    fn memory_stays_bounded() {
        let limit = ClientRate::new(Rate { count: 1, period: Duration::from_secs(60) });
        for n in 0..200_000_u32 {
            limit.take_at(IpAddr::V4(n.into()), Instant::now());
        }
        assert!(limit.buckets.len() <= REMEMBERED + REMEMBERED / 4, "{}", limit.buckets.len());
    }
}
