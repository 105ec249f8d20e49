//! Passwd-files for Dovecot, so that the same passwords open the mailboxes over IMAP; replaced atomically at every change.
//!
//! `users` serves as passdb and userdb: one line a user, one for each further login name. A passwd-file knows one password a user, so
//! app-passwords are in `app-passwords-1` … `app-passwords-10`, the n-th of each user in the n-th file: Dovecot asks one passdb after another.
//! Extra fields are written as Dovecot 2.3 and as 2.4 want them; each passes over the other's.
//! A suspended user keeps its userdb entry (mail goes on to be found) and cannot log in.

mod line;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pillarbox_smtp::Mailbox;

use crate::durable::Replacement;
use crate::keeper::{Keeper, Kept, Pace};
use crate::ops::MAX_APP_PASSWORDS;
use crate::records::{CredentialRecord, Quota, UserRecord};
use crate::store::{Directory, DirectoryError};
use line::Line;

/// Records read at a time.
const PAGE: usize = 1000;
/// The owner reads and writes, Dovecot's group reads: give the folder that group and the setgid bit.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// A user's home folder.
pub type HomeOf = Arc<dyn Fn(&Mailbox) -> Option<PathBuf> + Send + Sync>;

/// Where a user's home is, and whose.
#[derive(Clone)]
pub struct DovecotOptions {
    /// Numeric user and group that own the mail: whom the daemon runs as.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// The user's home, in which `Maildir` lies; `None` for an address that cannot have one.
    pub home: HomeOf,
    /// Quota of users without their own, octets.
    pub default_quota: Option<u64>,
}

/// Keeps the passwd-files current.
pub struct DovecotFile {
    folder: PathBuf,
    options: DovecotOptions,
}

/// Why the files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DovecotError {
    /// The directory does not answer.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file system refuses.
    #[error("Dovecot's passwd-files cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl DovecotFile {
    /// Starts keeping the files in `folder`, by convention STATE/dovecot: at once up to ten thousand records, else every ten seconds.
    pub fn start(directory: Arc<dyn Directory>, folder: impl Into<PathBuf>, options: DovecotOptions) -> Keeper {
        let pace = Pace { small: 10_000, large_every: Duration::from_secs(10), retry: Duration::from_secs(30) };
        Keeper::start(directory, Arc::new(Self { folder: folder.into(), options }), pace)
    }

    /// Writes all files once.
    ///
    /// # Errors
    /// When the directory does not answer or a file cannot be written; each file is whole or as before.
    pub async fn write_once(directory: &dyn Directory, folder: &Path, options: &DovecotOptions) -> Result<(), DovecotError> {
        if !folder.is_dir() {
            std::fs::DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(folder)?;
            // Whatever the umask.
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(FOLDER_MODE))?;
        }
        let mut users = Replacement::begin(&folder.join("users"), FILE_MODE)?;
        let mut apps = Vec::with_capacity(MAX_APP_PASSWORDS);
        for n in 1..=MAX_APP_PASSWORDS {
            apps.push(Replacement::begin(&folder.join(format!("app-passwords-{n}")), FILE_MODE)?);
        }
        let mut after = None;
        loop {
            let page = directory.users(None, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            for user in page {
                let credential = directory.credential(&user.address).await?.unwrap_or_default();
                write_user(&user, &credential, options, &mut users, &mut apps)?;
            }
        }
        // App-passwords first: a revoked one must not outlive the main file's change.
        let commit = move || apps.into_iter().chain([users]).try_for_each(Replacement::commit_dated);
        tokio::task::spawn_blocking(commit).await.map_err(io::Error::other)??;
        Ok(())
    }
}

/// The lines of one user.
fn write_user(
    user: &UserRecord,
    credential: &CredentialRecord,
    options: &DovecotOptions,
    users: &mut Replacement,
    apps: &mut [Replacement],
) -> io::Result<()> {
    let Some(home) = (options.home)(&user.address) else { return Ok(()) };
    let quota = match user.quota {
        Some(Quota::Bytes(bytes)) => Some(bytes),
        Some(Quota::None) => None,
        None => options.default_quota,
    };
    let password = credential.password.as_deref().filter(|_| !user.suspended);
    for name in std::iter::once(&user.address).chain(&user.logins) {
        let line = Line { name, user: &user.address, home: &home, quota, suspended: user.suspended, options };
        let Some(text) = line.users(password) else {
            tracing::warn!(user = %user.address, "Dovecot's passwd-file cannot hold this address");
            continue;
        };
        users.write_all(text.as_bytes())?;
        for (app, file) in credential.app.iter().zip(apps.iter_mut()).filter(|_| !user.suspended) {
            if let Some(text) = line.app_password(&app.hash) {
                file.write_all(text.as_bytes())?;
            }
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl Kept for DovecotFile {
    fn name(&self) -> String {
        format!("Dovecot's passwd-files in {}", self.folder.display())
    }

    async fn write(&self, directory: &dyn Directory) -> Result<(), String> {
        Self::write_once(directory, &self.folder, &self.options).await.map_err(|e| e.to_string())
    }
}
