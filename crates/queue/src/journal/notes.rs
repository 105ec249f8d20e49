//! What records say: the payloads of each kind.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::record::{Kind, u32_at, u64_at};
use crate::envelope::{Envelope, Recipient, Status};
use crate::id::QueueId;

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub(crate) generation: u64,
    pub(crate) offset: u64,
}

/// Who writes a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The kernel's boot, so that a replay knows whether what was written without a sync is still there.
    pub(crate) boot: String,
    /// No id up to this one is given out again.
    pub(crate) last_id: u64,
    /// The program's version, for people.
    pub(crate) version: String,
}

/// The file that holds a body which is not in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRef {
    /// Its name in `spool/`.
    pub(crate) name: String,
    pub(crate) len: u64,
    /// CRC-32C of its content.
    pub(crate) crc: u32,
}

/// A short record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    /// The fates of recipients, by their index in the envelope.
    Settled(QueueId, Vec<(u16, Status)>),
    /// Recipients appended to the envelope.
    Added(QueueId, Vec<Recipient>),
    /// Files under `deferred/` stand for the message from here on.
    Parked(QueueId),
    /// Everything delivered before this position is on disk.
    Synced(Position),
    /// See [`Start`].
    Start(Start),
}

/// A message as the journal holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MessageRecord<'a> {
    pub(crate) id: QueueId,
    /// JSON, parsed only when the message turns out to be unfinished.
    pub(crate) envelope: &'a [u8],
    /// For [`Kind::Message`] the body, for [`Kind::FileMessage`] the reference and what stands before the file's content.
    pub(crate) rest: &'a [u8],
    /// Where `rest` begins in the payload.
    pub(crate) rest_at: usize,
}

/// Puts the front of a message record together: all but the body.
pub(crate) fn message_head(envelope: &Envelope, file: Option<&FileRef>) -> serde_json::Result<Bytes> {
    let mut out = BytesMut::with_capacity(1024).writer();
    let len_at = {
        let out = out.get_mut();
        out.put_u64_le(envelope.id.0);
        let at = out.len();
        out.put_u32_le(0);
        at
    };
    serde_json::to_writer(&mut out, envelope)?;
    let len = out.get_ref().len().saturating_sub(len_at + 4);
    if let Some(slot) = out.get_mut().get_mut(len_at..len_at + 4) {
        slot.copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    }
    if let Some(file) = file {
        let json = serde_json::to_vec(file)?;
        out.get_mut().put_u32_le(u32::try_from(json.len()).unwrap_or(u32::MAX));
        out.get_mut().extend_from_slice(&json);
    }
    Ok(out.into_inner().freeze())
}

/// Takes a message record apart. `None` when it does not hold together, which its CRC makes a mistake of ours and not of the disk.
pub(crate) fn parse_message(payload: &[u8]) -> Option<MessageRecord<'_>> {
    let id = QueueId(u64_at(payload, 0)?);
    let len = u32_at(payload, 8)? as usize;
    let rest_at = len.checked_add(12)?;
    Some(MessageRecord { id, envelope: payload.get(12..rest_at)?, rest: payload.get(rest_at..)?, rest_at })
}

/// Takes `rest` of a [`Kind::FileMessage`] apart: the reference, and what stands before the file's content.
pub(crate) fn parse_file_ref(rest: &[u8]) -> Option<(FileRef, &[u8])> {
    let len = u32_at(rest, 0)? as usize;
    let end = len.checked_add(4)?;
    Some((serde_json::from_slice(rest.get(4..end)?).ok()?, rest.get(end..)?))
}

impl Note {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Settled(..) => Kind::Settled,
            Self::Added(..) => Kind::Added,
            Self::Parked(_) => Kind::Parked,
            Self::Synced(_) => Kind::Synced,
            Self::Start(_) => Kind::Start,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        match self {
            Self::Settled(id, fates) => {
                out.put_u64_le(id.0);
                for (index, status) in fates {
                    out.put_u16_le(*index);
                    out.put_u8(status_byte(*status));
                }
            }
            Self::Added(id, recipients) => {
                out.put_u64_le(id.0);
                // Serialising plain data into memory cannot fail; an empty list would be refused at replay and nowhere else.
                out.extend_from_slice(&serde_json::to_vec(recipients).unwrap_or_default());
            }
            Self::Parked(id) => out.put_u64_le(id.0),
            Self::Synced(position) => {
                out.put_u64_le(position.generation);
                out.put_u64_le(position.offset);
            }
            Self::Start(start) => out.extend_from_slice(&serde_json::to_vec(start).unwrap_or_default()),
        }
        out
    }

    /// Reads what [`Note::encode`] wrote.
    pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Option<Self> {
        let id = || Some(QueueId(u64_at(payload, 0)?));
        Some(match kind {
            Kind::Settled => {
                let fates = payload.get(8..)?.chunks(3).map(|fate| match fate {
                    [low, high, status] => Some((u16::from_le_bytes([*low, *high]), status_of(*status)?)),
                    _ => None,
                });
                Self::Settled(id()?, fates.collect::<Option<_>>()?)
            }
            Kind::Added => Self::Added(id()?, serde_json::from_slice(payload.get(8..)?).ok()?),
            Kind::Parked => Self::Parked(id()?),
            Kind::Synced => Self::Synced(Position { generation: u64_at(payload, 0)?, offset: u64_at(payload, 8)? }),
            Kind::Start => Self::Start(serde_json::from_slice(payload).ok()?),
            Kind::Message | Kind::FileMessage | Kind::End => return None,
        })
    }
}

const STATUSES: [Status; 6] = [Status::Pending, Status::Held, Status::Delivered, Status::Relayed, Status::Failed, Status::Removed];

fn status_byte(status: Status) -> u8 {
    STATUSES.iter().zip(0u8..).find(|(s, _)| **s == status).map_or(0, |(_, n)| n)
}

fn status_of(byte: u8) -> Option<Status> {
    STATUSES.get(usize::from(byte)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_smtp::ReversePath;
    use proptest::prelude::*;

    #[test]
    fn notes_come_back() {
        let recipient = Recipient::new("a@b.example".parse().unwrap(), crate::Route::Relay);
        let all: Vec<(u16, Status)> = STATUSES.iter().zip(0..).map(|(s, n)| (n * 9000, *s)).collect();
        for note in [
            Note::Settled(QueueId(5), vec![]),
            Note::Settled(QueueId(5), all),
            Note::Added(QueueId(u64::MAX), vec![recipient]),
            Note::Parked(QueueId(6)),
            Note::Synced(Position { generation: 3, offset: 1 << 33 }),
            Note::Start(Start { boot: "x".into(), last_id: 4, version: "1".into() }),
        ] {
            assert_eq!(Note::decode(note.kind(), &note.encode()), Some(note));
        }
    }

    #[test]
    fn messages_come_back() {
        let envelope = Envelope::new(QueueId(9), ReversePath::Null, vec![]);
        let file = FileRef { name: "n".into(), len: 1 << 40, crc: 7 };
        for (file, tail) in [(None, &b"body"[..]), (Some(file), b"prefix")] {
            let mut payload = message_head(&envelope, file.as_ref()).unwrap().to_vec();
            payload.extend_from_slice(tail);
            let record = parse_message(&payload).unwrap();
            assert_eq!(record.id, envelope.id);
            assert_eq!(serde_json::from_slice::<Envelope>(record.envelope).unwrap(), envelope);
            match file {
                None => assert_eq!(record.rest, tail),
                Some(file) => assert_eq!(parse_file_ref(record.rest), Some((file, tail))),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_on_garbage(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            _ = parse_message(&payload);
            _ = parse_file_ref(&payload);
            for kind in [Kind::Settled, Kind::Added, Kind::Parked, Kind::Synced, Kind::Start, Kind::End] {
                _ = Note::decode(kind, &payload);
            }
        }
    }
}
