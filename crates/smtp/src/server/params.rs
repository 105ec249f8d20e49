//! The parameters of MAIL and RCPT (RFC 5321 §4.1.1.11), each checked as its extension says.

use super::config::{Extensions, ServerConfig};
use super::event::Transaction;
use crate::address::Mailbox;
use crate::params::{BodyType, DeliverBy, Hold, MailParams, Notify, OriginalRecipient, RcptParams, Ret, parse_date_time};
use crate::replies;
use crate::reply::Reply;
use crate::xtext;

/// Longest ENVID value, encoded (RFC 3461 §4.4).
const MAX_ENVID: usize = 100;
/// Longest ORCPT value, encoded (RFC 3461 §4.2).
const MAX_ORCPT: usize = 500;

/// What of the offer decides about parameters.
pub(super) struct Offer<'a> {
    extensions: &'a Extensions,
    auth: bool,
    require_tls: bool,
    max_size: u64,
    none: bool,
}

impl<'a> Offer<'a> {
    pub(super) fn new(config: &'a ServerConfig, transaction: &Transaction, auth: bool) -> Self {
        Self {
            extensions: &config.extensions,
            auth,
            require_tls: config.extensions.require_tls && transaction.tls.is_some(),
            max_size: config.limits.message_size,
            // After HELO there are no extensions.
            none: !transaction.extended,
        }
    }

    fn binary(&self) -> bool {
        self.extensions.chunking && self.extensions.binary_mime
    }

    pub(super) fn smtputf8(&self) -> bool {
        self.extensions.smtputf8 && self.extensions.eight_bit_mime
    }
}

/// The parameters after the path of MAIL.
pub(super) fn parse_mail(text: &str, offer: &Offer<'_>) -> Result<MailParams, Reply> {
    let mut params = MailParams::default();
    let mut seen = Vec::new();
    for (keyword, value) in pairs(text) {
        once(&mut seen, &keyword)?;
        let bad = || replies::bad_parameter(&keyword);
        let unknown = || replies::unknown_parameter("MAIL");
        if offer.none {
            return Err(unknown());
        }
        match (keyword.as_str(), value) {
            ("SIZE", value) if offer.extensions.size => {
                let digits = value.filter(|v| (1..=20).contains(&v.len()) && v.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)?;
                // Twenty digits may pass 64 bits; such a message is too large, not malformed.
                let size = digits.parse().unwrap_or(u64::MAX);
                if offer.max_size > 0 && size > offer.max_size {
                    return Err(replies::message_too_large());
                }
                params.size = Some(size);
            }
            ("BODY", Some(value)) if offer.extensions.eight_bit_mime || offer.binary() => {
                params.body = match value.to_ascii_uppercase().as_str() {
                    "7BIT" => BodyType::SevenBit,
                    "8BITMIME" if offer.extensions.eight_bit_mime => BodyType::EightBitMime,
                    "BINARYMIME" if offer.binary() => BodyType::BinaryMime,
                    _ => return Err(bad()),
                };
            }
            ("SMTPUTF8", None) if offer.smtputf8() => params.smtputf8 = true,
            ("REQUIRETLS", None) if offer.require_tls => params.require_tls = true,
            ("RET", Some(value)) if offer.extensions.dsn => {
                params.ret = Some(match value.to_ascii_uppercase().as_str() {
                    "FULL" => Ret::Full,
                    "HDRS" => Ret::Hdrs,
                    _ => return Err(bad()),
                });
            }
            ("ENVID", Some(value)) if offer.extensions.dsn => {
                let fits = (1..=MAX_ENVID).contains(&value.len());
                params.envid = Some(Some(value).filter(|_| fits).and_then(xtext::decode_text).ok_or_else(bad)?);
            }
            ("AUTH", Some(value)) if offer.auth => {
                params.auth = Some(match value {
                    "<>" => None,
                    value => Some(xtext::decode_text(value).and_then(|text| text.parse::<Mailbox>().ok()).ok_or_else(bad)?),
                });
            }
            ("BY", Some(value)) if offer.extensions.deliver_by.is_some() => {
                let by = parse_by(value).ok_or_else(bad)?;
                let least = offer.extensions.deliver_by.map_or(0, i64::from);
                if by.return_when_late && by.seconds < least {
                    return Err(replies::deliver_by_too_soon());
                }
                params.by = Some(by);
            }
            ("HOLDFOR" | "HOLDUNTIL", Some(value)) if offer.extensions.future_release.is_some() => {
                if params.hold.is_some() {
                    return Err(bad());
                }
                params.hold = Some(parse_hold(&keyword, value, offer).ok_or_else(bad)??);
            }
            ("MT-PRIORITY", Some(value)) if offer.extensions.mt_priority => {
                let digits = value.strip_prefix('-').unwrap_or(value);
                let ok = digits.len() == 1 && digits.bytes().all(|b| b.is_ascii_digit());
                params.priority = Some(value.parse::<i8>().ok().filter(|_| ok).ok_or_else(bad)?);
            }
            ("SMTPUTF8", Some(_)) if offer.smtputf8() => return Err(bad()),
            ("REQUIRETLS", Some(_)) if offer.require_tls => return Err(bad()),
            ("RET" | "ENVID", None) if offer.extensions.dsn => return Err(bad()),
            _ => return Err(unknown()),
        }
    }
    Ok(params)
}

/// The parameters after the path of RCPT.
pub(super) fn parse_rcpt(text: &str, offer: &Offer<'_>) -> Result<RcptParams, Reply> {
    let mut params = RcptParams::default();
    let mut seen = Vec::new();
    for (keyword, value) in pairs(text) {
        once(&mut seen, &keyword)?;
        let bad = || replies::bad_parameter(&keyword);
        if offer.none || !offer.extensions.dsn {
            return Err(replies::unknown_parameter("RCPT"));
        }
        match keyword.as_str() {
            "NOTIFY" => params.notify = value.and_then(parse_notify).ok_or_else(bad)?,
            "ORCPT" => params.orcpt = Some(value.and_then(parse_orcpt).ok_or_else(bad)?),
            _ => return Err(replies::unknown_parameter("RCPT")),
        }
    }
    Ok(params)
}

/// Keyword in upper case and value, for each word.
fn pairs(text: &str) -> impl Iterator<Item = (String, Option<&str>)> {
    text.split([' ', '\t']).filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
        None => (word.to_ascii_uppercase(), None),
    })
}

fn once(seen: &mut Vec<String>, keyword: &str) -> Result<(), Reply> {
    // Some text of the client's goes back in the reply; a keyword has letters, digits and hyphens only (RFC 5321 §4.1.2).
    if keyword.is_empty() || keyword.len() > 20 || !keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(replies::bad_parameter("a parameter"));
    }
    if seen.iter().any(|k| k == keyword) {
        return Err(replies::bad_parameter(keyword));
    }
    seen.push(keyword.to_owned());
    Ok(())
}

/// `NEVER`, or a list of the others (RFC 3461 §4.1).
fn parse_notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut notify = Notify::NEVER;
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => notify.success = true,
            "FAILURE" => notify.failure = true,
            "DELAY" => notify.delay = true,
            _ => return None,
        }
    }
    Some(notify)
}

/// `type;address` (RFC 3461 §4.2, RFC 6533 §3).
fn parse_orcpt(value: &str) -> Option<OriginalRecipient> {
    if value.len() > MAX_ORCPT {
        return None;
    }
    let (kind, address) = value.split_once(';')?;
    let atom = !kind.is_empty() && kind.len() <= 32 && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let address_type = kind.to_ascii_lowercase();
    let address = if address_type == "utf-8" { xtext::decode_utf8_addr(address)? } else { xtext::decode_text(address)? };
    (atom && !address.is_empty()).then_some(OriginalRecipient { address_type, address })
}

/// `seconds;R` or `seconds;N`, either with `T` (RFC 2852 §4). Nought or less is only for `N`.
fn parse_by(value: &str) -> Option<DeliverBy> {
    let (time, mode) = value.split_once(';')?;
    let digits = time.strip_prefix(['-', '+']).unwrap_or(time);
    if !(1..=9).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude: i64 = digits.parse().ok()?;
    let seconds = if time.starts_with('-') { -magnitude } else { magnitude };
    let (return_when_late, trace) = match mode.to_ascii_uppercase().as_str() {
        "R" => (true, false),
        "RT" => (true, true),
        "N" => (false, false),
        "NT" => (false, true),
        _ => return None,
    };
    (seconds > 0 || !return_when_late).then_some(DeliverBy { seconds, return_when_late, trace })
}

/// `None`: malformed. `Some(Err)`: beyond what is announced (RFC 4865 §4).
fn parse_hold(keyword: &str, value: &str, offer: &Offer<'_>) -> Option<Result<Hold, Reply>> {
    let release = offer.extensions.future_release.as_ref()?;
    let (hold, fits) = if keyword == "HOLDFOR" {
        if !(1..=9).contains(&value.len()) || !value.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let seconds: u64 = value.parse().ok()?;
        (Hold::For(seconds), seconds <= release.max_interval)
    } else {
        let until = parse_date_time(value)?;
        (Hold::Until(until), until <= release.max_until)
    };
    Some(if fits { Ok(hold) } else { Err(replies::hold_too_long()) })
}

#[cfg(test)]
mod tests;
