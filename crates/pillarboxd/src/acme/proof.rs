//! What shows the authority that a name is ours, published for the time of an order: a page (RFC 8555 §8.3) or a TXT record (§8.4).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use instant_acme::ChallengeHandle;
use pillarbox_config::Acme;
use pillarbox_screen::Dns;

use super::dns_update::{self, Change};
use super::propagation;
use crate::hook::Hook;
use crate::http::Challenges;

/// What proofs are published by.
pub(super) struct Means<'a> {
    pub(super) challenges: &'a Challenges,
    pub(super) dns: &'a Dns,
    pub(super) hook: Option<&'a Arc<Hook>>,
}

/// What shows the authority that a name is ours.
pub(super) enum Proof {
    Http { token: String, answer: String },
    Dns { name: String, value: String },
}

impl Proof {
    pub(super) fn of(challenge: &ChallengeHandle<'_>, acme: &Acme) -> Self {
        let key = challenge.key_authorization();
        if acme.challenge == "dns-01" {
            // For `*.example.org` too the record is that of `example.org`.
            let name = challenge.identifier().to_string();
            let name = name.strip_prefix("*.").unwrap_or(&name);
            Self::Dns { name: format!("_acme-challenge.{name}"), value: key.dns_value() }
        } else {
            Self::Http { token: challenge.token.clone(), answer: key.as_str().to_owned() }
        }
    }

    pub(super) async fn publish(&self, acme: &Acme, means: &Means<'_>) -> anyhow::Result<()> {
        match self {
            Self::Http { token, answer } => {
                means.challenges.set(token, answer);
                if let Some(file) = webroot_file(acme, token) {
                    tokio::fs::create_dir_all(file.parent().unwrap_or(&file)).await?;
                    tokio::fs::write(&file, answer).await.with_context(|| format!("cannot write {}", file.display()))?;
                }
                Ok(())
            }
            Self::Dns { name, value } => {
                record(acme, means, Change::Add, name, value).await?;
                propagation::wait(means.dns, name, value).await;
                Ok(())
            }
        }
    }

    pub(super) async fn withdraw(&self, acme: &Acme, means: &Means<'_>) -> anyhow::Result<()> {
        match self {
            Self::Http { token, .. } => {
                means.challenges.clear(token);
                if let Some(file) = webroot_file(acme, token) {
                    let _ = tokio::fs::remove_file(file).await;
                }
                Ok(())
            }
            Self::Dns { name, value } => record(acme, means, Change::Remove, name, value).await,
        }
    }
}

/// The file for http-01 under another web server's root. Tokens are base64url by RFC 8555 §8.1; anything else is not made a path.
fn webroot_file(acme: &Acme, token: &str) -> Option<PathBuf> {
    let safe = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (safe && !acme.webroot.as_os_str().is_empty()).then(|| acme.webroot.join(".well-known/acme-challenge").join(token))
}

/// Adds or removes the TXT record, by the hook or by an update.
async fn record(acme: &Acme, means: &Means<'_>, change: Change, name: &str, value: &str) -> anyhow::Result<()> {
    let Some(hook) = means.hook else { return dns_update::change(acme, means.dns, change, name, value).await };
    let verb = match change {
        Change::Add => "add",
        Change::Remove => "remove",
    };
    hook.run(verb, name, value).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_none_becomes_no_path() {
        let acme = Acme { webroot: "/var/www".into(), ..Acme::default() };
        assert_eq!(webroot_file(&acme, "a-B_9").unwrap(), PathBuf::from("/var/www/.well-known/acme-challenge/a-B_9"));
        for token in ["", "../../etc/x", "a/b", "a.b"] {
            assert_eq!(webroot_file(&acme, token), None, "{token}");
        }
        assert_eq!(webroot_file(&Acme::default(), "abc"), None);
    }
}
