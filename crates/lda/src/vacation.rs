//! Vacation replies (RFC 3834, and RFC 5230's rules of conduct): once for each correspondent in seven days, and only to people.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pillarbox_directory::{AliasAddress, Directory, UserRecord, Vacation};
use pillarbox_message::autoreply;
use pillarbox_message::downgrade;
use pillarbox_queue::{Body, Door, Envelope, QueueId, Recipient, Route};
use pillarbox_smtp::{Mailbox, Notify, ReversePath};

use crate::hooks::Hooks;

/// How long a correspondent is remembered (RFC 5230 §4.2's default).
const PERIOD: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Table of the directory's state.
const TABLE: &str = "vacation";

/// Whether a vacation is on at a time: its first and last day are included, in UTC.
pub(crate) fn is_on(vacation: &Vacation, now: SystemTime) -> bool {
    // Dates of this form sort as text.
    let today = time::OffsetDateTime::from(now).date().to_string();
    vacation.from.as_deref().is_none_or(|from| from <= today.as_str())
        && vacation.until.as_deref().is_none_or(|until| today.as_str() <= until)
}

/// What a reply needs to know besides the message.
pub(crate) struct Replier<'a> {
    pub(crate) directory: &'a Arc<dyn Directory>,
    pub(crate) hooks: &'a Hooks,
    pub(crate) hostname: &'a str,
    /// Between user and detail in an address.
    pub(crate) delimiter: &'a str,
}

impl Replier<'_> {
    /// Answers a message that was stored for a user, if that is due. Failures are logged: the message itself is safe.
    pub(crate) async fn consider(&self, envelope: &Envelope, body: &Body, recipient: &Recipient, user: &UserRecord) {
        let now = (self.hooks.now)();
        let Some(vacation) = user.vacation.as_ref().filter(|vacation| is_on(vacation, now)) else { return };
        let Some(sender) = envelope.from.mailbox().filter(|_| !envelope.junk && envelope.source.door != Door::Internal) else { return };
        let header = match body.header().await {
            Ok(header) => header,
            Err(error) => return tracing::warn!(id = %envelope.id, %error, "no vacation reply, since the message cannot be read"),
        };
        let own = self.own_addresses(recipient, user).await;
        if let Err(why) = autoreply::may_reply(&header, &envelope.from, &own, self.delimiter) {
            return tracing::debug!(id = %envelope.id, user = %user.address, %why, "no vacation reply");
        }
        let key = format!("{}\0{}", user.address.key(), sender.key());
        match self.directory.state_put_new(TABLE, key.as_bytes(), b"", PERIOD).await {
            Ok(true) => {}
            Ok(false) => return,
            // Better no reply than one for each message.
            Err(error) => return tracing::warn!(id = %envelope.id, %error, "no vacation reply, since its memory cannot be written"),
        }
        let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(millis).unwrap_or(u64::MAX);
        let reply = autoreply::build(&autoreply::Vacation {
            from: &user.address,
            from_name: user.name.as_deref().unwrap_or(""),
            to: sender,
            subject: &vacation.subject,
            text: &vacation.text,
            original: &header,
            hostname: self.hostname,
            now,
            random: rand::random(),
        });
        let needs = downgrade::needs(&reply);
        let mut to = Recipient::new(sender.clone(), Route::Relay);
        to.notify = Notify::NEVER;
        let mut out = Envelope::new(QueueId(0), ReversePath::Null, vec![to]);
        out.received = now;
        out.size = reply.len() as u64;
        out.body = needs.body;
        out.smtputf8 = needs.utf8_header || !sender.is_ascii();
        out.source.door = Door::Internal;
        metrics::counter!("pillarbox_lda_vacation_replies_total").increment(1);
        (self.hooks.submit)(out, reply).await;
    }

    /// All addresses by which the user gets mail: a sender under one of them is the user, and one of them must stand in To or Cc.
    async fn own_addresses(&self, recipient: &Recipient, user: &UserRecord) -> Vec<Mailbox> {
        let mut own = vec![user.address.clone()];
        own.extend(user.logins.iter().cloned());
        own.extend(recipient.given.clone());
        match self.directory.aliases_to(&user.address).await {
            Ok(aliases) => own.extend(aliases.into_iter().filter_map(|alias| match alias.address {
                AliasAddress::Mailbox(address) => Some(address),
                AliasAddress::CatchAll(_) => None,
            })),
            Err(error) => tracing::warn!(user = %user.address, %error, "a user's aliases could not be read"),
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_day_are_included() {
        let vacation = |from: Option<&str>, until: Option<&str>| Vacation {
            subject: String::new(),
            text: "away".into(),
            from: from.map(Into::into),
            until: until.map(Into::into),
        };
        // 2023-11-14T22:13:20Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (from, until, on) in [
            (None, None, true),
            (Some("2023-11-14"), Some("2023-11-14"), true),
            (Some("2023-11-15"), None, false),
            (None, Some("2023-11-13"), false),
            (Some("2023-01-01"), Some("2024-01-01"), true),
        ] {
            assert_eq!(is_on(&vacation(from, until), now), on, "{from:?} {until:?}");
        }
    }
}
