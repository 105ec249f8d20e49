//! Maildir and Maildir++: the layout, safe opening, names, content, and what a crash leaves behind.
//!
//! The `maildir` crate creates and reads mailboxes. Its gaps are closed here: it follows symbolic links, syncs each file but no folder, leaves modes to the
//! umask, makes a new name for every attempt, and knows neither `W=`, quotas nor subscriptions.

pub mod content;
pub mod device;
pub mod earlier;
pub mod error;
pub mod folder;
pub mod name;
pub mod path;
pub mod root;
pub mod store;

pub use content::{Content, delivery_header};
pub use device::Devices;
pub use earlier::EarlierWork;
pub use error::StoreError;
pub use folder::FolderName;
pub use name::{HostLabel, Sizes, UniqueName};
pub use path::{home_path, local_component, maildir_path};
pub use root::{MailRoot, MaildirHandle, Missing};
pub use store::{Durability, Manner, Place, Stored};
