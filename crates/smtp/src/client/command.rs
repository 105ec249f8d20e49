//! Commands in wire form. Every argument is a type that cannot hold a line end, or is encoded here, so none can be injected.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, BytesMut};

use super::Capabilities;
use crate::address::{Domain, Mailbox, ReversePath};
use crate::params::{BodyType, Hold, MailParams, Notify, OriginalRecipient, RcptParams, Ret, format_date_time};
use crate::sasl::Mechanism;
use crate::xtext;

/// Longest command line that a client must be able to send: RFC 4954 §4 asks for 12288 octets in AUTH exchanges.
pub const MAX_COMMAND_LINE: usize = 12288;

/// A command of SMTP or LMTP, ready to be written.
#[derive(Debug, Clone, Copy)]
pub enum Command<'a> {
    /// EHLO: our name, a domain or an address literal.
    Ehlo(&'a Domain),
    /// HELO, for servers that do not know EHLO.
    Helo(&'a Domain),
    /// LHLO (RFC 2033).
    Lhlo(&'a Domain),
    /// MAIL FROM. Only parameters whose extension `capabilities` offers are written; whether the message may go without
    /// the others is for the caller to decide before.
    Mail {
        /// Who gets reports.
        from: &'a ReversePath,
        /// Wanted parameters.
        params: &'a MailParams,
        /// What the server offers.
        capabilities: &'a Capabilities,
    },
    /// RCPT TO. Parameters as for MAIL.
    Rcpt {
        /// The recipient.
        to: &'a Mailbox,
        /// Wanted parameters.
        params: &'a RcptParams,
        /// What the server offers.
        capabilities: &'a Capabilities,
        /// SMTPUTF8 was given at MAIL, so that ORCPT may hold UTF-8 itself.
        smtputf8: bool,
    },
    /// DATA.
    Data,
    /// BDAT: exactly `size` octets follow the line.
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// The message ends with it.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// STARTTLS.
    StartTls,
    /// AUTH with an initial response (`Some(b"")` is written `=`).
    Auth {
        /// Which mechanism.
        mechanism: Mechanism,
        /// Not yet in base64.
        initial: Option<&'a [u8]>,
    },
    /// A further line of an AUTH exchange, not yet in base64.
    AuthResponse(&'a [u8]),
    /// `*`: breaks an AUTH exchange off.
    AuthCancel,
}

impl Command<'_> {
    /// Appends the command and its CRLF.
    pub fn write_to(&self, out: &mut BytesMut) {
        let mut line = String::with_capacity(80);
        // Writing to a String does not fail.
        let _ = self.line(&mut line);
        debug_assert!(!line.bytes().any(|b| b < b' '), "a control character reached a command");
        out.put_slice(line.as_bytes());
        out.put_slice(b"\r\n");
        // AUTH lines hold passwords.
        zeroize::Zeroize::zeroize(&mut line);
    }

    fn line(&self, out: &mut String) -> fmt::Result {
        match *self {
            Self::Ehlo(name) => write!(out, "EHLO {name}"),
            Self::Helo(name) => write!(out, "HELO {name}"),
            Self::Lhlo(name) => write!(out, "LHLO {name}"),
            Self::Mail { from, params, capabilities } => {
                write!(out, "MAIL FROM:<{from}>")?;
                mail_params(out, params, capabilities)
            }
            Self::Rcpt { to, params, capabilities, smtputf8 } => {
                write!(out, "RCPT TO:<{to}>")?;
                if capabilities.dsn { rcpt_params(out, params, smtputf8) } else { Ok(()) }
            }
            Self::Data => out.write_str("DATA"),
            Self::Bdat { size, last } => write!(out, "BDAT {size}{}", if last { " LAST" } else { "" }),
            Self::Rset => out.write_str("RSET"),
            Self::Noop => out.write_str("NOOP"),
            Self::Quit => out.write_str("QUIT"),
            Self::StartTls => out.write_str("STARTTLS"),
            Self::Auth { mechanism, initial } => {
                write!(out, "AUTH {}", mechanism.name())?;
                match initial {
                    None => Ok(()),
                    Some([]) => out.write_str(" ="),
                    Some(octets) => {
                        out.push(' ');
                        BASE64.encode_string(octets, out);
                        Ok(())
                    }
                }
            }
            Self::AuthResponse(octets) => {
                BASE64.encode_string(octets, out);
                Ok(())
            }
            Self::AuthCancel => out.write_str("*"),
        }
    }
}

fn mail_params(out: &mut String, params: &MailParams, capabilities: &Capabilities) -> fmt::Result {
    if let (true, Some(size)) = (capabilities.size, params.size) {
        write!(out, " SIZE={size}")?;
    }
    match params.body {
        BodyType::SevenBit => {}
        BodyType::EightBitMime if capabilities.eight_bit_mime => out.write_str(" BODY=8BITMIME")?,
        BodyType::BinaryMime if capabilities.binary_mime => out.write_str(" BODY=BINARYMIME")?,
        BodyType::EightBitMime | BodyType::BinaryMime => {}
    }
    if params.smtputf8 && capabilities.smtputf8 {
        out.write_str(" SMTPUTF8")?;
    }
    if params.require_tls && capabilities.require_tls {
        out.write_str(" REQUIRETLS")?;
    }
    if capabilities.dsn {
        match params.ret {
            Some(Ret::Full) => out.write_str(" RET=FULL")?,
            Some(Ret::Hdrs) => out.write_str(" RET=HDRS")?,
            None => {}
        }
        if let Some(envid) = &params.envid {
            write!(out, " ENVID={}", xtext::encode(envid.as_bytes()))?;
        }
    }
    if let (false, Some(auth)) = (capabilities.auth.is_empty(), &params.auth) {
        match auth {
            Some(mailbox) => write!(out, " AUTH={}", xtext::encode(mailbox.to_string().as_bytes()))?,
            None => out.write_str(" AUTH=<>")?,
        }
    }
    if let (Some(_), Some(by)) = (capabilities.deliver_by, params.by) {
        let mode = if by.return_when_late { 'R' } else { 'N' };
        write!(out, " BY={};{mode}{}", by.seconds.clamp(-999_999_999, 999_999_999), if by.trace { "T" } else { "" })?;
    }
    if let (Some(_), Some(priority)) = (&capabilities.mt_priority, params.priority) {
        write!(out, " MT-PRIORITY={}", priority.clamp(-9, 9))?;
    }
    if let (Some(_), Some(hold)) = (capabilities.future_release, params.hold) {
        match hold {
            Hold::For(seconds) => write!(out, " HOLDFOR={seconds}")?,
            Hold::Until(unix) => write!(out, " HOLDUNTIL={}", format_date_time(unix))?,
        }
    }
    Ok(())
}

fn rcpt_params(out: &mut String, params: &RcptParams, smtputf8: bool) -> fmt::Result {
    if params.notify.explicit {
        let Notify { success, failure, delay, .. } = params.notify;
        let wanted = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
        let names: Vec<&str> = wanted.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        write!(out, " NOTIFY={}", if names.is_empty() { "NEVER".to_owned() } else { names.join(",") })?;
    }
    match &params.orcpt {
        Some(OriginalRecipient { address_type, address }) if address_type.eq_ignore_ascii_case("utf-8") => {
            let encoded = if smtputf8 { xtext::encode_utf8_addr_raw(address) } else { xtext::encode_utf8_addr(address) };
            write!(out, " ORCPT=utf-8;{encoded}")
        }
        Some(OriginalRecipient { address_type, address }) => {
            write!(out, " ORCPT={};{}", xtext::encode(address_type.as_bytes()), xtext::encode(address.as_bytes()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::DeliverBy;

    fn wire(command: Command<'_>) -> String {
        let mut out = BytesMut::new();
        command.write_to(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn everything() -> Capabilities {
        let lines = ["h", "SIZE", "8BITMIME", "CHUNKING", "BINARYMIME", "SMTPUTF8", "DSN", "REQUIRETLS", "AUTH PLAIN", "DELIVERBY"];
        let more = ["MT-PRIORITY", "FUTURERELEASE 9 x"];
        Capabilities::parse(&crate::Reply::lines(250, None, lines.into_iter().chain(more)))
    }

    #[test]
    fn mail_with_every_parameter() {
        let params = MailParams {
            size: Some(12),
            body: BodyType::BinaryMime,
            smtputf8: true,
            require_tls: true,
            ret: Some(Ret::Hdrs),
            envid: Some("a b\r\nRSET+".into()),
            auth: Some(Some("a+b@example.org".parse().unwrap())),
            by: Some(DeliverBy { seconds: 60, return_when_late: true, trace: true }),
            hold: Some(Hold::Until(0)),
            priority: Some(-3),
        };
        let from = "x@example.org".parse().unwrap();
        let line = wire(Command::Mail { from: &from, params: &params, capabilities: &everything() });
        assert_eq!(
            line,
            "MAIL FROM:<x@example.org> SIZE=12 BODY=BINARYMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=a+20b+0D+0ARSET+2B \
             AUTH=a+2Bb@example.org BY=60;RT MT-PRIORITY=-3 HOLDUNTIL=1970-01-01T00:00:00Z\r\n"
        );
        let bare = wire(Command::Mail { from: &ReversePath::Null, params: &params, capabilities: &Capabilities::default() });
        assert_eq!(bare, "MAIL FROM:<>\r\n");
    }

    #[test]
    fn rcpt_with_dsn() {
        let to: Mailbox = "\"a b\"@example.org".parse().unwrap();
        let orcpt = Some(OriginalRecipient { address_type: "rfc822".into(), address: "a=b\n@x".into() });
        let params = RcptParams { notify: Notify::NEVER, orcpt };
        let line = wire(Command::Rcpt { to: &to, params: &params, capabilities: &everything(), smtputf8: false });
        assert_eq!(line, "RCPT TO:<\"a b\"@example.org> NOTIFY=NEVER ORCPT=rfc822;a+3Db+0A@x\r\n");
        let orcpt = Some(OriginalRecipient { address_type: "utf-8".into(), address: "é@x".into() });
        let params = RcptParams { notify: Notify { explicit: true, ..Notify::default() }, orcpt };
        let line = wire(Command::Rcpt { to: &to, params: &params, capabilities: &everything(), smtputf8: false });
        assert_eq!(line, "RCPT TO:<\"a b\"@example.org> NOTIFY=FAILURE,DELAY ORCPT=utf-8;\\x{E9}@x\r\n");
    }

    #[test]
    fn the_rest() {
        let name = Domain::new("mail.example.org").unwrap();
        assert_eq!(wire(Command::Ehlo(&name)), "EHLO mail.example.org\r\n");
        assert_eq!(wire(Command::Bdat { size: 7, last: true }), "BDAT 7 LAST\r\n");
        assert_eq!(wire(Command::Auth { mechanism: Mechanism::Plain, initial: Some(b"\0u\0p") }), "AUTH PLAIN AHUAcA==\r\n");
        assert_eq!(wire(Command::Auth { mechanism: Mechanism::Plain, initial: Some(b"") }), "AUTH PLAIN =\r\n");
        assert_eq!(wire(Command::Auth { mechanism: Mechanism::Login, initial: None }), "AUTH LOGIN\r\n");
        assert_eq!(wire(Command::AuthResponse(b"u")), "dQ==\r\n");
    }
}
