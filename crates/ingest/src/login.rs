//! AUTH: from the client's credentials to a user of the directory.

use pillarbox_directory::password::is_outdated;
use pillarbox_directory::{AuthOutcome, CredentialRecord, DirectoryError, ScramOutcome};
use pillarbox_screen::SessionFacts;
use pillarbox_smtp::server::{AuthRequest, AuthResult};
use pillarbox_smtp::{Mailbox, Reply, printable, replies};

use crate::connection::Connection;

/// What a session remembers of its login.
pub(crate) struct Login {
    user: Mailbox,
    passwords: Passwords,
    /// The main hash is of another scheme or cost and is about to be made anew.
    upgrade_due: bool,
}

/// The hashes of a user's passwords, to tell whether one was changed.
#[derive(PartialEq, Eq)]
struct Passwords {
    main: Option<String>,
    app: Vec<String>,
}

impl Passwords {
    fn of(credential: Option<&CredentialRecord>) -> Self {
        let main = credential.and_then(|c| c.password.clone());
        Self { main, app: credential.map(|c| c.app.iter().map(|app| app.hash.clone()).collect()).unwrap_or_default() }
    }
}

impl Connection {
    /// Answers an AUTH exchange. Unknown user and wrong password take the same time and say the same thing.
    pub(crate) async fn on_auth(&mut self, request: AuthRequest) {
        match request {
            AuthRequest::Password { mechanism, authzid, authcid, password } => {
                let outcome = self.ingest.rooms.authenticator.check(&authcid, &password, self.peer.ip()).await;
                self.conclude(outcome, mechanism.name(), &authzid, &authcid).await;
            }
            AuthRequest::ScramLookup { authcid, .. } => match self.ingest.rooms.authenticator.scram_keys(&authcid, self.peer.ip()).await {
                ScramOutcome::Keys(keys) => self.smtp.scram_keys(Some(keys)),
                ScramOutcome::Blocked { .. } => self.smtp.reply(replies::auth_blocked()),
                ScramOutcome::Unavailable => self.smtp.reply(replies::auth_unavailable()),
            },
            AuthRequest::ScramDone { mechanism, authzid, authcid, proven } => {
                let outcome = self.ingest.rooms.authenticator.scram_done(&authcid, self.peer.ip(), proven).await;
                self.conclude(outcome, mechanism.name(), &authzid, &authcid).await;
            }
        }
    }

    /// Where `submission.milter` says so, milters see what this user sends; nothing else of the screen does.
    fn show_to_milters(&mut self, user: &Mailbox, mechanism: &'static str) {
        let config = &self.settings.config;
        let (true, Some(client)) = (config.submission.milter && !config.screen.milter.is_empty(), self.peer.client) else { return };
        let mut facts = SessionFacts::new(client, self.peer.local);
        facts.helo = self.helo();
        facts.tls = self.tls.as_ref().map(|t| format!("{} {}", t.version, t.cipher));
        facts.user = Some(user.clone());
        facts.mechanism = Some(mechanism);
        self.screen = Some(Box::new(self.settings.screen.session(facts)));
    }

    /// Whether the login still holds: 421 once the user is suspended or gone, or a password of it was changed or revoked, so that an
    /// open session sees that as soon as a new one would.
    pub(crate) async fn check_login(&mut self) -> Result<(), Reply> {
        let Some(login) = &mut self.login else { return Err(replies::authentication_required()) };
        let directory = self.ingest.rooms.directory.as_ref();
        let looked = async { Ok((directory.user(&login.user).await?, directory.credential(&login.user).await?)) };
        let (user, credential) = looked.await.map_err(|error: DirectoryError| {
            tracing::error!(%error, "the directory did not answer a session");
            replies::try_later()
        })?;
        let now = Passwords::of(credential.as_ref());
        if login.passwords != now && login.upgrade_due && login.passwords.app == now.app {
            // The hash of a login from another program is made anew right after it; that is no change of the password.
            login.passwords = now;
            login.upgrade_due = false;
        } else if login.passwords != now {
            return Err(replies::login_ended());
        }
        if user.is_some_and(|user| !user.suspended) { Ok(()) } else { Err(replies::login_ended()) }
    }

    async fn conclude(&mut self, outcome: AuthOutcome, mechanism: &'static str, authzid: &str, authcid: &str) {
        let (result, status) = match outcome {
            AuthOutcome::Ok(user) if acts_as_itself(authzid, authcid, &user.address) => {
                self.show_to_milters(&user.address, mechanism);
                let credential = self.ingest.rooms.directory.credential(&user.address).await.ok().flatten();
                let main = credential.as_ref().and_then(|c| c.password.as_deref()).unwrap_or_default();
                let upgrade_due = is_outdated(main, &self.settings.config.auth.argon2);
                let passwords = Passwords::of(credential.as_ref());
                self.login = Some(Box::new(Login { user: user.address.clone(), passwords, upgrade_due }));
                (AuthResult::Accepted { user: user.address }, "ok")
            }
            // RFC 4616 §2: nobody here acts for somebody else.
            AuthOutcome::Ok(_) => (AuthResult::Rejected, "authzid"),
            AuthOutcome::Bad => (AuthResult::Rejected, "bad"),
            AuthOutcome::Blocked { .. } => (AuthResult::Refused(replies::auth_blocked()), "blocked"),
            AuthOutcome::Busy => (AuthResult::Unavailable, "busy"),
            AuthOutcome::Unavailable => (AuthResult::Unavailable, "unavailable"),
        };
        metrics::counter!("pillarbox_ingest_logins_total", "result" => status).increment(1);
        tracing::info!(
            target: "pillarbox::event",
            event = "auth",
            client = self.peer.text(),
            helo = self.helo(),
            user = printable(authcid.as_bytes()),
            mechanism,
            status,
            tls = self.tls_text(),
        );
        self.smtp.auth_result(result);
    }
}

fn acts_as_itself(authzid: &str, authcid: &str, user: &Mailbox) -> bool {
    authzid.is_empty() || authzid.eq_ignore_ascii_case(authcid) || authzid.parse::<Mailbox>().is_ok_and(|m| m.same_as(user))
}
