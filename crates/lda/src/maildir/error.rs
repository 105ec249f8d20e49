//! Why a message could not be stored, and the reply that says so without telling strangers about our disks.

use std::io;

use pillarbox_smtp::{EnhancedCode, Reply};
use rustix::io::Errno;

use super::path::UnstorableAddress;

/// Why a mailbox could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No folder can be named after the address.
    #[error(transparent)]
    Address(#[from] UnstorableAddress),
    /// Something below the mail folder is a symbolic link or a file where a directory of ours must be.
    #[error("{what} is not a directory of its own (a symbolic link or a file); it is not followed")]
    NotADirectory {
        /// The path below the mail folder.
        what: String,
    },
    /// The file system refused.
    #[error("{doing} {what}: {source}")]
    Io {
        /// What was tried, such as "creating".
        doing: &'static str,
        /// The path below the mail folder.
        what: String,
        /// The error.
        source: io::Error,
    },
    /// Reading the message itself failed.
    #[error("reading the queued message: {0}")]
    Body(io::Error),
}

impl StoreError {
    /// From an error number while doing something to a path below the mail folder.
    pub(crate) fn errno(doing: &'static str, what: impl Into<String>, errno: Errno) -> Self {
        match errno {
            Errno::LOOP | Errno::NOTDIR => Self::NotADirectory { what: what.into() },
            errno => Self::Io { doing, what: what.into(), source: errno.into() },
        }
    }

    /// The error number beneath, where there is one.
    pub(crate) fn raw(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }

    /// The reply for the recipient: what is wrong in words its sender may read. Paths stay in our log.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Address(_) => Reply::new(553, EnhancedCode(5, 1, 3), "The address is too long for a mailbox here"),
            Self::NotADirectory { .. } => {
                Reply::new(451, EnhancedCode(4, 3, 5), "The mailbox folder is not set up properly here; its administrator was told")
            }
            Self::Body(_) => Reply::new(451, EnhancedCode(4, 3, 0), "The queued message cannot be read at the moment"),
            Self::Io { .. } => match self.raw() {
                Some(Errno::NOSPC | Errno::FBIG) => Reply::new(452, EnhancedCode(4, 3, 1), "The disk that holds the mailbox is full"),
                Some(Errno::DQUOT) => Reply::new(452, EnhancedCode(4, 2, 2), "The mailbox has used up its share of the disk"),
                Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                    Reply::new(451, EnhancedCode(4, 3, 0), "The mailbox folder cannot be written at the moment (permission denied)")
                }
                Some(Errno::NOENT) => Reply::new(451, EnhancedCode(4, 3, 0), "The mailbox folder is missing at the moment"),
                Some(Errno::MFILE | Errno::NFILE) => Reply::new(451, EnhancedCode(4, 3, 2), "Too many files are open here at the moment"),
                Some(Errno::STALE | Errno::NOTCONN | Errno::HOSTDOWN) => {
                    Reply::new(451, EnhancedCode(4, 3, 0), "The file server that holds the mailbox cannot be reached at the moment")
                }
                _ => Reply::new(451, EnhancedCode(4, 3, 0), "The mailbox cannot be written at the moment (input/output error)"),
            },
        }
    }
}
