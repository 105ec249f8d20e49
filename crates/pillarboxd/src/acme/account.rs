//! The account with the authority: made at the first order, its key kept in STATE/tls/acme/account.json.

use std::path::{Path, PathBuf};

use anyhow::Context;
use instant_acme::{Account, AccountBuilder, AccountCredentials, Error, Key, NewAccount, NewOrder, Order};
use pillarbox_config::Acme;
use pillarbox_ingest::certificates::write_private;
use rustls::pki_types::PrivateKeyDer;

/// What the file holds.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    /// As the authority knows it.
    #[serde(default)]
    contact: String,
    credentials: AccountCredentials,
}

/// Begins an order with the account that is there, or with one made now.
pub(super) async fn begin(acme: &Acme, folder: &Path, order: &NewOrder<'_>) -> anyhow::Result<Order> {
    let file = folder.join("account.json");
    let refused = "the ACME authority refused the order";
    let Some(kept) = read(&file, acme).await? else {
        return make(acme, &file).await?.new_order(order).await.context(refused);
    };
    let key = kept.credentials.private_key().clone_key();
    let account = builder(acme)?.from_credentials(kept.credentials).await.with_context(|| unreachable(acme))?;
    match account.new_order(order).await {
        // Authorities for tests forget accounts, others close them after years; the key is still ours.
        Err(Error::Api(problem)) if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist") => {
            let pair = (Key::from_pkcs8_der(key.clone_key())?, PrivateKeyDer::Pkcs8(key));
            let (account, credentials) = builder(acme)?.create_from_key(pair, acme.directory.clone()).await?;
            tell_contact(&account, acme).await;
            keep(&file, acme, credentials)?;
            account.new_order(order).await.context(refused)
        }
        Ok(begun) => {
            if kept.contact != acme.contact && tell_contact(&account, acme).await {
                let credentials = serde_json::from_slice::<Kept>(&tokio::fs::read(&file).await?)?.credentials;
                keep(&file, acme, credentials)?;
            }
            Ok(begun)
        }
        Err(error) => Err(error).context(refused),
    }
}

fn builder(acme: &Acme) -> Result<AccountBuilder, Error> {
    if acme.ca_file.as_os_str().is_empty() { Account::builder() } else { Account::builder_with_root(&acme.ca_file) }
}

fn unreachable(acme: &Acme) -> String {
    format!("the ACME authority at {} cannot be spoken to", acme.directory)
}

/// The account kept for this authority; one of another authority counts as none.
async fn read(file: &PathBuf, acme: &Acme) -> anyhow::Result<Option<Kept>> {
    let text = match tokio::fs::read(file).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let kept: Kept = serde_json::from_slice(&text).with_context(|| format!("{} is damaged; remove it and order again", file.display()))?;
    Ok((kept.directory == acme.directory).then_some(kept))
}

async fn make(acme: &Acme, file: &Path) -> anyhow::Result<Account> {
    let contact = contacts(acme);
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder(acme)?.create(&new, acme.directory.clone(), None).await.with_context(|| unreachable(acme))?;
    keep(file, acme, credentials)?;
    Ok(account)
}

fn contacts(acme: &Acme) -> Vec<&str> {
    Some(acme.contact.as_str()).filter(|c| !c.is_empty()).into_iter().collect()
}

/// A wrong contact is no reason to go without a certificate.
async fn tell_contact(account: &Account, acme: &Acme) -> bool {
    match account.update_contacts(&contacts(acme)).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("the ACME authority does not take tls.acme.contact: {error}");
            false
        }
    }
}

fn keep(file: &Path, acme: &Acme, credentials: AccountCredentials) -> anyhow::Result<()> {
    let kept = Kept { directory: acme.directory.clone(), contact: acme.contact.clone(), credentials };
    Ok(write_private(file, &serde_json::to_vec(&kept)?)?)
}
