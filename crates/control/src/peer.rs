//! Who may speak to the control socket: root, the daemon's own user, members of the group `pillarbox`.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

/// Members of this group may administer the server.
pub(crate) const GROUP: &str = "pillarbox";

/// The gid of [`GROUP`], where the system has it.
pub(crate) fn group_id() -> Option<u32> {
    Group::from_name(GROUP).ok().flatten().map(|g| g.gid.as_raw())
}

/// Whether a peer with these credentials (SO_PEERCRED) may speak. Asks the system's user database, so it may block.
pub(crate) fn may_speak(peer: &UCred) -> bool {
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() == 0 || peer.uid() == own {
        return true;
    }
    let Some(group) = group_id() else {
        return false;
    };
    peer.gid() == group || is_member(peer.uid(), peer.gid(), group)
}

fn is_member(uid: u32, gid: u32, group: u32) -> bool {
    let user = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user,
        _ => return false,
    };
    let Ok(name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, Gid::from_raw(gid)).is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == group))
}
