//! mail-auth's caches of parsed answers, on `quick_cache`: bounded, shared by all sessions.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use mail_auth::{MX, Parameters, RecordSet, ResolverCache, Txt};
use quick_cache::sync::Cache;

/// Entries a cache.
const ENTRIES: usize = 8_192;

/// One cache: values until the time their record's TTL gives.
pub struct TtlCache<K, V>(Cache<K, (V, Instant)>);

impl<K: Hash + Eq, V: Clone> Default for TtlCache<K, V> {
    fn default() -> Self {
        Self(Cache::new(ENTRIES))
    }
}

impl<K: Hash + Eq, V: Clone> ResolverCache<K, V> for TtlCache<K, V> {
    fn get<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (value, until) = self.0.get(name)?;
        (until > Instant::now()).then_some(value)
    }

    fn remove<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.remove(name).map(|(_, (value, _))| value)
    }

    fn insert(&self, key: K, value: V, valid_until: Instant) {
        self.0.insert(key, (value, valid_until));
    }
}

type Names = TtlCache<Box<str>, Txt>;
type Exchangers = TtlCache<Box<str>, RecordSet<MX>>;
type V4 = TtlCache<Box<str>, RecordSet<Ipv4Addr>>;
type V6 = TtlCache<Box<str>, RecordSet<Ipv6Addr>>;
type Pointers = TtlCache<IpAddr, RecordSet<Box<str>>>;

/// The caches that mail-auth asks before the resolver.
#[derive(Default)]
pub struct Caches {
    txt: Names,
    mx: Exchangers,
    v4: V4,
    v6: V6,
    ptr: Pointers,
}

impl Caches {
    /// Wraps parameters of a mail-auth check with these caches.
    pub fn with<P>(&self, params: P) -> Parameters<'_, P, Names, Exchangers, V4, V6, Pointers> {
        Parameters {
            params,
            cache_txt: Some(&self.txt),
            cache_mx: Some(&self.mx),
            cache_ptr: Some(&self.ptr),
            cache_ipv4: Some(&self.v4),
            cache_ipv6: Some(&self.v6),
        }
    }
}
