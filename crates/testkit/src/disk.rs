//! A small file system of its own for a folder: to be filled, or to fail as a broken disk does. Mounting takes root.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FallocateFlags;

/// A tmpfs, or an ext4 in a file; it is unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    image: Option<tempfile::NamedTempFile>,
}

/// What most systems mount with.
const OPTIONS: &str = "loop,errors=remount-ro";

/// Whether a tmpfs can be had here. Without it a test is passed over with a word on standard error; where peers are required
/// (`PILLARBOX_REQUIRE_PEERS=1`, as in CI) that fails the test.
pub fn may_mount() -> bool {
    tried(SmallDisk::mount)
}

/// The same for an ext4.
pub fn may_mount_ext4() -> bool {
    tried(|at, _| SmallDisk::ext4(at, 4))
}

fn tried(mount: impl Fn(&Path, u64) -> io::Result<SmallDisk>) -> bool {
    let folder = crate::folder();
    match mount(folder.path(), 64) {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "no file system can be mounted: {error}");
            eprintln!("skipped: no file system can be mounted here, which takes root: {error}");
            false
        }
    }
}

impl SmallDisk {
    /// Mounts one of `kib` KiB over a folder.
    ///
    /// # Errors
    /// The words of `mount`, where this user may not.
    pub fn mount(at: &Path, kib: u64) -> io::Result<Self> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "tmpfs"]).arg(at))?;
        Ok(Self { path: at.to_owned(), image: None })
    }

    /// Mounts an ext4 of `mib` MiB over a folder, which [`SmallDisk::breaks`] breaks.
    ///
    /// # Errors
    /// The words of `mkfs.ext4` or `mount`.
    pub fn ext4(at: &Path, mib: u64) -> io::Result<Self> {
        let image = tempfile::NamedTempFile::with_prefix("pillarbox-test-")?;
        image.as_file().set_len(mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()))?;
        run(Command::new("mount").args(["-o", OPTIONS]).arg(image.path()).arg(at))?;
        std::fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { path: at.to_owned(), image: Some(image) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Octets that are free now.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes what is free but for `kib` KiB.
    pub fn fill(&self, kib: u64) {
        let file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        // Whoever else writes here may be quicker.
        for _ in 0..100 {
            let take = self.free().saturating_sub(kib * 1024);
            let len = file.metadata().unwrap().len();
            if take == 0 || rustix::fs::fallocate(&file, FallocateFlags::empty(), len, take).is_ok() {
                return;
            }
        }
        panic!("{} cannot be filled", self.path.display());
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn clear(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }

    /// Has the kernel find the file system broken: from now on it is read-only, for files that are open, too.
    pub fn breaks(&self) {
        let device = self.device();
        let name = device.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    }

    /// Checks and mounts it anew; nobody may have a file open there.
    pub fn repair(&self) {
        let image = self.image.as_ref().unwrap_or_else(|| panic!("a tmpfs cannot be repaired"));
        run(Command::new("umount").arg(&self.path)).unwrap();
        // It exits 1 when it has mended something.
        let _ = run(Command::new("e2fsck").arg("-fy").arg(image.path()));
        run(Command::new("mount").args(["-o", OPTIONS]).arg(image.path()).arg(&self.path)).unwrap();
    }

    fn device(&self) -> PathBuf {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let at = self.path.canonicalize().unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(1).is_some_and(|path| Path::new(path) == at));
        PathBuf::from(line.and_then(|line| line.split(' ').next()).unwrap_or_else(|| panic!("{} is not mounted", at.display())))
    }

    fn ballast(&self) -> PathBuf {
        self.path.join(".ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())) }
}
