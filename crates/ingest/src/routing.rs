//! From an address given at RCPT to the recipients that the queue serves.

use std::collections::HashSet;

use pillarbox_queue::{Recipient, Route};
use pillarbox_smtp::{Mailbox, RcptParams, ReversePath};

use pillarbox_directory::{Directory, DirectoryError, ResolvePolicy, Target};

/// Turns the targets of one RCPT into recipients, leaving out those that the transaction has already (`seen`). Forwarded ones carry
/// a reverse path of their own (SRS), under the domain that forwards them, unless the sender is null or our own.
///
/// # Errors
/// When the directory is away.
pub async fn recipients(
    directory: &dyn Directory,
    policy: &ResolvePolicy,
    given: &Mailbox,
    targets: Vec<Target>,
    params: &RcptParams,
    from: &ReversePath,
    seen: &mut HashSet<String>,
) -> Result<Vec<Recipient>, DirectoryError> {
    let mut found = Vec::with_capacity(targets.len());
    for target in targets {
        found.push(match target {
            Target::Mailbox { user, folder } => (user, Route::Mailbox { folder }, None),
            Target::Remote { address, forwarded_by } => {
                let reverse_path = forwarding_path(directory, policy, from, &forwarded_by).await?;
                (address, Route::Relay, reverse_path)
            }
        });
    }
    // Only now that all are known: what a failed RCPT had marked as seen would be left out when the client repeats it.
    found.retain(|(address, route, _)| seen.insert(key(address, route)));
    Ok(found.into_iter().map(|(address, route, reverse_path)| recipient(given, address, route, params, reverse_path)).collect())
}

/// The reverse path under which mail from `from` is sent on by `forwarded_by`; `None`: as it is.
async fn forwarding_path(
    directory: &dyn Directory,
    policy: &ResolvePolicy,
    from: &ReversePath,
    forwarded_by: &Mailbox,
) -> Result<Option<ReversePath>, DirectoryError> {
    let (Some(sender), Some(srs)) = (from.mailbox(), &policy.srs) else { return Ok(None) };
    if directory.has_domain(&sender.domain).await? {
        return Ok(None);
    }
    let rewritten = srs.rewrite(directory, sender, &forwarded_by.domain, std::time::SystemTime::now()).await?;
    Ok(Some(ReversePath::Mailbox(rewritten)))
}

/// A recipient out in the world, for users who may relay.
pub fn relayed(given: &Mailbox, params: &RcptParams, seen: &mut HashSet<String>) -> Option<Recipient> {
    seen.insert(key(given, &Route::Relay)).then(|| recipient(given, given.clone(), Route::Relay, params, None))
}

fn key(address: &Mailbox, route: &Route) -> String {
    match route {
        Route::Mailbox { folder: Some(folder) } => format!("{}\0{folder}", address.key()),
        Route::Mailbox { folder: None } => address.key(),
        Route::Relay => format!(">{}", address.key()),
    }
}

fn recipient(given: &Mailbox, address: Mailbox, route: Route, params: &RcptParams, reverse_path: Option<ReversePath>) -> Recipient {
    Recipient {
        given: (!given.same_as(&address)).then(|| given.clone()),
        orcpt: params.orcpt.clone(),
        notify: params.notify,
        reverse_path,
        ..Recipient::new(address, route)
    }
}

/// Suspended users whose mail is kept in the queue until they are resumed (`mailbox.suspended = "hold"`).
pub fn held(given: &Mailbox, suspended: &[Mailbox], params: &RcptParams, seen: &mut HashSet<String>) -> Vec<Recipient> {
    let route = Route::Mailbox { folder: None };
    let mut recipients = Vec::new();
    for user in suspended {
        if seen.insert(key(user, &route)) {
            let mut held = recipient(given, user.clone(), route.clone(), params, None);
            held.hold_as_suspended();
            recipients.push(held);
        }
    }
    recipients
}
