//! AUTH: from the client's credentials to a user of the directory.

use pillarbox_directory::{AuthOutcome, ScramOutcome};
use pillarbox_smtp::server::{AuthRequest, AuthResult};
use pillarbox_smtp::{Mailbox, printable, replies};

use crate::connection::Connection;

impl Connection {
    /// Answers an AUTH exchange. Unknown user and wrong password take the same time and say the same thing.
    pub(crate) async fn on_auth(&mut self, request: AuthRequest) {
        match request {
            AuthRequest::Password { mechanism, authzid, authcid, password } => {
                let outcome = self.ingest.rooms.authenticator.check(&authcid, &password, self.peer.ip()).await;
                self.conclude(outcome, mechanism.name(), &authzid, &authcid);
            }
            AuthRequest::ScramLookup { authcid, .. } => match self.ingest.rooms.authenticator.scram_keys(&authcid, self.peer.ip()).await {
                ScramOutcome::Keys(keys) => self.smtp.scram_keys(Some(keys)),
                ScramOutcome::Blocked { .. } => self.smtp.reply(replies::auth_blocked()),
                ScramOutcome::Unavailable => self.smtp.reply(replies::auth_unavailable()),
            },
            AuthRequest::ScramDone { mechanism, authzid, authcid, proven } => {
                let outcome = self.ingest.rooms.authenticator.scram_done(&authcid, self.peer.ip(), proven).await;
                self.conclude(outcome, mechanism.name(), &authzid, &authcid);
            }
        }
    }

    fn conclude(&mut self, outcome: AuthOutcome, mechanism: &'static str, authzid: &str, authcid: &str) {
        let (result, status) = match outcome {
            AuthOutcome::Ok(user) if acts_as_itself(authzid, authcid, &user.address) => {
                if let Some(screen) = &mut self.screen {
                    screen.facts_mut().user = Some(user.address.clone());
                }
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
