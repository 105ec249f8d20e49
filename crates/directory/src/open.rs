//! Opens the directory that the configuration names, or another one by its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pillarbox_config::{Config, DirectoryConfig};

use crate::movable::Movable;
use crate::postgres::{PostgresDirectory, PostgresOptions};
use crate::sled_store::SledDirectory;
use crate::store::{Directory, DirectoryError, Result};

/// Where a directory is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A sled database in this folder.
    Sled(PathBuf),
    /// The PostgreSQL database of this URL, which may hold a password.
    Postgres(String),
}

impl Place {
    /// The place that a configuration names.
    ///
    /// # Errors
    /// `Refused` for a backend that there is not.
    pub fn of(config: &DirectoryConfig, state: &Path) -> Result<Self> {
        match config.backend.as_str() {
            "sled" => Ok(Self::Sled(state.join("directory.sled"))),
            "postgres" => Ok(Self::Postgres(config.url.clone())),
            other => Err(DirectoryError::Refused(format!("directory.backend is {other:?}; it can be \"sled\" or \"postgres\""))),
        }
    }

    /// Reads `postgres://…`, `sled:/PATH`, or `sled` for STATE/directory.sled.
    ///
    /// # Errors
    /// `Refused` for anything else.
    pub fn parse(text: &str, state: &Path) -> Result<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sled") {
            Some("") => Ok(Self::Sled(state.join("directory.sled"))),
            Some(path) if path.starts_with(":/") => Ok(Self::Sled(path.trim_start_matches(':').into())),
            _ => Err(DirectoryError::Refused(
                "a directory is \"postgres://…\", \"sled:/PATH\", or \"sled\" for the one in the state folder".into(),
            )),
        }
    }

    /// The lines of `[directory]` that name this place, its password masked; `None` where no configuration with this state folder can.
    pub fn settings(&self, state: &Path) -> Option<String> {
        match self {
            Self::Sled(path) if *path == state.join("directory.sled") => Some("backend = \"sled\"".into()),
            Self::Sled(_) => None,
            Self::Postgres(url) => Some(format!("backend = \"postgres\"\nurl = \"{}\"", pillarbox_config::endpoint::mask_url(url))),
        }
    }

    /// Opens or creates it. `config` says the rest of how a PostgreSQL is used.
    ///
    /// # Errors
    /// As [`SledDirectory::open`] and [`PostgresDirectory::connect`].
    pub async fn open(&self, config: &DirectoryConfig) -> Result<Arc<dyn Directory>> {
        match self {
            Self::Sled(path) => {
                let path = path.clone();
                let opened = tokio::task::spawn_blocking(move || SledDirectory::open(path)).await;
                Ok(Arc::new(opened.map_err(|e| DirectoryError::Unavailable(e.to_string()))??))
            }
            Self::Postgres(url) => {
                let config = DirectoryConfig { url: url.clone(), ..config.clone() };
                Ok(Arc::new(PostgresDirectory::connect(PostgresOptions::from_config(&config)).await?))
            }
        }
    }
}

impl std::fmt::Display for Place {
    /// For people: no password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sled(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => f.write_str(&pillarbox_config::endpoint::mask_url(url)),
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// STATE/directory.sled, or the PostgreSQL database of `directory.url`.
///
/// # Errors
/// As [`Place::of`] and [`Place::open`].
pub async fn open(config: &Config) -> Result<Arc<Movable>> {
    let place = Place::of(&config.directory, &config.paths.state)?;
    let directory = place.open(&config.directory).await?;
    Ok(Movable::new(directory, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_backend_is_chosen_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.state = folder.path().to_owned();
        assert!(open(&config).await.unwrap().health().is_ok());
        assert!(folder.path().join("directory.sled/db").exists());
        config.directory.backend = "ldap".into();
        assert!(matches!(open(&config).await, Err(DirectoryError::Refused(why)) if why.contains("ldap")));
    }

    #[test]
    fn places_are_read_and_shown_without_passwords() {
        let state = Path::new("/state");
        let sled = Place::parse("sled", state).unwrap();
        assert_eq!(sled, Place::Sled("/state/directory.sled".into()));
        assert_eq!(sled.settings(state).as_deref(), Some("backend = \"sled\""));
        let other = Place::parse("sled:/other/db", state).unwrap();
        assert_eq!((other.to_string().as_str(), other.settings(state)), ("/other/db", None));
        let postgres = Place::parse("postgres://u:geheim@h/d", state).unwrap();
        assert!(!postgres.to_string().contains("geheim") && !format!("{postgres:?}").contains("geheim"));
        for text in ["", "sledge", "sled:", "sled:relative", "mysql://h/d"] {
            assert!(Place::parse(text, state).is_err(), "{text}");
        }
    }
}
