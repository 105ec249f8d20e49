//! `pillarbox dns`.

use pillarbox_control::api::DnsLine;
use pillarbox_control::dns::ZoneRecord;
use pillarbox_control::{Client, escaped};
use pillarbox_smtp::Domain;

use super::parsed;
use crate::args::DnsVerb;
use crate::failure::Failure;
use crate::out::{Mood, Out, mood, safe};
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: DnsVerb) -> Result<(), Failure> {
    match verb {
        DnsVerb::Records { domain } => print_records(session.out, &session.api().await?, &parsed("domain", &domain)?).await,
        DnsVerb::Check { domain } => check(session, &parsed("domain", &domain)?).await,
    }
}

/// The zone-file lines, each below its reason.
pub(super) async fn print_records(out: Out, api: &Client, domain: &Domain) -> Result<(), Failure> {
    let found: Vec<ZoneRecord> = api.get(&format!("/v1/dns/{}/records", escaped(domain.as_str()))).await?;
    if out.json {
        return out.value(&found);
    }
    if let Some(mx) = found.iter().find(|r| r.kind == "MX").filter(|_| !found.iter().any(|r| matches!(r.kind.as_ref(), "A" | "AAAA"))) {
        let host = mx.value.rsplit(' ').next().unwrap_or_default();
        out.line(format!(
            "; the address of this server: it has private ones only, so put the public one of your router here\n; {host} IN A …"
        ))?;
    }
    let mut last = "";
    for record in &found {
        if record.why != last {
            out.line(format!("; {}", record.why))?;
            last = &record.why;
        }
        out.line(record.zone_line())?;
    }
    Ok(())
}

async fn check(session: &Session, domain: &Domain) -> Result<(), Failure> {
    let found: Vec<DnsLine> = session.api().await?.get(&format!("/v1/dns/{}/check", escaped(domain.as_str()))).await?;
    if session.out.json {
        session.out.value(&found)?;
    } else {
        for line in &found {
            print_line(session.out, line)?;
        }
    }
    if found.iter().all(|l| l.state == "ok" || l.state == "optional") { Ok(()) } else { Err(Failure::said()) }
}

pub(super) fn print_line(out: Out, line: &DnsLine) -> Result<(), Failure> {
    let state = match line.state.as_str() {
        "ok" => mood("ok      ", Mood::Good),
        "optional" => mood("optional", Mood::Middling),
        "missing" => mood("missing ", Mood::Bad),
        _ => mood("wrong   ", Mood::Bad),
    };
    out.line(format!("{state} {}. {} {}", line.name, line.kind, safe(&shortened(&line.wanted))))?;
    if line.state == "ok" {
        return Ok(());
    }
    for found in &line.found {
        out.line(format!("         found {}", safe(&shortened(found))))?;
    }
    if !line.why.is_empty() {
        out.line(format!("         {}", safe(&line.why)))?;
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    if text.chars().count() <= MOST { text.to_owned() } else { format!("{}…", text.chars().take(MOST).collect::<String>()) }
}
