//! The message itself: DATA, BDAT, its end and the answers to it.

use bytes::{Bytes, BytesMut};

use super::command::parse_bdat;
use super::event::{Abort, Event, Step};
use super::{Phase, Role, ServerSession, Wait};
use crate::content::{ChunkCheck, ContentRules, DataDecoder, Decoded};
use crate::params::BodyType;
use crate::replies;
use crate::reply::Reply;

/// A message that comes by BDAT.
#[derive(Debug)]
pub(super) struct Chunks {
    check: ChunkCheck,
    /// It was refused; the client has been told.
    failed: bool,
}

/// One chunk.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Octets still to come.
    remaining: u64,
    /// Octets announced.
    size: u64,
    last: bool,
    /// The octets are skipped and this is said at the end.
    refusal: Option<Reply>,
    /// The driver must be told that the body it gathers is lost.
    abort: Option<Abort>,
}

impl ServerSession {
    fn content_rules(&self) -> ContentRules {
        let config = &self.config;
        ContentRules {
            max_size: config.limits.message_size,
            max_line: config.limits.text_line,
            bare_line_ends: config.bare_line_ends,
            nul: config.nul,
        }
    }

    /// Why no message may come now.
    fn message_refusal(&self) -> Option<Reply> {
        if self.transaction.from.is_none() {
            Some(replies::need_mail())
        } else if !self.transaction.recipients.is_empty() {
            None
        } else if self.rcpt_tried {
            Some(replies::no_valid_recipients())
        } else {
            Some(replies::need_rcpt())
        }
    }

    /// Whether such a refusal counts as an error of the client's. In a pipelined group it may be the outcome of what was refused
    /// before.
    pub(super) fn is_fault(&self, reply: &Reply) -> bool {
        matches!(reply.code, 500..=503) && !self.mail_refused && self.chunks.is_none()
    }

    pub(super) fn data(&mut self, input: &mut BytesMut) -> Option<Step> {
        if let Some(reply) = self.message_refusal() {
            return self.refuse_in_group(reply);
        }
        if self.chunks.is_some() {
            return self.fault(replies::between_chunks());
        }
        if self.transaction.params.body == BodyType::BinaryMime {
            return self.fault(replies::binary_needs_bdat());
        }
        if !input.is_empty() {
            return self.early_data(input, false);
        }
        self.phase = Phase::Waiting(Wait::Data);
        Some(Step::Event(Event::DataStart))
    }

    /// The driver said 354.
    pub(super) fn begin_data(&mut self, reply: &Reply) {
        self.say(reply);
        let decoder = Box::new(DataDecoder::new(self.content_rules()));
        self.phase = Phase::Data { decoder, fresh: true };
    }

    pub(super) fn poll_data(&mut self, input: &mut BytesMut) -> Option<Step> {
        let Phase::Data { decoder, fresh } = &mut self.phase else { return None };
        if *fresh {
            match (self.output.is_empty(), input.is_empty()) {
                // 354 is still here, and yet the client has spoken.
                (false, false) => return self.early_data(input, true),
                (false, true) => return Some(Step::NeedInput),
                (true, _) => *fresh = false,
            }
        }
        match decoder.decode(input) {
            Decoded::NeedInput => Some(Step::NeedInput),
            Decoded::Content(octets) => Some(Step::Event(Event::Content(octets))),
            Decoded::End => {
                self.phase = Phase::Complete;
                None
            }
            Decoded::Aborted { why, must_close } => {
                let reply = self.abort_reply(why);
                self.say_for_each_recipient(&reply);
                self.reset_transaction();
                self.phase = if must_close || why == Abort::BareLineEnd { Phase::Closed } else { Phase::Command };
                Some(Step::Event(Event::MessageAborted { why }))
            }
        }
    }

    fn abort_reply(&self, why: Abort) -> Reply {
        match why {
            Abort::TooLarge => replies::message_too_large(),
            Abort::BareLineEnd => replies::bare_line_end(),
            Abort::LineTooLong => replies::text_line_too_long(self.config.limits.text_line),
            Abort::Nul => replies::nul_in_message(),
            Abort::EarlyData => replies::early_data(),
        }
    }

    /// LMTP answers once a recipient (RFC 2033 §4.2), SMTP once.
    fn say_for_each_recipient(&mut self, reply: &Reply) {
        let count = if self.config.role == Role::Lmtp { self.transaction.recipients.len().max(1) } else { 1 };
        (0..count).for_each(|_| self.say(reply));
    }

    pub(super) fn bdat(&mut self, argument: &str) -> Option<Step> {
        let Some((size, last)) = parse_bdat(argument) else { return self.fault(replies::syntax("BDAT size [LAST]")) };
        let chunk = |refusal, abort| Phase::Chunk(Chunk { remaining: size, size, last, refusal, abort });
        let order = self.gate().or_else(|| self.message_refusal());
        let refusal = if self.config.extensions.chunking { order } else { Some(replies::not_implemented()) };
        if let Some(reply) = refusal {
            self.phase = chunk(Some(reply), None);
            return None;
        }
        match &mut self.chunks {
            None => {
                self.phase = Phase::Waiting(Wait::FirstChunk { size, last });
                Some(Step::Event(Event::DataStart))
            }
            Some(chunks) if chunks.failed => {
                self.phase = chunk(Some(replies::chunk_after_failure()), None);
                None
            }
            Some(_) => {
                self.next_chunk(size, last);
                None
            }
        }
    }

    /// The driver answered the first chunk: 354 or its refusal.
    pub(super) fn begin_chunks(&mut self, size: u64, last: bool, reply: &Reply) {
        let binary = self.transaction.params.body == BodyType::BinaryMime;
        let accepted = reply.code == 354;
        if reply.code == 421 {
            return self.say(reply);
        }
        self.chunks = Some(Chunks { check: ChunkCheck::new(self.content_rules(), binary), failed: !accepted });
        self.transaction.chunking = true;
        if accepted {
            self.next_chunk(size, last);
        } else {
            self.phase = Phase::Chunk(Chunk { remaining: size, size, last, refusal: Some(reply.clone()), abort: None });
        }
    }

    fn next_chunk(&mut self, size: u64, last: bool) {
        let mut chunk = Chunk { remaining: size, size, last, refusal: None, abort: None };
        if let Some(chunks) = &mut self.chunks
            && !chunks.check.announce(size)
        {
            chunk.refusal = Some(replies::message_too_large());
            chunk.abort = Some(Abort::TooLarge);
            chunks.failed = true;
        }
        self.phase = Phase::Chunk(chunk);
    }

    pub(super) fn poll_chunk(&mut self, input: &mut BytesMut) -> Option<Step> {
        let Phase::Chunk(chunk) = &mut self.phase else { return None };
        if chunk.remaining == 0 {
            return self.end_of_chunk();
        }
        if input.is_empty() {
            return Some(Step::NeedInput);
        }
        let count = usize::try_from(chunk.remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
        chunk.remaining = chunk.remaining.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        let octets = input.split_to(count).freeze();
        match (&chunk.refusal, &mut self.chunks) {
            (None, Some(chunks)) => chunks.check.take(octets).map(|octets: Bytes| Step::Event(Event::Content(octets))),
            _ => None,
        }
    }

    fn end_of_chunk(&mut self) -> Option<Step> {
        let Phase::Chunk(chunk) = std::mem::replace(&mut self.phase, Phase::Command) else { return None };
        let Chunk { size, last, mut refusal, mut abort, .. } = chunk;
        let mut rest = None;
        if let (None, Some(chunks)) = (&refusal, &mut self.chunks) {
            let checked = if last { chunks.check.finish() } else { chunks.check.spoilt().map_or(Ok(None), Err) };
            match checked {
                Ok(octets) => rest = octets,
                Err(why) => {
                    chunks.failed = true;
                    abort = Some(why);
                }
            }
        }
        if let (None, Some(why)) = (&refusal, abort) {
            refusal = Some(self.abort_reply(why));
        }
        match refusal {
            Some(reply) => self.refuse_chunk(&reply, last, abort),
            None if last => {
                self.phase = Phase::Complete;
                rest.map(|octets| Step::Event(Event::Content(octets)))
            }
            None => {
                self.say(&replies::chunk_ok(size));
                None
            }
        }
    }

    fn refuse_chunk(&mut self, reply: &Reply, last: bool, abort: Option<Abort>) -> Option<Step> {
        if abort.is_none() && self.is_fault(reply) {
            self.count_error();
        }
        if last {
            self.say_for_each_recipient(reply);
            // The message has had its end (RFC 3030 §2), unless it never began.
            if self.chunks.is_some() {
                self.reset_transaction();
            }
        } else {
            self.say(reply);
        }
        if matches!(self.phase, Phase::Closed) {
            let closing = replies::too_many_errors();
            self.say(&closing);
        }
        Some(Step::Event(match abort {
            Some(why) => Event::MessageAborted { why },
            None => Event::Refused(reply.clone()),
        }))
    }

    /// The driver's answer to a complete message; LMTP has `left` of them.
    pub(super) fn message_reply(&mut self, left: usize, reply: &Reply) {
        self.say(reply);
        if reply.is_positive() {
            self.counters.idle = 0;
        }
        if left > 1 {
            self.phase = Phase::Waiting(Wait::MessageEnd { left: left - 1 });
        } else {
            self.reset_transaction();
            self.phase = Phase::Command;
        }
    }
}
