//! How much a user may send: so that a stolen password sends hundreds and not a million.

use std::sync::Arc;
use std::time::Duration;

use pillarbox_config::{Config, Rate};
use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_smtp::{Mailbox, Reply};
use quick_cache::sync::Cache;

use crate::facts::{Notice, Notify};
use crate::replies;

/// State table: recipients of a user in the running period.
const SENT: &str = "user_rate";
/// State table: recipients never written to before, in the running period.
const NEW: &str = "user_rate_new";
/// State table: `user NUL recipient`, for those written to before.
const CORRESPONDENTS: &str = "correspondents";
/// How long a correspondent is remembered after the first message.
const REMEMBER: Duration = Duration::from_secs(180 * 86_400);

/// Counts the recipients of each user. The counts live in the directory's state, so that they survive a restart and hold over all nodes.
pub struct UserRates {
    directory: Arc<dyn Directory>,
    rate: Rate,
    new_recipients: Rate,
    notify: Option<Notify>,
    /// Pairs noted lately, where greylisting wants correspondents to be known: saves most of the writes.
    noted: Option<Cache<Vec<u8>, ()>>,
}

/// Pairs kept in `noted`.
const NOTED: usize = 4_096;

impl UserRates {
    /// Limits from `[submission]`; `notify` hears once a period of each user that reaches one.
    pub fn new(config: &Config, directory: Arc<dyn Directory>, notify: Option<Notify>) -> Self {
        let (rate, new_recipients) = (config.submission.rate_per_user, config.submission.new_recipients_per_user);
        let noted = config.screen.greylist.then(|| Cache::new(NOTED));
        Self { directory, rate, new_recipients, notify, noted }
    }

    /// Counts one recipient of a message that `user` submits. Asked at RCPT; `Err` is the 450 to give.
    ///
    /// When the directory cannot be asked the recipient passes: nobody would have been able to log in for long either.
    pub async fn check(&self, user: &Mailbox, rcpt: &Mailbox) -> Result<(), Reply> {
        match self.count(user, rcpt).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%user, %error, "outbound rates cannot be counted");
                Ok(())
            }
        }
    }

    async fn count(&self, user: &Mailbox, rcpt: &Mailbox) -> Result<Result<(), Reply>, DirectoryError> {
        let key = user.key();
        if self.rate.is_limited() {
            let sent = self.directory.state_add(SENT, key.as_bytes(), 1, self.rate.period).await?;
            if sent > u64::from(self.rate.count) {
                self.over(user, "submission.rate_per_user", self.rate, sent);
                return Ok(Err(replies::user_rate(user, &self.rate.to_string())));
            }
        }
        if rcpt.domain == user.domain {
            return Ok(Ok(()));
        }
        let pair = correspondence(user, rcpt);
        if self.new_recipients.is_limited() {
            if self.directory.state_put_new(CORRESPONDENTS, &pair, &[], REMEMBER).await? {
                let new = self.directory.state_add(NEW, key.as_bytes(), 1, self.new_recipients.period).await?;
                if new > u64::from(self.new_recipients.count) {
                    // Forgotten again, so that the next attempt does not count as known.
                    self.directory.state_remove(CORRESPONDENTS, &pair).await?;
                    self.over(user, "submission.new_recipients_per_user", self.new_recipients, new);
                    return Ok(Err(replies::user_new_recipients(user, &self.new_recipients.to_string())));
                }
            }
        } else if let Some(noted) = &self.noted
            && noted.get(&pair).is_none()
        {
            self.directory.state_put(CORRESPONDENTS, &pair, &[], REMEMBER).await?;
            noted.insert(pair, ());
        }
        Ok(Ok(()))
    }

    /// Tells the postmaster, once a period: only the first count above the limit speaks.
    fn over(&self, user: &Mailbox, limit: &'static str, rate: Rate, count: u64) {
        metrics::counter!("pillarbox_screen_user_over_limit_total").increment(1);
        if count == u64::from(rate.count) + 1 {
            tracing::warn!(%user, limit, %rate, "a user reached an outbound limit");
            if let Some(notify) = &self.notify {
                notify(Notice::UserOverLimit { user: user.clone(), limit, rate: rate.to_string() });
            }
        }
    }
}

/// Whether `user` wrote to `other` before.
pub(crate) async fn is_correspondent(directory: &dyn Directory, user: &Mailbox, other: &Mailbox) -> Result<bool, DirectoryError> {
    Ok(directory.state_get(CORRESPONDENTS, &correspondence(user, other)).await?.is_some())
}

fn correspondence(user: &Mailbox, other: &Mailbox) -> Vec<u8> {
    format!("{}\0{}", user.key(), other.key()).into_bytes()
}
