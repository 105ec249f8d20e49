//! One order from begin to certificate (RFC 8555 §7.4).

use std::time::Duration;

use anyhow::{Context, bail};
use instant_acme::{AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use pillarbox_config::{Acme, Config};
use pillarbox_ingest::certificates::{acme_folder, write_private};

use super::account;
use super::proof::{Means, Proof};
use super::wanted::Wanted;

/// How long an authority may take over one step.
const PATIENCE: Duration = Duration::from_secs(180);

/// Orders a certificate and stores it with its key in its folder.
pub(super) async fn place(wanted: &Wanted, acme: &Acme, config: &Config, means: &Means<'_>) -> anyhow::Result<()> {
    crate::process::private_folder(&acme_folder(config))?;
    crate::process::private_folder(&wanted.folder)?;
    let identifiers: Vec<Identifier> = wanted.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account::begin(acme, &acme_folder(config), &NewOrder::new(&identifiers)).await?;
    let mut undo = Vec::new();
    let proven = match prove(&mut order, acme, means, &mut undo).await {
        Ok(()) => ready(&mut order, acme).await,
        Err(error) => Err(error),
    };
    for (proof, published) in undo {
        if let Err(error) = proof.withdraw(acme, means).await
            && published
        {
            tracing::warn!("a dns-01 record was left behind: {error:#}");
        }
    }
    proven?;
    let file = wanted.folder.join("private_key.pem");
    // A renewal keeps the key: TLSA records name it (RFC 7671 §5.1), and those in the DNS would lie from one moment to the next.
    let kept = tokio::fs::read_to_string(&file).await.ok().and_then(|pem| rcgen::KeyPair::from_pem(&pem).ok());
    let key = match kept {
        Some(key) => key,
        None => {
            let key = rcgen::KeyPair::generate()?;
            write_private(&file, key.serialize_pem().as_bytes())?;
            key
        }
    };
    let mut params = rcgen::CertificateParams::new(wanted.names.clone())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await.context("the ACME authority refused the certificate request")?;
    let chain = order.poll_certificate(&RetryPolicy::new().timeout(PATIENCE)).await.context("the ACME authority issued no certificate")?;
    write_private(&wanted.folder.join("certificate.pem"), chain.as_bytes())?;
    Ok(())
}

async fn prove(order: &mut Order, acme: &Acme, means: &Means<'_>, undo: &mut Vec<(Proof, bool)>) -> anyhow::Result<()> {
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
        undo.push((proof, false));
        if let Some((proof, published)) = undo.last_mut() {
            proof.publish(acme, means).await?;
            *published = true;
        }
        challenge.set_ready().await?;
    }
    Ok(())
}

/// Waits for the authority's judgement, and says in its words what it did not like.
async fn ready(order: &mut Order, acme: &Acme) -> anyhow::Result<()> {
    let Some(standing) = standing(order.poll_ready(&RetryPolicy::new().timeout(PATIENCE)).await)? else { return Ok(()) };
    let mut why = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        for problem in authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            let said = problem.detail.as_deref().or(problem.r#type.as_deref()).unwrap_or("it does not say why");
            why.push(format!("{name}: {}", pillarbox_smtp::printable(said.as_bytes())));
        }
    }
    if why.is_empty() {
        why.push(standing);
    }
    bail!("the ACME authority did not accept our proof ({}); {}", why.join("; "), hint(acme))
}

/// How an order that did not become ready stands, in the authority's words; none where it did. What went wrong with the question itself is no
/// judgement, and keeps its kind, since it is worth another try.
fn standing(judged: Result<OrderStatus, Error>) -> anyhow::Result<Option<String>> {
    match judged {
        Ok(OrderStatus::Ready) => Ok(None),
        Ok(status) => Ok(Some(format!("the order is {status:?}"))),
        Err(error @ (Error::Api(_) | Error::Timeout(_))) if !super::is_bad_nonce(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error).context("the ACME authority did not tell how the order stands"),
    }
}

fn hint(acme: &Acme) -> &'static str {
    match acme.challenge.as_str() {
        "dns-01" => "check that the TXT record is served by all name servers of the domain",
        _ => {
            "check that http://NAME/.well-known/acme-challenge/ reaches this host's port 80 from outside (listen.http, or tls.acme.webroot)"
        }
    }
}

#[cfg(test)]
mod tests {
    use instant_acme::Problem;

    use super::*;

    #[test]
    fn a_nonce_refused_while_asking_for_the_judgement_is_not_taken_for_one() {
        let refused: Problem = serde_json::from_str(r#"{"type":"urn:ietf:params:acme:error:badNonce","detail":"stale"}"#).unwrap();
        assert!(super::super::is_stale_nonce(&standing(Err(Error::Api(refused))).unwrap_err()));
        assert_eq!(standing(Ok(OrderStatus::Ready)).unwrap(), None);
        assert_eq!(standing(Ok(OrderStatus::Invalid)).unwrap().as_deref(), Some("the order is Invalid"));
        assert!(standing(Err(Error::Timeout(None))).unwrap().is_some());
        let unreachable = r#"{"type":"urn:ietf:params:acme:error:connection","detail":"connection refused"}"#;
        let judged = standing(Err(Error::Api(serde_json::from_str(unreachable).unwrap()))).unwrap();
        assert!(judged.is_some_and(|why| why.contains("connection refused")));
    }
}
