//! Listeners, TLS, SMTP, submission and LMTP sessions.
