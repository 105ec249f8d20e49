//! Mail held for suspended users goes on once they are not suspended any more, however that came about.

use pillarbox_directory::DirectoryError;
use pillarbox_smtp::Mailbox;

use crate::admin::Admin;

/// Lets the mail of one user go on; nothing to do without a daemon, whose start does it.
pub(crate) async fn resume(admin: &Admin, user: &Mailbox) {
    if let Some(queue) = &admin.queue {
        let messages = queue.resume(user).await;
        if messages > 0 {
            tracing::info!(%user, messages, "mail that waited for a suspended user goes on");
        }
    }
}

/// Lets the mail of all users go on who were resumed, or removed, while nobody looked: before a start, by `apply`.
///
/// # Errors
/// When the directory does not answer.
pub async fn resume_all(admin: &Admin) -> Result<(), DirectoryError> {
    let Some(queue) = &admin.queue else { return Ok(()) };
    for user in queue.awaiting_resumption().await {
        if admin.directory.user(&user).await?.is_none_or(|record| !record.suspended) {
            resume(admin, &user).await;
        }
    }
    Ok(())
}
