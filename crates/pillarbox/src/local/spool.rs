//! A message from standard input, kept until it is safe elsewhere: in memory while small, else in an unnamed temporary file.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use futures::Stream;
use pillarbox_message::lines::ToCrlf;
use tempfile::SpooledTempFile;

/// Messages up to this size stay in memory.
const MEMORY: usize = 1 << 20;
/// Longest piece of a line looked at in one go.
const PIECE: u64 = 64 * 1024;
/// Octets handed on at a time.
const CHUNK: usize = 64 * 1024;
/// How much of a header is looked at.
const HEADER: u64 = 1 << 20;

/// A whole message with CRLF line ends.
pub(crate) struct Spool {
    file: SpooledTempFile,
    /// Stands instead of the first `from` octets.
    prefix: Vec<u8>,
    from: u64,
}

impl Spool {
    /// Reads all of `input` and turns whatever ends its lines into CRLF. With `dot_ends`, a line of a single dot ends the message.
    pub(crate) fn read(input: impl Read, dot_ends: bool) -> io::Result<Self> {
        let mut input = io::BufReader::with_capacity(CHUNK, input);
        let mut file = SpooledTempFile::new(MEMORY);
        let (mut piece, mut out, mut converter) = (Vec::new(), Vec::new(), ToCrlf::default());
        let mut at_line_start = true;
        loop {
            piece.clear();
            if input.by_ref().take(PIECE).read_until(b'\n', &mut piece)? == 0 {
                break;
            }
            if dot_ends && at_line_start && matches!(piece.as_slice(), b".\n" | b".\r\n" | b".") {
                break;
            }
            at_line_start = piece.ends_with(b"\n");
            out.clear();
            converter.push(&piece, &mut out);
            file.write_all(&out)?;
        }
        out.clear();
        converter.finish(&mut out);
        if !at_line_start && !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
        file.write_all(&out)?;
        Ok(Self { file, prefix: Vec::new(), from: 0 })
    }

    /// A message in hand.
    pub(crate) fn from_bytes(message: &[u8]) -> io::Result<Self> {
        let mut file = SpooledTempFile::new(MEMORY);
        file.write_all(message)?;
        Ok(Self { file, prefix: Vec::new(), from: 0 })
    }

    /// The beginning of the message, which holds any sensible header section whole.
    pub(crate) fn beginning(&mut self) -> io::Result<Vec<u8>> {
        let mut out = self.prefix.clone();
        self.file.seek(SeekFrom::Start(self.from))?;
        Read::by_ref(&mut self.file).take(HEADER).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Puts `head` in the place of the first `octets`.
    pub(crate) fn replace_beginning(&mut self, octets: u64, head: Vec<u8>) {
        self.from = octets;
        self.prefix = head;
    }

    /// Writes `line` and then the message.
    pub(crate) fn write_to(&mut self, line: &[u8], out: &mut impl Write) -> io::Result<()> {
        out.write_all(line)?;
        out.write_all(&self.prefix)?;
        self.file.seek(SeekFrom::Start(self.from))?;
        io::copy(&mut self.file, out).map(drop)
    }

    /// `line` and then the message, in pieces; a local disk is read, so the pieces come at once.
    pub(crate) fn stream(&mut self, line: Vec<u8>) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        self.file.seek(SeekFrom::Start(self.from))?;
        let head = [line.as_slice(), &self.prefix].concat();
        // The file is read again from the start should this way fail, so it is lent out as a second handle.
        let reader: Box<dyn Read + Send> = match self.file.second_reader()? {
            Copy::Memory(bytes) => Box::new(io::Cursor::new(bytes)),
            Copy::File(file) => Box::new(file),
        };
        let rest = futures::stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            let mut chunk = vec![0; CHUNK];
            match reader.read(&mut chunk) {
                Ok(0) => None,
                Ok(n) => {
                    chunk.truncate(n);
                    Some((Ok(Bytes::from(chunk)), Some(reader)))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(futures::StreamExt::chain(futures::stream::once(async move { Ok(Bytes::from(head)) }), rest))
    }
}

/// What a spool's content is copied as.
enum Copy {
    Memory(Vec<u8>),
    File(std::fs::File),
}

/// A second reader of a spooled file.
trait SecondReader {
    fn second_reader(&mut self) -> io::Result<Copy>;
}

impl SecondReader for SpooledTempFile {
    fn second_reader(&mut self) -> io::Result<Copy> {
        if !self.is_rolled() {
            let mut bytes = Vec::new();
            self.read_to_end(&mut bytes)?;
            return Ok(Copy::Memory(bytes));
        }
        // Both handles share one offset: this one is read to its end before the spool is used again.
        let mut copy = tempfile::tempfile()?;
        io::copy(self, &mut copy)?;
        copy.seek(SeekFrom::Start(0))?;
        Ok(Copy::File(copy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    fn text(input: &[u8], dot_ends: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Spool::read(input, dot_ends).unwrap().write_to(b"", &mut out).unwrap();
        out
    }

    #[test]
    fn line_ends_become_crlf_and_a_dot_ends_only_when_asked() {
        assert_eq!(text(b"a\nb\r\n.\nc", true), b"a\r\nb\r\n");
        assert_eq!(text(b"a\n.\nc", false), b"a\r\n.\r\nc\r\n");
        assert_eq!(text(b"a\n..\n", true), b"a\r\n..\r\n");
        assert_eq!(text(b"", true), b"");
        assert_eq!(text(b"a\r\r\nb\rc", true), b"a\r\nb\r\nc\r\n");
        // A dot in the middle of a long line is no end.
        let long = [vec![b'x'; PIECE as usize], b".\nend\n".to_vec()].concat();
        assert!(text(&long, true).ends_with(b"x.\r\nend\r\n"));
    }

    #[tokio::test]
    async fn a_large_message_is_streamed_twice() {
        let message = b"line\n".repeat(500_000);
        let mut spool = Spool::read(message.as_slice(), false).unwrap();
        for _ in 0..2 {
            let chunks: Vec<_> = spool.stream(b"{}\n".to_vec()).unwrap().collect().await;
            let all: Vec<u8> = chunks.into_iter().flat_map(|c| c.unwrap()).collect();
            assert_eq!(all.len(), 3 + 500_000 * 6);
        }
    }
}
