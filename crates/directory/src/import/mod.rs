//! Moving in: users from passwd-files, CSV and Postfix maps, with the hashes that they bring along; upgraded at the next login.
//!
//! A bad line is reported with its number and why, and the others are taken: whoever moves a thousand users mends three lines by hand.

mod csv;
mod lines;
#[cfg(test)]
mod tests;

use pillarbox_config::Argon2Cost;
use pillarbox_smtp::{Domain, Mailbox, Secret, printable};

use crate::clock::rfc3339;
use crate::ops::OpsError;
use crate::password::{self, Stored};
use crate::records::{AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, Quota, UserRecord};
use crate::store::Directory;

/// Largest file in octets.
pub const MAX_FILE: usize = 256 << 20;

/// What the lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `user@domain:{SCHEME}hash:uid:gid:gecos:home:shell:extra fields`, as Dovecot reads it; `passwd` and `shadow` files too.
    Passwd,
    /// `address,password-or-hash,quota,name`; a first line with those words gives another order.
    Csv,
    /// Postfix' virtual alias map: `address target, target …`; `@domain` is the catch-all.
    VirtualAliases,
}

impl Format {
    /// What a file looks like, by its name and its first telling line.
    pub fn detect(file_name: &str, text: &str) -> Self {
        if file_name.to_ascii_lowercase().ends_with(".csv") {
            return Self::Csv;
        }
        let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#')).unwrap_or("");
        let (colon, comma, space) = (line.find(':'), line.find(','), line.find(char::is_whitespace));
        match (colon, comma, space) {
            (Some(colon), _, space) if space.is_none_or(|s| colon < s) => Self::Passwd,
            (_, Some(comma), space) if space.is_none_or(|s| comma < s) => Self::Csv,
            (_, _, Some(_)) => Self::VirtualAliases,
            _ => Self::Csv,
        }
    }
}

/// How to read and what to do.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Domain of names without one, as in a `passwd` file.
    pub default_domain: Option<Domain>,
    /// Adds domains that are not there.
    pub add_domains: bool,
    /// Takes users and aliases that exist already again, with the file's values; otherwise they are left as they are.
    pub replace: bool,
    /// Cost of the hashes made of plain passwords.
    pub cost: Argon2Cost,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it; no password is shown.
    pub why: String,
}

/// A user as a file describes it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: Mailbox,
    /// A hash with its scheme, or `{PLAIN}` and the password.
    pub(crate) password: Option<String>,
    pub(crate) quota: Option<Quota>,
    pub(crate) name: Option<String>,
}

/// What a file holds.
#[derive(Clone, Default)]
pub struct Parsed {
    users: Vec<(usize, Found)>,
    aliases: Vec<(usize, AliasAddress, Vec<Mailbox>)>,
    /// Lines that were not understood.
    pub errors: Vec<LineError>,
}

impl Parsed {
    fn error(&mut self, line: usize, why: impl std::fmt::Display) {
        self.errors.push(LineError { line, why: printable(why.to_string().as_bytes()) });
    }

    /// How many (users, aliases) were understood.
    pub fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.aliases.len())
    }
}

/// Reads a file.
pub fn parse(text: &str, format: Format, options: &ImportOptions) -> Parsed {
    let mut parsed = Parsed::default();
    if text.len() > MAX_FILE {
        parsed.error(1, format_args!("the file is larger than {} MiB; import it in parts", MAX_FILE >> 20));
        return parsed;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Passwd => lines::passwd(text, options, &mut parsed),
        Format::Csv => csv::parse(text, options, &mut parsed),
        Format::VirtualAliases => lines::virtual_aliases(text, options, &mut parsed),
    }
    parsed
}

/// What became of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// Domains added.
    pub domains: usize,
    /// Users added or replaced.
    pub users: usize,
    /// Aliases added, replaced or extended.
    pub aliases: usize,
    /// Users and aliases that were there already and were left.
    pub existing: usize,
    /// Lines that were not taken.
    pub errors: Vec<LineError>,
}

/// Changes made durable together.
const BATCH: usize = 1000;

/// Puts what was parsed into the directory, a thousand at a time, calling `progress` with (done, all) after each. Plain passwords are hashed
/// first, some 30 ms each.
///
/// # Errors
/// When the directory does not answer; what was done until then stays, and the import may be repeated.
pub async fn import(
    directory: &dyn Directory,
    parsed: Parsed,
    options: &ImportOptions,
    now: std::time::SystemTime,
    mut progress: impl FnMut(usize, usize) + Send,
) -> Result<Imported, OpsError> {
    let all = parsed.users.len().saturating_add(parsed.aliases.len());
    let created = rfc3339(now);
    let mut run = Run { directory, options, created, done: Imported { errors: parsed.errors, ..Imported::default() }, batch: Vec::new() };
    let mut count = 0usize;
    for (line, found) in parsed.users {
        run.user(line, found).await?;
        count = count.saturating_add(1);
        if run.batch.len() >= BATCH {
            run.flush().await?;
            progress(count, all);
        }
    }
    run.flush().await?;
    for (line, address, targets) in parsed.aliases {
        run.alias(line, address, targets).await?;
        count = count.saturating_add(1);
        if run.batch.len() >= BATCH {
            run.flush().await?;
            progress(count, all);
        }
    }
    run.flush().await?;
    progress(all, all);
    run.done.errors.sort_by_key(|e| e.line);
    Ok(run.done)
}

struct Run<'a> {
    directory: &'a dyn Directory,
    options: &'a ImportOptions,
    created: String,
    done: Imported,
    /// Changes of one line stay together.
    batch: Vec<(usize, Vec<Change>)>,
}

impl Run<'_> {
    fn error(&mut self, line: usize, why: String) {
        self.done.errors.push(LineError { line, why });
    }

    async fn flush(&mut self) -> Result<(), OpsError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let together: Vec<Change> = batch.iter().flat_map(|(_, changes)| changes.clone()).collect();
        match self.directory.apply(together).await.map_err(OpsError::from) {
            Ok(()) => {
                self.count(&batch);
                Ok(())
            }
            // One line contradicts what is there: one at a time, to say which.
            Err(OpsError::Refused(_)) => {
                for (line, changes) in batch {
                    match self.directory.apply(changes.clone()).await.map_err(OpsError::from) {
                        Ok(()) => self.count(&[(line, changes)]),
                        Err(OpsError::Refused(why)) => self.error(line, why),
                        Err(other) => return Err(other),
                    }
                }
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn count(&mut self, batch: &[(usize, Vec<Change>)]) {
        for change in batch.iter().flat_map(|(_, changes)| changes) {
            match change {
                Change::PutDomain(_) => self.done.domains = self.done.domains.saturating_add(1),
                Change::PutUser(_) => self.done.users = self.done.users.saturating_add(1),
                Change::PutAlias(_) => self.done.aliases = self.done.aliases.saturating_add(1),
                _ => {}
            }
        }
    }

    /// Whether the domain is there, or is added along.
    async fn domain(&mut self, line: usize, name: &Domain, changes: &mut Vec<Change>) -> Result<bool, OpsError> {
        let waiting = self.batch.iter().flat_map(|(_, c)| c).any(|c| matches!(c, Change::PutDomain(d) if d.name == *name));
        if waiting || self.directory.domain(name).await?.is_some() {
            return Ok(true);
        }
        if !self.options.add_domains || name.ip().is_some() {
            self.error(line, format!("{name} is no domain of this server; add it first"));
            return Ok(false);
        }
        let record = DomainRecord { name: name.clone(), created: self.created.clone(), deliver_to: None, dkim: Vec::new() };
        changes.push(Change::PutDomain(record));
        Ok(true)
    }

    async fn user(&mut self, line: usize, found: Found) -> Result<(), OpsError> {
        let mut changes = Vec::new();
        if !self.domain(line, &found.address.domain, &mut changes).await? {
            return Ok(());
        }
        let old = self.directory.user(&found.address).await?;
        if old.is_some() && !self.options.replace {
            self.done.existing = self.done.existing.saturating_add(1);
            return Ok(());
        }
        let password = match found.password {
            Some(stored) => match self.stored(stored).await? {
                Ok(hash) => Some(hash),
                Err(why) => {
                    self.error(line, why);
                    return Ok(());
                }
            },
            None => None,
        };
        let mut record = old.unwrap_or_else(|| UserRecord::new(found.address.clone(), self.created.clone()));
        record.quota = found.quota.or(record.quota);
        record.name = found.name.or(record.name);
        let mut credential = self.directory.credential(&record.address).await?.unwrap_or_default();
        if password.is_some() {
            credential = CredentialRecord { password, scram: None, app: credential.app };
        }
        changes.extend([Change::PutUser(record), Change::PutCredential(found.address, credential)]);
        self.batch.push((line, changes));
        Ok(())
    }

    /// The hash to store: a plain password becomes one.
    async fn stored(&self, stored: String) -> Result<Result<String, String>, OpsError> {
        match Stored::parse(&stored) {
            Err(why) => Ok(Err(why.to_string())),
            Ok(Stored::Plain(plain)) => {
                let cost = self.options.cost;
                let hashed = password::workers::run(move || password::hash(&Secret::new(plain), &cost)).await;
                let unavailable = |e: password::workers::WorkerFailed| crate::DirectoryError::Unavailable(e.to_string());
                Ok(hashed.map_err(unavailable)?.map_err(|e| e.to_string()))
            }
            Ok(_) => Ok(Ok(stored)),
        }
    }

    async fn alias(&mut self, line: usize, address: AliasAddress, targets: Vec<Mailbox>) -> Result<(), OpsError> {
        let mut changes = Vec::new();
        if !self.domain(line, address.domain(), &mut changes).await? {
            return Ok(());
        }
        let waiting = self.batch.iter().flat_map(|(_, c)| c).any(|c| matches!(c, Change::PutAlias(a) if a.address.same_as(&address)));
        if waiting {
            // The same address on several lines: their targets come together.
            self.flush().await?;
        }
        let old = self.directory.alias(&address).await?;
        let keep = old.as_ref().filter(|_| !self.options.replace);
        let mut record = keep.cloned().unwrap_or_else(|| AliasRecord { address, targets: Vec::new(), created: self.created.clone() });
        let before = record.targets.len();
        for target in targets {
            if !record.targets.iter().any(|t| t.same_as(&target)) {
                record.targets.push(target);
            }
        }
        if old.as_ref() == Some(&record) || (keep.is_some() && record.targets.len() == before) {
            self.done.existing = self.done.existing.saturating_add(1);
            return Ok(());
        }
        changes.push(Change::PutAlias(record));
        self.batch.push((line, changes));
        Ok(())
    }
}
