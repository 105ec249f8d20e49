//! A whole session in any role: the first octet chooses the role, the second how the rest is cut into segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox_fuzz::{Driver, seeded, segments};
use pillarbox_smtp::server::Role;

fuzz_target!(|input: &[u8]| {
    let (role, rest) = seeded(input);
    let (seed, rest) = seeded(rest);
    let role = [Role::Mta, Role::Submission, Role::SubmissionTls, Role::Lmtp][usize::from(role % 4)];
    let mut driver = Driver::new(role);
    segments(rest, seed).into_iter().for_each(|segment| driver.feed(segment));
});
