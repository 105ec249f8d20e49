//! Opens the directory that the configuration names.

use std::sync::Arc;

use pillarbox_config::Config;

use crate::postgres::{PostgresDirectory, PostgresOptions};
use crate::sled_store::SledDirectory;
use crate::store::{Directory, DirectoryError, Result};

/// STATE/directory.sled, or the PostgreSQL database of `directory.url`.
///
/// # Errors
/// As [`SledDirectory::open`] and [`PostgresDirectory::connect`]; `Refused` for another backend.
pub async fn open(config: &Config) -> Result<Arc<dyn Directory>> {
    match config.directory.backend.as_str() {
        "sled" => {
            let path = config.paths.state.join("directory.sled");
            let opened = tokio::task::spawn_blocking(move || SledDirectory::open(path)).await;
            Ok(Arc::new(opened.map_err(|e| DirectoryError::Unavailable(e.to_string()))??))
        }
        "postgres" => Ok(Arc::new(PostgresDirectory::connect(PostgresOptions::from_config(&config.directory)).await?)),
        other => Err(DirectoryError::Refused(format!("directory.backend is {other:?}; it can be \"sled\" or \"postgres\""))),
    }
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
}
