//! Certificates from an ACME authority (RFC 8555): ordered when there is none, renewed before they end, put in force without a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewAccount, NewOrder, OrderStatus,
    RetryPolicy,
};
use pillarbox_config::{Acme, Config};
use pillarbox_ingest::certificates::{CertificateStore, write_private};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::http::Challenges;

/// How often the age of the certificate is looked at.
const LOOK: Duration = Duration::from_secs(6 * 3600);
/// Wait after a failed order; authorities bound how often one may fail.
const AFTER_FAILURE: Duration = Duration::from_secs(3600);
/// How long an authority may take over one order.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long one order may take with everything that belongs to it.
const WHOLE: Duration = Duration::from_secs(900);
/// Longest run of a dns-01 hook.
const HOOK_PATIENCE: Duration = Duration::from_secs(120);

/// Orders certificates; one order at a time.
pub(crate) struct Orders {
    challenges: Challenges,
    one: Mutex<()>,
}

impl Orders {
    pub(crate) fn new(challenges: Challenges) -> Arc<Self> {
        Arc::new(Self { challenges, one: Mutex::new(()) })
    }

    /// Orders a certificate as [`Orders::place`] does, within a bound: an authority that takes the connection and never answers must not
    /// end renewal for good.
    pub(crate) async fn order(&self, config: &Config, certificates: &CertificateStore) -> anyhow::Result<Vec<String>> {
        tokio::time::timeout(WHOLE, self.place(config, certificates)).await.context("the ACME authority did not answer in time")?
    }

    /// Orders a certificate for all configured names, stores it under STATE/tls/acme and puts it in force. Answers with the names.
    async fn place(&self, config: &Config, certificates: &CertificateStore) -> anyhow::Result<Vec<String>> {
        let _one = self.one.lock().await;
        let acme = config.tls.acme.as_ref().context("no ACME authority is configured; set tls.acme")?;
        let names = names(config, acme);
        let folder = config.paths.state.join("tls/acme");
        crate::process::private_folder(&folder)?;
        let account = account(acme, &folder).await?;
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await.context("the ACME authority refused the order")?;
        let mut undo = Vec::new();
        let proven = self.prove(&mut order, acme, &mut undo).await;
        let ready = match proven {
            Ok(()) => order.poll_ready(&RetryPolicy::new().timeout(PATIENCE)).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        for proof in undo {
            proof.withdraw(&self.challenges, acme).await;
        }
        match ready? {
            OrderStatus::Ready => {}
            status => bail!("the ACME authority did not accept our proof for {} (order {status:?}): {}", names.join(", "), hint(acme)),
        }
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(names.clone())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        order.finalize_csr(params.serialize_request(&key)?.der()).await.context("the ACME authority refused the certificate request")?;
        let chain =
            order.poll_certificate(&RetryPolicy::new().timeout(PATIENCE)).await.context("the ACME authority issued no certificate")?;
        // Written side by side and then renamed one after the other: a crash between the two leaves a pair that does not match,
        // which start-up finds out and orders anew.
        write_private(&folder.join("private_key.pem"), key.serialize_pem().as_bytes())?;
        write_private(&folder.join("certificate.pem"), chain.as_bytes())?;
        certificates.reload(config)?;
        Ok(names)
    }

    async fn prove(&self, order: &mut instant_acme::Order, acme: &Acme, undo: &mut Vec<Proof>) -> anyhow::Result<()> {
        let kind = if acme.challenge == "dns-01" { ChallengeType::Dns01 } else { ChallengeType::Http01 };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => bail!("the ACME authority has an authorization in state {status:?}; try again later"),
            }
            let mut challenge = authorization
                .challenge(kind.clone())
                .with_context(|| format!("the ACME authority offers no {} challenge for this name", acme.challenge))?;
            let proof = Proof::of(&challenge, acme);
            // Noted first: a hook that fails half way may have left its record behind.
            undo.push(proof);
            if let Some(proof) = undo.last() {
                proof.publish(&self.challenges, acme).await?;
            }
            challenge.set_ready().await?;
        }
        Ok(())
    }
}

/// What shows the authority that a name is ours.
enum Proof {
    Http { token: String, answer: String },
    Dns { name: String, value: String },
}

impl Proof {
    fn of(challenge: &ChallengeHandle<'_>, acme: &Acme) -> Self {
        let key = challenge.key_authorization();
        if acme.challenge == "dns-01" {
            Self::Dns { name: format!("_acme-challenge.{}", challenge.identifier()), value: key.dns_value() }
        } else {
            Self::Http { token: challenge.token.clone(), answer: key.as_str().to_owned() }
        }
    }

    async fn publish(&self, challenges: &Challenges, acme: &Acme) -> anyhow::Result<()> {
        match self {
            Self::Http { token, answer } => {
                challenges.set(token, answer);
                if let Some(file) = webroot_file(acme, token) {
                    tokio::fs::create_dir_all(file.parent().unwrap_or(&file)).await?;
                    tokio::fs::write(&file, answer).await.with_context(|| format!("cannot write {}", file.display()))?;
                }
                Ok(())
            }
            Self::Dns { name, value } => hook(acme, "add", name, value).await,
        }
    }

    async fn withdraw(&self, challenges: &Challenges, acme: &Acme) {
        match self {
            Self::Http { token, .. } => {
                challenges.clear(token);
                if let Some(file) = webroot_file(acme, token) {
                    let _ = tokio::fs::remove_file(file).await;
                }
            }
            Self::Dns { name, value } => {
                if let Err(error) = hook(acme, "remove", name, value).await {
                    tracing::warn!("a dns-01 record was left behind: {error:#}");
                }
            }
        }
    }
}

/// The file for http-01 under another web server's root. Tokens are base64url by RFC 8555 §8.1; anything else is not made a path.
fn webroot_file(acme: &Acme, token: &str) -> Option<std::path::PathBuf> {
    let safe = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (safe && !acme.webroot.as_os_str().is_empty()).then(|| acme.webroot.join(".well-known/acme-challenge").join(token))
}

/// Runs the dns-01 hook as `HOOK add|remove NAME VALUE`, without a shell.
async fn hook(acme: &Acme, verb: &str, name: &str, value: &str) -> anyhow::Result<()> {
    if acme.dns_hook.as_os_str().is_empty() {
        bail!("dns-01 needs tls.acme.dns_hook: a program that is called as HOOK add|remove NAME VALUE");
    }
    let run = tokio::process::Command::new(&acme.dns_hook).arg(verb).arg(name).arg(value).kill_on_drop(true).output();
    let output = tokio::time::timeout(HOOK_PATIENCE, run)
        .await
        .context("the dns-01 hook did not end in time")?
        .with_context(|| format!("cannot run {}", acme.dns_hook.display()))?;
    if !output.status.success() {
        bail!("the dns-01 hook failed ({}): {}", output.status, pillarbox_smtp::printable(&output.stderr));
    }
    Ok(())
}

fn names(config: &Config, acme: &Acme) -> Vec<String> {
    if acme.domains.is_empty() { vec![config.hostname.clone()] } else { acme.domains.clone() }
}

fn hint(acme: &Acme) -> &'static str {
    match acme.challenge.as_str() {
        "dns-01" => "check that the hook's TXT record is served by all name servers of the domain",
        _ => {
            "check that http://NAME/.well-known/acme-challenge/ reaches this host's port 80 from outside (listen.http, or tls.acme.webroot)"
        }
    }
}

/// The account, made at the first order and kept.
async fn account(acme: &Acme, folder: &Path) -> anyhow::Result<Account> {
    let builder = || {
        if acme.ca_file.as_os_str().is_empty() { Account::builder() } else { Account::builder_with_root(&acme.ca_file) }
    };
    let file = folder.join("account.json");
    if let Ok(text) = tokio::fs::read(&file).await {
        let kept: Kept =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged; remove it and order again", file.display()))?;
        if kept.directory == acme.directory {
            return Ok(builder()?.from_credentials(kept.credentials).await?);
        }
    }
    let contact: Vec<&str> = Some(acme.contact.as_str()).filter(|c| !c.is_empty()).into_iter().collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder()?
        .create(&new, acme.directory.clone(), None)
        .await
        .with_context(|| format!("cannot make an account with {}", acme.directory))?;
    let kept = Kept { directory: acme.directory.clone(), credentials };
    write_private(&file, &serde_json::to_vec(&kept)?)?;
    Ok(account)
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

/// Whether a new certificate is due: there is none from the authority, it lacks a name, or it ends soon.
pub(crate) fn is_due(config: &Config, certificates: &CertificateStore) -> bool {
    let Some(acme) = &config.tls.acme else { return false };
    if !config.tls.certificate.as_os_str().is_empty() {
        return false;
    }
    let wanted = names(config, acme);
    let renew_before = time::Duration::try_from(acme.renew_before).unwrap_or(time::Duration::days(30));
    !certificates.infos().first().is_some_and(|served| {
        served.path.parent().is_some_and(|folder| folder.ends_with("tls/acme"))
            && wanted.iter().all(|name| served.names.iter().any(|n| n.eq_ignore_ascii_case(name)))
            && served.not_after - OffsetDateTime::now_utc() > renew_before
    })
}

/// Orders and renews for as long as the daemon runs.
pub(crate) async fn keep(orders: Arc<Orders>, config: Arc<arc_swap::ArcSwap<Config>>, certificates: Arc<CertificateStore>) {
    loop {
        let now = config.load_full();
        let mut wait = LOOK;
        if is_due(&now, &certificates) {
            match orders.order(&now, &certificates).await {
                Ok(names) => tracing::info!(names = names.join(", "), "a certificate was issued and put in force"),
                Err(error) => {
                    metrics::counter!("pillarbox_acme_failures_total").increment(1);
                    tracing::error!("no certificate could be had: {error:#}");
                    wait = AFTER_FAILURE;
                }
            }
        }
        tokio::time::sleep(wait).await;
    }
}
