//! Logging in to a server (RFC 4954 §4): PLAIN, LOGIN, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use zeroize::Zeroizing;

use super::{Capabilities, Command};
use crate::reply::Reply;
use crate::sasl::scram::{ScramClient, ScramError};
use crate::sasl::{Mechanism, random_nonce};
use crate::secret::Secret;

/// What to do after a reply in an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslProgress {
    /// A line was written: send it and read the next reply.
    Continue,
    /// 235: logged in.
    Done,
}

/// Why logging in failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaslClientError {
    /// The server refused, or ended the exchange.
    #[error("the server refused the login: {0}")]
    Refused(Reply),
    /// The server does not know the password it claims to check, or answered out of turn. The connection must be dropped.
    #[error("the server's side of the login is wrong: {0}")]
    Server(&'static str),
}

/// One exchange. Only to be used inside TLS, or on a connection that needs none.
pub struct SaslClient {
    mechanism: Mechanism,
    user: String,
    password: Secret,
    state: State,
}

enum State {
    Plain { sent: bool },
    Login { step: u8 },
    Scram { exchange: Box<ScramClient>, step: u8 },
    Broken,
}

impl SaslClient {
    /// Chooses the strongest mechanism that the server offers and we know: SCRAM-SHA-256-PLUS (when `channel_binding`, the
    /// `tls-exporter` value of RFC 9266, is at hand), SCRAM-SHA-256, PLAIN, LOGIN. `None` when there is none.
    pub fn choose(capabilities: &Capabilities, user: &str, password: Secret, channel_binding: Option<&[u8]>) -> Option<Self> {
        let plus = capabilities.offers(Mechanism::ScramSha256Plus) && channel_binding.is_some();
        let mechanism = if plus {
            Mechanism::ScramSha256Plus
        } else {
            [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login].into_iter().find(|m| capabilities.offers(*m))?
        };
        Some(Self::new(mechanism, user, password, channel_binding, &random_nonce()))
    }

    /// With a given mechanism and nonce (printable ASCII without comma; only SCRAM uses it).
    pub fn new(mechanism: Mechanism, user: &str, password: Secret, channel_binding: Option<&[u8]>, nonce: &str) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain { sent: false },
            Mechanism::Login => State::Login { step: 0 },
            Mechanism::ScramSha256 => {
                State::Scram { exchange: Box::new(ScramClient::new(user, nonce, None, channel_binding.is_some())), step: 0 }
            }
            Mechanism::ScramSha256Plus => {
                State::Scram { exchange: Box::new(ScramClient::new(user, nonce, channel_binding, true)), step: 0 }
            }
        };
        Self { mechanism, user: user.to_owned(), password, state }
    }

    /// Which mechanism is used.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Writes the AUTH command, with an initial response where it fits into a line of 512 octets (RFC 4954 §4).
    pub fn start(&mut self, out: &mut BytesMut) {
        let initial = match &mut self.state {
            State::Plain { sent } => {
                let message = plain_message(&self.user, &self.password);
                if message.len() > 360 {
                    None
                } else {
                    *sent = true;
                    Some(message)
                }
            }
            State::Login { .. } | State::Broken => None,
            State::Scram { exchange, step } => {
                *step = 1;
                Some(Zeroizing::new(exchange.first().into_bytes()))
            }
        };
        Command::Auth { mechanism: self.mechanism, initial: initial.as_deref().map(Vec::as_slice) }.write_to(out);
    }

    /// Takes the server's reply; on `Continue` the next line is in `out`.
    ///
    /// # Errors
    /// [`SaslClientError::Server`] leaves the server waiting for a line: drop the connection.
    pub fn reply(&mut self, reply: &Reply, out: &mut BytesMut) -> Result<SaslProgress, SaslClientError> {
        match reply.code {
            235 => self.finish(),
            334 => {
                let text = reply.lines.first().map_or("", String::as_str).trim();
                let challenge = BASE64.decode(text).ok();
                self.challenge(challenge.as_deref(), out)
            }
            _ => Err(SaslClientError::Refused(reply.clone())),
        }
    }

    fn finish(&mut self) -> Result<SaslProgress, SaslClientError> {
        match std::mem::replace(&mut self.state, State::Broken) {
            // A server that says 235 without having proved that it knows the keys may be an impostor (RFC 5802 §9).
            State::Scram { step, .. } if step < 3 => Err(SaslClientError::Server("it skipped its own proof")),
            State::Broken => Err(SaslClientError::Server("it answered after the exchange had ended")),
            _ => Ok(SaslProgress::Done),
        }
    }

    fn challenge(&mut self, challenge: Option<&[u8]>, out: &mut BytesMut) -> Result<SaslProgress, SaslClientError> {
        match &mut self.state {
            State::Plain { sent } if !*sent => {
                *sent = true;
                Command::AuthResponse(&plain_message(&self.user, &self.password)).write_to(out);
            }
            // LOGIN's prompts are not standardised ("Username:", "User Name", in any language); their order is.
            State::Login { step } if *step < 2 => {
                let answer = if *step == 0 { self.user.as_bytes() } else { self.password.as_bytes() };
                *step += 1;
                Command::AuthResponse(answer).write_to(out);
            }
            State::Scram { exchange, step } => {
                let text = challenge.and_then(|c| std::str::from_utf8(c).ok());
                let text = text.ok_or(SaslClientError::Server("its challenge is not base64 of UTF-8"))?;
                let answer = match *step {
                    1 => exchange.last(text, &self.password).map_err(scram_error)?,
                    2 => {
                        exchange.verify(text).map_err(scram_error)?;
                        String::new()
                    }
                    _ => return Err(SaslClientError::Server("it asks for more than the mechanism has")),
                };
                *step += 1;
                Command::AuthResponse(answer.as_bytes()).write_to(out);
            }
            _ => return Err(SaslClientError::Server("it asks for more than the mechanism has")),
        }
        Ok(SaslProgress::Continue)
    }
}

fn scram_error(error: ScramError) -> SaslClientError {
    SaslClientError::Server(error.reason())
}

/// RFC 4616 §2, without an authorisation identity.
fn plain_message(user: &str, password: &Secret) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.as_bytes().len() + 2));
    message.push(0);
    message.extend(user.bytes().filter(|b| *b != 0));
    message.push(0);
    message.extend(password.as_bytes().iter().filter(|b| **b != 0));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &mut BytesMut) -> String {
        String::from_utf8(out.split().to_vec()).unwrap()
    }

    #[test]
    fn plain_and_login() {
        let mut out = BytesMut::new();
        let mut client = SaslClient::new(Mechanism::Plain, "u", Secret::new("p"), None, "n");
        client.start(&mut out);
        assert_eq!(text(&mut out), "AUTH PLAIN AHUAcA==\r\n");
        assert_eq!(client.reply(&Reply::plain(235, "ok"), &mut out), Ok(SaslProgress::Done));

        let mut client = SaslClient::new(Mechanism::Login, "u", Secret::new("p"), None, "n");
        client.start(&mut out);
        assert_eq!(text(&mut out), "AUTH LOGIN\r\n");
        assert_eq!(client.reply(&Reply::plain(334, "VXNlcm5hbWU6"), &mut out), Ok(SaslProgress::Continue));
        assert_eq!(text(&mut out), "dQ==\r\n");
        assert_eq!(client.reply(&Reply::plain(334, "not base64 at all"), &mut out), Ok(SaslProgress::Continue));
        assert_eq!(text(&mut out), "cA==\r\n");
        assert!(matches!(client.reply(&Reply::plain(334, ""), &mut out), Err(SaslClientError::Server(_))));
        assert!(matches!(client.reply(&Reply::plain(535, "no"), &mut out), Err(SaslClientError::Refused(_))));
    }

    #[test]
    fn an_impostor_that_skips_its_proof_is_found_out() {
        let mut out = BytesMut::new();
        let mut client = SaslClient::new(Mechanism::ScramSha256, "u", Secret::new("p"), None, "n");
        client.start(&mut out);
        assert!(matches!(client.reply(&Reply::plain(235, "ok"), &mut out), Err(SaslClientError::Server(_))));
    }

    #[test]
    fn the_strongest_offer_is_chosen() {
        let caps = |mechs: &str| Capabilities::parse(&Reply::lines(250, None, ["h".to_owned(), format!("AUTH {mechs}")]));
        let choose =
            |mechs: &str, binding: Option<&[u8]>| SaslClient::choose(&caps(mechs), "u", Secret::new("p"), binding).map(|c| c.mechanism());
        assert_eq!(choose("LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS", None), Some(Mechanism::ScramSha256));
        assert_eq!(choose("LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS", Some(b"x")), Some(Mechanism::ScramSha256Plus));
        assert_eq!(choose("LOGIN PLAIN", None), Some(Mechanism::Plain));
        assert_eq!(choose("XOAUTH2", None), None);
    }
}
