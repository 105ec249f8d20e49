//! `pillarbox route`.

use pillarbox_control::api::{RouteEnd, RouteInfo};
use pillarbox_control::escaped;
use pillarbox_smtp::Mailbox;

use super::parsed;
use crate::failure::Failure;
use crate::out::{Mood, mood, safe};
use crate::session::Session;

pub(crate) async fn run(session: &Session, address: &str) -> Result<(), Failure> {
    let address: Mailbox = parsed("address", address)?;
    let info: RouteInfo = session.api().await?.get(&format!("/v1/route/{}", escaped(&address.to_string()))).await?;
    if session.out.json {
        return session.out.value(&info);
    }
    for (n, step) in info.steps.iter().enumerate() {
        session.out.line(format!("{:>3}. {}", n + 1, safe(step)))?;
    }
    for end in &info.ends {
        session.out.line(match end {
            RouteEnd::Mailbox { address, folder, deliver_to } => {
                let folder = folder.as_ref().map(|f| format!(", folder {f} if it is there")).unwrap_or_default();
                format!("  {} {address} ({deliver_to}{folder})", mood("mailbox", Mood::Good))
            }
            RouteEnd::Relay { address, via } => format!("  {} {address} (by {via})", mood("relay", Mood::Good)),
            RouteEnd::Reject { reply } => format!("  {} {}", mood("reject", Mood::Bad), safe(reply)),
        })?;
    }
    Ok(())
}
