//! One command line in each state in which commands are read, its parameters included.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox_fuzz::Driver;
use pillarbox_smtp::server::Role;

fuzz_target!(|line: &[u8]| {
    for (role, before) in [
        (Role::Mta, &b""[..]),
        (Role::Mta, b"EHLO x\r\n"),
        (Role::Mta, b"EHLO x\r\nMAIL FROM:<> SMTPUTF8\r\n"),
        (Role::Mta, b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n"),
        (Role::SubmissionTls, b"EHLO x\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n"),
        (Role::Lmtp, b"LHLO x\r\n"),
    ] {
        let mut driver = Driver::new(role);
        driver.feed(before);
        driver.feed(line);
        driver.feed(b"\r\n");
        driver.feed(b"QUIT\r\n");
    }
});
