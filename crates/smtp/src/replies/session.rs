//! Replies about the session: greeting, order, syntax, limits, the end.

use super::reply;
use crate::reply::{EnhancedCode, Reply};

/// 220 of an SMTP server.
pub fn greeting(hostname: &str, product: &str) -> Reply {
    Reply::plain(220, format!("{hostname} ESMTP {product}").trim_end())
}

/// 220 of an LMTP server.
pub fn lmtp_greeting(hostname: &str, product: &str) -> Reply {
    Reply::plain(220, format!("{hostname} LMTP {product}").trim_end())
}

/// 250 to HELO.
pub fn helo(hostname: &str) -> Reply {
    Reply::plain(250, hostname)
}

/// 221 to QUIT.
pub fn bye(hostname: &str) -> Reply {
    reply(221, 2, 0, 0, format!("{hostname} closing connection"))
}

/// 250 to RSET and NOOP.
pub fn ok() -> Reply {
    reply(250, 2, 0, 0, "Ok")
}

/// 214 to HELP. Says what a person at a terminal may do next and nothing about users.
pub fn help(hostname: &str, verbs: &str) -> Reply {
    let lines =
        [format!("This is the mail server {hostname}"), format!("Commands: {verbs}"), format!("Questions go to postmaster@{hostname}")];
    Reply::lines(214, Some(EnhancedCode(2, 0, 0)), lines)
}

/// 252 to VRFY, whoever is asked for (RFC 5321 §3.5.3, RFC 2505 §2.11).
pub fn cannot_verify() -> Reply {
    reply(252, 2, 0, 0, "Addresses are not verified here; send the message and see")
}

/// 502 to EXPN, TURN and other commands that exist and are not for here.
pub fn not_implemented() -> Reply {
    reply(502, 5, 5, 1, "This command is not available here")
}

/// 500 to what is no command.
pub fn unknown_command() -> Reply {
    reply(500, 5, 5, 1, "Unknown command; HELP lists those that are known")
}

/// 500 to LHLO on an SMTP port.
pub fn no_lmtp_here() -> Reply {
    reply(500, 5, 5, 1, "This is SMTP; begin with EHLO")
}

/// 500 to EHLO and HELO on an LMTP port (RFC 2033 §4.1).
pub fn no_smtp_here() -> Reply {
    reply(500, 5, 5, 1, "This is LMTP; begin with LHLO")
}

/// 500 to a command line over the limit; it was read to its end.
pub fn line_too_long() -> Reply {
    reply(500, 5, 5, 2, "The command line is too long")
}

/// 500 to a command line with NUL, escape or other control characters.
pub fn control_characters() -> Reply {
    reply(500, 5, 5, 2, "A command must not hold control characters")
}

/// 500 to a command line that is not UTF-8.
pub fn not_utf8() -> Reply {
    reply(500, 5, 5, 2, "A command must be ASCII, or UTF-8 with SMTPUTF8")
}

/// 501 with the form that was expected.
pub fn syntax(form: &str) -> Reply {
    reply(501, 5, 5, 4, format!("Syntax: {form}"))
}

/// 501 to a command that takes no argument and got one.
pub fn no_argument(verb: &str) -> Reply {
    reply(501, 5, 5, 4, format!("{verb} takes no argument"))
}

/// 503: HELO or EHLO first.
pub fn need_helo(verb: &str) -> Reply {
    reply(503, 5, 5, 1, format!("Say {verb} first"))
}

/// 503: the command does not fit here.
pub fn bad_sequence(why: &str) -> Reply {
    reply(503, 5, 5, 1, why)
}

/// 503, then closed: the client sent on after DATA without waiting for 354 (RFC 2920 §3.1).
pub fn early_data() -> Reply {
    reply(503, 5, 5, 0, "Wait for 354 before sending the message; closing connection")
}

/// 554, then closed: something came behind STARTTLS in the clear (RFC 3207 §4.2, CVE-2011-0411).
pub fn early_tls() -> Reply {
    reply(554, 5, 5, 0, "Nothing may follow STARTTLS before the TLS handshake; closing connection")
}

/// 554, then closed: the client spoke before the banner (RFC 5321 §4.3.1).
pub fn early_talker() -> Reply {
    reply(554, 5, 5, 0, "Wait for the greeting before speaking; closing connection")
}

/// 554, then closed: a TLS handshake where none was agreed.
pub fn tls_not_yet() -> Reply {
    reply(554, 5, 5, 0, "This port speaks SMTP in the clear first; use STARTTLS")
}

/// 554, then closed: an HTTP request.
pub fn not_http() -> Reply {
    reply(554, 5, 5, 0, "This is a mail server, not a web server; closing connection")
}

/// 220 to STARTTLS.
pub fn ready_for_tls() -> Reply {
    reply(220, 2, 0, 0, "Ready to start TLS")
}

/// 454: no certificate at hand, or TLS failed to set up (RFC 3207 §4).
pub fn tls_unavailable() -> Reply {
    reply(454, 4, 7, 0, "TLS is not available just now; try again later")
}

/// 503: TLS is in force already.
pub fn tls_already() -> Reply {
    reply(503, 5, 5, 1, "TLS is already in use")
}

/// 530: submission outside TLS (RFC 8314, RFC 3207 §4).
pub fn tls_required() -> Reply {
    reply(530, 5, 7, 0, "Say STARTTLS first; mail is handed in here only over TLS")
}

/// 421, then closed: too many errors.
pub fn too_many_errors() -> Reply {
    reply(421, 4, 7, 0, "Too many errors; closing connection")
}

/// 421, then closed: too many recipients refused, as when addresses are guessed.
pub fn too_many_refused() -> Reply {
    reply(421, 4, 7, 0, "Too many refused recipients in one session; closing connection")
}

/// 421, then closed: MAILMAX reached (RFC 9422 §4.1).
pub fn too_many_transactions() -> Reply {
    reply(421, 4, 7, 0, "As many messages as one session may have; connect again for more")
}

/// 421: the server has as many connections as it takes.
pub fn too_many_connections() -> Reply {
    reply(421, 4, 7, 0, "Too many connections; try again in a few minutes")
}

/// 421: this client has as many connections as it may.
pub fn too_many_connections_from_you() -> Reply {
    reply(421, 4, 7, 0, "Too many connections from your address; close some or try again later")
}

/// 421: the client connects too often.
pub fn connection_rate() -> Reply {
    reply(421, 4, 7, 0, "Too many connections from your address in a short time; try again in a few minutes")
}

/// 421: shut-down.
pub fn shutting_down() -> Reply {
    reply(421, 4, 3, 2, "The server is shutting down; try again in a minute")
}

/// 421: nothing came for too long (RFC 5321 §4.5.3.2).
pub fn timed_out() -> Reply {
    reply(421, 4, 4, 2, "Nothing received for too long; closing connection")
}

/// 421: a defect ended this session.
pub fn session_failed() -> Reply {
    reply(421, 4, 3, 0, "This session failed by an error of ours; try again")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn all() -> Vec<Reply> {
        vec![
            greeting("mail.example.org", "Pillarbox"),
            lmtp_greeting("mail.example.org", ""),
            helo("mail.example.org"),
            bye("mail.example.org"),
            ok(),
            help("mail.example.org", "HELO EHLO"),
            cannot_verify(),
            not_implemented(),
            unknown_command(),
            no_lmtp_here(),
            no_smtp_here(),
            line_too_long(),
            control_characters(),
            not_utf8(),
            syntax("BDAT size [LAST]"),
            no_argument("DATA"),
            need_helo("EHLO"),
            bad_sequence("Say MAIL first"),
            early_data(),
            early_tls(),
            early_talker(),
            tls_not_yet(),
            not_http(),
            ready_for_tls(),
            tls_unavailable(),
            tls_already(),
            tls_required(),
            too_many_errors(),
            too_many_refused(),
            too_many_transactions(),
            too_many_connections(),
            too_many_connections_from_you(),
            connection_rate(),
            shutting_down(),
            timed_out(),
            session_failed(),
        ]
    }
}
