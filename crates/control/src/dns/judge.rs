//! Comparing one wanted record with what the DNS answers. No look-ups here, so that every case can be shown by a test.

use super::records::{Role, ZoneRecord};

/// How a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    Missing,
    Wrong,
}

/// What the DNS answered for a name and type: data in zone-file form, TXT joined and unquoted.
pub(super) fn judge(wanted: &ZoneRecord, found: &[String]) -> (State, String) {
    match wanted.role {
        Role::Spf | Role::HeloSpf => one_text(found, "v=spf1", "SPF", |text| same_words(text, &wanted.value)),
        Role::Dmarc => one_text(found, "v=DMARC1", "DMARC", |text| {
            tag(text, "p").is_some_and(|p| ["none", "quarantine", "reject"].contains(&p.as_str()))
        }),
        Role::MtaSts => one_text(found, "v=STSv1", "MTA-STS", |text| tag(text, "id") == tag(&wanted.value, "id")),
        Role::TlsReports => one_text(found, "v=TLSRPTv1", "TLS report", |text| tag(text, "rua").is_some_and(|rua| rua.contains(':'))),
        Role::Dkim => dkim(wanted, found),
        Role::Mx => mx(wanted, found),
        Role::Address => member(wanted, found, "points elsewhere; mail for this server goes there"),
        Role::Tlsa => member(wanted, found, "does not match the certificate; servers that check it refuse to send here"),
        Role::Service => member(wanted, found, "names another host or port"),
        Role::MtaStsHost | Role::Autoconfig => member(wanted, found, "points elsewhere"),
    }
}

fn fold(text: &str) -> String {
    text.trim().trim_end_matches('.').to_ascii_lowercase()
}

fn member(wanted: &ZoneRecord, found: &[String], otherwise: &str) -> (State, String) {
    if found.is_empty() {
        return (State::Missing, String::new());
    }
    let is_there = found.iter().any(|f| fold(f) == fold(&wanted.value));
    if is_there { (State::Ok, String::new()) } else { (State::Wrong, otherwise.into()) }
}

/// The host must be among the exchangers, whatever its preference.
fn mx(wanted: &ZoneRecord, found: &[String]) -> (State, String) {
    let host = |text: &str| fold(text.rsplit(' ').next().unwrap_or(""));
    if found.is_empty() {
        return (State::Missing, String::new());
    }
    if found.iter().any(|f| host(f).is_empty()) {
        return (State::Wrong, "is a null MX: the domain says that it takes no mail".into());
    }
    let ours = host(&wanted.value);
    if found.iter().any(|f| host(f) == ours) { (State::Ok, String::new()) } else { (State::Wrong, "names other hosts only".into()) }
}

fn dkim(wanted: &ZoneRecord, found: &[String]) -> (State, String) {
    if found.is_empty() {
        return (State::Missing, String::new());
    }
    if found.len() > 1 {
        return (State::Wrong, "there are several records of this name; only one may stay".into());
    }
    let key = |text: &str| tag(text, "p").map(|p| p.split_whitespace().collect::<String>());
    match found.first().and_then(|f| key(f)) {
        Some(p) if Some(&p) == key(&wanted.value).as_ref() => (State::Ok, String::new()),
        Some(p) if p.is_empty() => (State::Wrong, "says that the key was revoked".into()),
        _ => (State::Wrong, "holds another key (or the record was cut when it was entered)".into()),
    }
}

/// Of the TXT records, exactly one may begin with the version, and it must pass.
fn one_text(found: &[String], version: &str, name: &str, passes: impl Fn(&str) -> bool) -> (State, String) {
    let ours = |text: &&String| {
        let text = text.trim().to_ascii_lowercase();
        let rest = text.strip_prefix(&version.to_ascii_lowercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ';', '\t']))
    };
    let candidates: Vec<&String> = found.iter().filter(ours).collect();
    match candidates.as_slice() {
        [] => (State::Missing, String::new()),
        [only] if passes(only) => (State::Ok, String::new()),
        [_] => (State::Wrong, "differs".into()),
        _ => (State::Wrong, format!("there are {} {name} records; with more than one none of them counts", candidates.len())),
    }
}

fn same_words(a: &str, b: &str) -> bool {
    a.split_whitespace().map(str::to_ascii_lowercase).eq(b.split_whitespace().map(str::to_ascii_lowercase))
}

/// The value of `name=` in `a=b; c=d`.
fn tag(text: &str, name: &str) -> Option<String> {
    text.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::records::{records, tests::facts};
    use super::*;

    fn state(role: Role, found: &[&str]) -> State {
        let all = records(&facts());
        let wanted = all.iter().find(|r| r.role == role).unwrap();
        judge(wanted, &found.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>()).0
    }

    #[test]
    fn what_is_published_as_asked_is_ok_and_nothing_is_missing() {
        for record in records(&facts()) {
            assert_eq!(judge(&record, std::slice::from_ref(&record.value)).0, State::Ok, "{record:?}");
            assert_eq!(judge(&record, &[]).0, State::Missing, "{record:?}");
        }
    }

    #[test]
    fn what_differs_is_wrong() {
        let cases: [(Role, &[&str], State); 17] = [
            (Role::Mx, &["10 other.example."], State::Wrong),
            (Role::Mx, &["0 ."], State::Wrong),
            (Role::Mx, &["5 backup.example.", "20 MAIL.example.org."], State::Ok),
            (Role::Spf, &["v=spf1 mx -all", "v=spf1 a -all"], State::Wrong),
            (Role::Spf, &["google-site-verification=x", "V=SPF1  mx -ALL"], State::Ok),
            (Role::Spf, &["v=spf10 mx"], State::Missing),
            (Role::Dkim, &["v=DKIM1; k=rsa; p="], State::Wrong),
            (Role::Dkim, &["v=DKIM1; k=rsa; p=BBBB"], State::Wrong),
            (Role::Dmarc, &["v=DMARC1; p=none"], State::Ok),
            (Role::Dmarc, &["v=DMARC1"], State::Wrong),
            (Role::Dmarc, &["v=DMARC1; p=none", "v=DMARC1; p=reject"], State::Wrong),
            (Role::MtaSts, &["v=STSv1; id=other"], State::Wrong),
            (Role::TlsReports, &["v=TLSRPTv1; rua=mailto:x@y.org"], State::Ok),
            (Role::Tlsa, &["3 1 1 0000"], State::Wrong),
            (Role::Service, &["0 1 466 mail.example.org."], State::Wrong),
            (Role::Address, &["192.0.2.99"], State::Wrong),
            (Role::MtaStsHost, &["elsewhere.example."], State::Wrong),
        ];
        for (role, found, expected) in cases {
            assert_eq!(state(role, found), expected, "{role:?} {found:?}");
        }
    }
}
