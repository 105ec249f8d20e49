//! Policies on disk: one JSON file a domain, so that they hold across a restart (RFC 8461 §10.2); and where other nodes find them, if there
//! are any.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pillarbox_smtp::Domain;
use serde::{Deserialize, Serialize};

use super::StsPolicy;

/// Largest file read back.
const MAX_FILE: u64 = 256 * 1024;

/// Format of the files that this program writes, and the newest it reads.
const FORMAT: u32 = 1;

/// A file: its format, and the policy.
#[derive(Debug, Serialize, Deserialize)]
struct File<K> {
    /// Those of before the first release name none.
    #[serde(default = "first")]
    format: u32,
    #[serde(flatten)]
    kept: K,
}

fn first() -> u32 {
    1
}

/// A policy with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The `id` that announced it.
    pub(super) id: String,
    /// When, seconds since the epoch.
    pub(super) fetched: u64,
    /// The policy.
    pub(super) policy: Arc<StsPolicy>,
}

impl Kept {
    /// Whether `max_age` has not run out. A clock that was set back does not make a policy immortal.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.fetched <= now.saturating_add(86_400) && now < self.fetched.saturating_add(self.policy.max_age)
    }
}

/// A place for policies that several nodes share. What it cannot say at the moment counts as unknown: the policy is fetched then.
#[async_trait::async_trait]
pub trait SharedPolicies: Send + Sync + 'static {
    /// What was put for a domain.
    async fn get(&self, domain: &Domain) -> Option<Vec<u8>>;
    /// Keeps something for a domain for so long.
    async fn put(&self, domain: &Domain, value: &[u8], keep: Duration);
}

/// Where others' policies are, once that is known.
pub(crate) type Shelf = Arc<OnceLock<Arc<dyn SharedPolicies>>>;

/// The folder, and the shelf.
pub(super) struct Store {
    folder: PathBuf,
    shelf: Shelf,
}

impl Store {
    pub(super) fn new(folder: PathBuf, shelf: Shelf) -> Self {
        Self { folder, shelf }
    }

    /// What another node keeps for a domain.
    pub(super) async fn of_others(&self, domain: &Domain) -> Option<Kept> {
        let value = self.shelf.get()?.get(domain).await?;
        serde_json::from_slice(&value).ok()
    }

    fn path(&self, domain: &Domain) -> PathBuf {
        // A domain holds letters, digits, hyphens, underscores and dots alone, and no empty label: it is a safe file name.
        self.folder.join(format!("{domain}.json"))
    }

    /// What was kept for a domain. Damaged files count as none, and so do those of a newer program, which is said: the policy is asked for
    /// again.
    pub(super) async fn load(&self, domain: &Domain) -> Option<Kept> {
        let path = self.path(domain);
        let read = move || {
            let file = std::fs::File::open(&path).ok()?;
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE), &mut text).ok()?;
            let newer = serde_json::from_slice::<File<serde::de::IgnoredAny>>(&text).ok().filter(|file| file.format > FORMAT);
            if let Some(newer) = newer {
                tracing::warn!(file = %path.display(), format = newer.format, "an MTA-STS policy was kept by a newer version of this program; it is fetched again");
                return None;
            }
            serde_json::from_slice::<File<Kept>>(&text).ok().map(|file| file.kept)
        };
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// Keeps a policy that was just fetched, here and for others.
    pub(super) async fn share(&self, domain: &Domain, kept: &Kept) {
        self.save(domain, kept).await;
        if let (Some(shelf), Ok(value)) = (self.shelf.get(), serde_json::to_vec(kept)) {
            shelf.put(domain, &value, Duration::from_secs(kept.policy.max_age)).await;
        }
    }

    /// Keeps a policy on disk. A failure costs only another fetch after a restart, so it is logged and no more.
    pub(super) async fn save(&self, domain: &Domain, kept: &Kept) {
        let (folder, path, text) = (self.folder.clone(), self.path(domain), serde_json::to_vec_pretty(&File { format: FORMAT, kept }));
        let write = move || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            let fresh = path.with_extension("tmp");
            std::fs::write(&fresh, text?)?;
            std::fs::rename(fresh, path)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%domain, %error, "an MTA-STS policy could not be kept on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta_sts::Mode;

    #[tokio::test]
    async fn policies_survive_and_damage_does_not_hurt() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("mta-sts"), Shelf::default());
        let domain = Domain::new("example.test").unwrap();
        assert_eq!(store.load(&domain).await, None);
        let policy = StsPolicy { mode: Mode::Enforce, max_age: 100, mx: vec!["a.test".into()] };
        let kept = Kept { id: "1".into(), fetched: 1000, policy: Arc::new(policy) };
        store.save(&domain, &kept).await;
        assert_eq!(store.load(&domain).await, Some(kept.clone()));
        assert!(kept.is_fresh(1099) && !kept.is_fresh(1100) && !Kept { fetched: 1_000_000, ..kept.clone() }.is_fresh(5));
        let file = folder.path().join("mta-sts/example.test.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("\"format\": 1,", "")).unwrap();
        assert_eq!(store.load(&domain).await, Some(kept.clone()), "as it was before formats had numbers");
        for other in [text.replace("\"format\": 1,", "\"format\": 2,"), "{".into()] {
            std::fs::write(&file, other).unwrap();
            assert_eq!(store.load(&domain).await, None);
        }
    }
}
