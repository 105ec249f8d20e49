//! Nodes that share a directory, and the directory's own place, as the API shows them.

pub use pillarbox_directory::{NodeInfo, NodeState, Transferred};
use serde::{Deserialize, Serialize};

/// `node list`: one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// What is known of it.
    #[serde(flatten)]
    pub node: NodeInfo,
    /// It is the one that answers.
    pub this: bool,
}

/// `POST /v1/queue/evacuate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvacuateFrom {
    /// The dead node's state folder or its queue folder, as this machine sees it.
    pub folder: std::path::PathBuf,
}

/// What `queue evacuate` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuated {
    /// The id of the queue folder.
    pub id: String,
    /// Messages taken over now.
    pub messages: u64,
    /// Messages that an earlier, interrupted attempt had taken over.
    pub known: u64,
    /// What could not be read and was set aside.
    pub damaged: Vec<String>,
    /// Where the folder is now.
    pub folder: String,
}

/// `POST /v1/directory/migrate`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveTo {
    /// `postgres://…`, `sled` or `sled:/PATH`.
    pub to: String,
    /// What is there already may be changed and removed.
    #[serde(default)]
    pub replace: bool,
}

/// The lines of the answer where work takes its time: any number of `Progress`, then one of the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News<T> {
    /// So far.
    Progress {
        /// What is done: users and aliases copied, messages taken over.
        done: u64,
        /// About how many there are.
        total: u64,
    },
    /// How it ended.
    Done(T),
    /// It failed.
    Error(crate::error::ApiError),
}

/// A move that is complete but for the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Where to, without the password.
    pub to: String,
    /// What was copied.
    #[serde(flatten)]
    pub copied: Transferred,
    /// The lines that `[directory]` is to have, the password masked; `null` where no configuration with this state folder can name the place.
    pub settings: Option<String>,
    /// A daemon makes every change in both places until it is reloaded with these lines.
    pub mirrored: bool,
}

/// `directory show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryPlace {
    /// Where it is, without the password.
    pub place: String,
    /// Where every change is made as well, since it was moved there and not switched yet.
    pub mirror: Option<String>,
    /// Whether it answers; else why not.
    pub trouble: Option<String>,
    /// Domains, users and aliases.
    pub domains: u64,
    /// See `domains`.
    pub users: u64,
    /// See `domains`.
    pub aliases: u64,
}
