//! Private keys on a move between stores: files of one machine, or part of the records that several share.

use std::io;
use std::path::{Path, PathBuf};

use pillarbox_directory::{Adapt, DirectoryError, DkimKeyRecord, DomainRecord};
use pillarbox_smtp::Domain;
use zeroize::Zeroizing;

use super::keys::{self, KeyError, NewKey};

/// Where private keys are after a move. Those of the old place are left where they are.
pub enum Carry {
    /// From the files below this state folder into the records.
    IntoRecords(PathBuf),
    /// From the records into files below this state folder.
    IntoFiles(PathBuf),
}

#[async_trait::async_trait]
impl Adapt for Carry {
    async fn domain(&self, mut record: DomainRecord) -> Result<DomainRecord, DirectoryError> {
        let (state, into_files) = match self {
            Self::IntoRecords(state) => (state.clone(), false),
            Self::IntoFiles(state) => (state.clone(), true),
        };
        let carried = tokio::task::spawn_blocking(move || {
            let DomainRecord { name, dkim, .. } = &mut record;
            for key in dkim.iter_mut() {
                if into_files { to_file(&state, name, key)? } else { to_record(&state, name, key)? }
            }
            Ok::<_, KeyError>(record)
        });
        let carried = carried.await.map_err(|e| DirectoryError::Unavailable(e.to_string()))?;
        carried.map_err(|error| DirectoryError::Unavailable(format!("a private DKIM key cannot be brought along: {error}")))
    }
}

fn to_record(state: &Path, domain: &Domain, key: &mut DkimKeyRecord) -> Result<(), KeyError> {
    if key.private_pem.is_some() {
        return Ok(());
    }
    let path = keys::path(state, domain, &key.selector);
    match std::fs::read_to_string(&path) {
        Ok(pem) => key.private_pem = Some(pem),
        // It could not sign before either; its public half goes along.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(%domain, selector = key.selector, path = %path.display(), "a DKIM key has no private half to bring along");
        }
        Err(source) => return Err(KeyError::File { path, source }),
    }
    Ok(())
}

fn to_file(state: &Path, domain: &Domain, key: &mut DkimKeyRecord) -> Result<(), KeyError> {
    let Some(pem) = key.private_pem.take().map(Zeroizing::new) else { return Ok(()) };
    let path = keys::path(state, domain, &key.selector);
    match std::fs::read_to_string(&path) {
        Ok(found) if found == *pem => Ok(()),
        // Another key of this name: the one in use stays in the record, where it is read first.
        Ok(_) => {
            key.private_pem = Some(pem.to_string());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            keys::store(state, domain, &NewKey { record: key.clone(), private_pem: pem })
        }
        Err(source) => Err(KeyError::File { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_go_there_and_back() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let domain: Domain = "example.org".parse().unwrap();
        let now = time::OffsetDateTime::from_unix_timestamp(1_767_225_600).unwrap();
        let made = keys::generate_keys(&[], now).unwrap();
        made.iter().for_each(|key| keys::store(here.path(), &domain, key).unwrap());
        let mut dkim: Vec<DkimKeyRecord> = made.iter().map(|key| key.record.clone()).collect();
        dkim.push(DkimKeyRecord { selector: "lost".into(), ..dkim[0].clone() });
        let record = DomainRecord { name: domain.clone(), created: String::new(), deliver_to: None, dkim };
        let shared = Carry::IntoRecords(here.path().into()).domain(record.clone()).await.unwrap();
        for (key, made) in shared.dkim.iter().zip(&made) {
            assert_eq!(key.private_pem.as_deref(), Some(made.private_pem.as_str()));
        }
        assert_eq!(shared.dkim[2].private_pem, None);
        let back = Carry::IntoFiles(there.path().into());
        for _ in 0..2 {
            assert_eq!(back.domain(shared.clone()).await.unwrap(), record, "the same again changes nothing");
        }
        assert!(keys::load(there.path(), &domain, &record.dkim[0]).is_ok());
        std::fs::write(keys::path(there.path(), &domain, &record.dkim[1].selector), "another").unwrap();
        let kept = back.domain(shared.clone()).await.unwrap();
        assert_eq!(kept.dkim[1].private_pem, shared.dkim[1].private_pem, "nothing is written over");
    }
}
