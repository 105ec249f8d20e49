//! `pillarbox app-password`.

use hyper::Method;
use pillarbox_control::api::{AppPasswordInfo, NewAppPassword};
use pillarbox_control::escaped;
use pillarbox_smtp::Mailbox;

use super::domain::day;
use super::parsed;
use crate::args::AppPasswordVerb;
use crate::failure::Failure;
use crate::prompt::consent;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: AppPasswordVerb) -> Result<(), Failure> {
    match verb {
        AppPasswordVerb::Add { address, label } => {
            let address: Mailbox = parsed("address", &address)?;
            let made: AppPasswordInfo = session.api().await?.send(Method::POST, &path(&address), &NewAppPassword { label }).await?;
            if session.out.json {
                return session.out.value(&made);
            }
            session.out.line(format!("{address} can log in on {} with this password, which is shown only now:", made.label))?;
            session.out.line(made.password.unwrap_or_default())
        }
        AppPasswordVerb::List { address } => {
            let address: Mailbox = parsed("address", &address)?;
            let found: Vec<AppPasswordInfo> = session.api().await?.get(&path(&address)).await?;
            session.out.list(&found, &["LABEL", "MADE", "LAST USED"], |a| {
                vec![a.label.clone(), day(&a.created), a.last_used.as_deref().map_or_else(|| "never".into(), day)]
            })
        }
        AppPasswordVerb::Revoke { address, label, yes } => {
            let address: Mailbox = parsed("address", &address)?;
            consent(yes, &format!("Refuse the password of {address} for {label} from now on?"))?;
            session.api().await?.done(Method::DELETE, &format!("{}/{}", path(&address), escaped(&label))).await?;
            session.out.done(format!("{label} can no longer log in as {address}."))
        }
    }
}

fn path(address: &Mailbox) -> String {
    format!("/v1/app-passwords/{}", escaped(&address.to_string()))
}
