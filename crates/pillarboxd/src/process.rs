//! What the process gives up and asks for at its start: root, core dumps, file descriptors, and the signals it listens to.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Before anything secret is in memory: no core dumps, files for the owner alone, as many descriptors as the system allows.
pub(crate) fn harden() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // A private key or a program that gains rights by exec is of no use here.
    let _ = rustix::thread::set_no_new_privs(true);
}

/// Once the ports are bound: becomes the owner of the state folder when started as root, so that nothing after this runs
/// as root. Must be called while the process has a single thread.
///
/// A state folder that root owns (a try-out in a container) keeps root, with a warning from the caller.
pub(crate) fn drop_root(state: &Path, runtime: &Path) -> anyhow::Result<Option<u32>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = std::fs::metadata(state).with_context(|| format!("cannot look at the state folder {}", state.display()))?;
    if owner.uid() == 0 {
        return Ok(None);
    }
    // A runtime folder that root has just made in /run would shut its own daemon out.
    if std::fs::metadata(runtime).is_ok_and(|folder| folder.uid() == 0) {
        give(runtime, owner.uid(), owner.gid())?;
    }
    let uid = nix::unistd::Uid::from_raw(owner.uid());
    let gid = nix::unistd::Gid::from_raw(owner.gid());
    match nix::unistd::User::from_uid(uid)? {
        Some(user) => {
            let name = std::ffi::CString::new(user.name)?;
            nix::unistd::initgroups(&name, gid)?;
        }
        None => nix::unistd::setgroups(&[gid])?,
    }
    nix::unistd::setgid(gid).context("cannot take the state folder's group")?;
    nix::unistd::setuid(uid).context("cannot take the state folder's owner")?;
    if nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_ok() {
        bail!("root could be regained after it was given up; refusing to run");
    }
    Ok(Some(owner.uid()))
}

/// The right to bind low ports, and any other that a unit or a file gave, once the ports are bound. Root that stays root (a try-out) keeps what it is.
pub(crate) fn drop_capabilities() {
    if !rustix::process::geteuid().is_root() {
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
        // Ambient ones go with the permitted ones.
        let _ = rustix::thread::set_capabilities(None, sets);
    }
}

/// Makes a folder that only its owner enters. Made by root, it belongs to the owner of the nearest folder that was there before.
pub(crate) fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    let above = path.ancestors().skip(1).find(|folder| folder.is_dir()).and_then(|folder| std::fs::metadata(folder).ok());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}: make it, owned by the user that runs the daemon", path.display()))?;
    match above {
        Some(above) if rustix::process::geteuid().is_root() => give(path, above.uid(), above.gid()),
        _ => Ok(()),
    }
}

fn give(path: &Path, uid: u32, gid: u32) -> anyhow::Result<()> {
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).with_context(|| format!("cannot give {} to user {uid}", path.display()))
}
