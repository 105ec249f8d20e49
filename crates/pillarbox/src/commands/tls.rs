//! `pillarbox tls`.

use hyper::Method;
use pillarbox_control::api::CertificateInfo;

use crate::args::TlsVerb;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: TlsVerb) -> Result<(), Failure> {
    let api = session.api().await?;
    match verb {
        TlsVerb::Status => {
            let found: Vec<CertificateInfo> = api.get("/v1/tls").await?;
            session.out.list(&found, &["NAME", "UNTIL", "KIND", "NAMES"], |c| {
                let kind = if c.self_signed { "self-signed" } else { "signed by an authority" };
                vec![c.name.clone(), c.not_after.clone(), kind.into(), c.names.join(", ")]
            })
        }
        TlsVerb::Renew => {
            // An authority may take its time over each name.
            let patience = std::time::Duration::from_secs(600);
            let names: Vec<String> = api.json(Method::POST, "/v1/tls/renew", Vec::new().into(), patience).await?;
            if session.out.json {
                session.out.value(&names)
            } else {
                session.out.line(format!("New certificate for {}.", names.join(", ")))
            }
        }
    }
}
