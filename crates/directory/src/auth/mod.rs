//! `Authenticator`: password checks at a bounded cost, the same in time and words whoever is asked for.
//!
//! A check costs an argon2 hash (31 ms, 19 MiB by default), so as many run at once as there are cores, a bounded number wait, and a
//! verdict is remembered for a minute. What is remembered is a pure fact, "this password matches this stored hash": a changed
//! password, a revoked app-password or a suspended user is refused at once, since user and hash are read anew each time.

mod admit;
mod guess;
mod scram;
#[cfg(test)]
mod tests;
mod verdict;

pub use guess::GuessLimits;
pub use scram::ScramOutcome;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pillarbox_config::{Argon2Cost, Config};
use pillarbox_smtp::{Domain, Mailbox, Secret, printable};
use tokio::sync::{OnceCell, Semaphore};

use crate::clock::{Clock, SystemClock, rfc3339_day};
use crate::password::{self, APP_PASSWORD_COST};
use crate::records::{Change, CredentialRecord, UserRecord};
use crate::store::Directory;
use guess::{Guesses, Refusal};
use verdict::Verdicts;

/// What to do with a login.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthOutcome {
    /// 235: the user that logged in.
    Ok(Box<UserRecord>),
    /// 535 5.7.8: unknown user, wrong password or suspended; told apart nowhere.
    Bad,
    /// Too many failures: 421 4.7.0.
    Blocked {
        /// When to try again.
        retry_after: Duration,
    },
    /// 454 4.7.0: more checks wait than is sensible.
    Busy,
    /// 454 4.7.0: the directory does not answer.
    Unavailable,
}

/// How to check.
#[derive(Debug, Clone)]
pub struct AuthPolicy {
    /// Cost of new hashes; a hash of another cost or scheme is made new at the next login.
    pub cost: Argon2Cost,
    /// Limits on guessing.
    pub guesses: GuessLimits,
    /// Checks at once; 0: as many as cores.
    pub parallel: usize,
    /// Checks that may wait for one of those.
    pub waiting: usize,
    /// Longest wait for one of those.
    pub patience: Duration,
    /// How long a verdict is remembered.
    pub remember: Duration,
    /// Domain of login names without one.
    pub default_domain: Option<Domain>,
    /// Count failures in the directory's state even where no other node shares it.
    pub shared: bool,
}

impl Default for AuthPolicy {
    fn default() -> Self {
        Self {
            cost: Argon2Cost::default(),
            guesses: GuessLimits::default(),
            parallel: 0,
            waiting: 128,
            patience: Duration::from_secs(10),
            remember: Duration::from_secs(60),
            default_domain: None,
            shared: false,
        }
    }
}

impl AuthPolicy {
    /// As the configuration says.
    pub fn from_config(config: &Config) -> Self {
        let guesses =
            GuessLimits { per_client: config.auth.failures_per_client, window: config.auth.failure_window, ..GuessLimits::default() };
        Self { cost: config.auth.argon2, guesses, ..Self::default() }
    }
}

/// Checks logins. One for the whole process, so that its limits count everything.
pub struct Authenticator {
    directory: Arc<dyn Directory>,
    policy: AuthPolicy,
    clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    verdicts: Verdicts,
    guesses: Guesses,
    dummies: OnceCell<Dummies>,
    scram: scram::Decoys,
}

/// Hashes of nothing, checked where there is no user or no app-password, so that the time tells nothing.
struct Dummies {
    main: String,
    app: String,
}

/// What was found for a login name.
struct Candidate {
    user: UserRecord,
    credential: CredentialRecord,
}

impl Authenticator {
    /// Over a directory, on the machine's clock.
    pub fn new(directory: Arc<dyn Directory>, policy: AuthPolicy) -> Self {
        Self::with_clock(directory, policy, Arc::new(SystemClock))
    }

    /// Over a directory, on a clock of the test's.
    pub fn with_clock(directory: Arc<dyn Directory>, policy: AuthPolicy, clock: Arc<dyn Clock>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let parallel = if policy.parallel == 0 { cores } else { policy.parallel };
        Self {
            permits: Arc::new(Semaphore::new(parallel)),
            waiting: AtomicUsize::new(0),
            verdicts: Verdicts::new(policy.remember),
            guesses: Guesses::new(policy.guesses),
            dummies: OnceCell::new(),
            scram: scram::Decoys::default(),
            directory,
            policy,
            clock,
        }
    }

    /// Checks a password for a login name, from a client if it is known.
    pub async fn check(&self, login: &str, password: &Secret, client: Option<IpAddr>) -> AuthOutcome {
        let outcome = self.check_inner(login, password, client).await;
        count(&outcome);
        outcome
    }

    async fn check_inner(&self, login: &str, password: &Secret, client: Option<IpAddr>) -> AuthOutcome {
        let now = self.clock.now();
        let name = self.login_name(login);
        let candidate = match self.candidate(name.as_ref()).await {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::warn!("a login could not be checked: {error}");
                return AuthOutcome::Unavailable;
            }
        };
        // Failures are counted for the name as it was given when there is no such user, so that both look the same.
        let asked = account_key(login, name.as_ref());
        let account = candidate.as_ref().map_or_else(|| asked.clone(), |c| c.user.address.key());
        if let Err(retry_after) = self.admit(client, &account, now).await {
            return AuthOutcome::Blocked { retry_after };
        }
        let matched = match self.matching(&asked, candidate.as_ref(), password).await {
            Ok(matched) => matched,
            Err(outcome) => return outcome,
        };
        match (candidate, matched) {
            (Some(found), Some(hash)) if !found.user.suspended => {
                // While this check waited, others may have failed too often.
                if let Err(Refusal::Client(retry_after)) = self.guesses.admit(client, &account, self.clock.now()) {
                    return AuthOutcome::Blocked { retry_after };
                }
                self.succeeded(client, &account);
                self.renew(&found, hash, password);
                AuthOutcome::Ok(Box::new(found.user))
            }
            _ => {
                self.failed(client, &account);
                AuthOutcome::Bad
            }
        }
    }

    /// The login name as an address; a name without a domain gets the default one.
    fn login_name(&self, login: &str) -> Option<Mailbox> {
        match login.parse() {
            Ok(name) => Some(name),
            Err(_) => {
                let domain = self.policy.default_domain.as_ref()?;
                format!("{login}@{domain}").parse().ok()
            }
        }
    }

    async fn candidate(&self, name: Option<&Mailbox>) -> crate::store::Result<Option<Candidate>> {
        let Some(name) = name else { return Ok(None) };
        let Some(user) = self.directory.user_by_login(name).await? else { return Ok(None) };
        let credential = self.directory.credential(&user.address).await?.unwrap_or_default();
        Ok(Some(Candidate { user, credential }))
    }

    /// The stored hash that the password matches. Whoever is asked for, one main hash is checked; a password shaped like an
    /// app-password is checked against a multiple of eight of those as well.
    async fn matching(&self, asked: &str, candidate: Option<&Candidate>, password: &Secret) -> Result<Option<String>, AuthOutcome> {
        let dummies = self.dummies().await?;
        let fits = password::check_password(password).is_ok();
        let credential = candidate.map(|c| &c.credential);
        let mut hashes: Vec<String> = Vec::new();
        if password::looks_like_app_password(password.as_bytes()) {
            hashes.extend(credential.iter().flat_map(|c| c.app.iter().map(|a| a.hash.clone())));
            while hashes.is_empty() || !hashes.len().is_multiple_of(8) {
                hashes.push(dummies.app.clone());
            }
        }
        hashes.push(credential.and_then(|c| c.password.clone()).unwrap_or_else(|| dummies.main.clone()));
        // An unfit password is no secret of the user's; it is checked all the same, cut short, for the time it takes.
        let password = if fits { password.clone() } else { Secret::new("unfit") };
        let matched = match self.verdicts.known(asked, &hashes, &password, self.clock.now()) {
            Some(verdict) => verdict,
            None => self.compute(asked, hashes, password).await?,
        };
        Ok(matched.filter(|hash| fits && *hash != dummies.main && *hash != dummies.app))
    }

    /// Runs the check on a thread for passwords, behind the semaphore.
    async fn compute(&self, asked: &str, hashes: Vec<String>, password: Secret) -> Result<Option<String>, AuthOutcome> {
        let permit = self.permit().await?;
        // Somebody else may have asked the same while this one waited.
        if let Some(verdict) = self.verdicts.known(asked, &hashes, &password, self.clock.now()) {
            return Ok(verdict);
        }
        let check = password::workers::run(move || {
            let _permit = permit;
            let matches = |hash: &&String| {
                metrics::counter!("pillarbox_directory_hashes_checked_total").increment(1);
                password::verify(hash, password.as_bytes()).unwrap_or(false)
            };
            let matched = hashes.iter().find(matches).cloned();
            (hashes, password, matched)
        });
        let Ok((hashes, password, matched)) = check.await else {
            tracing::error!("a password check failed inside");
            return Err(AuthOutcome::Unavailable);
        };
        self.verdicts.remember(asked, &hashes, &password, matched.clone(), self.clock.now());
        Ok(matched)
    }

    async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, AuthOutcome> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        /// Counts one waiter for as long as it lives: a client may hang up while it waits.
        struct Waiter<'a>(&'a AtomicUsize);
        impl Drop for Waiter<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiter = Waiter(&self.waiting);
        if before >= self.policy.waiting {
            return Err(AuthOutcome::Busy);
        }
        match tokio::time::timeout(self.policy.patience, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(AuthOutcome::Busy),
        }
    }

    async fn dummies(&self) -> Result<&Dummies, AuthOutcome> {
        let make = async || {
            let cost = self.policy.cost;
            let made = password::workers::run(move || {
                // Nobody knows these passwords, and a match with them would not count.
                let hash = |cost: &Argon2Cost| password::hash(&password::app_password(), cost);
                Ok::<_, password::PasswordError>(Dummies { main: hash(&cost)?, app: hash(&APP_PASSWORD_COST)? })
            });
            made.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        };
        self.dummies.get_or_try_init(make).await.map_err(|error: String| {
            tracing::error!("passwords cannot be checked: {error}");
            AuthOutcome::Unavailable
        })
    }

    /// After a login: an outdated main hash is made anew, an app-password's day of last use is noted. Neither keeps the client waiting.
    fn renew(&self, found: &Candidate, hash: String, password: &Secret) {
        let address = found.user.address.clone();
        let directory = Arc::clone(&self.directory);
        if let Some(app) = found.credential.app.iter().find(|app| app.hash == hash) {
            let day = rfc3339_day(self.clock.now());
            if app.last_used.as_ref() != Some(&day) {
                let change = Change::TouchAppPassword { address, label: app.label.clone(), day };
                tokio::spawn(async move { note(directory.apply(vec![change]).await) });
            }
            return;
        }
        let cost = self.policy.cost;
        if !password::is_outdated(&hash, &cost) {
            return;
        }
        let (password, permits) = (password.clone(), Arc::clone(&self.permits));
        tokio::spawn(async move {
            let Ok(permit) = permits.acquire_owned().await else { return };
            let made = password::workers::run(move || {
                let _permit = permit;
                password::hash(&password, &cost)
            });
            if let Ok(Ok(to)) = made.await {
                note(directory.apply(vec![Change::UpgradePassword { address, from: hash, to }]).await);
            }
        });
    }
}

fn note(outcome: crate::store::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!("a login went well, but its record could not be renewed: {error}");
    }
}

fn account_key(login: &str, name: Option<&Mailbox>) -> String {
    name.map_or_else(|| printable(login.as_bytes()).to_lowercase(), Mailbox::key)
}

fn count(outcome: &AuthOutcome) {
    let result = match outcome {
        AuthOutcome::Ok(_) => "ok",
        AuthOutcome::Bad => "bad",
        AuthOutcome::Blocked { .. } => "blocked",
        AuthOutcome::Busy => "busy",
        AuthOutcome::Unavailable => "unavailable",
    };
    metrics::counter!("pillarbox_directory_logins_total", "result" => result).increment(1);
}
