//! Opening: the lock, the format version, the modes of a new folder, and the repair of a damaged one from the plain-text export.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
/// A file beside the database with its format: written once a database was finished, so that one which has lost its contents is told from
/// one that never had any, whatever sled makes of it.
const MARKER: &str = "format";
/// Row of `Meta` that counts commits.
pub(super) const REVISION: &[u8] = b"revision";
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

    /// Commits so far; 1 in a new database.
    pub(super) fn revision(&self) -> Result<u64> {
        let row = self.tree(Table::Meta).get(REVISION).map_err(super::unreadable)?;
        Ok(row.and_then(|row| row.as_ref().try_into().ok()).map_or(1, u64::from_be_bytes))
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
    let was_there = fs::metadata(path.join("db")).is_ok_and(|m| m.len() > 0);
    let finished = marker(path)?;
    let damage = match attempt(path, options) {
        Ok(forest) => match sound(&forest, &export, was_there, finished)? {
            Soundness::Sound => {
                if !finished {
                    mark(path).map_err(|e| unavailable(path, &e))?;
                }
                return Ok(Opened { forest, rebuilt: None });
            }
            Soundness::New => return finish(forest, path, &export, "was missing and".into()),
            Soundness::Damaged(why) => why,
        },
        Err(Trouble::Fatal(error)) => return Err(error),
        Err(Trouble::Damaged(why)) => why,
    };
    let aside = set_aside(path, &export, &damage, options)?;
    match attempt(path, options) {
        Ok(forest) => finish(forest, path, &export, format!("was damaged ({damage}), was moved to {} and", aside.display())),
        Err(Trouble::Fatal(error)) => Err(error),
        Err(Trouble::Damaged(why)) => Err(DirectoryError::Unavailable(format!("a new database cannot be opened: {why}"))),
    }
}

/// What an opened database is worth.
enum Soundness {
    Sound,
    New,
    Damaged(String),
}

/// sled takes a log that ends early for one that was cut by a crash, and a wholly unreadable one for an empty one. The format key,
/// written last at creation, and the export's revision, never ahead of the disk, tell those cases apart.
fn sound(forest: &Forest, export: &Path, was_there: bool, finished: bool) -> Result<Soundness> {
    let exported = exported_revision(export).map_err(|e| unavailable(export, &e))?;
    if format(forest)?.is_none() {
        // Without a marker and without an export nothing was ever finished here: a first start that was cut short.
        return Ok(match exported {
            _ if finished => Soundness::Damaged("it has lost its contents".into()),
            Some(_) if was_there => Soundness::Damaged("it has lost its contents".into()),
            _ => Soundness::New,
        });
    }
    let revision = forest.revision()?;
    Ok(match exported.flatten() {
        Some(exported) if exported > revision => {
            Soundness::Damaged(format!("it holds revision {revision} where its export has {exported}: later changes are lost"))
        }
        _ => Soundness::Sound,
    })
}

/// The revision that an export names in its first lines; the outer `None`: there is no export.
fn exported_revision(export: &Path) -> io::Result<Option<Option<u64>>> {
    let mut head = Vec::new();
    match File::open(export) {
        Ok(file) => file.take(4096).read_to_end(&mut head)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(export::revision(&String::from_utf8_lossy(&head))))
}

/// Fills a new database from the export, where there is one, and then writes the format key.
fn finish(forest: Forest, path: &Path, export: &Path, cause: String) -> Result<Opened> {
    super::addresses::forget(path);
    let mut rebuilt = None;
    if export.exists() {
        let count = restore(&forest, export)?;
        let words = format!("the directory {} {cause} was rebuilt from {}: {count} records", path.display(), export.display());
        tracing::error!("{words}");
        rebuilt = Some(words);
    }
    forest.db.insert(FORMAT_KEY, FORMAT.to_string().as_bytes()).map_err(write_error)?;
    forest.flush().map_err(write_error)?;
    mark(path).and_then(|()| sync_all(path)).map_err(|e| unavailable(path, &e))?;
    Ok(Opened { forest, rebuilt })
}

/// Whether a database was finished here. A newer program's is not touched: not even opened.
fn marker(path: &Path) -> Result<bool> {
    let text = match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidData) => String::new(),
        Err(e) => return Err(unavailable(path, &e)),
    };
    match text.trim().parse() {
        Ok(found) if found > FORMAT => Err(DirectoryError::Newer { found, known: FORMAT }),
        // One that a power cut emptied says as much: it was begun after the database was whole.
        _ => Ok(path.join(MARKER).exists()),
    }
}

fn mark(path: &Path) -> io::Result<()> {
    let mut file = crate::durable::Replacement::begin(&path.join(MARKER), 0o600)?;
    io::Write::write_all(&mut file, format!("{FORMAT}\n").as_bytes())?;
    file.commit()
}

/// Moves the damaged folder away; only when there is something to rebuild it from.
fn set_aside(path: &Path, export: &Path, why: &str, options: &SledOptions) -> Result<PathBuf> {
    if !export.exists() {
        return Err(DirectoryError::Damaged {
            key: path.display().to_string(),
            why: format!(
                "{why}; there is no {} to rebuild it from: restore a backup, or move the folder away to start empty",
                export.display()
            ),
        });
    }
    // Read before anything is moved: an export that cannot be used must leave everything as it was.
    read_export(export)?;
    let stamp = rfc3339(options.clock.now()).replace(':', "");
    let mut aside = path.with_extension(format!("sled.damaged-{stamp}"));
    if aside.exists() {
        aside = path.with_extension(format!("sled.damaged-{stamp}-{}", millis(options.clock.now())));
    }
    fs::rename(path, &aside).and_then(|()| sync_parent(path)).map_err(|e| unavailable(path, &e))?;
    Ok(aside)
}

fn read_export(export: &Path) -> Result<export::Content> {
    let text = fs::read_to_string(export).map_err(|e| unavailable(export, &e))?;
    export::parse(&text).map_err(|e| DirectoryError::Damaged { key: export.display().to_string(), why: e.to_string() })
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
    let content = read_export(export)?;
    let revision = content.revision().unwrap_or(1);
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
    forest.tree(Table::Meta).insert(REVISION, &revision.to_be_bytes()).map_err(write_error)?;
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

/// Waits, not for long, while somebody has the database: a worker of sled's may hold its file a moment longer than the last handle.
pub(super) fn wait_until_unlocked(path: &Path) {
    for _ in 0..1000 {
        if !matches!(locked_by_other(path), Ok(true)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
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
