//! A message's octets, cheap to pass around: in memory, in a file of their own, or a slice of a journal segment.
//!
//! Bodies are kept as they will be sent on: CRLF line ends, trace fields first, dots not stuffed.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};

use crate::body_file::BodyFile;
use crate::budget::Lease;
use crate::disk::DiskFile;

/// What [`Body::chunks`] yields at most at once, and what files are read by.
const CHUNK: usize = 64 * 1024;

/// A header section is looked for in so many octets; what lies beyond is not returned by [`Body::header`].
pub const HEADER_MAX: usize = 1024 * 1024;

/// A message's octets. Clones share them.
#[derive(Clone)]
pub struct Body {
    prefix: Bytes,
    inner: Inner,
}

#[derive(Clone)]
pub(crate) enum Inner {
    /// The lease gives its octets back to the budget when the last clone goes.
    Memory(Bytes, Option<Arc<Lease>>),
    File(Arc<BodyFile>),
    /// A piece of an open file, such as a journal segment, which is not reused while anyone holds it.
    Slice {
        file: Arc<DiskFile>,
        offset: u64,
        len: u64,
    },
}

impl Body {
    /// A body in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self { prefix: Bytes::new(), inner: Inner::Memory(bytes.into(), None) }
    }

    /// The file at `path` as a body; it stays when the body goes. Fails when it cannot be looked at.
    pub fn from_file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let len = std::fs::metadata(&path)?.len();
        Ok(Self::new(Inner::File(Arc::new(BodyFile::kept(path, len)))))
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self { prefix: Bytes::new(), inner }
    }

    pub(crate) fn parts(&self) -> (&Bytes, &Inner) {
        (&self.prefix, &self.inner)
    }

    /// Octets.
    pub fn len(&self) -> u64 {
        let inner = match &self.inner {
            Inner::Memory(bytes, _) => bytes.len() as u64,
            Inner::File(file) => file.len,
            Inner::Slice { len, .. } => *len,
        };
        inner.saturating_add(self.prefix.len() as u64)
    }

    /// Whether there is not one octet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The octets when they are in memory in one piece already.
    pub fn in_memory(&self) -> Option<Bytes> {
        match &self.inner {
            Inner::Memory(bytes, _) if self.prefix.is_empty() => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The same body with `fields` (whole lines with CRLF) before it. The body itself is not copied.
    pub fn prefixed(&self, fields: impl Into<Bytes>) -> Self {
        let fields = fields.into();
        let prefix = if self.prefix.is_empty() {
            fields
        } else {
            let mut joined = BytesMut::with_capacity(fields.len() + self.prefix.len());
            joined.extend_from_slice(&fields);
            joined.extend_from_slice(&self.prefix);
            joined.freeze()
        };
        Self { prefix, inner: self.inner.clone() }
    }

    /// All octets in one piece. Fails when the file behind the body cannot be read, or is shorter than it was.
    pub async fn bytes(&self) -> io::Result<Bytes> {
        if let Some(bytes) = self.in_memory() {
            return Ok(bytes);
        }
        if let Inner::Memory(bytes, _) = &self.inner {
            let mut joined = BytesMut::with_capacity(self.prefix.len() + bytes.len());
            joined.extend_from_slice(&self.prefix);
            joined.extend_from_slice(bytes);
            return Ok(joined.freeze());
        }
        let body = self.clone();
        blocking(move || body.read_to_bytes()).await
    }

    /// All octets in one piece, blocking the thread while they are read.
    pub fn read_to_bytes(&self) -> io::Result<Bytes> {
        if let Some(bytes) = self.in_memory() {
            return Ok(bytes);
        }
        let mut all = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        self.reader()?.read_to_end(&mut all)?;
        Ok(all.into())
    }

    /// A reader over all octets that blocks the thread it is used on; what is in memory it shows in place, all at once. Ends with
    /// `UnexpectedEof` when the file is shorter than it was.
    pub fn reader(&self) -> io::Result<Box<dyn BufRead + Send>> {
        let prefix = io::Cursor::new(self.prefix.clone());
        Ok(match &self.inner {
            Inner::Memory(bytes, _) => Box::new(prefix.chain(io::Cursor::new(bytes.clone()))),
            Inner::File(file) => {
                let handle = File::open(file.path())?;
                let file = Positioned { file: handle, holder: self.clone(), at: 0, end: file.len };
                Box::new(prefix.chain(BufReader::with_capacity(CHUNK, file)))
            }
            Inner::Slice { file, offset, len } => {
                let end = offset.saturating_add(*len);
                let piece = Positioned { file: Arc::clone(file), holder: self.clone(), at: *offset, end };
                Box::new(prefix.chain(BufReader::with_capacity(CHUNK, piece)))
            }
        })
    }

    /// The header section with the empty line that ends it. One longer than [`HEADER_MAX`] is cut after its last whole line within.
    pub async fn header(&self) -> io::Result<Bytes> {
        if let (Inner::Memory(bytes, _), true) = (&self.inner, self.prefix.is_empty()) {
            return Ok(bytes.slice(..header_end(bytes)));
        }
        let body = self.clone();
        let read = move || {
            let mut reader = body.reader()?;
            let mut head = Vec::new();
            let mut step = CHUNK as u64;
            loop {
                let n = (&mut reader).take(step).read_to_end(&mut head)?;
                if n == 0 || head.len() >= HEADER_MAX || blank_line(&head).is_some() {
                    break;
                }
                step = step.saturating_mul(2);
            }
            head.truncate(header_end(&head));
            Ok(Bytes::from(head))
        };
        if matches!(self.inner, Inner::Memory(..)) { read() } else { blocking(read).await }
    }

    /// All octets in pieces of at most 64 KiB, read as they are asked for.
    pub fn chunks(&self) -> BoxStream<'static, io::Result<Bytes>> {
        if let Inner::Memory(bytes, lease) = &self.inner {
            let (lease, parts) = (lease.clone(), [self.prefix.clone(), bytes.clone()]);
            let pieces = parts.into_iter().flat_map(|part| {
                (0..part.len()).step_by(CHUNK).map(move |at| Ok(part.slice(at..part.len().min(at.saturating_add(CHUNK)))))
            });
            return stream::iter(pieces.inspect(move |_| _ = &lease)).boxed();
        }
        enum State {
            Start(Body),
            Reading(Box<dyn BufRead + Send>),
        }
        stream::try_unfold(State::Start(self.clone()), |state| async move {
            blocking(move || {
                let mut reader = match state {
                    State::Start(body) => body.reader()?,
                    State::Reading(reader) => reader,
                };
                let mut piece = Vec::with_capacity(CHUNK);
                (&mut reader).take(CHUNK as u64).read_to_end(&mut piece)?;
                Ok((!piece.is_empty()).then(|| (Bytes::from(piece), State::Reading(reader))))
            })
            .await
        })
        .boxed()
    }
}

impl fmt::Debug for Body {
    /// Where it is and how long, never what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.inner {
            Inner::Memory(..) => "memory",
            Inner::File(_) => "file",
            Inner::Slice { .. } => "journal",
        };
        write!(f, "Body({} octets, {place})", self.len())
    }
}

/// Where the header section ends within its bound: after the empty line, else after the last whole line.
fn header_end(octets: &[u8]) -> usize {
    let within = octets.get(..HEADER_MAX).unwrap_or(octets);
    blank_line(within)
        .or_else(|| (within.len() < octets.len()).then(|| memchr::memrchr(b'\n', within).map_or(0, |at| at + 1)))
        .unwrap_or(within.len())
}

/// The offset behind the first empty line.
fn blank_line(octets: &[u8]) -> Option<usize> {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', octets) {
        if matches!(octets.get(start..end), Some([] | [b'\r'])) {
            return Some(end + 1);
        }
        start = end + 1;
    }
    None
}

/// Runs file work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Something that can be read at an offset.
trait ReadAt {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for Arc<DiskFile> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, offset)
    }
}

/// Reads a stretch of a file without moving anyone's cursor; holds the body, so that the file stays while it is read.
struct Positioned<F> {
    file: F,
    #[expect(dead_code, reason = "held for its drop")]
    holder: Body,
    at: u64,
    end: u64,
}

impl<F: ReadAt> Read for Positioned<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let wanted = left.min(buffer.len());
        let n = self.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.at)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a stored message is shorter than it was"));
        }
        self.at = self.at.saturating_add(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    fn file_body(content: &[u8]) -> (tempfile::TempDir, Body) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        std::fs::write(&path, content).unwrap();
        let body = Body::from_file(path).unwrap();
        (dir, body)
    }

    #[tokio::test]
    async fn every_way_of_reading_gives_the_same_octets() {
        let content: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let (_dir, on_disk) = file_body(&content);
        let file = Arc::new(DiskFile { file: File::open(_dir.path().join("m")).unwrap(), tag: 0 });
        let slice = Body::new(Inner::Slice { file, offset: 1000, len: 150_000 });
        for (body, expected) in
            [(Body::from_bytes(content.clone()), &content[..]), (on_disk, &content[..]), (slice, &content[1000..151_000])]
        {
            for (body, expected) in [
                (body.clone(), expected.to_vec()),
                (body.prefixed("B: 2\r\n").prefixed("A: 1\r\n"), [b"A: 1\r\nB: 2\r\n", expected].concat()),
            ] {
                assert_eq!(body.len(), expected.len() as u64);
                assert_eq!(body.bytes().await.unwrap(), expected);
                let mut read = Vec::new();
                body.reader().unwrap().read_to_end(&mut read).unwrap();
                assert_eq!(read, expected);
                let pieces: Vec<Bytes> = body.chunks().try_collect().await.unwrap();
                assert!(pieces.iter().all(|p| !p.is_empty() && p.len() <= CHUNK));
                assert_eq!(pieces.concat(), expected);
            }
        }
    }

    #[tokio::test]
    async fn the_header_section_ends_at_the_empty_line() {
        for (text, header) in [
            (&b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\n"[..], &b"A: 1\r\nB: 2\r\n\r\n"[..]),
            (b"A: 1\n\nbody", b"A: 1\n\n"),
            (b"\r\nbody", b"\r\n"),
            (b"A: 1\r\n", b"A: 1\r\n"),
            (b"", b""),
        ] {
            assert_eq!(Body::from_bytes(text.to_vec()).header().await.unwrap(), header);
            assert_eq!(file_body(text).1.prefixed("P: 0\r\n").header().await.unwrap(), [b"P: 0\r\n", header].concat());
        }
    }

    #[tokio::test]
    async fn a_huge_header_section_is_cut_at_a_line() {
        let mut text = Vec::new();
        while text.len() < 2 * HEADER_MAX {
            text.extend_from_slice(b"X-Long: 0123456789 0123456789 0123456789\r\n");
        }
        let (_dir, on_disk) = file_body(&text);
        for body in [Body::from_bytes(text.clone()), on_disk] {
            let header = body.header().await.unwrap();
            assert!(header.len() <= HEADER_MAX && header.len() > HEADER_MAX - 100);
            assert!(header.ends_with(b"\r\n"));
        }
    }

    #[tokio::test]
    async fn a_file_that_shrank_is_an_error_and_not_a_shorter_message() {
        let (dir, body) = file_body(b"0123456789");
        std::fs::write(dir.path().join("m"), b"0123").unwrap();
        assert_eq!(body.bytes().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
