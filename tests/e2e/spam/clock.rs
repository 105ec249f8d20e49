//! A daemon's clock that a test sets ahead, so that days pass at once: libfaketime reads the offset from a file at every look.

use std::path::{Path, PathBuf};

use pillarbox_testkit::DaemonBuilder;

/// Where Debian puts the library, by the name of the machine's architecture.
const FOLDER: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

pub(super) struct Clock {
    file: PathBuf,
    library: PathBuf,
    folder: tempfile::TempDir,
}

impl Clock {
    /// One that shows the true time as yet. `None`, with a word, where the library is not installed; required as other peers are.
    pub(super) fn new() -> Option<Self> {
        let folders = std::fs::read_dir(FOLDER).unwrap().flatten().map(|entry| entry.path().join(LIBRARY));
        let Some(library) = folders.into_iter().find(|path| path.is_file()) else {
            assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "libfaketime is not installed");
            eprintln!("skipped: libfaketime is not installed");
            return None;
        };
        let folder = pillarbox_testkit::folder();
        let this = Self { file: folder.path().join("offset"), library, folder };
        this.set("+0");
        Some(this)
    }

    /// Puts the daemon under this clock. Only the time of day is moved; timers run as they do.
    pub(super) fn rules(&self, builder: DaemonBuilder) -> DaemonBuilder {
        let text = |path: &Path| path.display().to_string();
        builder
            // The library opens the file from within the daemon, whose sandbox would not let it.
            .set("security.folders", vec![text(self.folder.path())])
            .env("LD_PRELOAD", &text(&self.library))
            .env("FAKETIME_TIMESTAMP_FILE", &text(&self.file))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// Sets it: `+5m`, `+3d`, from the true time.
    pub(super) fn set(&self, offset: &str) {
        // By rename: a reader sees the old offset or the new one, never half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}
