//! Parked mail: two plain files a message under `deferred/`, for an operator to read with `less`.
//!
//! `deferred/XX/ID.json` is the envelope, versioned and indented; `deferred/XX/ID.msg` the message as it will be sent on (CRLF line
//! ends). XX is the two characters before the last two of the id, which spreads a million messages over a thousand folders.
//! The message is written once, the envelope anew whenever something became of a recipient: that is why they are two files.
//! The envelope is what counts. It gets its name only after both files' contents are durable, and loses it before the message goes.

mod files;
mod index;
mod scan;

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::disk::Disk;
use crate::envelope::Envelope;
use crate::id::QueueId;
use crate::journal::remove_if_there;

pub use files::ParkedFiles;
pub(crate) use index::{Index, IndexEntry, IndexWriter};
use scan::changed;
pub(crate) use scan::{ScanError, Scanned, scan, stamp_of};

/// The format of `ID.json` that this program writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// Folders that the messages are spread over.
const FOLDERS: usize = 1024;

/// When each folder changed last, in nanoseconds, by its number.
pub(crate) type FolderStamps = [i64; FOLDERS];

/// In place of a folder's stamp: it is not known, or a further change might not show.
const UNSURE: i64 = i64::MIN;

/// A change this soon after another may get the same time from the kernel's clock, which ticks, or from that of a file server.
const TICK: Duration = Duration::from_secs(2);

/// An envelope that is being written has this behind its name.
const UNFINISHED: &str = "new";

/// Messages are copied in pieces of this size.
const PIECE: usize = 256 * 1024;

/// `ID.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Document<E> {
    format: u32,
    envelope: E,
}

/// Why an envelope cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file cannot be read, or is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what this program writes.
    #[error("{0}")]
    Malformed(String),
    /// A newer program wrote it.
    #[error("its format is {0}, newer than this version of the program knows; run the newer version")]
    Newer(u32),
}

/// The folder of parked mail.
#[derive(Debug, Clone)]
pub(crate) struct Deferred {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Deferred {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self { disk, root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, id: QueueId) -> PathBuf {
        let text = id.to_string();
        self.root.join(text.get(9..11).unwrap_or("00"))
    }

    /// When each folder changed last, as far as a later change is sure to show.
    pub(crate) fn folder_stamps(&self) -> FolderStamps {
        let late = SystemTime::now().checked_sub(TICK);
        let late = late.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos());
        let mut stamps = [UNSURE; FOLDERS];
        for (id, slot) in (0..).step_by(FOLDERS).zip(&mut stamps) {
            let stamp = std::fs::metadata(self.folder(QueueId(id))).map_or(UNSURE, |meta| changed(&meta));
            *slot = if i128::from(stamp) < i128::try_from(late).unwrap_or(0) { stamp } else { UNSURE };
        }
        stamps
    }

    fn path(&self, id: QueueId, ending: &str) -> PathBuf {
        self.folder(id).join(format!("{id}.{ending}"))
    }

    /// The message of a parked envelope.
    pub(crate) fn body(&self, id: QueueId) -> io::Result<Body> {
        Body::from_file(self.path(id, "msg"))
    }

    /// Whether files stand for this message.
    pub(crate) fn has(&self, id: QueueId) -> bool {
        self.path(id, "json").exists()
    }

    /// Reads an envelope. Blocks.
    pub(crate) fn read(&self, id: QueueId) -> Result<Envelope, ReadError> {
        read_envelope(&self.path(id, "json"))
    }

    /// Reads an envelope and finds its message, which must be as long as the envelope says: less of it is never sent on. Blocks.
    pub(crate) fn read_whole(&self, id: QueueId) -> Result<(Envelope, Body), ReadError> {
        let envelope = self.read(id)?;
        let body = self.body(id)?;
        if body.len() != envelope.size {
            let file = self.path(id, "msg");
            return Err(ReadError::Malformed(format!("{} has {} octets instead of {}", file.display(), body.len(), envelope.size)));
        }
        Ok((envelope, body))
    }

    /// Writes messages and envelopes and gives the envelopes their names. Those in the answer are durable; the others have left
    /// nothing behind and stay where they are, and the answer says why. Blocks.
    pub(crate) fn park(&self, batch: &[(Envelope, Body)]) -> io::Result<(Vec<QueueId>, Option<io::Error>)> {
        let mut written = Vec::with_capacity(batch.len());
        let mut first_error = None;
        for (envelope, body) in batch {
            match self.write_body(envelope.id, body).and_then(|()| self.write_envelope(envelope)) {
                Ok(()) => written.push(envelope.id),
                Err(error) => {
                    self.discard(envelope.id);
                    tracing::warn!(id = %envelope.id, %error, "a message could not be parked and stays in the journal");
                    first_error.get_or_insert(error);
                }
            }
        }
        if written.is_empty() {
            return Ok((written, first_error));
        }
        let finish = || {
            self.disk.sync_fs(&self.root)?;
            written.iter().try_for_each(|id| self.disk.rename(&self.path(*id, UNFINISHED), &self.path(*id, "json")))?;
            self.disk.sync_fs(&self.root)
        };
        match finish() {
            Ok(()) => Ok((written, first_error)),
            Err(error) => {
                written.iter().for_each(|id| self.discard(*id));
                Err(error)
            }
        }
    }

    /// Writes envelopes anew. What they said before stays until the new content is durable; that the new one took its place is
    /// durable only after the next sync of the file system. Blocks.
    pub(crate) fn update(&self, batch: &[Envelope]) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.iter().try_for_each(|envelope| self.write_envelope(envelope))?;
        self.disk.sync_fs(&self.root)?;
        batch.iter().try_for_each(|envelope| self.disk.rename(&self.path(envelope.id, UNFINISHED), &self.path(envelope.id, "json")))
    }

    /// Removes an envelope: the message is queued no more. Blocks.
    pub(crate) fn remove_envelope(&self, id: QueueId) -> io::Result<()> {
        remove_if_there(&*self.disk, &self.path(id, "json"))
    }

    /// Removes a message, once it is durable that its envelope is gone: a power cut could undo the one and not the other. Blocks.
    pub(crate) fn remove_message(&self, id: QueueId) -> io::Result<()> {
        remove_if_there(&*self.disk, &self.path(id, "msg"))
    }

    /// Makes everything durable that happened here. Blocks.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.sync_fs(&self.root)
    }

    /// Undoes what an unfinished parking wrote.
    fn discard(&self, id: QueueId) {
        for ending in [UNFINISHED, "json", "msg"] {
            if let Err(error) = remove_if_there(&*self.disk, &self.path(id, ending)) {
                tracing::warn!(%id, %error, "what was written of a message that could not be parked remains");
            }
        }
    }

    fn write_envelope(&self, envelope: &Envelope) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(&Document { format: FORMAT, envelope }).map_err(io::Error::other)?;
        json.push(b'\n');
        let path = self.path(envelope.id, UNFINISHED);
        let file = self.create(&path)?;
        self.disk.write_at(&file, &mut [IoSlice::new(&json)], 0)
    }

    fn write_body(&self, id: QueueId, body: &Body) -> io::Result<()> {
        let file = self.create(&self.path(id, "msg"))?;
        if let Some(bytes) = body.in_memory() {
            return self.disk.write_at(&file, &mut [IoSlice::new(&bytes)], 0);
        }
        let mut reader = body.reader()?;
        let mut piece = Vec::with_capacity(PIECE);
        let mut at = 0;
        loop {
            piece.clear();
            (&mut reader).take(PIECE as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Ok(());
            }
            self.disk.write_at(&file, &mut [IoSlice::new(&piece)], at)?;
            at += piece.len() as u64;
        }
    }

    /// Creates a file, in place of one that an unfinished attempt left, and its folder.
    fn create(&self, path: &Path) -> io::Result<crate::disk::DiskFile> {
        match self.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create_dir(&crate::disk::parent(path))?;
                self.disk.create(path)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(path)?;
                self.disk.create(path)
            }
            other => other,
        }
    }
}

/// The number of the folder that a message belongs in.
fn folder_number(id: QueueId) -> usize {
    (id.0 as usize / FOLDERS) % FOLDERS
}

/// Reads one `ID.json`.
pub(crate) fn read_envelope(path: &Path) -> Result<Envelope, ReadError> {
    let mut json = Vec::new();
    File::open(path)?.read_to_end(&mut json)?;
    let malformed = |error: serde_json::Error| ReadError::Malformed(format!("it is not a parked envelope: {error}"));
    match serde_json::from_slice::<Document<Envelope>>(&json) {
        Ok(document) if document.format <= FORMAT => Ok(document.envelope),
        Ok(document) => Err(ReadError::Newer(document.format)),
        Err(error) => match serde_json::from_slice::<Document<serde::de::IgnoredAny>>(&json) {
            Ok(document) if document.format > FORMAT => Err(ReadError::Newer(document.format)),
            _ => Err(malformed(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::envelope::{Recipient, Route};

    fn deferred(dir: &tempfile::TempDir) -> Deferred {
        Deferred::new(Arc::new(RealDisk), dir.path().into())
    }

    fn envelope(id: u64) -> Envelope {
        let recipient = Recipient::new("bob@example.org".parse().unwrap(), Route::Relay);
        Envelope { size: 5, ..Envelope::new(QueueId(id), "ada@example.net".parse().unwrap(), vec![recipient]) }
    }

    #[test]
    fn folders_are_numbered_as_they_are_named() {
        let deferred = deferred(&tempfile::tempdir().unwrap());
        for n in 0..FOLDERS {
            assert_eq!(folder_number(QueueId((n as u64) << 10)), n);
            assert_eq!(deferred.folder(QueueId((n as u64) << 10)), deferred.folder(QueueId(0x1234_5678 << 20 | (n as u64) << 10 | 5)));
        }
    }

    #[test]
    fn what_was_parked_can_be_read_updated_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let deferred = deferred(&dir);
        let large = Body::from_bytes(vec![b'x'; 3 * PIECE + 1]).prefixed("A: 1\r\n");
        let batch = [(envelope(1), Body::from_bytes("hello")), (envelope(0xffff_ffff), large.clone())];
        assert_eq!(deferred.park(&batch).unwrap().0, [QueueId(1), QueueId(0xffff_ffff)]);
        assert_eq!(deferred.body(QueueId(1)).unwrap().read_to_bytes().unwrap(), "hello");
        assert_eq!(deferred.body(QueueId(0xffff_ffff)).unwrap().read_to_bytes().unwrap(), large.read_to_bytes().unwrap());
        let mut changed = deferred.read(QueueId(1)).unwrap();
        assert_eq!(changed, envelope(1));
        changed.junk = true;
        deferred.update(std::slice::from_ref(&changed)).unwrap();
        assert_eq!(deferred.read(QueueId(1)).unwrap(), changed);
        deferred.remove_envelope(QueueId(1)).unwrap();
        assert!(!deferred.has(QueueId(1)));
        assert!(matches!(deferred.read(QueueId(1)), Err(ReadError::Io(_))));
        deferred.remove_message(QueueId(1)).unwrap();
        assert!(deferred.body(QueueId(1)).is_err());
        deferred.remove_message(QueueId(1)).unwrap();
    }

    #[test]
    fn leftovers_of_an_unfinished_parking_are_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let deferred = deferred(&dir);
        let path = deferred.path(QueueId(1), "msg");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "much longer than the message itself").unwrap();
        deferred.park(&[(envelope(1), Body::from_bytes("hello"))]).unwrap();
        assert_eq!(deferred.body(QueueId(1)).unwrap().read_to_bytes().unwrap(), "hello");
    }

    #[test]
    fn one_that_fails_does_not_keep_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let deferred = deferred(&dir);
        let gone = tempfile::NamedTempFile::new().unwrap();
        let body = Body::from_file(gone.path()).unwrap();
        drop(gone);
        let (parked, error) = deferred.park(&[(envelope(1), body), (envelope(2), Body::from_bytes("x"))]).unwrap();
        assert_eq!(parked, [QueueId(2)]);
        assert!(error.is_some());
        assert!(!deferred.path(QueueId(1), "msg").exists());
    }

    #[test]
    fn newer_and_malformed_envelopes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        for (text, newer) in [
            (r#"{"format": 2, "envelope": {"unheard": "of"}}"#, true),
            (r#"{"format": 1, "envelope": {"id": "0"}}"#, false),
            (r#"{"format": 1, "envel"#, false),
            ("", false),
            ("\0\0\0\0", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(matches!(read_envelope(&path), Err(ReadError::Newer(2))), newer, "{text}");
            assert!(read_envelope(&path).is_err());
        }
    }
}
