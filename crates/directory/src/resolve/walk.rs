//! The walk from an address to its targets: a stack instead of recursion, with bounds on depth and number.

use std::collections::HashSet;
use std::time::SystemTime;

use pillarbox_smtp::{Domain, LocalPart, Mailbox};

use super::{ResolvePolicy, Resolved, RouteStep, StepKind, Target, is_role_address};
use crate::records::{Addressee, AliasAddress};
use crate::srs;
use crate::store::{Directory, Result};

/// Who takes an address of a hosted domain.
enum Owner {
    User(Addressee),
    Alias(Vec<Mailbox>),
    Nobody,
}

/// One address to be expanded, with the aliases that led to it.
struct Visit {
    address: Mailbox,
    path: Vec<String>,
    depth: usize,
    forwarded_by: Mailbox,
    /// A user's own address among the targets of its forwarding: the copy that is kept.
    keep: bool,
}

pub(super) struct Walk<'a> {
    directory: &'a dyn Directory,
    policy: &'a ResolvePolicy,
    pub(super) steps: Vec<RouteStep>,
    targets: Vec<Target>,
    seen_targets: HashSet<String>,
    expanded: HashSet<String>,
    pub(super) suspended: Vec<Mailbox>,
    looped: bool,
    too_many: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(directory: &'a dyn Directory, policy: &'a ResolvePolicy) -> Self {
        Self {
            directory,
            policy,
            steps: Vec::new(),
            targets: Vec::new(),
            seen_targets: HashSet::new(),
            expanded: HashSet::new(),
            suspended: Vec::new(),
            looped: false,
            too_many: false,
        }
    }

    fn step(&mut self, what: StepKind) {
        self.steps.push(what.into());
    }

    pub(super) async fn start(&mut self, rcpt: &Mailbox, now: SystemTime) -> Result<Resolved> {
        let Some(rcpt) = self.localise(rcpt).await? else {
            self.step(StepKind::NotHosted { address: rcpt.clone() });
            return Ok(Resolved::NotOurs);
        };
        if let Some(outcome) = self.undo_srs(&rcpt, now).await? {
            return Ok(outcome);
        }
        self.expand(rcpt.clone()).await?;
        if self.targets.is_empty() && !self.too_many && is_role_address(&rcpt.local) {
            self.role_address(&rcpt).await?;
        }
        Ok(if self.too_many {
            Resolved::TooMany
        } else if !self.targets.is_empty() {
            Resolved::Deliver(std::mem::take(&mut self.targets))
        } else if !self.suspended.is_empty() {
            Resolved::Suspended
        } else if self.looped {
            Resolved::Loop
        } else {
            Resolved::Unknown
        })
    }

    /// The address in a domain that we host, or `None`. Our own address literal, and our host name for the role addresses, are ours too.
    async fn localise(&mut self, rcpt: &Mailbox) -> Result<Option<Mailbox>> {
        if self.directory.has_domain(&rcpt.domain).await? {
            self.step(StepKind::Hosted { domain: rcpt.domain.clone() });
            return Ok(Some(rcpt.clone()));
        }
        let literal = rcpt.domain.ip().is_some_and(|ip| self.policy.addresses.contains(&ip));
        let own_name = self.policy.hostname.as_ref() == Some(&rcpt.domain);
        if !((literal || own_name) && is_role_address(&rcpt.local)) {
            return Ok(None);
        }
        let domain = self.home_domain().await?.unwrap_or_else(|| rcpt.domain.clone());
        let becomes = Mailbox::new(rcpt.local.clone(), domain);
        self.step(StepKind::OwnHost { address: rcpt.clone(), becomes: becomes.clone() });
        Ok(Some(becomes))
    }

    /// The hosted domain that stands for this host: the host name itself, the closest domain above it, or the first.
    async fn home_domain(&self) -> Result<Option<Domain>> {
        let mut name = self.policy.hostname.as_ref().map(|h| h.as_str().to_owned());
        while let Some(text) = name {
            if let Ok(domain) = Domain::new(&text)
                && self.directory.has_domain(&domain).await?
            {
                return Ok(Some(domain));
            }
            name = text.split_once('.').map(|(_, rest)| rest.to_owned());
        }
        Ok(self.directory.domains().await?.into_iter().next().map(|d| d.name))
    }

    async fn undo_srs(&mut self, rcpt: &Mailbox, now: SystemTime) -> Result<Option<Resolved>> {
        let Some(srs) = self.policy.srs.clone().filter(|_| srs::is_srs(&rcpt.local)) else { return Ok(None) };
        Ok(Some(match srs.undo(self.directory, &rcpt.local, now).await? {
            Ok(original) => {
                self.step(StepKind::Srs { address: rcpt.clone(), original: original.clone() });
                Resolved::Deliver(vec![Target::Remote { address: original, forwarded_by: rcpt.clone() }])
            }
            Err(why) => {
                self.step(StepKind::SrsInvalid { address: rcpt.clone(), why: why.to_string() });
                Resolved::Unknown
            }
        }))
    }

    async fn expand(&mut self, rcpt: Mailbox) -> Result<()> {
        let mut stack = vec![Visit { forwarded_by: rcpt.clone(), address: rcpt, path: Vec::new(), depth: 0, keep: false }];
        let mut first = true;
        while let Some(visit) = stack.pop() {
            let hosted = first || self.directory.has_domain(&visit.address.domain).await?;
            first = false;
            if !hosted {
                self.remote(visit);
            } else if let Some(targets) = self.visit(&visit).await? {
                let pending = self.expanded.len().saturating_add(stack.len()).saturating_add(targets.len());
                self.too_many = visit.depth >= self.policy.max_depth || pending > self.policy.max_targets.saturating_add(1);
                // Reversed, so that targets are reached in the order in which they are listed.
                stack.extend(targets.into_iter().rev());
            }
            if self.too_many || self.targets.len() > self.policy.max_targets {
                self.too_many = true;
                if let Some(Visit { address, .. }) = stack.pop() {
                    self.step(StepKind::TooMany { address });
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Looks one hosted address up; returns the targets to go on with when it is an alias.
    async fn visit(&mut self, visit: &Visit) -> Result<Option<Vec<Visit>>> {
        let address = &visit.address;
        let key = address.key();
        if !visit.keep {
            if visit.path.contains(&key) {
                self.step(StepKind::Loop { address: address.clone() });
                self.looped = true;
                return Ok(None);
            }
            if !self.expanded.insert(key.clone()) {
                self.step(StepKind::Duplicate { address: address.clone() });
                return Ok(None);
            }
        }
        match self.owner(address, visit.keep).await? {
            Owner::User(user) => {
                self.mailbox(user, None);
                return Ok(None);
            }
            Owner::Alias(targets) => {
                self.step(StepKind::Alias { address: AliasAddress::Mailbox(address.clone()), targets: targets.clone() });
                return Ok(Some(self.follow(visit, address, targets, None)));
            }
            Owner::Nobody => {}
        }
        if let Some((base, detail)) = address.split_detail(&self.policy.delimiter) {
            match self.owner(&base, visit.keep).await? {
                Owner::User(user) => {
                    self.step(StepKind::Detail { address: address.clone(), base, detail: detail.clone() });
                    self.mailbox(user, Some(detail).filter(|d| !d.is_empty()));
                    return Ok(None);
                }
                Owner::Alias(targets) => {
                    self.step(StepKind::Detail { address: address.clone(), base: base.clone(), detail: detail.clone() });
                    self.step(StepKind::Alias { address: AliasAddress::Mailbox(base.clone()), targets: targets.clone() });
                    return Ok(Some(self.follow(visit, &base, targets, Some(&detail))));
                }
                Owner::Nobody => {}
            }
        }
        if visit.keep {
            self.step(StepKind::Loop { address: address.clone() });
            self.looped = true;
            return Ok(None);
        }
        if let Some(alias) = self.directory.alias(&AliasAddress::CatchAll(address.domain.clone())).await? {
            self.step(StepKind::CatchAll { domain: address.domain.clone(), targets: alias.targets.clone() });
            return Ok(Some(self.follow(visit, address, alias.targets, None)));
        }
        self.step(StepKind::Unknown { address: address.clone() });
        Ok(None)
    }

    /// An alias comes before a user of the same address: that is forwarding. `keep` asks for the user itself.
    async fn owner(&self, address: &Mailbox, keep: bool) -> Result<Owner> {
        if !keep && let Some(alias) = self.directory.alias(&AliasAddress::Mailbox(address.clone())).await? {
            return Ok(Owner::Alias(alias.targets));
        }
        Ok(self.directory.addressee(address).await?.map_or(Owner::Nobody, Owner::User))
    }

    /// The targets of the alias `named`, which was looked up for `visit`. A detail goes on to targets that have none of their own,
    /// as Postfix propagates it.
    fn follow(&self, visit: &Visit, named: &Mailbox, targets: Vec<Mailbox>, detail: Option<&str>) -> Vec<Visit> {
        let mut path = visit.path.clone();
        path.push(visit.address.key());
        let base = named.key();
        if base != visit.address.key() {
            path.push(base);
        }
        targets
            .into_iter()
            .map(|target| Visit {
                keep: target.same_as(named),
                address: with_detail(&target, &self.policy.delimiter, detail),
                path: path.clone(),
                depth: visit.depth.saturating_add(1),
                forwarded_by: named.clone(),
            })
            .collect()
    }

    fn mailbox(&mut self, user: Addressee, folder: Option<String>) {
        let address = user.address;
        if user.suspended {
            self.step(StepKind::Suspended { user: address.clone() });
            if !self.suspended.contains(&address) {
                self.suspended.push(address);
            }
            return;
        }
        // One copy a user: the first way there decides about the folder.
        if self.seen_targets.insert(format!("mailbox {}", address.key())) {
            self.step(StepKind::Mailbox { user: address.clone(), folder: folder.clone() });
            self.targets.push(Target::Mailbox { user: address, folder });
        } else {
            self.step(StepKind::Duplicate { address });
        }
    }

    fn remote(&mut self, visit: Visit) {
        let Visit { address, forwarded_by, .. } = visit;
        // The local part of a stranger may tell upper from lower case.
        if self.seen_targets.insert(format!("remote {address}")) {
            self.step(StepKind::Remote { address: address.clone(), forwarded_by: forwarded_by.clone() });
            self.targets.push(Target::Remote { address, forwarded_by });
        } else {
            self.step(StepKind::Duplicate { address });
        }
    }

    /// postmaster and abuse that reach nobody by themselves: abuse goes to postmaster; then whom the configuration names; then the
    /// domain's first user; then the postmaster of the domain that stands for this host.
    async fn role_address(&mut self, rcpt: &Mailbox) -> Result<()> {
        let Ok(postmaster) = LocalPart::new("postmaster") else { return Ok(()) };
        let mut candidates = Vec::new();
        if !rcpt.local.as_str().eq_ignore_ascii_case("postmaster") {
            candidates.push(Mailbox::new(postmaster.clone(), rcpt.domain.clone()));
        }
        candidates.extend(self.policy.postmaster.clone());
        candidates.extend(first_user(self.directory, &rcpt.domain).await?);
        if let Some(home) = self.home_domain().await?.filter(|home| *home != rcpt.domain) {
            candidates.push(Mailbox::new(postmaster, home.clone()));
            candidates.extend(first_user(self.directory, &home).await?);
        }
        for user in candidates {
            let before = self.steps.len();
            self.step(StepKind::RoleAddress { address: rcpt.clone(), user: user.clone() });
            Box::pin(self.expand(user)).await?;
            if !self.targets.is_empty() || self.too_many {
                return Ok(());
            }
            self.steps.truncate(before);
        }
        Ok(())
    }
}

/// The user of a domain that was added first and is not suspended, among the first thousand by name.
async fn first_user(directory: &dyn Directory, domain: &Domain) -> Result<Option<Mailbox>> {
    let users = directory.users(Some(domain), None, 1000).await?;
    Ok(users.into_iter().filter(|u| !u.suspended).min_by(|a, b| a.created.cmp(&b.created)).map(|u| u.address))
}

/// The address with a detail appended, unless it has one or would become too long.
fn with_detail(address: &Mailbox, delimiter: &str, detail: Option<&str>) -> Mailbox {
    let Some(detail) = detail.filter(|d| !d.is_empty()) else { return address.clone() };
    if address.local.as_str().contains(delimiter) {
        return address.clone();
    }
    match LocalPart::new(&format!("{}{delimiter}{detail}", address.local.as_str())) {
        Ok(local) => Mailbox::new(local, address.domain.clone()),
        Err(_) => address.clone(),
    }
}
