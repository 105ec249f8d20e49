//! One filter over one session: which step it is at, what it said, and what happens when it fails.

use std::time::Duration;

use pillarbox_config::Milter;
use pillarbox_smtp::{EnhancedCode, MailParams, Mailbox, Reply, ReversePath};

use super::chain::Refusal;
use super::connection::{Address, BadAddress, Connection};
use super::edit::{Changes, Message};
use super::macros::{Macros, Stage};
use super::options::step;
use super::wire::{CHUNK, Edit, Failure, Response, command, put};
use crate::replies;

/// A filter as configured.
#[derive(Debug, Clone)]
pub struct Settings {
    address: Address,
    /// What a failure means: 451, or as if it were not there.
    tempfail: bool,
    timeout: Duration,
}

impl Settings {
    /// Reads one of `screen.milter`.
    pub fn new(config: &Milter) -> Result<Self, BadAddress> {
        Ok(Self { address: config.address.parse()?, tempfail: config.on_failure != "accept", timeout: config.timeout })
    }
}

/// Octets of changes we take from one filter for one message, beyond the size of the message itself.
const CHANGES: usize = 4 << 20;

/// A filter and what it has said so far.
pub(super) struct Filter {
    settings: Settings,
    connection: Option<Connection>,
    /// It accepted the connection as a whole and wants to hear no more.
    done: bool,
    /// It refused the connection as a whole: every transaction gets this.
    refused: Option<Reply>,
    /// A transaction is open on its side.
    open: bool,
    /// It has not accepted the transaction already.
    listening: bool,
}

/// The decision on a step.
type Step = Result<(), Refusal>;

impl Filter {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, connection: None, done: false, refused: None, open: false, listening: false }
    }

    /// At MAIL: connects where there is no connection yet, and tells who is there.
    pub(super) async fn mail(&mut self, macros: &Macros<'_>, from: &ReversePath, params: &MailParams) -> Step {
        if let Some(reply) = &self.refused {
            return Err(Refusal::Reply(reply.clone()));
        }
        if self.done {
            return Ok(());
        }
        let asked = self.begin(macros, from, params).await;
        self.decide(asked)
    }

    async fn begin(&mut self, macros: &Macros<'_>, from: &ReversePath, params: &MailParams) -> Result<Response, Failure> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.settings.address, self.settings.timeout).await?);
            let mut greeted = self.connect(macros).await?;
            if matches!(greeted, Response::Continue | Response::Skip) {
                greeted = self.helo(macros).await?;
            }
            match greeted {
                Response::Continue | Response::Skip => {}
                Response::Accept => {
                    self.done = true;
                    return Ok(Response::Continue);
                }
                other => {
                    if let Err(Refusal::Reply(reply)) = refusal(&other)? {
                        self.refused = Some(reply);
                    }
                    return Ok(other);
                }
            }
        }
        (self.open, self.listening) = (true, true);
        let path = format!("<{from}>");
        let arguments = esmtp(params);
        let mut data: Vec<&[u8]> = vec![path.as_bytes(), b"\0"];
        for argument in &arguments {
            data.extend([argument.as_bytes(), b"\0"]);
        }
        self.ask(macros, Stage::Mail, command::MAIL, &data, step::NO_MAIL, step::MUTE_MAIL).await
    }

    async fn connect(&mut self, macros: &Macros<'_>) -> Result<Response, Failure> {
        let facts = macros.facts;
        let host = facts.rdns.clone().unwrap_or_else(|| format!("[{}]", facts.client));
        let family: &[u8] = if facts.client.is_ipv4() { b"4" } else { b"6" };
        let address = facts.client.to_string();
        let data = [host.as_bytes(), b"\0", family, &facts.client_port.to_be_bytes(), address.as_bytes(), b"\0"];
        self.ask(macros, Stage::Connect, command::CONNECT, &data, step::NO_CONNECT, step::MUTE_CONNECT).await
    }

    async fn helo(&mut self, macros: &Macros<'_>) -> Result<Response, Failure> {
        if macros.facts.helo.is_empty() {
            return Ok(Response::Continue);
        }
        let helo = macros.facts.helo.replace('\0', "");
        self.ask(macros, Stage::Helo, command::HELO, &[helo.as_bytes(), b"\0"], step::NO_HELO, step::MUTE_HELO).await
    }

    /// At RCPT.
    pub(super) async fn rcpt(&mut self, macros: &Macros<'_>, rcpt: &Mailbox) -> Step {
        if !self.listening {
            return Ok(());
        }
        let path = format!("<{rcpt}>");
        let asked = self.ask(macros, Stage::Rcpt, command::RCPT, &[path.as_bytes(), b"\0"], step::NO_RCPT, step::MUTE_RCPT).await;
        self.decide(asked)
    }

    /// At the end of DATA: sends the message, and makes the changes it asks for.
    pub(super) async fn message(&mut self, macros: &Macros<'_>, message: &mut Message, changes: &mut Changes) -> Step {
        if !self.listening {
            return Ok(());
        }
        let asked = self.content(macros, message, changes).await;
        (self.open, self.listening) = (false, false);
        self.decide(asked)
    }

    async fn content(&mut self, macros: &Macros<'_>, message: &mut Message, changes: &mut Changes) -> Result<Response, Failure> {
        let response = self.ask(macros, Stage::Data, command::DATA, &[], step::NO_DATA, step::MUTE_DATA).await?;
        if response != Response::Continue {
            return self.early(response).await;
        }
        let leading_space = self.connection()?.options.has(step::LEADING_SPACE);
        if !self.connection()?.options.has(step::NO_HEADERS) {
            for line in message.lines.iter().filter(|line| !line.name.is_empty()) {
                let value: Vec<u8> = line.value.iter().copied().filter(|octet| !matches!(octet, 0 | b'\r')).collect();
                let value = if leading_space { &value } else { value.strip_prefix(b" ").unwrap_or(&value) };
                let data = [&line.name[..], b"\0", value, b"\0"];
                let response = self.tell(command::HEADER, &data, step::MUTE_HEADERS).await?;
                if response != Response::Continue {
                    return self.early(response).await;
                }
            }
        }
        let response =
            self.ask(macros, Stage::EndOfHeader, command::END_OF_HEADER, &[], step::NO_END_OF_HEADER, step::MUTE_END_OF_HEADER).await?;
        if response != Response::Continue {
            return self.early(response).await;
        }
        if !self.connection()?.options.has(step::NO_BODY) {
            for chunk in message.body().chunks(CHUNK) {
                match self.tell(command::BODY, &[chunk], step::MUTE_BODY).await? {
                    Response::Continue => {}
                    Response::Skip => break,
                    response => return self.early(response).await,
                }
            }
        }
        self.end(macros, message, changes).await
    }

    /// Ends the message: changes come first, then the decision, which says whether they count.
    async fn end(&mut self, macros: &Macros<'_>, message: &mut Message, changes: &mut Changes) -> Result<Response, Failure> {
        let room = CHANGES.saturating_add(message.body().len().saturating_mul(2));
        let connection = self.connection.as_mut().ok_or(Failure::Shutdown)?;
        let leading_space = connection.options.has(step::LEADING_SPACE);
        let options = connection.options.clone();
        macros.put(connection.out(), &options, Stage::EndOfMessage);
        put(connection.out(), command::END_OF_MESSAGE, &[]);
        let (mut edits, mut size) = (Vec::new(), 0_usize);
        let decision = loop {
            match connection.answer().await? {
                Response::Edit(edit) => {
                    size = size.saturating_add(64).saturating_add(length(&edit));
                    if size > room {
                        return Err(Failure::Garbage("too many changes"));
                    }
                    edits.push(edit);
                }
                decision => break decision,
            }
        };
        if matches!(decision, Response::Continue | Response::Accept) {
            message.apply(edits, leading_space, changes)?;
        }
        Ok(decision)
    }

    /// A decision before the end of the message: the filter has to be told that the rest does not come.
    async fn early(&mut self, response: Response) -> Result<Response, Failure> {
        let connection = self.connection()?;
        put(connection.out(), command::ABORT, &[]);
        connection.flush().await?;
        Ok(response)
    }

    /// Sends a stage's macros and command, and waits for the answer, each unless the filter said that it wants none.
    async fn ask(
        &mut self,
        macros: &Macros<'_>,
        stage: Stage,
        command: u8,
        data: &[&[u8]],
        no: u32,
        mute: u32,
    ) -> Result<Response, Failure> {
        let connection = self.connection()?;
        if connection.options.has(no) {
            return Ok(Response::Continue);
        }
        let options = connection.options.clone();
        macros.put(connection.out(), &options, stage);
        self.tell(command, data, mute).await
    }

    async fn tell(&mut self, command: u8, data: &[&[u8]], mute: u32) -> Result<Response, Failure> {
        let connection = self.connection()?;
        put(connection.out(), command, data);
        if connection.options.has(mute) {
            if connection.out().len() >= CHUNK {
                connection.flush().await?;
            }
            return Ok(Response::Continue);
        }
        connection.answer().await
    }

    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        self.connection.as_mut().ok_or(Failure::Shutdown)
    }

    /// Turns an answer into a decision; a failure ends the connection and counts as `on_failure` says.
    fn decide(&mut self, asked: Result<Response, Failure>) -> Step {
        let decided = asked.and_then(|response| {
            if response == Response::Accept {
                self.listening = false;
            }
            refusal(&response)
        });
        decided.unwrap_or_else(|failure| {
            tracing::warn!(milter = %self.settings.address, error = %failure, "a milter failed");
            metrics::counter!("pillarbox_screen_milter_failures_total", "milter" => self.settings.address.to_string()).increment(1);
            self.connection = None;
            (self.open, self.listening) = (false, false);
            if self.settings.tempfail { Err(Refusal::Reply(replies::milter_tempfail())) } else { Ok(()) }
        })
    }

    /// The transaction ended without a message.
    pub(super) async fn reset(&mut self) {
        self.listening = false;
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Ok(connection) = self.connection() {
            put(connection.out(), command::ABORT, &[]);
            if connection.flush().await.is_err() {
                self.connection = None;
            }
        }
    }

    /// The session ended, or a new HELO or TLS began it anew.
    pub(super) async fn quit(&mut self) {
        (self.done, self.refused) = (false, None);
        (self.open, self.listening) = (false, false);
        if let Some(connection) = self.connection.take() {
            connection.quit().await;
        }
    }
}

/// What an answer means for the transaction.
fn refusal(response: &Response) -> Result<Step, Failure> {
    Ok(match response {
        Response::Continue | Response::Accept | Response::Skip | Response::Progress => Ok(()),
        Response::Reject => Err(Refusal::Reply(replies::milter_reject())),
        Response::TempFail => Err(Refusal::Reply(replies::milter_tempfail())),
        Response::Discard => Err(Refusal::Discard),
        Response::ReplyCode(text) => Err(Refusal::Reply(reply(text)?)),
        Response::Shutdown => return Err(Failure::Shutdown),
        Response::Edit(_) => return Err(Failure::Garbage("a change before the end of the message")),
    })
}

/// A filter's own reply: `550 5.7.1 text`, perhaps of several lines `550-…`. Only 4xx and 5xx; the text is made printable.
fn reply(text: &[u8]) -> Result<Reply, Failure> {
    let bad = Failure::Garbage("a malformed reply");
    let text = String::from_utf8_lossy(text);
    let mut lines = Vec::new();
    let (mut code, mut enhanced) = (0_u16, None);
    for line in text.lines().take(20) {
        let Some(digits) = line.get(..3).and_then(|digits| digits.parse::<u16>().ok()) else { return Err(bad) };
        if !(400..600).contains(&digits) || (code != 0 && code != digits) {
            return Err(bad);
        }
        code = digits;
        let mut rest = line.get(4..).unwrap_or_default();
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(found) = enhanced_code(first, digits) {
            enhanced = Some(found);
            rest = after;
        }
        lines.push(rest.chars().filter(|c| !c.is_control()).take(400).collect::<String>());
    }
    let default = if code >= 500 { EnhancedCode(5, 7, 1) } else { EnhancedCode(4, 7, 1) };
    if code == 0 { Err(bad) } else { Ok(Reply { code, enhanced: Some(enhanced.unwrap_or(default)), lines }) }
}

fn enhanced_code(text: &str, code: u16) -> Option<EnhancedCode> {
    let mut parts = text.split('.').map(str::parse::<u16>);
    let (Some(Ok(class)), Some(Ok(subject)), Some(Ok(detail)), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    (class == code / 100 && subject < 1000 && detail < 1000).then_some(EnhancedCode(u8::try_from(class).ok()?, subject, detail))
}

/// MAIL's parameters as the filter may want to see them.
fn esmtp(params: &MailParams) -> Vec<String> {
    let mut arguments = Vec::new();
    if let Some(size) = params.size {
        arguments.push(format!("SIZE={size}"));
    }
    match params.body {
        pillarbox_smtp::BodyType::SevenBit => {}
        pillarbox_smtp::BodyType::EightBitMime => arguments.push("BODY=8BITMIME".to_owned()),
        pillarbox_smtp::BodyType::BinaryMime => arguments.push("BODY=BINARYMIME".to_owned()),
    }
    if params.smtputf8 {
        arguments.push("SMTPUTF8".to_owned());
    }
    arguments
}

fn length(edit: &Edit) -> usize {
    match edit {
        Edit::AddHeader { name, value } | Edit::InsertHeader { name, value, .. } | Edit::ChangeHeader { name, value, .. } => {
            name.len() + value.len()
        }
        Edit::ChangeFrom(text)
        | Edit::AddRecipient(text)
        | Edit::RemoveRecipient(text)
        | Edit::ReplaceBody(text)
        | Edit::Quarantine(text) => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filters_reply_is_made_safe() {
        let one = reply(b"550 5.7.1 Spam\x1b[31m message").unwrap();
        assert_eq!(one, Reply::new(550, EnhancedCode(5, 7, 1), "Spam[31m message"));
        let two = reply(b"451-4.7.0 a\r\n451 4.7.0 b").unwrap();
        assert_eq!((two.code, two.enhanced, two.lines.join("|")), (451, Some(EnhancedCode(4, 7, 0)), "a|b".into()));
        assert_eq!(reply(b"550 no code").unwrap(), Reply::new(550, EnhancedCode(5, 7, 1), "no code"));
        assert_eq!(reply(b"450 5.1.1 mixed").unwrap().enhanced, Some(EnhancedCode(4, 7, 1)));
        for bad in [&b""[..], b"250 ok", b"xyz", b"600 x", b"550-a\r\n450 b"] {
            assert!(reply(bad).is_err(), "{bad:?}");
        }
    }
}
