//! What the admin command and the admin API do to the directory: one function a verb, with the rules that a person expects.

mod alias;
mod app_password;
mod domain;
#[cfg(test)]
mod tests;
mod user;

pub use alias::{add_alias, remove_alias};
pub use app_password::{MAX_APP_PASSWORDS, add_app_password, list_app_passwords, revoke_app_password};
pub use domain::{RemovedDomain, add_domain, remove_domain};
pub use user::{
    NewUser, RemovedUser, add_login, add_user, clear_vacation, remove_login, remove_user, set_name, set_password, set_quota, set_suspended,
    set_vacation,
};

use pillarbox_smtp::Mailbox;

use crate::password::PasswordError;
use crate::records::UserRecord;
use crate::store::{Directory, DirectoryError};

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// Exit 3, HTTP 404.
    #[error("{0}")]
    NotFound(String),
    /// Exit 4, HTTP 409; nothing was changed.
    #[error("{0}")]
    Exists(String),
    /// Exit 1, HTTP 422: what was asked for is not sensible, and why.
    #[error("{0}")]
    Refused(String),
    /// The store failed; HTTP 503.
    #[error(transparent)]
    Directory(DirectoryError),
}

impl From<DirectoryError> for OpsError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Refused(why) => Self::Refused(why),
            other => Self::Directory(other),
        }
    }
}

impl From<PasswordError> for OpsError {
    fn from(error: PasswordError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, OpsError>;

/// The user of that address, or `NotFound`.
///
/// # Errors
/// `NotFound`, or the store's.
pub async fn user(directory: &dyn Directory, address: &Mailbox) -> Result<UserRecord> {
    directory.user(address).await?.ok_or_else(|| OpsError::NotFound(format!("there is no user {address}")))
}

/// Held while a record is read, changed and written: of two verbs at once, neither undoes the other. Hashing is done before.
async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// Runs a hash on a thread for passwords.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> std::result::Result<R, PasswordError> + Send + 'static) -> Result<R> {
    let done = crate::password::workers::run(work).await;
    Ok(done.map_err(|e| OpsError::Directory(DirectoryError::Unavailable(e.to_string())))??)
}
