//! Passwd-files and Postfix' maps: a record a line.

use pillarbox_smtp::{AddressError, Mailbox};

use super::{Found, ImportOptions, Parsed};
use crate::export::parse_quota;
use crate::password::check_stored;
use crate::records::AliasAddress;

/// `user:password:uid:gid:gecos:home:shell:extra fields`; all but the first two may be missing.
pub(super) fn passwd(text: &str, options: &ImportOptions, parsed: &mut Parsed) {
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at.saturating_add(1), line.trim_end_matches('\r'))) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match passwd_line(line, options) {
            Ok(found) => parsed.users.push((number, found)),
            Err(why) => parsed.error(number, why),
        }
    }
}

fn passwd_line(line: &str, options: &ImportOptions) -> Result<Found, String> {
    let mut fields = line.splitn(8, ':');
    let address = address(fields.next().unwrap_or(""), options)?;
    let password = match fields.next().ok_or("there is no password field")? {
        // Locked or without a password, as `passwd` and `shadow` write it.
        "" | "*" | "!" | "!!" | "x" => None,
        stored => Some(stored_password(stored, true)?),
    };
    let rest: Vec<&str> = fields.collect();
    // gecos begins with the full name; its commas separate room and telephone.
    let name = rest.get(2).and_then(|gecos| gecos.split(',').next()).map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned);
    let mut quota = None;
    for extra in rest.get(5).unwrap_or(&"").split_whitespace() {
        let value = extra.strip_prefix("userdb_quota_rule=").and_then(|rule| rule.split_once("storage=")).map(|(_, size)| size);
        if let Some(size) = value.or_else(|| extra.strip_prefix("userdb_quota_storage_size=")) {
            quota = Some(parse_quota(&in_bytes(size))?);
        }
    }
    Ok(Found { address, password, quota, name })
}

/// Dovecot takes a bare number for KiB, and writes `B` for octets.
fn in_bytes(size: &str) -> String {
    let size = size.split(':').next().unwrap_or(size);
    if !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) { format!("{size}K") } else { size.to_owned() }
}

/// `address target, target …`; a line that begins with white space continues the one before (postconf(5), postmap(1)).
pub(super) fn virtual_aliases(text: &str, options: &ImportOptions, parsed: &mut Parsed) {
    let mut logical: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match logical.last_mut() {
            Some((_, before)) if line.starts_with(char::is_whitespace) => before.push_str(line),
            _ => logical.push((at.saturating_add(1), line.to_owned())),
        }
    }
    for (number, line) in logical {
        match alias_line(&line, options) {
            Ok(Some((address, targets))) => parsed.aliases.push((number, address, targets)),
            Ok(None) => {}
            Err(why) => parsed.error(number, why),
        }
    }
}

fn alias_line(line: &str, options: &ImportOptions) -> Result<Option<(AliasAddress, Vec<Mailbox>)>, String> {
    let line = line.trim();
    let (left, right) = line.split_once(char::is_whitespace).ok_or("there is no target")?;
    // `example.org anything` is how Postfix marks a virtual alias domain: no alias at all.
    if !left.contains('@') && left.contains('.') {
        return Ok(None);
    }
    let alias = match left.strip_prefix('@') {
        Some(domain) => AliasAddress::CatchAll(domain.parse().map_err(|e: AddressError| format!("{left:?}: {e}"))?),
        None => AliasAddress::Mailbox(address(left, options)?),
    };
    let mut targets = Vec::new();
    for target in right.split([',', ' ', '\t']).map(str::trim).filter(|t| !t.is_empty()) {
        if target.starts_with(['|', '/', ':']) {
            return Err(format!("the target {target:?} is a command, a file or a list, not an address"));
        }
        // `@other` maps a whole domain, which needs an alias for each address here.
        if target.starts_with('@') {
            return Err(format!("the target {target:?} is a whole domain; give its addresses one by one"));
        }
        targets.push(address(target, options)?);
    }
    if targets.is_empty() {
        return Err("there is no target".into());
    }
    Ok(Some((alias, targets)))
}

/// An address; without a domain it gets the default one.
pub(super) fn address(text: &str, options: &ImportOptions) -> Result<Mailbox, String> {
    let text = text.trim();
    match (text.parse::<Mailbox>(), &options.default_domain) {
        (Ok(address), _) => Ok(address),
        (Err(AddressError::NoDomain), Some(domain)) => {
            format!("{text}@{domain}").parse().map_err(|e: AddressError| format!("{text:?}: {e}"))
        }
        (Err(AddressError::NoDomain), None) => Err(format!("{text:?} has no domain, and no default domain was given")),
        (Err(e), _) => Err(format!("{text:?}: {e}")),
    }
}

/// A password field as it is stored. What names no scheme is a hash when it looks like one; else it is refused where hashes are
/// expected, since a misread hash would become somebody's password, and taken for plain text where people write passwords.
pub(super) fn stored_password(field: &str, hash_expected: bool) -> Result<String, String> {
    if field.starts_with('{') || field.starts_with('$') {
        return check_stored(field).map(|()| field.to_owned()).map_err(|e| e.to_string());
    }
    if hash_expected {
        return Err("the password names no scheme: write {PLAIN} before it if it is plain text".into());
    }
    Ok(format!("{{PLAIN}}{field}"))
}
