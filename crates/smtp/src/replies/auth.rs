//! Replies to AUTH (RFC 4954 §6).

use super::reply;
use crate::reply::Reply;

/// 235.
pub fn authenticated() -> Reply {
    reply(235, 2, 7, 0, "Logged in")
}

/// 334 with a challenge in base64.
pub fn auth_challenge(base64: &str) -> Reply {
    Reply::plain(334, base64)
}

/// 432: the user must log in with a password once, so that keys for this mechanism can be made.
pub fn auth_password_transition() -> Reply {
    reply(432, 4, 7, 12, "Log in with PLAIN once, so that this mechanism can be set up for you")
}

/// 454: credentials cannot be checked now.
pub fn auth_unavailable() -> Reply {
    reply(454, 4, 7, 0, "Logins cannot be checked just now; try again later")
}

/// 500: a line of the exchange over 12288 octets.
pub fn auth_line_too_long() -> Reply {
    reply(500, 5, 5, 6, "The line is too long for a login")
}

/// 501: not base64, or not what the mechanism asks for.
pub fn auth_malformed() -> Reply {
    reply(501, 5, 5, 2, "This is not the base64 of what the mechanism asks for")
}

/// 501: the client sent `*`.
pub fn auth_cancelled() -> Reply {
    reply(501, 5, 7, 0, "Login broken off")
}

/// 504.
pub fn auth_unknown_mechanism() -> Reply {
    reply(504, 5, 5, 4, "This mechanism is not offered; EHLO lists those that are")
}

/// 530: submission before AUTH.
pub fn authentication_required() -> Reply {
    reply(530, 5, 7, 0, "Log in with AUTH first")
}

/// 534: this user may not use this mechanism.
pub fn auth_too_weak() -> Reply {
    reply(534, 5, 7, 9, "This login needs a stronger mechanism")
}

/// 535: unknown user and wrong password alike.
pub fn auth_rejected() -> Reply {
    reply(535, 5, 7, 8, "User name or password is wrong")
}

/// 538: AUTH outside TLS.
pub fn auth_needs_tls() -> Reply {
    reply(538, 5, 7, 11, "Say STARTTLS first; passwords are taken only over TLS")
}

/// 421: too many failed logins from this client.
pub fn auth_blocked() -> Reply {
    reply(421, 4, 7, 0, "Too many failed logins from your address; try again in a while")
}

/// 421: the user was suspended or removed, or a password changed, since the login.
pub fn login_ended() -> Reply {
    reply(421, 4, 7, 0, "Your login has ended: the account or its password was changed; connect and log in again")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn all() -> Vec<Reply> {
        vec![
            authenticated(),
            auth_challenge(""),
            auth_password_transition(),
            auth_unavailable(),
            auth_line_too_long(),
            auth_malformed(),
            auth_cancelled(),
            auth_unknown_mechanism(),
            authentication_required(),
            auth_too_weak(),
            auth_rejected(),
            auth_needs_tls(),
            auth_blocked(),
        ]
    }
}
