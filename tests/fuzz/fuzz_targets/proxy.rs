//! The PROXY header, versions 1 and 2.
#![no_main]

#[allow(dead_code)]
#[path = "../../../crates/ingest/src/proxy.rs"]
mod proxy;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = proxy::parse(input);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let mut stream = input;
    if runtime.block_on(proxy::read_header(&mut stream)).is_ok() {
        let header = &input[..input.len() - stream.len()];
        assert!(proxy::parse(header).is_ok() && header.len() <= 4112, "more was read than the header");
    }
});
