//! Macros: named facts that go before each command. A filter can choose names for a stage; otherwise Sendmail's usual ones are sent.

use pillarbox_smtp::{Mailbox, ReversePath};

use super::options::{Options, STAGES};
use super::wire::{command, put};
use crate::facts::SessionFacts;

/// Stages, as the option negotiation numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connect = 0,
    Helo = 1,
    Mail = 2,
    Rcpt = 3,
    Data = 4,
    EndOfMessage = 5,
    EndOfHeader = 6,
}

impl Stage {
    /// The command whose macros these are.
    fn command(self) -> u8 {
        match self {
            Self::Connect => command::CONNECT,
            Self::Helo => command::HELO,
            Self::Mail => command::MAIL,
            Self::Rcpt => command::RCPT,
            Self::Data => command::DATA,
            Self::EndOfMessage => command::END_OF_MESSAGE,
            Self::EndOfHeader => command::END_OF_HEADER,
        }
    }
}

/// What is sent where the filter does not choose.
const USUAL: [&[&str]; STAGES] = [
    &["j", "_", "{daemon_name}", "{daemon_addr}", "{daemon_port}", "{if_addr}", "v"],
    &["{tls_version}", "{cipher}"],
    &["i", "{mail_addr}", "{mail_host}", "{mail_mailer}", "{auth_type}", "{auth_authen}", "{auth_author}"],
    &["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"],
    &["i"],
    &["i"],
    &["i"],
];

/// The values of one moment.
pub(super) struct Macros<'a> {
    pub(super) hostname: &'a str,
    pub(super) facts: &'a SessionFacts,
    pub(super) from: Option<&'a ReversePath>,
    pub(super) rcpt: Option<&'a Mailbox>,
}

impl Macros<'_> {
    /// Appends the macro packet of a stage, unless nothing is known or wanted.
    pub(super) fn put(&self, out: &mut Vec<u8>, options: &Options, stage: Stage) {
        let chosen = options.macros.get(stage as usize).and_then(Option::as_ref);
        let mut data = vec![stage.command()];
        let mut add = |name: &str| {
            if let Some(value) = self.value(name).filter(|value| !value.is_empty()) {
                for text in [name, &value] {
                    data.extend(text.bytes().filter(|octet| *octet != 0));
                    data.push(0);
                }
            }
        };
        match chosen {
            Some(names) => names.iter().for_each(|name| add(name)),
            None => USUAL.get(stage as usize).into_iter().flat_map(|names| names.iter()).for_each(|name| add(name)),
        }
        if data.len() > 1 || chosen.is_none() {
            put(out, command::MACROS, &[&data]);
        }
    }

    fn value(&self, name: &str) -> Option<String> {
        let facts = self.facts;
        let tls = |part: usize| facts.tls.as_deref().and_then(|tls| tls.split_whitespace().nth(part)).map(str::to_owned);
        Some(match name.trim_matches(['{', '}']) {
            "j" => self.hostname.to_owned(),
            "v" => concat!("Pillarbox ", env!("CARGO_PKG_VERSION")).to_owned(),
            "i" => facts.queue_id.clone(),
            "_" => format!("{} [{}]", facts.rdns.as_deref().unwrap_or("unknown"), facts.client),
            "client_addr" => facts.client.to_string(),
            "client_name" => facts.rdns.clone().unwrap_or_else(|| "unknown".to_owned()),
            "client_ptr" => facts.rdns.clone()?,
            "client_port" => facts.client_port.to_string(),
            "daemon_name" => if facts.user.is_some() { "submission" } else { "smtp" }.to_owned(),
            "daemon_addr" | "if_addr" => facts.local.ip().to_canonical().to_string(),
            "daemon_port" => facts.local.port().to_string(),
            "tls_version" => tls(0)?,
            "cipher" => tls(1)?,
            "auth_type" => facts.mechanism?.to_owned(),
            "auth_authen" | "auth_author" => facts.user.as_ref()?.to_string(),
            "mail_addr" => self.from?.to_string(),
            "mail_host" => self.from?.mailbox()?.domain.to_string(),
            "mail_mailer" | "rcpt_mailer" => "esmtp".to_owned(),
            "rcpt_addr" => self.rcpt?.to_string(),
            "rcpt_host" => self.rcpt?.domain.to_string(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_macros_are_sent_and_unknown_ones_left_out() {
        let mut facts = SessionFacts::new("192.0.2.1:999".parse().unwrap(), "192.0.2.2:25".parse().unwrap());
        facts.queue_id = "Q1".into();
        let macros = Macros { hostname: "mx.example.org", facts: &facts, from: None, rcpt: None };
        let mut options = Options::default();
        options.macros[2] = Some(vec!["i".into(), "{client_addr}".into(), "{nonsense}".into()]);
        let mut out = Vec::new();
        macros.put(&mut out, &options, Stage::Mail);
        assert_eq!(&out[4..], b"DMi\0Q1\0{client_addr}\x00192.0.2.1\0");
        out.clear();
        macros.put(&mut out, &options, Stage::EndOfMessage);
        assert_eq!(&out[4..], b"DEi\0Q1\0");
    }
}
