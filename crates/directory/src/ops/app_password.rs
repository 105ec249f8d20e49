//! App-passwords: generated, shown once, one a device.

use std::time::SystemTime;

use pillarbox_smtp::{Mailbox, Secret};

use super::{OpsError, Result, blocking, turn, user};
use crate::clock::rfc3339;
use crate::password::{self, APP_PASSWORD_COST};
use crate::records::{AppPassword, Change};
use crate::store::Directory;

/// App-passwords of one user: Dovecot is given one passwd-file for each.
pub const MAX_APP_PASSWORDS: usize = 10;
/// Longest label in octets.
const MAX_LABEL: usize = 64;

/// Makes an app-password; the secret is returned and kept nowhere.
///
/// # Errors
/// `NotFound`; `Exists` for a label in use; `Refused` for an unfit label or one too many.
pub async fn add_app_password(directory: &dyn Directory, address: &Mailbox, label: &str, now: SystemTime) -> Result<(AppPassword, Secret)> {
    let label = label.trim().to_owned();
    if label.is_empty() || label.len() > MAX_LABEL || label.chars().any(char::is_control) {
        return Err(OpsError::Refused(format!("a label has 1 to {MAX_LABEL} octets and no control characters")));
    }
    let record = user(directory, address).await?;
    let (hash, secret) = blocking(|| {
        let secret = password::app_password();
        Ok((password::hash(&secret, &APP_PASSWORD_COST)?, secret))
    })
    .await?;
    let _turn = turn().await;
    let mut credential = directory.credential(&record.address).await?.unwrap_or_default();
    if credential.app.iter().any(|app| app.label == label) {
        return Err(OpsError::Exists(format!("{} has an app-password {label:?} already; revoke it first", record.address)));
    }
    if credential.app.len() >= MAX_APP_PASSWORDS {
        return Err(OpsError::Refused(format!("{} has {MAX_APP_PASSWORDS} app-passwords; revoke one first", record.address)));
    }
    let app = AppPassword { label, hash, created: rfc3339(now), last_used: None };
    credential.app.push(app.clone());
    directory.apply(vec![Change::PutCredential(record.address, credential)]).await?;
    Ok((app, secret))
}

/// The app-passwords of a user, hashes included: whoever prints them leaves those out.
///
/// # Errors
/// `NotFound`.
pub async fn list_app_passwords(directory: &dyn Directory, address: &Mailbox) -> Result<Vec<AppPassword>> {
    let record = user(directory, address).await?;
    Ok(directory.credential(&record.address).await?.unwrap_or_default().app)
}

/// Revokes an app-password; logins with it fail from now on.
///
/// # Errors
/// `NotFound` when there is no such user or label.
pub async fn revoke_app_password(directory: &dyn Directory, address: &Mailbox, label: &str) -> Result<()> {
    let record = user(directory, address).await?;
    let _turn = turn().await;
    let mut credential = directory.credential(&record.address).await?.unwrap_or_default();
    let before = credential.app.len();
    credential.app.retain(|app| app.label != label.trim());
    if credential.app.len() == before {
        return Err(OpsError::NotFound(format!("{} has no app-password {:?}", record.address, label.trim())));
    }
    directory.apply(vec![Change::PutCredential(record.address, credential)]).await?;
    Ok(())
}
