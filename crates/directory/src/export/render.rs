//! Writing the export, page by page, so that a million users never lie in memory as text.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::format::{AliasEntry, DomainEntry, ExportError, UserEntry, block, head};
use crate::durable::Replacement;
use crate::keeper::{Keeper, Kept, Pace};
use crate::state::SETTINGS;
use crate::store::Directory;

/// Records read at a time.
const PAGE: usize = 1000;
/// Ends the file that is kept: nothing was cut off it.
const END: &[u8] = b"\n# That is all.\n";

/// Writes the whole directory as TOML, in a stable order.
///
/// # Errors
/// When the directory does not answer or `out` takes no more.
pub async fn write(directory: &dyn Directory, out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    write_with(directory, None, out).await
}

async fn write_with(directory: &dyn Directory, revision: Option<u64>, out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    out.write_all(head_of(directory, revision).await?.as_bytes())?;
    for record in directory.domains().await? {
        out.write_all(block("domain", &DomainEntry::new(record))?.as_bytes())?;
    }
    let mut after = None;
    loop {
        let page = directory.users(None, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.address.clone());
        for user in page {
            let credential = directory.credential(&user.address).await?;
            out.write_all(block("user", &UserEntry::new(user, credential))?.as_bytes())?;
        }
    }
    let mut after = None;
    loop {
        let page = directory.aliases(None, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.address.clone());
        for alias in page {
            out.write_all(block("alias", &AliasEntry::new(alias))?.as_bytes())?;
        }
    }
    Ok(())
}

/// What an export of the directory as it is now begins with.
async fn head_of(directory: &dyn Directory, revision: Option<u64>) -> Result<String, ExportError> {
    let mut settings: Vec<(String, Vec<u8>)> = directory
        .state_list(SETTINGS)
        .await?
        .into_iter()
        .filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value)))
        .collect();
    settings.sort();
    head(revision, settings)
}

/// The whole directory as text.
///
/// # Errors
/// When the directory does not answer.
pub async fn render(directory: &dyn Directory) -> Result<String, ExportError> {
    let mut text = Vec::new();
    write(directory, &mut text).await?;
    String::from_utf8(text).map_err(|e| ExportError::Value(e.to_string()))
}

/// Keeps the export beside the database current: at once up to a thousand users and aliases, else once a minute.
pub struct ExportKeeper {
    path: PathBuf,
}

impl ExportKeeper {
    /// Starts keeping `path`, by convention STATE/directory-export.toml, mode 0600.
    pub fn start(directory: Arc<dyn Directory>, path: impl Into<PathBuf>) -> Keeper {
        let pace = Pace { small: 1000, large_every: Duration::from_secs(60), retry: Duration::from_secs(30) };
        Keeper::start(directory, Arc::new(Self { path: path.into() }), pace)
    }

    /// Writes it once: for whoever changes the directory without a daemon.
    ///
    /// # Errors
    /// As [`write()`].
    pub async fn write_once(directory: &dyn Directory, path: &Path) -> Result<(), ExportError> {
        let mut file = Replacement::begin(path, 0o600)?;
        // Taken before the records are read: the file may hold more than it says, never less.
        let revision = directory.generation();
        write_with(directory, Some(revision), &mut file).await?;
        file.write_all(END)?;
        tokio::task::spawn_blocking(move || file.commit()).await.map_err(std::io::Error::other)??;
        Ok(())
    }

    /// Whether the file is an export of the directory as it is, made by an earlier process: the revision tells, and the secrets among the
    /// settings, which no other directory has. To write a million users again for nothing would take a start half a minute of both
    /// processor and page cache.
    async fn is_current(directory: &dyn Directory, path: &Path) -> Result<bool, ExportError> {
        let head = head_of(directory, Some(directory.generation())).await?;
        let path = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || begins_and_ends(&path, head.as_bytes(), END)).await;
        Ok(asked.map_err(io::Error::other)?.unwrap_or(false))
    }
}

fn begins_and_ends(path: &Path, begin: &[u8], end: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let (mut first, mut last) = (vec![0; begin.len()], vec![0; end.len()]);
    file.read_exact(&mut first)?;
    let to_end = i64::try_from(end.len()).map_err(io::Error::other)?;
    file.seek(SeekFrom::End(to_end.saturating_neg()))?;
    file.read_exact(&mut last)?;
    Ok(first == begin && last == end)
}

#[async_trait::async_trait]
impl Kept for ExportKeeper {
    fn name(&self) -> String {
        format!("the directory's export {}", self.path.display())
    }

    async fn write(&self, directory: &dyn Directory) -> Result<(), String> {
        if Self::is_current(directory, &self.path).await.map_err(|e| e.to_string())? {
            return Ok(());
        }
        Self::write_once(directory, &self.path).await.map_err(|e| e.to_string())
    }
}
