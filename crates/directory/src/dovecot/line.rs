//! One line of a passwd-file: `user:{SCHEME}hash:uid:gid:gecos:home:shell:extra fields`.

use std::path::Path;

use pillarbox_smtp::Mailbox;

use super::DovecotOptions;

/// A password that nothing matches: `*` is no hash that crypt(3) makes.
const LOCKED: &str = "{CRYPT}*";

/// What a line is made of.
pub(super) struct Line<'a> {
    pub(super) name: &'a Mailbox,
    pub(super) user: &'a Mailbox,
    pub(super) home: &'a Path,
    pub(super) quota: Option<u64>,
    pub(super) suspended: bool,
    pub(super) options: &'a DovecotOptions,
}

impl Line<'_> {
    /// The line for `users`; `None` when the format cannot hold the name or the home.
    pub(super) fn users(&self, password: Option<&str>) -> Option<String> {
        let password = match password {
            Some(stored) => scheme(stored)?,
            None => LOCKED.into(),
        };
        let home = field(self.home.to_str()?)?;
        let mut extra = String::new();
        if let Some(bytes) = self.quota {
            // Dovecot up to 2.3, and from 2.4.
            extra.push_str(&format!("userdb_quota_rule=*:storage={bytes}B userdb_quota_storage_size={bytes}B"));
        }
        if !self.is_own_name() {
            extra.push_str(&format!(" user={}", user_name(self.user)?));
        }
        if self.suspended {
            extra.push_str(" nologin reason=suspended");
        }
        let extra = extra.trim_start();
        Some(format!("{}:{password}:{}:{}::{home}::{extra}\n", user_name(self.name)?, self.options.uid, self.options.gid))
    }

    /// The line for one of the app-password files, which serve as passdb only.
    pub(super) fn app_password(&self, hash: &str) -> Option<String> {
        let extra = if self.is_own_name() { String::new() } else { format!("user={}", user_name(self.user)?) };
        Some(format!("{}:{}::::::{extra}\n", user_name(self.name)?, scheme(hash)?))
    }

    fn is_own_name(&self) -> bool {
        self.name.same_as(self.user)
    }
}

/// The name as Dovecot looks it up: folded, without quotes.
fn user_name(mailbox: &Mailbox) -> Option<String> {
    field(&mailbox.key()).map(str::to_owned)
}

/// A colon ends a field, a space an extra field, and a `#` at the start of a line makes it a comment.
fn field(text: &str) -> Option<&str> {
    let fits = !text.is_empty() && !text.starts_with('#') && !text.chars().any(|c| c == ':' || c.is_whitespace() || c.is_control());
    fits.then_some(text)
}

/// The stored hash with Dovecot's scheme in front.
fn scheme(stored: &str) -> Option<String> {
    let stored = field(stored)?;
    if stored.starts_with('{') {
        return Some(stored.to_owned());
    }
    let scheme = match stored.split('$').nth(1)? {
        "argon2id" => "ARGON2ID",
        "argon2i" => "ARGON2I",
        "2a" | "2b" | "2x" | "2y" => "BLF-CRYPT",
        "5" => "SHA256-CRYPT",
        "6" => "SHA512-CRYPT",
        _ => return None,
    };
    Some(format!("{{{scheme}}}{stored}"))
}
