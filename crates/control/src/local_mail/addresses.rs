//! Bare local names (`root`, as cron writes them) become addresses of the domain that stands for this host.

use pillarbox_config::Config;
use pillarbox_directory::{Directory, DirectoryError, ResolvePolicy, Resolved, resolve};
use pillarbox_smtp::{Domain, LocalPart, Mailbox, ReversePath};

use crate::error::ApiError;

/// Completes addresses.
pub(super) struct Qualifier {
    home: Domain,
}

impl Qualifier {
    /// The hosted domain that is the hostname or the nearest above it, else the first hosted one, else the hostname itself.
    pub(super) async fn new(config: &Config, directory: &dyn Directory) -> Result<Self, ApiError> {
        let hostname = config.hostname();
        let mut rest = hostname.as_str();
        loop {
            if let Ok(domain) = Domain::new(rest)
                && directory.has_domain(&domain).await?
            {
                return Ok(Self { home: domain });
            }
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => break,
            }
        }
        if let Some(first) = directory.domains().await?.into_iter().next() {
            return Ok(Self { home: first.name });
        }
        let home = Domain::new(&hostname)
            .map_err(|e| ApiError::refused(format!("the hostname {hostname} cannot be the domain of an address: {e}")))?;
        Ok(Self { home })
    }

    /// A whole address, or a local name completed.
    pub(super) fn mailbox(&self, text: &str) -> Option<Mailbox> {
        let text = text.trim();
        let text = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text);
        if text.contains('@') {
            return text.parse().ok();
        }
        let local = LocalPart::new(text).ok().filter(LocalPart::is_dot_string)?;
        Some(Mailbox::new(local, self.home.clone()))
    }

    /// An envelope sender; empty or `<>` is the null path.
    pub(super) fn sender(&self, text: &str) -> Option<ReversePath> {
        match text.trim() {
            "" | "<>" => Some(ReversePath::Null),
            text => self.mailbox(text).map(ReversePath::Mailbox),
        }
    }

    /// An envelope recipient. A bare name that nobody here has (`root`, `www-data`) is the system's own mail, and goes to postmaster.
    pub(super) async fn recipient(
        &self,
        text: &str,
        config: &Config,
        directory: &dyn Directory,
    ) -> Result<Option<Mailbox>, DirectoryError> {
        let Some(mailbox) = self.mailbox(text) else { return Ok(None) };
        if text.contains('@') {
            return Ok(Some(mailbox));
        }
        let outcome = resolve(directory, &ResolvePolicy::from_config(config), &mailbox).await?.outcome;
        if matches!(outcome, Resolved::Unknown)
            && let Ok(postmaster) = LocalPart::new("postmaster")
        {
            return Ok(Some(Mailbox::new(postmaster, self.home.clone())));
        }
        Ok(Some(mailbox))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_directory::{MemoryDirectory, ops};
    use std::time::SystemTime;

    #[tokio::test]
    async fn bare_names_belong_to_the_domain_of_this_host() {
        let directory = MemoryDirectory::new();
        let config = Config { hostname: "mx.mail.example.org".into(), ..Config::default() };
        let bare = Qualifier::new(&config, &directory).await.unwrap();
        assert_eq!(bare.mailbox("root").unwrap().to_string(), "root@mx.mail.example.org");
        for name in ["another.example", "example.org"] {
            ops::add_domain(&directory, &name.parse().unwrap(), SystemTime::now()).await.unwrap();
        }
        let user = ops::NewUser::new("bob@example.org".parse().unwrap(), None);
        ops::add_user(&directory, user, &config.auth.argon2, SystemTime::now()).await.unwrap();
        let qualifier = Qualifier::new(&config, &directory).await.unwrap();
        let recipient = async |text: &str| qualifier.recipient(text, &config, &directory).await.unwrap().map(|m| m.to_string());
        assert_eq!(recipient("bob").await.as_deref(), Some("bob@example.org"));
        assert_eq!(recipient("root").await.as_deref(), Some("postmaster@example.org"));
        assert_eq!(recipient("root@example.org").await.as_deref(), Some("root@example.org"));
        assert_eq!(recipient("a b").await, None);
        assert_eq!(qualifier.sender("<>"), Some(ReversePath::Null));
        assert_eq!(qualifier.sender("bob").unwrap().to_string(), "bob@example.org");
    }
}
