//! How long to wait for what (RFC 5321 §4.5.3.2).

use std::time::Duration;

/// Waits of a client. The default is the RFC's minimum for each.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the connection.
    pub connect: Duration,
    /// For the greeting, and for the replies to EHLO, HELO, STARTTLS and AUTH.
    pub greeting: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the reply to MAIL.
    pub mail: Duration,
    /// For the reply to RCPT.
    pub rcpt: Duration,
    /// For 354 after DATA.
    pub data: Duration,
    /// For the host to take a piece of the message.
    pub block: Duration,
    /// For the reply to the end of the message.
    pub end: Duration,
    /// For the reply to QUIT; nothing depends on it.
    pub quit: Duration,
    /// How long an open connection waits for a further message.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            handshake: minutes(1),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
            quit: Duration::from_secs(5),
            idle: Duration::from_secs(2),
        }
    }
}
