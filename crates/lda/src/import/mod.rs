//! Moving in: messages from a Maildir or an mbox file into a mailbox, with their dates and flags, in constant memory, resumable.

mod flags;
mod mbox;
mod source;
mod state;

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pillarbox_smtp::Mailbox;

use crate::maildir::{
    Content, EarlierWork, FolderName, HostLabel, MailRoot, MaildirHandle, Manner, Missing, Place, StoreError, UniqueName, folder,
};
use crate::quota::maildirsize::Account;
use source::{Item, Visit};
use state::Done;

pub use mbox::Quoting;

/// Messages that are made durable together.
const BATCH: usize = 1024;
/// Failures that are told one by one.
const FAILURES: usize = 100;

/// What to import from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Maildir; its folders come along.
    Maildir(PathBuf),
    /// An mbox file.
    Mbox(PathBuf, Quoting),
}

/// An import.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    /// Where from.
    pub source: Source,
    /// Whose mailbox.
    pub to: &'a Mailbox,
    /// Into this folder instead of the inbox; folders of a Maildir go below it.
    pub folder: Option<&'a str>,
    /// Where what is done is kept, such as `STATE/import/NAME`: the folder must exist. A later import with the same file takes only what is new.
    pub state: &'a Path,
    /// Our host name, a part of message names.
    pub hostname: &'a str,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Messages stored now.
    pub stored: u64,
    /// Messages that were there already.
    pub known: u64,
    /// Messages that could not be read.
    pub failed: u64,
    /// Octets gone through, of `total`.
    pub octets: u64,
    /// Octets of an mbox file, messages of a Maildir: the measure of a progress bar.
    pub total: u64,
    /// What of `total` is done.
    pub done: u64,
    /// The first failures in words.
    pub failures: Vec<String>,
}

/// Why an import ended early. What was done stays done; the same import again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error("{path}: {source}")]
    Source {
        /// The source.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// The folder's name cannot be one.
    #[error("{0:?} is not a folder name")]
    Folder(String),
    /// The mailbox cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state file cannot be read or written.
    #[error("{path}: {source}")]
    State {
        /// The file.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// What was stored cannot be made durable.
    #[error("the mail folder cannot be synced: {0}")]
    Sync(io::Error),
}

/// Runs an import, blocking the thread. `report` hears of each step and may end it with `Break`; the result then says how far it came.
///
/// # Errors
/// See [`ImportError`]. A single message that cannot be read is no error but counted.
pub fn import(root: &MailRoot, import: &Import<'_>, report: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<Progress, ImportError> {
    let base = match import.folder {
        None => FolderName::Inbox,
        Some(name) => FolderName::new(name).ok_or_else(|| ImportError::Folder(name.to_owned()))?,
    };
    let state_error = |source| ImportError::State { path: import.state.display().to_string(), source };
    let inbox = root.inbox(import.to, Missing::Create)?.ok_or_else(|| ImportError::Sync(io::ErrorKind::NotFound.into()))?;
    let mut run = Run {
        root,
        import,
        base,
        inbox,
        host: HostLabel::new(import.hostname),
        done: Done::open(import.state).map_err(state_error)?,
        folders: HashMap::new(),
        pending: Vec::new(),
        added: (0, 0),
        progress: Progress::default(),
    };
    run.walk(report)?;
    run.commit()?;
    let _ = report(&run.progress);
    Ok(run.progress)
}

/// A folder being filled.
struct Target {
    handle: Arc<MaildirHandle>,
    /// Messages of imports that are there without being noted as done.
    earlier: EarlierWork,
}

struct Run<'a> {
    root: &'a MailRoot,
    import: &'a Import<'a>,
    base: FolderName,
    inbox: Arc<MaildirHandle>,
    host: HostLabel,
    done: Done,
    folders: HashMap<String, Target>,
    /// Stored and not yet noted.
    pending: Vec<u64>,
    /// Octets and messages stored and not yet counted in the quota file.
    added: (u64, u64),
    progress: Progress,
}

impl Run<'_> {
    fn walk(&mut self, report: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<(), ImportError> {
        let import = self.import;
        let mut failure = None;
        let mut broken = false;
        let mut visit = |run: &mut Self, item: Result<Item, (String, io::Error)>| {
            if let Err(error) = run.take(item) {
                failure = Some(error);
                return false;
            }
            broken = report(&run.progress).is_break();
            !broken
        };
        match &import.source {
            Source::Mbox(path, quoting) => {
                let error = |source| ImportError::Source { path: path.display().to_string(), source };
                self.progress.total = path.metadata().map_err(error)?.len();
                source::mbox(path, *quoting, &mut |item| visit(self, item)).map_err(error)?;
            }
            Source::Maildir(path) => {
                let error = |source| ImportError::Source { path: path.display().to_string(), source };
                let folders = source::maildir_folders(path).map_err(error)?;
                for from in &folders {
                    let reader = maildir::Maildir::from(from.path.clone());
                    self.progress.total += (reader.count_new() + reader.count_cur()) as u64;
                }
                for from in &folders {
                    let keywords = self.keywords(&from.path, &from.file_name)?;
                    let mut go_on = true;
                    let visit: &mut Visit<'_> = &mut |item| {
                        go_on = visit(self, item);
                        go_on
                    };
                    source::maildir(from, keywords, visit).map_err(error)?;
                    if !go_on {
                        break;
                    }
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn take(&mut self, item: Result<Item, (String, io::Error)>) -> Result<(), ImportError> {
        let item = match item {
            Ok(item) => item,
            Err((what, error)) => {
                self.fail(&what, &error.to_string());
                return Ok(());
            }
        };
        self.progress.octets = self.progress.octets.saturating_add(item.size);
        self.progress.done = match &self.import.source {
            Source::Mbox(..) => self.progress.octets.min(self.progress.total),
            Source::Maildir(_) => self.progress.done + 1,
        };
        if item.flags.skip || self.done.contains(item.key) {
            self.progress.known += u64::from(!item.flags.skip);
            return Ok(());
        }
        match self.store(&item) {
            Ok(true) => self.progress.stored += 1,
            Ok(false) => self.progress.known += 1,
            Err(StoreError::Body(error)) => {
                self.fail(&item.what, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.pending.push(item.key);
        if self.pending.len() >= BATCH {
            self.commit()?;
        }
        Ok(())
    }

    fn fail(&mut self, what: &str, why: &str) {
        self.progress.failed += 1;
        if self.progress.failures.len() < FAILURES {
            self.progress.failures.push(format!("{what}: {why}"));
        }
    }

    /// Stores a message. False: it was there.
    fn store(&mut self, item: &Item) -> Result<bool, StoreError> {
        let seconds = item.date.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |at| at.as_secs());
        let name = UniqueName::from_key(seconds, &format!("I{:016x}", item.key), &self.host);
        let open = || item.open();
        let content = Content::Stream(&open);
        let target = self.target(&item.folder)?;
        if target.earlier.settle(&target.handle, &name, b"", &content)?.is_some() {
            return Ok(false);
        }
        let place = if item.flags.known { Place::Cur { flags: item.flags.letters.clone() } } else { Place::New };
        let manner = Manner { place, date: item.date, ..Manner::default() };
        let stored = target.handle.store(&name, b"", &content, &manner)?;
        self.added = (self.added.0.saturating_add(stored.sizes.stored), self.added.1 + 1);
        Ok(true)
    }

    /// The folder for the source's folder, created and subscribed when it is new.
    fn target(&mut self, from: &str) -> Result<&Target, StoreError> {
        if !self.folders.contains_key(from) {
            let file_name = match &self.base {
                FolderName::Inbox => from.to_owned(),
                FolderName::Named { file_name } => format!("{file_name}{from}"),
            };
            let handle = if file_name.is_empty() {
                Arc::clone(&self.inbox)
            } else {
                let there = self.root.folder(self.import.to, &file_name, Missing::Report)?;
                match there {
                    Some(handle) => handle,
                    None => {
                        let missing = || StoreError::errno("opening", file_name.clone(), rustix::io::Errno::NOENT);
                        let handle = self.root.folder(self.import.to, &file_name, Missing::Create)?.ok_or_else(missing)?;
                        folder::mark(&handle)?;
                        folder::subscribe(&self.inbox, &FolderName::Named { file_name })?;
                        handle
                    }
                }
            };
            let earlier = EarlierWork::list_if(&handle, |stem| {
                let key =
                    stem.split('.').nth(1).and_then(|unique| unique.strip_prefix('I')).and_then(|key| u64::from_str_radix(key, 16).ok());
                key.is_some_and(|key| !self.done.contains(key))
            })?;
            self.folders.insert(from.to_owned(), Target { handle, earlier });
        }
        let missing = || StoreError::errno("opening", from.to_owned(), rustix::io::Errno::NOENT);
        self.folders.get(from).ok_or_else(missing)
    }

    /// Whether Dovecot's keywords mean the same in source and destination: made so where the destination has none yet.
    fn keywords(&mut self, from: &Path, file_name: &str) -> Result<bool, StoreError> {
        let source = std::fs::read(from.join(folder::KEYWORDS)).unwrap_or_default();
        if source.is_empty() {
            return Ok(false);
        }
        folder::adopt_keywords(&self.target(file_name)?.handle, &source)
    }

    /// Makes what was stored durable, counts it, and notes it as done.
    fn commit(&mut self) -> Result<(), ImportError> {
        let (bytes, count) = std::mem::take(&mut self.added);
        if count > 0 {
            let mut account = Account::open(&self.inbox, None, SystemTime::now());
            if account.usage(0)?.is_some() {
                account.add(bytes, count)?;
            }
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        self.root.devices().sync().map_err(ImportError::Sync)?;
        let keys = std::mem::take(&mut self.pending);
        self.done.add(&keys).map_err(|source| ImportError::State { path: self.import.state.display().to_string(), source })
    }
}
