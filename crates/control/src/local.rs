//! Without a daemon: open the directory in this process, as the owner of the state folder, and answer the same API.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};
use pillarbox_config::{ByteSize, Config};
use pillarbox_directory::DirectoryError;
use pillarbox_directory::dovecot::{DovecotFile, DovecotOptions};
use pillarbox_directory::export::ExportKeeper;

use crate::admin::Admin;
use crate::client::{Client, ClientError};
use crate::error::ApiError;
use crate::server::socket_path;

/// The user that the package creates for the daemon.
const USER: &str = "pillarbox";

/// Why neither the daemon nor the database could be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The daemon's socket was there, but refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody answers on the socket, and another process holds the database (exit code 69).
    #[error("the daemon does not answer on {socket}, yet another process holds the database {database}; is it just starting or stopping?")]
    Locked {
        /// The socket.
        socket: PathBuf,
        /// The database.
        database: PathBuf,
    },
    /// The state folder cannot be used.
    #[error("the state folder {path}: {why}")]
    State {
        /// The folder.
        path: PathBuf,
        /// The system's words, and what to do.
        why: String,
    },
    /// The directory's own words.
    #[error(transparent)]
    Directory(DirectoryError),
}

/// The daemon if it runs, otherwise this process with the directory opened.
///
/// As root without a daemon, this process becomes the state folder's owner for good, so that it leaves no file that the daemon could not write.
/// Files that only root can read must be read before.
pub async fn connect(config: &Config) -> Result<Client, ConnectError> {
    let socket = socket_path(&config.paths.runtime);
    if let Some(client) = Client::daemon(&socket).await? {
        return Ok(client);
    }
    let admin = Arc::new(open(config, &socket).await?);
    let router = crate::routes::router(admin.clone()).layer(axum::middleware::from_fn_with_state(admin, keep_files));
    Ok(Client::in_process(router))
}

/// What the daemon's keepers would do after a change: the export beside the database and Dovecot's passwd-files follow it.
async fn keep_files(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    if changes && response.status().is_success() {
        let config = admin.config();
        let export = config.paths.state.join(pillarbox_directory::export::FILE_NAME);
        if let Err(error) = ExportKeeper::write_once(admin.directory.as_ref(), &export).await {
            return ApiError::unavailable(format!("the change was made, but {} could not be written: {error}", export.display()))
                .into_response();
        }
        let folder = config.paths.state.join("dovecot");
        if folder.is_dir()
            && let Err(error) = DovecotFile::write_once(admin.directory.as_ref(), &folder, &dovecot_options(&config)).await
        {
            return ApiError::unavailable(format!("the change was made, but {error}")).into_response();
        }
    }
    response
}

/// How Dovecot's passwd-files are written: homes as the deliverer makes them, owned by whom this process runs as; where that is root, by the owner of the
/// mail folder, to whom the deliverer gives what it stores.
pub fn dovecot_options(config: &Config) -> DovecotOptions {
    use std::os::unix::fs::MetadataExt;
    let mail = config.paths.mail.clone();
    let (uid, gid) = match std::fs::metadata(&mail) {
        Ok(seen) if rustix::process::geteuid().is_root() => (seen.uid(), seen.gid()),
        _ => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    };
    DovecotOptions {
        uid,
        gid,
        home: Arc::new(move |user| Some(mail.join(pillarbox_lda::maildir::home_path(user).ok()?))),
        default_quota: config.mailbox.default_quota.parse().ok().map(ByteSize::bytes),
    }
}

async fn open(config: &Config, socket: &Path) -> Result<Admin, ConnectError> {
    let state = &config.paths.state;
    prepare(state).map_err(|why| ConnectError::State { path: state.clone(), why })?;
    match pillarbox_directory::open(config).await {
        Ok(movable) => Ok(Admin::new(Arc::new(ArcSwap::from_pointee(config.clone())), movable.clone()).with_movable(movable)),
        Err(DirectoryError::Locked { path }) => Err(ConnectError::Locked { socket: socket.to_path_buf(), database: path }),
        Err(error) => Err(ConnectError::Directory(error)),
    }
}

/// Makes the state folder if it is missing, and becomes its owner when this is root.
fn prepare(state: &Path) -> Result<(), String> {
    match std::fs::metadata(state) {
        Ok(meta) if !meta.is_dir() => return Err("is not a folder".into()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => make_folder(state).map_err(|e| format!("cannot be made: {e}"))?,
        Err(e) => return Err(e.to_string()),
    }
    let meta = std::fs::metadata(state).map_err(|e| e.to_string())?;
    let own = rustix::process::geteuid().as_raw();
    if own == 0 && meta.uid() != 0 {
        return become_user(meta.uid(), meta.gid()).map_err(|e| format!("cannot become its owner (uid {}): {e}", meta.uid()));
    }
    if own != meta.uid() {
        return Err(format!("belongs to uid {}, you are uid {own}; run this as root or as its owner", meta.uid()));
    }
    Ok(())
}

/// Makes a folder of the daemon's, mode 0700, owned by its user where root makes it and the system has that user.
pub fn make_folder(state: &Path) -> io::Result<()> {
    if let Some(above) = state.parent() {
        // Those above are no secret, and the daemon's user must get through them.
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(state) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    if rustix::process::geteuid().as_raw() == 0
        && let Ok(Some(user)) = User::from_name(USER)
    {
        std::os::unix::fs::chown(state, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(())
}

/// Gives up root for good, groups first.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match User::from_uid(uid) {
        Ok(Some(user)) => {
            let name = std::ffi::CString::new(user.name).map_err(io::Error::other)?;
            initgroups(&name, user.gid)?;
        }
        _ => setgroups(&[gid])?,
    }
    setgid(gid)?;
    setuid(uid)?;
    Ok(())
}
