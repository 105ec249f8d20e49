//! `pillarbox setup`: from nothing to a server whose DNS records only have to be published. May be repeated: what is there stays.

mod certificate;
mod dovecot;
mod file;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use hyper::Method;
use pillarbox_config::{Config, DEFAULT_PATH};
use pillarbox_control::api::{DkimInfo, DkimRotated, DomainInfo, Grade, NewDomain, NewUser, Probe, UserInfo};
use pillarbox_control::dns::ZoneRecord;
use pillarbox_control::local::make_folder;
use pillarbox_control::{Client, escaped};
use pillarbox_smtp::{Domain, Mailbox};
use serde::Serialize;

use super::check::{self, print_probe};
use super::{dns, parsed};
use crate::args::{PasswordSource, Setup};
use crate::failure::{EXISTS, Failure, NOT_FOUND, Trying};
use crate::prompt;
use crate::session::Session;

/// What was done, for `--json`.
#[derive(Serialize)]
struct Done {
    domain: Domain,
    hostname: String,
    config: PathBuf,
    config_written: bool,
    user: Option<Mailbox>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    dovecot: Option<PathBuf>,
    findings: Vec<Probe>,
    records: Vec<ZoneRecord>,
}

pub(crate) async fn run(session: &Session, setup: Setup) -> Result<(), Failure> {
    let domain: Domain = parsed("domain", &setup.domain)?;
    let user = admin(&setup, &domain)?;
    let path = session.file.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    let ask = !setup.yes && std::io::stdin().is_terminal();

    // The configuration first: everything else reads it.
    let (config, written) = match file::says_nothing(&path)? {
        false => (existing(session, &setup)?, false),
        true => (file::write(session.out, &path, &setup, &domain, ask)?, true),
    };
    say(session, &if written { format!("Wrote {}.", path.display()) } else { format!("{} is there already and stays.", path.display()) })?;

    let mut findings = findings(session, &config, written).await?;
    let dovecot = dovecot::write(&config, path.parent().unwrap_or(Path::new("/etc/pillarbox")));

    for folder in [&config.paths.state, &config.paths.mail] {
        make_folder(folder).trying(format!("make {}", folder.display()))?;
    }
    // From here on without root, where the daemon does not run.
    let api = session.api_of(&config).await?;
    findings.extend(outward(session, &api, &findings).await?);
    add_domain(session, &api, &domain).await?;
    let password = match &user {
        Some(user) => add_user(session, &api, user, &setup).await?,
        None => None,
    };
    add_keys(session, &api, &domain).await?;

    if session.out.json {
        let records = api.get(&format!("/v1/dns/{}/records", escaped(domain.as_str()))).await?;
        let hostname = config.hostname();
        return session.out.value(&Done {
            domain,
            hostname,
            config: path,
            config_written: written,
            user,
            password,
            dovecot,
            findings,
            records,
        });
    }
    if let Some(password) = password {
        session.out.line(format!("Password, shown only now: {password}"))?;
    }
    session.out.line(format!("\nPublish these records in the zone of {domain}:\n"))?;
    dns::print_records(session.out, &api, &domain).await?;
    next_steps(session, &api, &domain, dovecot.as_deref())
}

/// The first user: named in full or by its local part.
fn admin(setup: &Setup, domain: &Domain) -> Result<Option<Mailbox>, Failure> {
    match &setup.admin {
        Some(text) if text.contains('@') => Ok(Some(parsed("address", text)?)),
        Some(text) => Ok(Some(parsed("address", &format!("{text}@{domain}"))?)),
        None => Ok(None),
    }
}

fn existing(session: &Session, setup: &Setup) -> Result<Config, Failure> {
    let config = session.config()?;
    match &setup.hostname {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&config.hostname()) => Err(Failure::failed(format!(
            "the configuration names the host {}, not {wanted}; change hostname there, or leave --hostname away",
            config.hostname()
        ))),
        _ => Ok(config),
    }
}

fn say(session: &Session, text: &str) -> Result<(), Failure> {
    if session.out.json { Ok(()) } else { session.out.line(text) }
}

/// Everything about the machine and its network that an administrator should know before going on.
async fn findings(session: &Session, config: &Config, fresh: bool) -> Result<Vec<Probe>, Failure> {
    let hostname = config.hostname();
    let mut found = vec![match hostname.contains('.') {
        true => Probe::ok("hostname", hostname),
        false => Probe::fail("hostname", format!("{hostname} is not fully qualified"), "repeat with --hostname mail.example.org"),
    }];
    found.push(certificate::probe(config));
    found.push(dovecot::probe());
    if fresh {
        found.extend(check::listeners(config));
    }
    let servers = check::name_servers(config).await;
    let names = servers.iter().all(|p| p.grade != Grade::Fail);
    found.extend(servers);
    if names {
        let (addresses, address) = check::addresses(config).await;
        found.push(address);
        found.extend(check::reverse_names(config, &addresses).await);
    }
    if !session.out.json {
        for probe in &found {
            print_probe(session.out, probe)?;
        }
    }
    Ok(found)
}

/// Whether mail can leave; not worth the wait where no name can be looked up.
async fn outward(session: &Session, api: &Client, before: &[Probe]) -> Result<Vec<Probe>, Failure> {
    if before.iter().any(|p| p.name == check::NAME_SERVERS && p.grade == Grade::Fail) {
        return Ok(vec![]);
    }
    let found = check::relay(api).await?;
    if !session.out.json {
        for probe in &found {
            print_probe(session.out, probe)?;
        }
    }
    Ok(found)
}

async fn add_domain(session: &Session, api: &Client, domain: &Domain) -> Result<(), Failure> {
    let added = api.send::<_, DomainInfo>(Method::POST, "/v1/domains", &NewDomain { name: domain.clone() }).await;
    match added.map_err(Failure::from) {
        Ok(_) => say(session, &format!("Added the domain {domain} and made its DKIM keys.")),
        Err(failure) if failure.code == EXISTS => say(session, &format!("The domain {domain} is there already.")),
        Err(failure) => Err(failure),
    }
}

/// Answers with the password when it was made here.
async fn add_user(session: &Session, api: &Client, user: &Mailbox, setup: &Setup) -> Result<Option<String>, Failure> {
    let there = api.get::<UserInfo>(&format!("/v1/users/{}", escaped(&user.to_string()))).await.map_err(Failure::from);
    match there {
        Ok(_) => {
            say(session, &format!("The user {user} is there already."))?;
            return Ok(None);
        }
        Err(failure) if failure.code == NOT_FOUND => {}
        Err(failure) => return Err(failure),
    }
    let generate = !setup.password_stdin && (setup.yes || !std::io::stdin().is_terminal());
    let source = PasswordSource { password_stdin: setup.password_stdin, generate };
    let chosen = prompt::password(source, &user.to_string())?;
    let new =
        NewUser { address: user.clone(), password: Some(chosen.password.expose().to_owned()), quota: None, name: None, logins: vec![] };
    api.send::<_, UserInfo>(Method::POST, "/v1/users", &new).await?;
    say(session, &format!("Added the user {user}, who gets mail for postmaster too."))?;
    Ok(chosen.generated.then(|| chosen.password.expose().to_owned()))
}

async fn add_keys(session: &Session, api: &Client, domain: &Domain) -> Result<(), Failure> {
    let path = format!("/v1/dkim/{}", escaped(domain.as_str()));
    let keys: Vec<DkimInfo> = api.get(&path).await?;
    if keys.iter().any(|k| k.state != "retired") {
        return Ok(());
    }
    let made: DkimRotated = api.send(Method::POST, &format!("{path}/rotate?now=true"), &()).await?;
    say(session, &format!("Made {} DKIM keys.", made.publish.len()))
}

fn next_steps(session: &Session, api: &Client, domain: &Domain, dovecot: Option<&Path>) -> Result<(), Failure> {
    let out = session.out;
    out.line("\nNext:")?;
    if !api.is_daemon() {
        out.line(
            "  systemctl enable --now pillarbox     start the server; it makes a certificate, whose TLSA record joins the list above",
        )?;
    }
    if let Some(file) = dovecot {
        out.line(format!("  cp {} /etc/dovecot/dovecot.conf && systemctl restart dovecot", file.display()))?;
    }
    out.line(format!("  pillarbox dns check {domain}     once the records are published"))?;
    out.line("  pillarbox check                      everything else")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_user_may_be_named_by_the_local_part() {
        let setup = |admin: Option<&str>| Setup {
            domain: "example.org".into(),
            admin: admin.map(Into::into),
            hostname: None,
            acme: false,
            certificate: None,
            private_key: None,
            password_stdin: false,
            yes: true,
        };
        let domain = "example.org".parse().unwrap();
        let found = |text| admin(&setup(text), &domain).unwrap().map(|m| m.to_string());
        assert_eq!(found(Some("bob")).as_deref(), Some("bob@example.org"));
        assert_eq!(found(Some("bob@example.net")).as_deref(), Some("bob@example.net"));
        assert_eq!(found(None), None);
        assert!(admin(&setup(Some("a b")), &domain).is_err());
    }
}
