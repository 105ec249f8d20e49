//! Opening: the lock, the format version, the modes of a new folder, and the repair of a damaged one from the plain-text export.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sled::Tree;

use super::SledOptions;
use crate::clock::{millis, rfc3339};
use crate::export;
use crate::records::Change;
use crate::state::SETTINGS;
use crate::store::{DirectoryError, Result};
use crate::tables::{Table, stage};

/// Format of the database: trees, keys and index rows. A newer one is refused.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
/// Databases up to this size are read through once at opening.
const CHECK_WHOLE: u64 = 64 << 20;

/// The database and its trees.
#[derive(Clone)]
pub(crate) struct Forest {
    db: sled::Db,
    trees: Arc<Vec<Tree>>,
    state: Tree,
}

impl Forest {
    pub(crate) fn tree(&self, table: Table) -> &Tree {
        // `trees` holds one for each of `Table::ALL`, in order.
        self.trees.get(table as usize).unwrap_or(&self.state)
    }

    pub(super) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    pub(super) fn state(&self) -> &Tree {
        &self.state
    }

    /// Hands everything to the operating system; not yet to the disk.
    pub(super) fn flush(&self) -> sled::Result<()> {
        self.db.flush().map(drop)
    }
}

pub(super) struct Opened {
    pub(super) forest: Forest,
    pub(super) rebuilt: Option<String>,
}

/// Why the database did not open.
enum Trouble {
    /// Not the database's fault, or not one that a rebuild mends.
    Fatal(DirectoryError),
    /// Its bytes are wrong.
    Damaged(String),
}

pub(super) fn open(path: &Path, options: &SledOptions) -> Result<Opened> {
    let export = options.export.clone().unwrap_or_else(|| path.with_file_name(export::FILE_NAME));
    let opened = match attempt(path, options) {
        Ok(forest) => Ok((forest, None)),
        Err(Trouble::Fatal(error)) => return Err(error),
        Err(Trouble::Damaged(why)) => set_aside(path, &export, &why, options).map(|(forest, aside)| (forest, Some((why, aside)))),
    };
    let (forest, damage) = opened?;
    let mut rebuilt = None;
    // The format key is written last: a database without it is new, or its rebuild was cut short.
    if format(&forest)?.is_none() {
        if export.exists() {
            let count = restore(&forest, &export)?;
            let cause = match damage {
                Some((why, aside)) => format!("was damaged ({why}), was moved to {} and", aside.display()),
                None => "was missing and".into(),
            };
            let words = format!("the directory {} {cause} was rebuilt from {}: {count} records", path.display(), export.display());
            tracing::error!("{words}");
            rebuilt = Some(words);
        }
        forest.db.insert(FORMAT_KEY, FORMAT.to_string().as_bytes()).map_err(write_error)?;
        forest.flush().map_err(write_error)?;
        sync_all(path).map_err(|e| unavailable(path, &e))?;
    }
    Ok(Opened { forest, rebuilt })
}

/// Moves the damaged folder away, and opens an empty one; only when there is something to rebuild it from.
fn set_aside(path: &Path, export: &Path, why: &str, options: &SledOptions) -> Result<(Forest, PathBuf)> {
    if !export.exists() {
        return Err(DirectoryError::Damaged {
            key: path.display().to_string(),
            why: format!(
                "{why}; there is no {} to rebuild it from: restore a backup, or move the folder away to start empty",
                export.display()
            ),
        });
    }
    let stamp = rfc3339(options.clock.now()).replace(':', "");
    let mut aside = path.with_extension(format!("sled.damaged-{stamp}"));
    if aside.exists() {
        aside = path.with_extension(format!("sled.damaged-{stamp}-{}", millis(options.clock.now())));
    }
    fs::rename(path, &aside).and_then(|()| sync_parent(path)).map_err(|e| unavailable(path, &e))?;
    match attempt(path, options) {
        Ok(forest) => Ok((forest, aside)),
        Err(Trouble::Fatal(error)) => Err(error),
        Err(Trouble::Damaged(why)) => Err(DirectoryError::Unavailable(format!("a new database cannot be opened: {why}"))),
    }
}

fn attempt(path: &Path, options: &SledOptions) -> std::result::Result<Forest, Trouble> {
    let fatal = |e: io::Error| Trouble::Fatal(unavailable(path, &e));
    create_folder(path).map_err(fatal)?;
    if locked_by_other(path).map_err(fatal)? {
        return Err(Trouble::Fatal(DirectoryError::Locked { path: path.to_owned() }));
    }
    let config = sled::Config::new().path(path).cache_capacity(options.cache).flush_every_ms(None);
    // sled answers some kinds of damage with a panic.
    let opened = catch_unwind(AssertUnwindSafe(|| -> sled::Result<Forest> {
        let db = config.open()?;
        let trees = Table::ALL.iter().map(|t| db.open_tree(t.name())).collect::<sled::Result<Vec<_>>>()?;
        let state = db.open_tree("state")?;
        let forest = Forest { db, trees: Arc::new(trees), state };
        check(&forest)?;
        Ok(forest)
    }));
    match opened {
        Ok(Ok(forest)) => Ok(forest),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
            Err(Trouble::Fatal(DirectoryError::Locked { path: path.to_owned() }))
        }
        Ok(Err(sled::Error::Io(error))) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Err(Trouble::Damaged(error.to_string()))
            }
            _ => Err(fatal(error)),
        },
        Ok(Err(error)) => Err(Trouble::Damaged(error.to_string())),
        Err(_) => Err(Trouble::Damaged("the database panicked while it was opened".into())),
    }
}

/// Reads a small database through, and of a large one the ends of each tree: damage is better found now than at RCPT.
fn check(forest: &Forest) -> sled::Result<()> {
    let whole = forest.db.size_on_disk()? <= CHECK_WHOLE;
    for tree in forest.trees.iter().chain([&forest.state]) {
        if whole {
            for row in tree.iter() {
                row?;
            }
        } else {
            tree.first()?;
            tree.last()?;
        }
    }
    Ok(())
}

fn format(forest: &Forest) -> Result<Option<u32>> {
    let Some(value) = forest.db.get(FORMAT_KEY).map_err(super::unreadable)? else { return Ok(None) };
    let found = std::str::from_utf8(&value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| DirectoryError::Damaged { key: "format".into(), why: format!("{} is no version number", value.escape_ascii()) })?;
    if found > FORMAT { Err(DirectoryError::Newer { found, known: FORMAT }) } else { Ok(Some(found)) }
}

/// Writes everything the export holds; returns how many records. Applying it twice changes nothing, so a crash here does no harm.
fn restore(forest: &Forest, export: &Path) -> Result<usize> {
    let text = fs::read_to_string(export).map_err(|e| unavailable(export, &e))?;
    let content = export::parse(&text).map_err(|e| DirectoryError::Damaged { key: export.display().to_string(), why: e.to_string() })?;
    let settings = content.settings();
    let changes: Vec<Change> = content.changes();
    for batch in changes.chunks(10_000) {
        for ((table, key), value) in stage::stage(forest, batch)? {
            match value {
                Some(value) => forest.tree(table).insert(key, value),
                None => forest.tree(table).remove(key),
            }
            .map_err(write_error)?;
        }
    }
    for (key, value) in &settings {
        super::state::restore(forest, SETTINGS, key.as_bytes(), value).map_err(write_error)?;
    }
    Ok(changes.len().saturating_add(settings.len()))
}

/// The folder with mode 0700; fsynced with its parent, as the files in it are when they are new.
fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        return Ok(());
    }
    DirBuilder::new().mode(0o700).recursive(true).create(path)?;
    sync_parent(path)
}

/// Everything that sled creates and never syncs.
fn sync_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(path)?.sync_all()?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Asked before anything is judged: sled reads its configuration before it takes the lock, and a database in use must never look damaged.
fn locked_by_other(path: &Path) -> io::Result<bool> {
    use rustix::fs::{FlockOperation, flock};
    let file = match File::open(path.join("db")) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => Ok(true),
        Err(e) => Err(e.into()),
    }
}

fn unavailable(path: &Path, error: &dyn std::fmt::Display) -> DirectoryError {
    DirectoryError::Unavailable(format!("{}: {error}", path.display()))
}

fn write_error(error: sled::Error) -> DirectoryError {
    DirectoryError::Unavailable(format!("the database cannot be written: {error}"))
}
