//! Text to addresses: `FromStr`, and the paths of MAIL and RCPT (RFC 5321 §4.1.2).

use std::str::FromStr;

use super::{AddressError, Domain, ForwardPath, LocalPart, MAX_PATH, Mailbox, ReversePath};

impl FromStr for Mailbox {
    type Err = AddressError;

    /// Parses `dot-string@domain`, `"quoted string"@domain`, with no brackets and no source route.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, rest) = local_part(text)?;
        let domain = rest.strip_prefix('@').ok_or(AddressError::NoDomain)?;
        Ok(Self { local, domain: Domain::new(domain)? })
    }
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::new(text)
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;
    /// The empty string and `<>` are the null path; brackets are optional otherwise.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let inner = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text);
        if inner.is_empty() { Ok(Self::Null) } else { inner.parse().map(Self::Mailbox) }
    }
}

impl FromStr for ForwardPath {
    type Err = AddressError;
    /// `postmaster` in any case, or a mailbox; brackets are optional.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let inner = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text);
        forward(inner)
    }
}

impl ReversePath {
    /// Parses what follows `MAIL FROM:` and returns the rest of the line: the parameters.
    ///
    /// Taken though RFC 5321 does not know them: spaces before the path, and a path without brackets, as devices send it.
    pub fn parse(text: &str) -> Result<(Self, &str), AddressError> {
        let (inner, rest) = split_path(text)?;
        if inner.is_empty() {
            return Ok((Self::Null, rest));
        }
        Ok((Self::Mailbox(strip_route(inner)?.parse()?), rest))
    }
}

impl ForwardPath {
    /// Parses what follows `RCPT TO:` and returns the rest of the line: the parameters. As lenient as [`ReversePath::parse`].
    pub fn parse(text: &str) -> Result<(Self, &str), AddressError> {
        let (inner, rest) = split_path(text)?;
        Ok((forward(strip_route(inner)?)?, rest))
    }
}

fn forward(inner: &str) -> Result<ForwardPath, AddressError> {
    let unquoted = inner.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(inner);
    if unquoted.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    inner.parse().map(ForwardPath::Mailbox)
}

/// The local part at the front of `text`, unquoted, and what follows it.
fn local_part(text: &str) -> Result<(LocalPart, &str), AddressError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let at = text.find('@').ok_or(if text.is_empty() { AddressError::Empty } else { AddressError::NoDomain })?;
        let (local, rest) = text.split_at(at);
        let local = LocalPart::new(local)?;
        return if local.is_dot_string() { Ok((local, rest)) } else { Err(AddressError::LocalPart) };
    };
    let mut local = String::new();
    let mut chars = quoted.char_indices();
    loop {
        match chars.next() {
            Some((at, '"')) => return Ok((LocalPart::new(&local)?, quoted.get(at + 1..).unwrap_or(""))),
            Some((_, '\\')) => match chars.next() {
                Some((_, c)) if c == ' ' || c.is_ascii_graphic() => local.push(c),
                _ => return Err(AddressError::LocalPart),
            },
            Some((_, c)) if !c.is_control() => local.push(c),
            _ => return Err(AddressError::LocalPart),
        }
    }
}

/// Cuts the path off the front of the line: between angle brackets, quoted strings respected, or up to the next space.
fn split_path(text: &str) -> Result<(&str, &str), AddressError> {
    let text = text.trim_start_matches(' ');
    let (body, close) = match text.strip_prefix('<') {
        Some(body) => (body, '>'),
        None => (text, ' '),
    };
    let mut quoted = false;
    let mut escaped = false;
    let end = body.char_indices().find_map(|(at, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == close && !quoted => return Some(at),
            _ => {}
        }
        None
    });
    let (inner, rest) = match (end, close) {
        (Some(end), _) => (body.get(..end).unwrap_or(""), body.get(end + 1..).unwrap_or("")),
        // Without brackets the path may end with the line.
        (None, ' ') if !body.is_empty() && !quoted => (body, ""),
        _ => return Err(AddressError::Unclosed),
    };
    if inner.len() > MAX_PATH {
        return Err(AddressError::TooLong);
    }
    // After `>` comes a space or nothing; `<a@b>x` is not a path followed by a parameter.
    if close == '>' && !(rest.is_empty() || rest.starts_with(' ')) {
        return Err(AddressError::Unclosed);
    }
    // `MAIL FROM:` and nothing else, or `<a@b` torn by a space, must not become an address.
    if close == ' ' && (inner.is_empty() || inner.contains(['<', '>'])) {
        return Err(AddressError::Unclosed);
    }
    Ok((inner, rest))
}

/// Drops a source route, `@a,@b:` (RFC 5321 Appendix C: accepted and ignored). Its domains must be domains.
fn strip_route(inner: &str) -> Result<&str, AddressError> {
    if !inner.starts_with('@') {
        return Ok(inner);
    }
    // An IPv6 literal holds colons of its own, so the route is walked domain by domain.
    let mut rest = inner;
    loop {
        let hop = rest.strip_prefix('@').ok_or(AddressError::Route)?;
        let end = if hop.starts_with('[') { hop.find(']').map(|at| at + 1) } else { hop.find([',', ':']) };
        let (domain, after) = hop.split_at_checked(end.ok_or(AddressError::Route)?).ok_or(AddressError::Route)?;
        Domain::new(domain).map_err(|_| AddressError::Route)?;
        match after.split_at_checked(1) {
            Some((",", next)) => rest = next,
            Some((":", mailbox)) => return Ok(mailbox),
            _ => return Err(AddressError::Route),
        }
    }
}
