//! Telling the sender of a local message by mail which recipients did not get it: the program that sent it may have gone long ago.

use pillarbox_message::notice::{Letter, notice};
use pillarbox_queue::Body;
use pillarbox_smtp::{MailParams, Mailbox, RcptParams, ReversePath, Severity, printable};

use super::addresses::Qualifier;
use super::{LocalError, LocalMail, LocalRefused};
use crate::admin::Admin;
use crate::api::now_millis;
use crate::error::ApiError;

/// For a message that other recipients got.
pub(super) async fn tell_sender(admin: &Admin, mail: &LocalMail, refused: &[LocalRefused]) -> Result<(), LocalError> {
    match &mail.from {
        ReversePath::Mailbox(sender) => send(admin, sender.clone(), &mail.submitter, refused).await,
        ReversePath::Null => {
            nobody_to_tell(&mail.submitter, refused);
            Ok(())
        }
    }
}

/// For a sender as the envelope has it: an address, a bare local name, or nobody.
pub(super) async fn tell(admin: &Admin, sender: &str, login: &str, refused: &[LocalRefused]) -> Result<(), LocalError> {
    let config = admin.config();
    let qualifier = Qualifier::new(&config, admin.directory.as_ref()).await?;
    let null = matches!(sender.trim(), "" | "<>");
    let to = if null { None } else { qualifier.recipient(sender, &config, admin.directory.as_ref()).await.map_err(ApiError::from)? };
    match to {
        Some(to) => send(admin, to, login, refused).await,
        None => {
            nobody_to_tell(login, refused);
            Ok(())
        }
    }
}

/// As with any report that has nowhere to go (RFC 5321 §6.1), the log is all there is.
fn nobody_to_tell(login: &str, refused: &[LocalRefused]) {
    let first = refused.first().map(|r| r.reply.to_string()).unwrap_or_default();
    tracing::warn!(
        login = printable(login.as_bytes()),
        reply = printable(first.as_bytes()),
        "a local message without a sender was refused"
    );
}

async fn send(admin: &Admin, to: Mailbox, login: &str, refused: &[LocalRefused]) -> Result<(), LocalError> {
    let lines: Vec<String> = refused.iter().map(|r| LocalError::Refused(r.clone()).to_string()).collect();
    let text = format!(
        "A message that the local user {} sent could not be delivered to:\n\n    {}\n\nAll other recipients got it.\n",
        printable(login.as_bytes()),
        lines.join("\n    ")
    );
    let hostname = admin.config().hostname();
    let letter = Letter { hostname: &hostname, to: &to, now: now_millis(), random: rand::random() };
    let body = Body::from_bytes(notice(&letter, "Undelivered local mail", &text));
    // A system user such as `www-data` has no mailbox; then it is for the postmaster to know.
    let postmaster = format!("postmaster@{}", to.domain).parse::<Mailbox>().ok();
    for address in [Some(to), postmaster].into_iter().flatten() {
        let mail = LocalMail {
            from: ReversePath::Null,
            recipients: vec![(address, RcptParams::default())],
            params: MailParams::default(),
            body: body.clone(),
            submitter: "pillarbox".into(),
            id: None,
            submission: true,
        };
        match admin.local_door()?.take(mail).await {
            Ok(_) => return Ok(()),
            Err(why) if why.reply.severity() == Severity::Permanent => {}
            Err(why) => return Err(LocalError::Refused(why)),
        }
    }
    // No address that mail reaches: nothing more can be done, and the message itself is settled.
    nobody_to_tell(login, refused);
    Ok(())
}
