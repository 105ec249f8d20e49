//! Dropped files on their way into the queue. Each is first moved under the id that its message will have: after a crash the queue tells by that
//! id whether the message was taken, so that none is taken twice.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pillarbox_queue::{Queue, QueueId};

/// The folder that they are moved to, STATE/drop.claimed. Nobody but the daemon has access.
pub(super) struct Claims {
    folder: PathBuf,
}

impl Claims {
    /// Makes the folder.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("drop.claimed");
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => Ok(Self { folder }),
        }
    }

    /// Where a claimed file is.
    pub(super) fn path(&self, id: QueueId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// What is claimed, oldest first. Strangers' files are left alone.
    pub(super) fn list(&self) -> io::Result<Vec<QueueId>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<QueueId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Settles what an earlier process left: files whose messages were taken go, the others get a fresh id, which cannot be any message's.
    pub(super) async fn settle(&self, queue: &Queue) -> io::Result<()> {
        let earlier = queue.take_earlier();
        for id in self.list()? {
            if earlier.contains(&id) || queue.show(id).await.is_some() {
                tracing::info!(%id, "a dropped message was taken before the restart; its file goes");
                std::fs::remove_file(self.path(id))?;
            } else {
                std::fs::rename(self.path(id), self.path(queue.new_id()))?;
            }
        }
        Ok(())
    }

    /// Moves files from the drop folder here, durably. Those that cannot be moved are answered with the reason.
    pub(super) fn claim(&self, queue: &Queue, paths: Vec<PathBuf>) -> io::Result<Vec<(PathBuf, io::Error)>> {
        let mut failed = Vec::new();
        let mut from = None;
        for path in paths {
            match std::fs::rename(&path, self.path(queue.new_id())) {
                Ok(()) => from = path.parent().map(Path::to_path_buf),
                Err(error) => failed.push((path, error)),
            }
        }
        // A power cut must not bring a file back into the drop folder once its message is safe.
        for folder in from.iter().chain(from.as_ref().map(|_| &self.folder)) {
            File::open(folder)?.sync_all()?;
        }
        Ok(failed)
    }
}
