//! How fast content is decoded and encoded: the only work done for every octet of every message.

use bytes::{Bytes, BytesMut};
use divan::Bencher;
use divan::counter::BytesCount;
use pillarbox_smtp::client::DotStuffer;
use pillarbox_smtp::content::{ChunkCheck, ContentRules, DataDecoder, Decoded};
use pillarbox_smtp::server::{BareLineEnds, NulPolicy};

fn main() {
    divan::main();
}

const RULES: ContentRules = ContentRules { max_size: 0, max_line: 65_536, bare_line_ends: BareLineEnds::Refuse, nul: NulPolicy::Refuse };

/// A megabyte of lines of `length` octets.
fn lines(length: usize) -> Vec<u8> {
    let line = [vec![b'x'; length - 2], b"\r\n".to_vec()].concat();
    line.repeat(1024 * 1024 / length)
}

/// Reads of 64 KiB, as the driver makes them.
#[divan::bench(args = [20, 78, 998])]
fn data(bencher: Bencher<'_, '_>, length: usize) {
    let wire = [lines(length), b".\r\n".to_vec()].concat();
    bencher.counter(BytesCount::new(wire.len())).with_inputs(|| wire.chunks(65_536).map(BytesMut::from).collect::<Vec<_>>()).bench_values(
        |reads| {
            let mut decoder = DataDecoder::new(RULES);
            let mut octets = 0;
            let mut input = BytesMut::new();
            for read in reads {
                input.unsplit(read);
                while let Decoded::Content(content) = decoder.decode(&mut input) {
                    octets += content.len();
                }
            }
            octets
        },
    );
}

#[divan::bench(args = [78])]
fn bdat(bencher: Bencher<'_, '_>, length: usize) {
    let wire = Bytes::from(lines(length));
    bencher.counter(BytesCount::new(wire.len())).bench_local(|| {
        let mut check = ChunkCheck::new(RULES, false);
        (0..wire.len())
            .step_by(65_536)
            .filter_map(|at| check.take(wire.slice(at..wire.len().min(at + 65_536))))
            .map(|b| b.len())
            .sum::<usize>()
    });
}

#[divan::bench(args = [20, 78, 998])]
fn dot_stuffing(bencher: Bencher<'_, '_>, length: usize) {
    let body = lines(length);
    let mut out = BytesMut::with_capacity(body.len() * 2);
    bencher.counter(BytesCount::new(body.len())).bench_local(move || {
        out.clear();
        let mut stuffer = DotStuffer::new();
        body.chunks(65_536).for_each(|chunk| stuffer.encode(chunk, &mut out));
        stuffer.finish(&mut out);
        out.len()
    });
}
