//! Limits on guessing: per client network, and per account, in bounded memory.
//!
//! A client network (an IPv4 address, an IPv6 /64) that fails too often within the window is turned away for as long as the window. An
//! account that fails too often, from wherever, admits one try at a time with growing pauses; networks from which its owner
//! logged in lately are spared that, so that nobody can lock the owner out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Clients and accounts remembered at most; the oldest half of the idle ones goes first.
const CAPACITY: usize = 100_000;
/// Networks remembered for one account's owner.
const KNOWN_NETWORKS: usize = 16;

/// How much guessing is borne.
#[derive(Debug, Clone, Copy)]
pub struct GuessLimits {
    /// Failures of a client network in `window`, then none is heard for `window`; 0: no limit.
    pub per_client: u32,
    /// See `per_client`.
    pub window: Duration,
    /// Failures of an account in `window` after which tries have to wait; 0: no limit.
    pub per_account: u32,
    /// First pause between tries on such an account; it doubles with each failure.
    pub pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// How long a network from which the owner logged in is spared the pauses.
    pub spare: Duration,
}

impl Default for GuessLimits {
    fn default() -> Self {
        Self {
            per_client: 10,
            window: Duration::from_secs(600),
            per_account: 20,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            spare: Duration::from_secs(30 * 86_400),
        }
    }
}

/// Why a try is not heard, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client network failed too often.
    Client(Duration),
    /// The account is under attack, and the client is not known as its owner's.
    Account(Duration),
}

/// An IPv4 address, or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network([u8; 8]);

impl Network {
    /// As a key of state.
    pub(super) fn octets(&self) -> &[u8; 8] {
        &self.0
    }

    pub(super) fn of(client: IpAddr) -> Self {
        let mut bytes = [0; 8];
        let octets: &[u8] = match client.to_canonical() {
            IpAddr::V4(v4) => &v4.octets(),
            IpAddr::V6(v6) => &v6.octets()[..8],
        };
        let start = if octets.len() == 4 {
            // No global IPv6 network starts like this, so the two never meet.
            bytes[0] = 0xff;
            4
        } else {
            0
        };
        if let Some(space) = bytes.get_mut(start..start + octets.len()) {
            space.copy_from_slice(octets);
        }
        Self(bytes)
    }
}

#[derive(Default)]
struct Client {
    failures: u32,
    since: Option<SystemTime>,
    blocked_until: Option<SystemTime>,
}

#[derive(Default)]
struct Account {
    failures: u32,
    since: Option<SystemTime>,
    closed_until: Option<SystemTime>,
    known: Vec<(Network, SystemTime)>,
}

/// The memory of failures.
pub(super) struct Guesses {
    limits: GuessLimits,
    clients: Mutex<HashMap<Network, Client>>,
    accounts: Mutex<HashMap<String, Account>>,
}

impl Guesses {
    pub(super) fn new(limits: GuessLimits) -> Self {
        Self { limits, clients: Mutex::default(), accounts: Mutex::default() }
    }

    /// Whether a try is heard.
    pub(super) fn admit(&self, client: Option<IpAddr>, account: &str, now: SystemTime) -> Result<(), Refusal> {
        let network = client.map(Network::of);
        if let Some(network) = network
            && let Some(until) = self.clients.lock().get(&network).and_then(|c| c.blocked_until)
            && let Some(left) = left(until, now, self.limits.window)
        {
            return Err(Refusal::Client(left));
        }
        let accounts = self.accounts.lock();
        let Some(state) = accounts.get(account) else { return Ok(()) };
        let spared = network.is_some_and(|n| state.known.iter().any(|(known, until)| *known == n && *until > now));
        match state.closed_until.and_then(|until| left(until, now, self.limits.longest_pause)) {
            Some(left) if !spared => Err(Refusal::Account(left)),
            _ => Ok(()),
        }
    }

    /// Counts a failure on both sides.
    pub(super) fn failed(&self, client: Option<IpAddr>, account: &str, now: SystemTime) {
        metrics::counter!("pillarbox_directory_login_failures_total").increment(1);
        if let Some(client) = client
            && self.limits.per_client > 0
        {
            let mut clients = self.clients.lock();
            let idle = |c: &Client| stale(c.since, now, self.limits.window) && c.blocked_until.is_none_or(|until| until <= now);
            make_room(&mut clients, &[&idle, &|c| c.blocked_until.is_none_or(|until| until <= now)]);
            let state = clients.entry(Network::of(client)).or_default();
            bump(&mut state.failures, &mut state.since, now, self.limits.window);
            if state.failures >= self.limits.per_client {
                *state = Client { blocked_until: Some(now + self.limits.window), ..Client::default() };
                metrics::counter!("pillarbox_directory_clients_blocked_total").increment(1);
            }
        }
        if self.limits.per_account > 0 {
            let mut accounts = self.accounts.lock();
            self.make_room_for_account(&mut accounts, now);
            let state = accounts.entry(account.to_owned()).or_default();
            bump(&mut state.failures, &mut state.since, now, self.limits.window);
            if let Some(over) = state.failures.checked_sub(self.limits.per_account) {
                let pause = self.limits.pause.saturating_mul(1u32.checked_shl(over).unwrap_or(u32::MAX));
                state.closed_until = Some(now + pause.min(self.limits.longest_pause));
            }
        }
    }

    /// A spray of made-up names must not make us forget where owners come from.
    fn make_room_for_account(&self, accounts: &mut HashMap<String, Account>, now: SystemTime) {
        let unowned = |a: &Account| a.known.iter().all(|(_, until)| *until <= now);
        let idle = |a: &Account| unowned(a) && stale(a.since, now, self.limits.window);
        make_room(accounts, &[&idle, &unowned]);
    }

    /// Remembers where the owner comes from. The client's own failures stay counted: a guesser may own an account too.
    /// Returns whether the network was not known before.
    pub(super) fn succeeded(&self, client: Option<IpAddr>, account: &str, now: SystemTime) -> bool {
        let Some(network) = client.map(Network::of) else { return false };
        let mut accounts = self.accounts.lock();
        self.make_room_for_account(&mut accounts, now);
        let state = accounts.entry(account.to_owned()).or_default();
        let until = now + self.limits.spare;
        match state.known.iter_mut().find(|(known, _)| *known == network) {
            Some((_, known_until)) => {
                // Told anew once in a while, so that what was written down about it lasts as long.
                let aged = *known_until + self.limits.spare / 4 <= until;
                if aged {
                    *known_until = until;
                }
                aged
            }
            None => {
                if state.known.len() >= KNOWN_NETWORKS
                    && let Some(oldest) = state.known.iter().enumerate().min_by_key(|(_, (_, until))| *until).map(|(at, _)| at)
                {
                    state.known.swap_remove(oldest);
                }
                state.known.push((network, until));
                true
            }
        }
    }
}

/// What is left until then; nothing when it is past, or so far ahead that the clock must have been set back.
fn left(until: SystemTime, now: SystemTime, at_most: Duration) -> Option<Duration> {
    until.duration_since(now).ok().filter(|left| !left.is_zero() && *left <= at_most)
}

fn stale(since: Option<SystemTime>, now: SystemTime, window: Duration) -> bool {
    since.is_none_or(|since| now.duration_since(since).is_ok_and(|age| age >= window))
}

fn bump(failures: &mut u32, since: &mut Option<SystemTime>, now: SystemTime, window: Duration) {
    if stale(*since, now, window) {
        *failures = 0;
        *since = Some(now);
    }
    *failures = failures.saturating_add(1);
}

/// Keeps a map within [`CAPACITY`]: what each of `expendable` names goes, in turn while it is too full, and then any half of the rest.
fn make_room<K: Eq + Hash, V>(map: &mut HashMap<K, V>, expendable: &[&dyn Fn(&V) -> bool]) {
    for goes in expendable {
        if map.len() < CAPACITY {
            return;
        }
        map.retain(|_, value| !goes(value));
    }
    if map.len() >= CAPACITY {
        let mut keep = false;
        map.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_turned_away_for_a_window_and_then_heard_again() {
        let guesses = Guesses::new(GuessLimits { per_account: 0, ..GuessLimits::default() });
        for n in 0..10 {
            assert_eq!(guesses.admit(ip("192.0.2.1"), "a", at(n)), Ok(()));
            guesses.failed(ip("192.0.2.1"), "a", at(n));
        }
        assert_eq!(guesses.admit(ip("192.0.2.1"), "other", at(10)), Err(Refusal::Client(Duration::from_secs(599))));
        assert_eq!(guesses.admit(ip("::ffff:192.0.2.1"), "a", at(10)), Err(Refusal::Client(Duration::from_secs(599))));
        assert_eq!(guesses.admit(ip("192.0.2.2"), "a", at(10)), Ok(()));
        assert_eq!(guesses.admit(ip("192.0.2.1"), "a", at(609)), Ok(()));
        guesses.failed(ip("192.0.2.1"), "a", at(609));
        assert_eq!(guesses.admit(ip("192.0.2.1"), "a", at(610)), Ok(()), "the count starts anew");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let guesses = Guesses::new(GuessLimits { per_client: 2, per_account: 0, ..GuessLimits::default() });
        guesses.failed(ip("2001:db8::1"), "a", NOW);
        guesses.failed(ip("2001:db8::2"), "b", NOW);
        assert!(guesses.admit(ip("2001:db8::3"), "c", NOW).is_err());
        assert!(guesses.admit(ip("2001:db8:0:1::1"), "c", NOW).is_ok());
    }

    #[test]
    fn an_account_slows_guessers_down_and_spares_its_owner() {
        let guesses = Guesses::new(GuessLimits::default());
        guesses.succeeded(ip("198.51.100.7"), "bob", NOW);
        for n in 0..20u8 {
            guesses.failed(ip(&format!("203.0.113.{n}")), "bob", at(1));
        }
        assert_eq!(guesses.admit(ip("203.0.113.99"), "bob", at(1)), Err(Refusal::Account(Duration::from_secs(1))));
        assert_eq!(guesses.admit(ip("198.51.100.7"), "bob", at(1)), Ok(()), "the owner's network");
        assert_eq!(guesses.admit(ip("203.0.113.99"), "alice", at(1)), Ok(()), "another account");
        for n in 20..40u8 {
            guesses.failed(ip(&format!("203.0.113.{n}")), "bob", at(2));
        }
        assert_eq!(guesses.admit(ip("203.0.113.99"), "bob", at(2)), Err(Refusal::Account(Duration::from_secs(60))));
        assert_eq!(guesses.admit(ip("203.0.113.99"), "bob", at(62)), Ok(()), "a pause, not a lock");
        guesses.failed(ip("203.0.113.98"), "bob", at(700));
        assert_eq!(guesses.admit(ip("203.0.113.99"), "bob", at(700)), Ok(()), "the window is over");
    }

    #[test]
    fn memory_is_bounded() {
        let map = |value: fn(usize) -> u8| (0..CAPACITY).map(|n| (n, value(n))).collect::<HashMap<usize, u8>>();
        let mut some_idle = map(|n| u8::from(n % 4 != 0));
        make_room(&mut some_idle, &[&|v| *v == 1, &|_| true]);
        assert_eq!(some_idle.len(), CAPACITY / 4, "idle ones go, and that is enough");
        let mut none_idle = map(|n| u8::from(n % 4 != 0));
        make_room(&mut none_idle, &[&|v| *v == 9, &|v| *v == 1]);
        assert_eq!(none_idle.len(), CAPACITY / 4, "then the expendable ones");
        let mut all_dear = map(|_| 0);
        make_room(&mut all_dear, &[&|v| *v == 9]);
        assert_eq!(all_dear.len(), CAPACITY / 2, "then any half");
    }
}
