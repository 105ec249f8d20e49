//! Every reply of the receiving side, in one table: code, enhanced code (registry of RFC 5248) and a reason that a stranger's
//! postmaster can act on. Nothing from the network stands in a reply but what the caller passed through [`crate::printable`] or a
//! type that cannot hold control characters.

mod auth;
mod mail;
mod session;

pub use auth::*;
pub use mail::*;
pub use session::*;

use crate::reply::{EnhancedCode, Reply};

/// The usual case: one line with an enhanced code.
fn reply(code: u16, class: u8, subject: u16, detail: u16, text: impl Into<String>) -> Reply {
    Reply::new(code, EnhancedCode(class, subject, detail), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mailbox;

    /// Every entry of the table.
    fn all() -> Vec<Reply> {
        let user: Mailbox = "ann@example.org".parse().unwrap();
        let mut all = session::tests::all();
        all.extend(auth::tests::all());
        all.extend(mail::tests::all(&user));
        all
    }

    #[test]
    fn classes_agree_and_text_is_plain() {
        for reply in all() {
            if let Some(status) = reply.enhanced {
                assert_eq!(u16::from(status.0), reply.code / 100, "{reply}");
            } else {
                assert!(matches!(reply.code, 220 | 250 | 334 | 354), "{reply} lacks an enhanced code");
            }
            for line in &reply.lines {
                assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{reply}");
                assert!(line.len() < 450 && !line.ends_with('.'), "{reply}");
            }
        }
    }
}
