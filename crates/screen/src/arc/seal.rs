//! One more ARC set on a message: our Authentication-Results, a signature over the message, a seal over the chain (RFC 8617 §5.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox_message::header::{Field, fields, split};

use crate::dkim::{body_hash, fold_base64, fold_names, relaxed_field, signed_fields};
use crate::results;

/// Longest chain (RFC 8617 §4.2.1).
const LONGEST: u32 = 50;

/// The library refused to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealError {
    /// Signing failed.
    Sign,
}

/// Who seals.
pub(crate) struct Sealer<'a> {
    /// Our authserv-id: Authentication-Results of this name are what the set carries on.
    pub(crate) hostname: &'a str,
    /// `d=`.
    pub(crate) domain: &'a str,
    /// `s=`.
    pub(crate) selector: &'a str,
    /// `a=`.
    pub(crate) algorithm: &'a str,
    /// Signs canonical octets with the key.
    pub(crate) key: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
    /// Names to sign instead of the usual ones, each once: for the published test vectors.
    pub(crate) headers: Option<&'a [&'a str]>,
}

/// One ARC set found in a message.
#[derive(Default)]
struct Set<'a> {
    results: Option<Field<'a>>,
    signature: Option<Field<'a>>,
    seal: Option<Field<'a>>,
}

impl Sealer<'_> {
    /// The three fields to put before `message`, newest first, or `None` when there is nothing to seal. `now` goes into `t=`.
    pub(crate) fn seal(&self, message: &[u8], now: i64) -> Result<Option<Vec<u8>>, SealError> {
        let Some(results) = results::merged(message, self.hostname) else { return Ok(None) };
        let Some(sets) = chain(message) else { return Ok(None) };
        let cv = match (sets.is_empty(), results::verdict_of(&results, "arc").as_deref()) {
            (true, _) => "none",
            (false, Some("pass")) => "pass",
            (false, Some("fail")) => "fail",
            // The chain was not judged when the message came in, so nothing can be said about it.
            (false, _) => return Ok(None),
        };
        // A chain that failed once has ended (RFC 8617 §5.1.2).
        let ended = sets.last().and_then(|set| set.seal.as_ref()).is_some_and(|seal| tag(seal, "cv").as_deref() == Some("fail"));
        let instance = u32::try_from(sets.len()).unwrap_or(u32::MAX).saturating_add(1);
        if ended || instance > LONGEST {
            return Ok(None);
        }

        let results = format!("i={instance}; {}; {}", self.hostname, results.join(";\r\n\t"));
        let signature = self.message_signature(message, instance, now)?;

        // The seal covers the sets in order, each as results, signature, seal; after a failure only the newest (§5.1.1, §5.1.2).
        let mut canonical = Vec::new();
        if cv != "fail" {
            for set in &sets {
                for field in [&set.results, &set.signature, &set.seal].into_iter().flatten() {
                    relaxed_field(field.name, field.value, &mut canonical);
                }
            }
        }
        relaxed_field(b"ARC-Authentication-Results", results.as_bytes(), &mut canonical);
        relaxed_field(b"ARC-Message-Signature", signature.as_bytes(), &mut canonical);
        let seal = self.sign(
            b"ARC-Seal",
            &format!("a={};\r\n\tb=", self.algorithm),
            &format!(";\r\n\tcv={cv}; d={}; i={instance}; s={}; t={now}", self.domain, self.selector),
            canonical,
        )?;
        Ok(Some(
            format!("ARC-Seal: {seal}\r\nARC-Message-Signature: {signature}\r\nARC-Authentication-Results: {results}\r\n").into_bytes(),
        ))
    }

    /// The value of ARC-Message-Signature: a DKIM signature without `v=` and with `i=` (§4.1.2). ARC fields are not signed by it.
    fn message_signature(&self, message: &[u8], instance: u32, now: i64) -> Result<String, SealError> {
        let all;
        let (names, signed) = match self.headers {
            None => {
                let (mut names, mut signed) = signed_fields(message);
                // What others signed is worth covering too, so that it can be told whether we changed it.
                let dkim: Vec<_> = fields(message).filter(|field| field.is("DKIM-Signature")).collect();
                names.extend(dkim.iter().map(|_| "dkim-signature"));
                signed.extend(dkim.into_iter().rev());
                (names, signed)
            }
            Some(names) => {
                all = fields(message).collect::<Vec<_>>();
                let signed = names.iter().filter_map(|name| all.iter().rev().find(|field| field.is(name)).cloned());
                (names.to_vec(), signed.collect())
            }
        };
        let mut canonical = Vec::with_capacity(2048);
        for field in &signed {
            relaxed_field(field.name, field.value, &mut canonical);
        }
        let body = message.get(split(message).body..).unwrap_or_default();
        let mut rest = format!(";\r\n\tbh={}; c=relaxed/relaxed;\r\n\td={}; h=", STANDARD.encode(body_hash(body)), self.domain);
        fold_names(&names, self.domain.len() + 6, &mut rest);
        // The space before i= is what dkimpy, which many lists run, looks for.
        rest.push_str(&format!(";\r\n\t i={instance}; s={}; t={now}", self.selector));
        self.sign(b"ARC-Message-Signature", &format!("a={};\r\n\tb=", self.algorithm), &rest, canonical)
    }

    /// Signs `canonical` and the field itself, and puts the signature between the two halves of its value. Tags stand in the order of
    /// their names, as the published vectors have them.
    fn sign(&self, name: &[u8], before: &str, after: &str, mut canonical: Vec<u8>) -> Result<String, SealError> {
        relaxed_field(name, format!("{before}{after}").as_bytes(), &mut canonical);
        canonical.truncate(canonical.len().saturating_sub(2));
        let signature = (self.key)(&canonical).ok_or(SealError::Sign)?;
        let mut value = before.to_owned();
        fold_base64(&STANDARD.encode(signature), 2, &mut value);
        value.push_str(after);
        Ok(value)
    }
}

/// The sets of a message in order of `i=`. `None` when they are not whole: nothing can be added to such a chain.
fn chain(message: &[u8]) -> Option<Vec<Set<'_>>> {
    let mut sets: Vec<Set<'_>> = Vec::new();
    for field in fields(message) {
        let kind = if field.is("ARC-Seal") {
            0
        } else if field.is("ARC-Message-Signature") {
            1
        } else if field.is("ARC-Authentication-Results") {
            2
        } else {
            continue;
        };
        let instance = tag(&field, "i")?.parse::<u32>().ok().filter(|i| (1..=LONGEST).contains(i))?;
        let at = usize::try_from(instance).ok()?;
        if sets.len() < at {
            sets.resize_with(at, Set::default);
        }
        let set = sets.get_mut(at - 1)?;
        let slot = match kind {
            0 => &mut set.seal,
            1 => &mut set.signature,
            _ => &mut set.results,
        };
        if slot.replace(field).is_some() {
            return None;
        }
    }
    sets.iter().all(|set| set.seal.is_some() && set.signature.is_some() && set.results.is_some()).then_some(sets)
}

/// The value of a tag in a tag list (RFC 6376 §3.2), white space removed.
pub(crate) fn tag(field: &Field<'_>, name: &str) -> Option<String> {
    let text = field.text();
    text.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        (key.trim() == name).then(|| value.split_whitespace().collect())
    })
}
