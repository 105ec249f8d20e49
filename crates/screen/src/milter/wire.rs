//! Packets: a length, a letter, data. Bounded both ways.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest chunk of a body in one packet, as every libmilter takes it.
pub(super) const CHUNK: usize = 65_535;
/// Largest packet we take from a filter: body chunks of 64 KiB, long header fields, with room to spare.
const LARGEST: u32 = 1 << 20;

/// Commands to the filter.
pub(super) mod command {
    pub(crate) const OPTIONS: u8 = b'O';
    pub(crate) const MACROS: u8 = b'D';
    pub(crate) const CONNECT: u8 = b'C';
    pub(crate) const HELO: u8 = b'H';
    pub(crate) const MAIL: u8 = b'M';
    pub(crate) const RCPT: u8 = b'R';
    pub(crate) const DATA: u8 = b'T';
    pub(crate) const HEADER: u8 = b'L';
    pub(crate) const END_OF_HEADER: u8 = b'N';
    pub(crate) const BODY: u8 = b'B';
    pub(crate) const END_OF_MESSAGE: u8 = b'E';
    pub(crate) const ABORT: u8 = b'A';
    pub(crate) const QUIT: u8 = b'Q';
}

/// What a filter may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response {
    Continue,
    Accept,
    Reject,
    TempFail,
    Discard,
    Skip,
    Progress,
    /// A reply in the filter's own words: `550 5.7.1 text`.
    ReplyCode(Vec<u8>),
    /// It goes away.
    Shutdown,
    Edit(Edit),
}

/// A change to the message, sent at the end of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    AddHeader {
        name: Vec<u8>,
        value: Vec<u8>,
    },
    InsertHeader {
        index: u32,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// `index` counts fields of this name from 1; an empty value removes the field.
    ChangeHeader {
        index: u32,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    ChangeFrom(Vec<u8>),
    AddRecipient(Vec<u8>),
    RemoveRecipient(Vec<u8>),
    /// A piece of the new body.
    ReplaceBody(Vec<u8>),
    Quarantine(Vec<u8>),
}

/// What went wrong with a filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("it does not speak the protocol: {0}")]
    Garbage(&'static str),
    #[error("it went away")]
    Shutdown,
}

/// Appends a packet.
pub(super) fn put(out: &mut Vec<u8>, command: u8, data: &[&[u8]]) {
    let length = 1 + data.iter().map(|piece| piece.len()).sum::<usize>();
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.push(command);
    for piece in data {
        out.extend_from_slice(piece);
    }
}

/// Reads one packet: its letter and its data.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>), Failure> {
    let length = stream.read_u32().await?;
    if length == 0 || length > LARGEST {
        return Err(Failure::Garbage("an impossible packet length"));
    }
    let letter = stream.read_u8().await?;
    // Grows with what really comes, not with what is announced.
    let mut data = Vec::new();
    let expected = u64::from(length - 1);
    if (&mut *stream).take(expected).read_to_end(&mut data).await? as u64 != expected {
        return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((letter, data))
}

/// Understands an answer.
pub(super) fn parse(letter: u8, data: Vec<u8>) -> Result<Response, Failure> {
    let edit = |edit| Ok(Response::Edit(edit));
    match letter {
        b'c' => Ok(Response::Continue),
        b'a' => Ok(Response::Accept),
        b'r' => Ok(Response::Reject),
        b't' => Ok(Response::TempFail),
        b'd' => Ok(Response::Discard),
        b's' => Ok(Response::Skip),
        b'p' => Ok(Response::Progress),
        b'4' | b'f' => Ok(Response::Shutdown),
        b'y' => Ok(Response::ReplyCode(strings::<1>(&data)?.0[0].to_vec())),
        b'h' => {
            let ([name, value], _) = strings(&data)?;
            edit(Edit::AddHeader { name: name.to_vec(), value: value.to_vec() })
        }
        b'i' | b'm' => {
            let (index, rest) = number(&data)?;
            let ([name, value], _) = strings(rest)?;
            let (name, value) = (name.to_vec(), value.to_vec());
            edit(if letter == b'i' { Edit::InsertHeader { index, name, value } } else { Edit::ChangeHeader { index, name, value } })
        }
        b'e' => edit(Edit::ChangeFrom(strings::<1>(&data)?.0[0].to_vec())),
        // '2' carries ESMTP parameters after the address; the address is what matters here.
        b'+' | b'2' => edit(Edit::AddRecipient(strings::<1>(&data)?.0[0].to_vec())),
        b'-' => edit(Edit::RemoveRecipient(strings::<1>(&data)?.0[0].to_vec())),
        b'b' => edit(Edit::ReplaceBody(data)),
        b'q' => edit(Edit::Quarantine(strings::<1>(&data)?.0[0].to_vec())),
        _ => Err(Failure::Garbage("an unknown answer")),
    }
}

/// Takes `N` NUL-terminated strings off the front.
pub(super) fn strings<const N: usize>(data: &[u8]) -> Result<([&[u8]; N], &[u8]), Failure> {
    let mut found = [&[][..]; N];
    let mut rest = data;
    for slot in &mut found {
        let end = memchr::memchr(0, rest).ok_or(Failure::Garbage("a string without an end"))?;
        *slot = rest.get(..end).unwrap_or_default();
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok((found, rest))
}

/// Takes a number off the front.
pub(super) fn number(data: &[u8]) -> Result<(u32, &[u8]), Failure> {
    let (bytes, rest) = data.split_first_chunk::<4>().ok_or(Failure::Garbage("a number cut short"))?;
    Ok((u32::from_be_bytes(*bytes), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn packets_survive_a_round_trip() {
        let mut out = Vec::new();
        put(&mut out, b'h', &[b"X\0", b"y\0"]);
        let (letter, data) = read(&mut out.as_slice()).await.unwrap();
        assert_eq!(parse(letter, data).unwrap(), Response::Edit(Edit::AddHeader { name: b"X".to_vec(), value: b"y".to_vec() }));
    }

    #[tokio::test]
    async fn impossible_lengths_cost_nothing() {
        for bytes in [&[0, 0, 0, 0, b'c'][..], &[0xff, 0xff, 0xff, 0xff, b'c'], &[0, 0, 0, 9, b'c', 1]] {
            assert!(read(&mut &*bytes).await.is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_understood_or_refused(letter: u8, data: Vec<u8>) {
            let _ = parse(letter, data);
        }
    }
}
