//! SRS, the Sender Rewriting Scheme: forwarded mail leaves with a sender of our own domain, so that SPF passes at the next hop, and reports
//! that come back to it find the original sender.
//!
//! `SRS0=HHHHHH=TT=domain=local@ours` names the original sender, `SRS1=HHHHHH=host==…@ours` one that was rewritten at `host` already. H is a
//! truncated HMAC, T the day, so that strangers cannot use us as a relay and old addresses expire. Where the result does not fit
//! a local part (64 octets, RFC 5321 §4.5.3.1.1), `SRSK=key@ours` names an entry in the directory's state instead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use pillarbox_smtp::{Domain, LocalPart, Mailbox, ReversePath};
use rand::RngCore;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::state::{FOREVER, SETTINGS};
use crate::store::{Directory, DirectoryError};

/// How long a rewritten address takes reports back, in days.
pub const VALID_DAYS: u64 = 21;
/// State table of addresses too long to be rewritten in place.
const KEPT: &str = "srs";
const SECRET: &[u8] = b"srs-secret";
/// Signs of the truncated HMAC: 5 bits each.
const HASH_SIGNS: usize = 6;
/// Time stamps count days modulo this: two signs of base 32.
const DAY_CYCLE: u64 = 1024;
/// Letters and digits, safe against mailers that change case.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why an address is not one that we rewrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrsError {
    /// It does not have the shape.
    #[error("it is not a rewritten address")]
    NotSrs,
    /// The hash is not ours.
    #[error("its hash is wrong: it was not made by this server")]
    Forged,
    /// Older than [`VALID_DAYS`].
    #[error("it was made more than {VALID_DAYS} days ago")]
    Expired,
    /// The rewritten local part would be longer than 64 octets.
    #[error("it would be too long")]
    TooLong,
}

/// The rewriter with its secret.
#[derive(Clone)]
pub struct Srs {
    secret: Vec<u8>,
}

impl std::fmt::Debug for Srs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Srs(…)")
    }
}

impl Srs {
    /// With a given secret.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self { secret: secret.into() }
    }

    /// With the secret of this directory, made at the first call and shared by all nodes.
    ///
    /// # Errors
    /// When the directory is away.
    pub async fn load(directory: &dyn Directory) -> Result<Self, DirectoryError> {
        if let Some(secret) = directory.state_get(SETTINGS, SECRET).await? {
            return Ok(Self { secret });
        }
        let mut fresh = [0u8; 32];
        rand::rng().fill_bytes(&mut fresh);
        // Another node may have been first; then its secret counts.
        directory.state_put_new(SETTINGS, SECRET, &fresh, FOREVER).await?;
        Ok(Self { secret: directory.state_get(SETTINGS, SECRET).await?.unwrap_or_else(|| fresh.to_vec()) })
    }

    /// The sender that mail from `sender` gets when it is forwarded by an address of `ours`.
    ///
    /// # Errors
    /// `TooLong` when it does not fit; [`Srs::rewrite`] has an answer to that.
    pub fn forward(&self, sender: &Mailbox, ours: &Domain, now: SystemTime) -> Result<Mailbox, SrsError> {
        let local = sender.local.as_str();
        let text = match (tail(local, "SRS0"), tail(local, "SRS1")) {
            // Rewritten at its own domain: reports go back there, which undoes its own part.
            (Some(rest), _) => {
                let host = sender.domain.as_str();
                let signed = format!("{host}=={rest}");
                format!("SRS1={}={signed}", self.hash(&signed))
            }
            // Rewritten twice: the first rewriter is reached directly.
            (_, Some(rest)) => {
                let (_, signed) = rest.split_once('=').ok_or(SrsError::NotSrs)?;
                signed.split_once("==").ok_or(SrsError::NotSrs)?;
                format!("SRS1={}={signed}", self.hash(signed))
            }
            (None, None) => {
                let signed = format!("{}={}={local}", stamp(day(now)), sender.domain);
                format!("SRS0={}={signed}", self.hash(&signed))
            }
        };
        // Others need not take more than 64 octets, so ours never are longer.
        let local = LocalPart::new(&text).ok().filter(LocalPart::is_hostable).ok_or(SrsError::TooLong)?;
        Ok(Mailbox::new(local, ours.clone()))
    }

    /// The original sender behind a local part of ours.
    ///
    /// # Errors
    /// `NotSrs` for an ordinary local part, `Forged` and `Expired` for one that must not be believed.
    pub fn reverse(&self, local: &LocalPart, now: SystemTime) -> Result<Mailbox, SrsError> {
        let local = local.as_str();
        if let Some(rest) = tail(local, "SRS0") {
            let signed = self.checked(rest)?;
            let mut parts = signed.splitn(3, '=');
            let (stamp, domain, local) = (parts.next(), parts.next(), parts.next());
            let (Some(stamp), Some(domain), Some(local)) = (stamp, domain, local) else { return Err(SrsError::NotSrs) };
            let made = unstamp(stamp).ok_or(SrsError::NotSrs)?;
            if (day(now) % DAY_CYCLE).wrapping_add(DAY_CYCLE).wrapping_sub(made) % DAY_CYCLE > VALID_DAYS {
                return Err(SrsError::Expired);
            }
            return mailbox(local, domain);
        }
        if let Some(rest) = tail(local, "SRS1") {
            let signed = self.checked(rest)?;
            let (host, rest) = signed.split_once("==").ok_or(SrsError::NotSrs)?;
            return mailbox(&format!("SRS0={rest}"), host);
        }
        Err(SrsError::NotSrs)
    }

    /// As [`Srs::forward`], with a place in the directory's state for senders that do not fit.
    ///
    /// # Errors
    /// When the directory is away and the sender does not fit.
    pub async fn rewrite(
        &self,
        directory: &dyn Directory,
        sender: &Mailbox,
        ours: &Domain,
        now: SystemTime,
    ) -> Result<Mailbox, DirectoryError> {
        if let Ok(rewritten) = self.forward(sender, ours, now) {
            return Ok(rewritten);
        }
        // Derived from the sender and the day: a mailing list's thousand messages of one day share one entry.
        let original = sender.to_string();
        let key = self.sign(&format!("{}={original}", day(now)), 20);
        directory.state_put(KEPT, key.as_bytes(), original.as_bytes(), Duration::from_secs(VALID_DAYS * 86_400)).await?;
        let local = LocalPart::new(&format!("SRSK={key}")).map_err(|e| DirectoryError::Refused(e.to_string()))?;
        Ok(Mailbox::new(local, ours.clone()))
    }

    /// The sender for mail that `forwarded_by` sends on: `<>` and senders of our own domains stay, all others are rewritten.
    ///
    /// # Errors
    /// When the directory is away.
    pub async fn sender_for(
        &self,
        directory: &dyn Directory,
        sender: &ReversePath,
        forwarded_by: &Mailbox,
        now: SystemTime,
    ) -> Result<ReversePath, DirectoryError> {
        let Some(original) = sender.mailbox() else { return Ok(ReversePath::Null) };
        if directory.has_domain(&original.domain).await? {
            return Ok(sender.clone());
        }
        Ok(self.rewrite(directory, original, &forwarded_by.domain, now).await?.into())
    }

    /// As [`Srs::reverse`], for all forms that [`Srs::rewrite`] makes.
    ///
    /// # Errors
    /// When the directory is away.
    pub async fn undo(
        &self,
        directory: &dyn Directory,
        local: &LocalPart,
        now: SystemTime,
    ) -> Result<Result<Mailbox, SrsError>, DirectoryError> {
        let Some(key) = tail(local.as_str(), "SRSK") else { return Ok(self.reverse(local, now)) };
        let kept = directory.state_get(KEPT, key.to_ascii_uppercase().as_bytes()).await?;
        let original = kept.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok());
        Ok(original.ok_or(SrsError::Expired))
    }

    /// Splits `HHHHHH=signed` and checks the hash.
    fn checked<'t>(&self, rest: &'t str) -> Result<&'t str, SrsError> {
        let (hash, signed) = rest.split_once('=').ok_or(SrsError::NotSrs)?;
        let expected = self.hash(signed);
        if bool::from(hash.to_ascii_uppercase().as_bytes().ct_eq(expected.as_bytes())) { Ok(signed) } else { Err(SrsError::Forged) }
    }

    fn hash(&self, signed: &str) -> String {
        self.sign(signed, HASH_SIGNS)
    }

    /// Over the lower-case text, since a mailer on the way may fold a local part.
    fn sign(&self, text: &str, signs: usize) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else { return String::new() };
        mac.update(text.to_lowercase().as_bytes());
        mac.finalize().into_bytes().iter().take(signs).map(|b| base32(u64::from(*b))).collect()
    }
}

/// Whether a local part claims to be rewritten.
pub fn is_srs(local: &LocalPart) -> bool {
    ["SRS0", "SRS1", "SRSK"].iter().any(|tag| tail(local.as_str(), tag).is_some())
}

/// What follows the tag and its separator; other rewriters use `+` and `-` there.
fn tail<'t>(local: &'t str, tag: &str) -> Option<&'t str> {
    let head = local.get(..4)?;
    let separator = local.as_bytes().get(4)?;
    (head.eq_ignore_ascii_case(tag) && matches!(separator, b'=' | b'+' | b'-')).then(|| local.get(5..)).flatten()
}

fn mailbox(local: &str, domain: &str) -> Result<Mailbox, SrsError> {
    let local = LocalPart::new(local).map_err(|_| SrsError::NotSrs)?;
    Ok(Mailbox::new(local, Domain::new(domain).map_err(|_| SrsError::NotSrs)?))
}

fn day(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400)
}

fn base32(n: u64) -> char {
    BASE32.get((n % 32) as usize).copied().map_or('A', char::from)
}

fn stamp(day: u64) -> String {
    [base32(day / 32), base32(day)].iter().collect()
}

fn unstamp(text: &str) -> Option<u64> {
    let value = |b: &u8| BASE32.iter().position(|s| s.eq_ignore_ascii_case(b)).map(|p| p as u64);
    match text.as_bytes() {
        [high, low] => Some(value(high)? * 32 + value(low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDirectory;
    use proptest::prelude::*;

    fn at_day(day: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(day * 86_400 + 7)
    }

    fn srs() -> Srs {
        Srs::new(*b"0123456789abcdef")
    }

    #[test]
    fn an_address_goes_out_and_comes_back_for_three_weeks() {
        let (sender, ours): (Mailbox, Domain) = ("bob=smith@sender.example".parse().unwrap(), "ours.example".parse().unwrap());
        let out = srs().forward(&sender, &ours, at_day(1000)).unwrap();
        assert!(out.local.as_str().starts_with("SRS0=") && out.domain == ours, "{out}");
        for day in [1000, 1010, 1021] {
            assert_eq!(srs().reverse(&out.local, at_day(day)).unwrap(), sender);
        }
        for day in [1022, 1500, 999] {
            assert_eq!(srs().reverse(&out.local, at_day(day)), Err(SrsError::Expired));
        }
        let folded = LocalPart::new(&out.local.as_str().to_lowercase()).unwrap();
        assert!(srs().reverse(&folded, at_day(1000)).unwrap().same_as(&sender));
        assert_eq!(Srs::new(*b"other").reverse(&out.local, at_day(1000)), Err(SrsError::Forged));
    }

    #[test]
    fn a_chain_of_forwarders_leads_back_through_the_first_alone() {
        let first = srs();
        let (second, third) = (Srs::new(*b"second"), Srs::new(*b"third"));
        let sender: Mailbox = "a@s.example".parse().unwrap();
        let one = first.forward(&sender, &"one.example".parse().unwrap(), at_day(5)).unwrap();
        let two = second.forward(&one, &"two.example".parse().unwrap(), at_day(5)).unwrap();
        assert!(two.local.as_str().starts_with("SRS1="), "{two}");
        let three = third.forward(&two, &"three.example".parse().unwrap(), at_day(5)).unwrap();
        assert_eq!(third.reverse(&three.local, at_day(6)).unwrap(), one);
        assert_eq!(second.reverse(&two.local, at_day(6)).unwrap(), one);
        assert_eq!(first.reverse(&one.local, at_day(6)).unwrap(), sender);
        assert_eq!(first.reverse(&two.local, at_day(6)), Err(SrsError::Forged));
    }

    #[tokio::test]
    async fn senders_that_do_not_fit_are_kept_in_the_state() {
        let directory = MemoryDirectory::new();
        let srs = Srs::load(&directory).await.unwrap();
        let sender: Mailbox = format!("{}@a-rather-long-name.example", "x".repeat(60)).parse().unwrap();
        let ours = "ours.example".parse().unwrap();
        assert_eq!(srs.forward(&sender, &ours, at_day(9)), Err(SrsError::TooLong));
        let out = srs.rewrite(&directory, &sender, &ours, at_day(9)).await.unwrap();
        assert_eq!(srs.rewrite(&directory, &sender, &ours, at_day(9)).await.unwrap(), out);
        assert!(is_srs(&out.local));
        let again = Srs::load(&directory).await.unwrap();
        assert_eq!(again.undo(&directory, &out.local, at_day(9)).await.unwrap().unwrap(), sender);
        let made_up = LocalPart::new("SRSK=AAAAAAAAAAAAAAAAAAAA").unwrap();
        assert_eq!(again.undo(&directory, &made_up, at_day(9)).await.unwrap(), Err(SrsError::Expired));
    }

    #[tokio::test]
    async fn only_strangers_are_rewritten() {
        let directory = MemoryDirectory::new();
        crate::suite::build(&directory, &["ours.example"]).await;
        let (srs, by) = (srs(), "list@ours.example".parse().unwrap());
        let ask = async |sender: &str| srs.sender_for(&directory, &sender.parse().unwrap(), &by, at_day(9)).await.unwrap().to_string();
        assert_eq!(ask("<>").await, "");
        assert_eq!(ask("bob@ours.example").await, "bob@ours.example");
        let out = ask("joe@elsewhere.example").await;
        assert!(out.starts_with("SRS0=") && out.ends_with("=elsewhere.example=joe@ours.example"), "{out}");
    }

    proptest! {
        #[test]
        fn round_trip(local in "[a-zA-Z0-9=+._-]{1,24}", host in "[a-z]{1,12}\\.example", day in 0u64..50_000, age in 0u64..=VALID_DAYS) {
            prop_assume!(!is_srs(&LocalPart::new(&local).unwrap()));
            let sender = mailbox(&local, &host).unwrap();
            let out = srs().forward(&sender, &"ours.example".parse().unwrap(), at_day(day)).unwrap();
            prop_assert_eq!(srs().reverse(&out.local, at_day(day + age)).unwrap(), sender);
        }

        #[test]
        fn whatever_comes_back_never_panics_and_is_never_believed(text in "(SRS[01K][=+-])?[ -~é]{0,50}") {
            if let Ok(local) = LocalPart::new(&text) {
                prop_assert!(srs().reverse(&local, at_day(3)).is_err());
            }
        }

        #[test]
        fn one_changed_sign_is_noticed(at in 0usize..40, sign in "[a-z2-7]") {
            let sender = mailbox("bob", "sender.example").unwrap();
            let out = srs().forward(&sender, &"ours.example".parse().unwrap(), at_day(3)).unwrap();
            let mut changed = out.local.as_str().to_owned();
            if at >= 5 && at < changed.len() && !changed[at..=at].eq_ignore_ascii_case(&sign) {
                changed.replace_range(at..=at, &sign);
                prop_assert!(srs().reverse(&LocalPart::new(&changed).unwrap(), at_day(3)).is_err());
            }
        }
    }
}
