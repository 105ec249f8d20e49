//! SCRAM-SHA-256 look-ups (RFC 5802, RFC 7677): the keys of a user, or steady false ones for whoever has none.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pillarbox_smtp::Secret;
use pillarbox_smtp::sasl::scram::Keys;
use rand::RngCore;
use tokio::sync::OnceCell;

use super::{AuthOutcome, Authenticator, account_key, count};
use crate::records::{ScramKeys, UserRecord};
use crate::state::{FOREVER, SETTINGS};
use crate::store::Directory;

const SECRET: &[u8] = b"scram-secret";

/// What to do with a SCRAM client's first message.
#[derive(Clone)]
pub enum ScramOutcome {
    /// Go on with these keys. A user that is unknown, suspended or without SCRAM keys has false ones, with which no proof matches.
    Keys(Keys),
    /// Too many failures: 421 4.7.0.
    Blocked {
        /// When to try again.
        retry_after: Duration,
    },
    /// 454 4.7.0: the directory does not answer.
    Unavailable,
}

/// The secret from which false salts are derived; kept in the directory, since a salt that changed at a restart would tell on itself.
#[derive(Default)]
pub(super) struct Decoys(OnceCell<[u8; 32]>);

impl Decoys {
    async fn key(&self, directory: &dyn Directory) -> crate::store::Result<&[u8; 32]> {
        self.0
            .get_or_try_init(async || {
                let mut key = [0; 32];
                rand::rng().fill_bytes(&mut key);
                directory.state_put_new(SETTINGS, SECRET, &key, FOREVER).await?;
                let kept = directory.state_get(SETTINGS, SECRET).await?;
                Ok(kept.and_then(|kept| kept.try_into().ok()).unwrap_or(key))
            })
            .await
    }
}

impl ScramKeys {
    /// New keys for a password, with a random salt. Blocking for some milliseconds.
    pub fn generate(password: &Secret) -> Self {
        let keys = Keys::generate(password);
        Self {
            salt: BASE64.encode(&keys.salt),
            iterations: keys.iterations,
            stored_key: BASE64.encode(keys.stored_key),
            server_key: BASE64.encode(keys.server_key),
        }
    }

    /// As the exchange wants them; `None` when the record is malformed.
    pub fn keys(&self) -> Option<Keys> {
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Some(Keys {
            salt: BASE64.decode(&self.salt).ok()?,
            iterations: self.iterations,
            stored_key: key(&self.stored_key)?,
            server_key: key(&self.server_key)?,
        })
    }
}

impl Authenticator {
    /// Keys for the login name in a client's first message. The driver runs the exchange and tells its end to [`Authenticator::scram_done`].
    pub async fn scram_keys(&self, login: &str, client: Option<IpAddr>) -> ScramOutcome {
        match self.scram_lookup(login, client).await {
            Ok((keys, _)) => ScramOutcome::Keys(keys),
            Err(AuthOutcome::Blocked { retry_after }) => ScramOutcome::Blocked { retry_after },
            Err(_) => ScramOutcome::Unavailable,
        }
    }

    /// Ends an exchange: with a right proof, `Ok` with the user as it is now (a suspension in between counts), else `Bad`.
    pub async fn scram_done(&self, login: &str, client: Option<IpAddr>, proven: bool) -> AuthOutcome {
        let outcome = match self.scram_lookup(login, client).await {
            Ok((_, user)) => {
                let account = user.as_ref().map_or_else(|| account_key(login, self.login_name(login).as_ref()), |u| u.address.key());
                match user.filter(|_| proven) {
                    Some(user) => {
                        self.succeeded(client, &account);
                        AuthOutcome::Ok(Box::new(user))
                    }
                    None => {
                        self.failed(client, &account);
                        AuthOutcome::Bad
                    }
                }
            }
            Err(outcome) => outcome,
        };
        count(&outcome);
        outcome
    }

    /// The keys, and the user when they are real.
    async fn scram_lookup(&self, login: &str, client: Option<IpAddr>) -> Result<(Keys, Option<UserRecord>), AuthOutcome> {
        let unavailable = |error: crate::store::DirectoryError| {
            tracing::warn!("a login could not be checked: {error}");
            AuthOutcome::Unavailable
        };
        let name = self.login_name(login);
        let found = self.candidate(name.as_ref()).await.map_err(unavailable)?;
        let account = found.as_ref().map_or_else(|| account_key(login, name.as_ref()), |c| c.user.address.key());
        self.admit(client, &account, self.clock.now()).await.map_err(|retry_after| AuthOutcome::Blocked { retry_after })?;
        // Asked for in any case, so that the first unknown user takes no longer than a known one.
        let secret = self.scram.key(self.directory.as_ref()).await.map_err(unavailable)?;
        let decoy = Keys::decoy(secret, &account);
        Ok(match found.filter(|c| !c.user.suspended) {
            Some(c) => match c.credential.scram.as_ref().and_then(ScramKeys::keys) {
                Some(keys) => (keys, Some(c.user)),
                None => (decoy, None),
            },
            None => (decoy, None),
        })
    }
}
