//! `sendmail -bs`: SMTP on standard input and output, as some programs prefer it.

use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use bytes::BytesMut;
use pillarbox_config::Config;
use pillarbox_control::api::LocalEnvelope;
use pillarbox_smtp::server::{Event, Role, ServerConfig, ServerSession, Step};
use pillarbox_smtp::{EnhancedCode, ForwardPath, Reply};

use super::hand_in::{hand_in, login};
use super::options::Options;
use super::spool::Spool;
use super::sysexits;
use crate::failure::Failure;

/// Octets of a line read at a time.
const READ: u64 = 64 * 1024;

/// Speaks until QUIT or the end of input.
pub(super) async fn speak(config: &Config, options: &Options) -> Result<(), Failure> {
    let mut settings = ServerConfig::new(Role::Mta, config.hostname());
    settings.limits.message_size = config.limits.message_size.bytes();
    let mut talk = Talk { session: ServerSession::new(Arc::new(settings)), body: Vec::new(), from: String::new(), to: Vec::new() };
    talk.session.greet();
    let mut input = BytesMut::new();
    let (mut stdin, mut stdout) = (std::io::stdin().lock(), std::io::stdout().lock());
    let broken = |e: std::io::Error| Failure::new(sysexits::IO, format!("the dialogue broke off: {e}"));
    loop {
        let step = talk.session.poll(&mut input);
        match step {
            Step::Event(event) => {
                talk.on(config, options, event).await;
                continue;
            }
            Step::NeedInput | Step::StartTls | Step::Closed => {}
        }
        let output = talk.session.output().split();
        stdout.write_all(&output).and_then(|()| stdout.flush()).map_err(broken)?;
        if step != Step::NeedInput {
            return Ok(());
        }
        // A line at a time: scripts write the whole dialogue at once, and here nobody else can have put lines between theirs.
        let mut line = Vec::new();
        match (&mut stdin).take(READ).read_until(b'\n', &mut line).map_err(broken)? {
            0 => return Ok(()),
            _ => input.extend_from_slice(&line),
        }
    }
}

struct Talk {
    session: ServerSession,
    body: Vec<u8>,
    from: String,
    to: Vec<String>,
}

impl Talk {
    async fn on(&mut self, config: &Config, options: &Options, event: Event) {
        match event {
            Event::Helo { .. } => self.session.accept_helo(),
            Event::Mail { path, .. } => {
                self.forget();
                self.from = path.to_string();
                self.session.reply(Reply::new(250, EnhancedCode(2, 1, 0), "Sender OK"));
            }
            Event::Rcpt { path, .. } => {
                self.to.push(match path {
                    ForwardPath::Postmaster => "postmaster".into(),
                    ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
                });
                self.session.reply(Reply::new(250, EnhancedCode(2, 1, 5), "Recipient OK"));
            }
            Event::DataStart => self.session.reply(Reply::plain(354, "End with <CRLF>.<CRLF>")),
            Event::Content(octets) => self.body.extend_from_slice(&octets),
            Event::MessageEnd => {
                let reply = self.end(config, options).await;
                self.forget();
                self.session.reply(reply);
            }
            Event::Auth(_) => self.session.reply(Reply::new(502, EnhancedCode(5, 5, 1), "Nobody logs in here")),
            Event::MessageAborted { .. } | Event::Reset => self.forget(),
            Event::Vrfy(_) | Event::Quit | Event::Noop | Event::Refused(_) => {}
        }
    }

    fn forget(&mut self) {
        self.body = Vec::new();
        self.from.clear();
        self.to.clear();
    }

    async fn end(&mut self, config: &Config, options: &Options) -> Reply {
        let envelope = LocalEnvelope {
            from: options.sender.clone().unwrap_or_else(|| std::mem::take(&mut self.from)),
            to: std::mem::take(&mut self.to),
            login: login(),
            ..LocalEnvelope::default()
        };
        let handed = match Spool::from_bytes(&self.body) {
            Ok(mut spool) => hand_in(config, &envelope, &mut spool).await,
            Err(error) => Err(Failure::new(sysexits::TEMPORARY, format!("cannot keep the message: {error}"))),
        };
        match handed {
            Ok(()) => Reply::new(250, EnhancedCode(2, 0, 0), "The message is safe"),
            Err(failure) => match failure.code {
                sysexits::NO_USER => Reply::new(550, EnhancedCode(5, 1, 1), failure.to_string()),
                sysexits::REFUSED | sysexits::DATA => Reply::new(554, EnhancedCode(5, 7, 1), failure.to_string()),
                _ => Reply::new(451, EnhancedCode(4, 3, 0), failure.to_string()),
            },
        }
    }
}
