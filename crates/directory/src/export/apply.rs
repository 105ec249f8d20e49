//! Applying an export: what it would change, in words, and then changing it. Applying twice changes nothing.

use std::collections::HashSet;
use std::fmt;

use pillarbox_config::Argon2Cost;
use pillarbox_smtp::Secret;
use serde::Serialize;

use super::format::{Content, ExportError, parse};
use crate::clock::rfc3339;
use crate::password::{self, Stored};
use crate::records::{AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::state::{FOREVER, SETTINGS};
use crate::store::Directory;

/// Changes made durable together; more are made in several steps, each of which may be repeated.
const BATCH: usize = 10_000;
/// Records read at a time.
const PAGE: usize = 1000;

/// How to apply.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// Plans only.
    pub dry_run: bool,
    /// Removes what the file does not name.
    pub prune: bool,
    /// Cost of hashes for passwords that the file gives as `{PLAIN}`.
    pub cost: Argon2Cost,
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// It is new.
    Add,
    /// It is there and differs.
    Change,
    /// It goes.
    Remove,
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// A domain.
    Domain,
    /// A user.
    User,
    /// An alias.
    Alias,
    /// A setting or secret of the server.
    Setting,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedChange {
    /// What it does.
    pub action: PlanAction,
    /// To what.
    pub kind: PlanKind,
    /// Its name.
    pub name: String,
    /// What differs, for changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<&'static str>,
}

impl fmt::Display for PlannedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            PlanAction::Add => "add",
            PlanAction::Change => "change",
            PlanAction::Remove => "remove",
        };
        let noun = match self.kind {
            PlanKind::Domain => "domain",
            PlanKind::User => "user",
            PlanKind::Alias => "alias",
            PlanKind::Setting => "setting",
        };
        write!(f, "{verb} {noun} {}", self.name)?;
        if !self.fields.is_empty() {
            write!(f, " ({})", self.fields.join(", "))?;
        }
        Ok(())
    }
}

/// What a record of the file asks for beside what is there; `None`: nothing.
fn action<T: PartialEq>(old: Option<&T>, wanted: &T) -> Option<PlanAction> {
    match old {
        Some(old) if old == wanted => None,
        Some(_) => Some(PlanAction::Change),
        None => Some(PlanAction::Add),
    }
}

/// All that would change, or was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which it is done.
    pub changes: Vec<PlannedChange>,
}

impl Plan {
    /// Whether everything is as the file says already.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Reads an export and makes the directory like it: adds what is missing, changes what differs, and with `prune` removes the rest.
/// A user without any credentials in the file keeps those it has; a record without `created` keeps its own.
///
/// # Errors
/// When the text is no export, the directory does not answer, or the outcome would contradict itself.
pub async fn apply(directory: &dyn Directory, text: &str, options: &ApplyOptions) -> Result<Plan, ExportError> {
    let content = parse(text)?;
    let mut planner =
        Planner { directory, options, plan: Plan::default(), changes: Vec::new(), now: rfc3339(std::time::SystemTime::now()) };
    let settings = planner.settings(&content).await?;
    planner.run(content).await?;
    let Planner { plan, changes, .. } = planner;
    if !options.dry_run {
        for (name, value) in settings {
            directory.state_put(SETTINGS, name.as_bytes(), &value, FOREVER).await?;
        }
        for batch in changes.chunks(BATCH) {
            directory.apply(batch.to_vec()).await?;
        }
    }
    Ok(plan)
}

struct Planner<'a> {
    directory: &'a dyn Directory,
    options: &'a ApplyOptions,
    plan: Plan,
    changes: Vec<Change>,
    now: String,
}

impl Planner<'_> {
    fn line(&mut self, action: PlanAction, kind: PlanKind, name: impl fmt::Display, fields: Vec<&'static str>) {
        self.plan.changes.push(PlannedChange { action, kind, name: name.to_string(), fields });
    }

    async fn settings(&mut self, content: &Content) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
        let mut wanted = Vec::new();
        for (name, value) in content.settings() {
            let action = match self.directory.state_get(SETTINGS, name.as_bytes()).await? {
                Some(old) if old == value => continue,
                Some(_) => PlanAction::Change,
                None => PlanAction::Add,
            };
            self.line(action, PlanKind::Setting, &name, vec![]);
            wanted.push((name, value));
        }
        Ok(wanted)
    }

    async fn run(&mut self, content: Content) -> Result<(), ExportError> {
        let (domains, users, aliases) = content.records();
        let keep = Names::new(&domains, &users, &aliases)?;
        for domain in domains {
            self.domain(domain).await?;
        }
        // What goes makes room first: a login name may move to another user.
        if self.options.prune {
            self.prune_members(&keep).await?;
        }
        for (user, credential) in users {
            self.user(user, credential).await?;
        }
        for alias in aliases {
            self.alias(alias).await?;
        }
        if self.options.prune {
            for domain in self.directory.domains().await? {
                if !keep.domains.contains(domain.name.as_str()) {
                    self.line(PlanAction::Remove, PlanKind::Domain, &domain.name, vec![]);
                    self.changes.push(Change::RemoveDomain(domain.name));
                }
            }
        }
        Ok(())
    }

    fn created(&self, of_file: String, of_record: Option<&String>) -> String {
        if of_file.is_empty() { of_record.cloned().unwrap_or_else(|| self.now.clone()) } else { of_file }
    }

    async fn domain(&mut self, mut record: DomainRecord) -> Result<(), ExportError> {
        let old = self.directory.domain(&record.name).await?;
        record.created = self.created(record.created, old.as_ref().map(|o| &o.created));
        let Some(action) = action(old.as_ref(), &record) else { return Ok(()) };
        let fields = old.map_or_else(Vec::new, |old| {
            differing(&[
                ("created", old.created != record.created),
                ("deliver_to", old.deliver_to != record.deliver_to),
                ("dkim", old.dkim != record.dkim),
            ])
        });
        self.line(action, PlanKind::Domain, &record.name, fields);
        self.changes.push(Change::PutDomain(record));
        Ok(())
    }

    async fn user(&mut self, mut user: UserRecord, credential: CredentialRecord) -> Result<(), ExportError> {
        let old = self.directory.user(&user.address).await?;
        let old_credential = self.directory.credential(&user.address).await?;
        user.created = self.created(user.created, old.as_ref().map(|o| &o.created));
        let credential = self.credential(credential, old_credential.as_ref()).await?;
        let mut fields = Vec::new();
        if let Some(old) = &old {
            fields = differing(&[
                ("address", old.address != user.address),
                ("created", old.created != user.created),
                ("suspended", old.suspended != user.suspended),
                ("quota", old.quota != user.quota),
                ("logins", old.logins != user.logins),
                ("vacation", old.vacation != user.vacation),
                ("name", old.name != user.name),
            ]);
        }
        let user_differs = old.is_none() || !fields.is_empty();
        let mut put_credential = None;
        if let Some(credential) = credential {
            let held = old_credential.unwrap_or_default();
            let differs = differing(&[
                ("password", held.password != credential.password),
                ("scram", held.scram != credential.scram),
                ("app-passwords", held.app != credential.app),
            ]);
            if !differs.is_empty() {
                put_credential = Some(Change::PutCredential(user.address.clone(), credential));
                if old.is_some() {
                    fields.extend(differs);
                }
            }
        }
        if !user_differs && put_credential.is_none() {
            return Ok(());
        }
        let action = if old.is_some() { PlanAction::Change } else { PlanAction::Add };
        self.line(action, PlanKind::User, &user.address, fields);
        if user_differs {
            self.changes.push(Change::PutUser(user));
        }
        self.changes.extend(put_credential);
        Ok(())
    }

    /// The credential to have; `None` leaves the old one. A plain password becomes a hash, unless the old hash is of that password.
    async fn credential(
        &self,
        mut wanted: CredentialRecord,
        old: Option<&CredentialRecord>,
    ) -> Result<Option<CredentialRecord>, ExportError> {
        if wanted == CredentialRecord::default() {
            return Ok(None);
        }
        if let Some(Ok(Stored::Plain(plain))) = wanted.password.as_deref().map(Stored::parse) {
            let (old, cost) = (old.and_then(|o| o.password.clone()), self.options.cost);
            let hashed = password::workers::run(move || {
                if let Some(old) = old.filter(|old| password::verify(old, plain.as_bytes()).unwrap_or(false)) {
                    return Ok(old);
                }
                password::hash(&Secret::new(plain), &cost)
            });
            let hashed = hashed.await.map_err(std::io::Error::other)?;
            wanted.password = Some(hashed.map_err(|e| ExportError::Value(e.to_string()))?);
        }
        Ok(Some(wanted))
    }

    async fn alias(&mut self, mut record: AliasRecord) -> Result<(), ExportError> {
        let old = self.directory.alias(&record.address).await?;
        record.created = self.created(record.created, old.as_ref().map(|o| &o.created));
        let Some(action) = action(old.as_ref(), &record) else { return Ok(()) };
        let fields = old.map_or_else(Vec::new, |old| {
            differing(&[
                ("address", old.address != record.address),
                ("created", old.created != record.created),
                ("targets", old.targets != record.targets),
            ])
        });
        self.line(action, PlanKind::Alias, &record.address, fields);
        self.changes.push(Change::PutAlias(record));
        Ok(())
    }

    async fn prune_members(&mut self, keep: &Names) -> Result<(), ExportError> {
        let mut after = None;
        loop {
            let page = self.directory.users(None, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            for user in page {
                if !keep.users.contains(&user.address.key()) {
                    self.line(PlanAction::Remove, PlanKind::User, &user.address, vec![]);
                    self.changes.push(Change::RemoveUser(user.address));
                }
            }
        }
        let mut after = None;
        loop {
            let page = self.directory.aliases(None, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            for alias in page {
                if !keep.aliases.contains(&alias.address.key()) {
                    self.line(PlanAction::Remove, PlanKind::Alias, &alias.address, vec![]);
                    self.changes.push(Change::RemoveAlias(alias.address));
                }
            }
        }
        Ok(())
    }
}

/// Everything that the file names, folded; naming a thing twice is an error, since one of the two would be lost.
struct Names {
    domains: HashSet<String>,
    users: HashSet<String>,
    aliases: HashSet<String>,
}

impl Names {
    fn new(domains: &[DomainRecord], users: &[(UserRecord, CredentialRecord)], aliases: &[AliasRecord]) -> Result<Self, ExportError> {
        let set = |names: Vec<String>| {
            let mut set = HashSet::with_capacity(names.len());
            for name in names {
                if !set.insert(name.clone()) {
                    return Err(ExportError::Value(format!("the file names {name} twice")));
                }
            }
            Ok(set)
        };
        Ok(Self {
            domains: set(domains.iter().map(|d| d.name.to_string()).collect())?,
            users: set(users.iter().map(|(u, _)| u.address.key()).collect())?,
            aliases: set(aliases.iter().map(|a| a.address.key()).collect())?,
        })
    }
}

fn differing(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
