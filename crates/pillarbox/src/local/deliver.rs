//! `pillarbox deliver`: final delivery for getmail, fetchmail or another MTA.

use pillarbox_config::Config;
use pillarbox_control::api::LocalEnvelope;
use pillarbox_message::header;
use pillarbox_smtp::{Mailbox, ReversePath};

use super::hand_in::{hand_in, login, unreadable};
use super::spool::Spool;
use super::sysexits;
use crate::failure::Failure;

/// Takes the message on standard input for one mailbox of ours. The sender is named, or the message's own Return-Path, or nobody.
pub(crate) async fn deliver(config: Result<Config, Failure>, to: &str, from: Option<&str>) -> Result<(), Failure> {
    let config = config.map_err(|f| Failure::new(sysexits::TEMPORARY, f.message))?;
    let usage = |what: &str, e: pillarbox_smtp::AddressError| Failure::new(sysexits::USAGE, format!("{what}: {e}"));
    let to: Mailbox = to.parse().map_err(|e| usage("--to", e))?;
    let from: Option<ReversePath> = from.map(str::parse).transpose().map_err(|e| usage("--from", e))?;
    let mut spool = Spool::read(std::io::stdin().lock(), false).map_err(|e| unreadable(&e))?;
    let beginning = spool.beginning().map_err(|e| unreadable(&e))?;
    if beginning.is_empty() {
        return Err(Failure::new(sysexits::DATA, "there is no message on standard input"));
    }
    let (beginning_of_message, return_path) = return_path(&beginning);
    if beginning_of_message > 0 {
        spool.replace_beginning(beginning_of_message as u64, Vec::new());
    }
    let envelope = LocalEnvelope {
        from: from.or(return_path).unwrap_or_default().to_string(),
        to: vec![to.to_string()],
        login: login(),
        deliver: true,
        ..LocalEnvelope::default()
    };
    hand_in(&config, &envelope, &mut spool).await
}

/// The mbox line and the Return-Path field that a delivering MTA put on top, and how many octets they take: the mailbox gets its own.
fn return_path(message: &[u8]) -> (usize, Option<ReversePath>) {
    let (mut end, mut found) = (0, None);
    for field in header::fields(message) {
        let separator = field.name.is_empty() && field.range.start == 0 && field.raw.starts_with(b"From ");
        if separator {
            end = field.range.end;
            continue;
        }
        if !field.is("Return-Path") || found.is_some() {
            break;
        }
        found = field.text().trim().parse().ok();
        end = field.range.end;
    }
    (end, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_mta_put_on_top_is_understood_and_taken_off() {
        let (end, path) = return_path(b"From bob@x.org Mon Nov 24\r\nReturn-Path: <bob@x.org>\r\nReceived: x\r\n\r\n");
        assert_eq!((end, path.unwrap().to_string().as_str()), (27 + 26, "bob@x.org"));
        let (end, path) = return_path(b"Return-Path: <>\r\nSubject: x\r\n\r\n");
        assert_eq!((end, path), (17, Some(ReversePath::Null)));
        assert_eq!(return_path(b"Subject: x\r\nReturn-Path: <a@b.org>\r\n\r\n"), (0, None));
    }
}
