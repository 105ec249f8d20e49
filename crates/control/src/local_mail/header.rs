//! Mending the header of a message that a local program wrote: bare names completed, a missing From added. The rest (Date, Message-ID) is the submission door's.

use pillarbox_message::{address_list, encode, header};
use pillarbox_smtp::{Mailbox, ReversePath};

use super::addresses::Qualifier;

/// Fields that hold addresses.
const FIELDS: [&str; 10] =
    ["From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Errors-To"];

/// The header section `head` (blank line included, if there is one) as it should be.
pub(super) fn mend(head: &[u8], qualifier: &Qualifier, sender: &ReversePath, full_name: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 128);
    let mut fields = header::fields(head);
    let mut has_from = false;
    let mut at = 0;
    for field in fields.by_ref() {
        if field.name.is_empty() {
            // The body has begun without a blank line.
            break;
        }
        has_from |= field.is("From");
        at = field.range.end;
        match completed(&field, qualifier) {
            Some(mended) => out.extend_from_slice(&mended),
            None => out.extend_from_slice(field.raw),
        }
    }
    if !has_from && let (Some(name), Some(mailbox)) = (full_name, sender.mailbox()) {
        let mut from = Vec::new();
        encode::push_structured(&mut from, "From", &encode::address(name, mailbox));
        out.splice(0..0, from);
    }
    out.extend_from_slice(head.get(at..).unwrap_or_default());
    out
}

/// The field with its bare names completed; `None` when it has none, so that what is right stays as it was written.
fn completed(field: &header::Field<'_>, qualifier: &Qualifier) -> Option<Vec<u8>> {
    let name = FIELDS.iter().find(|name| field.is(name))?;
    let value = field.unfolded();
    let entries = address_list::parse(&value);
    let bare = |text: &String| if text.contains('@') { None } else { qualifier.mailbox(text) };
    let found: Vec<(&str, Mailbox)> =
        entries.iter().filter_map(|e| e.address.as_ref().err()).filter_map(|text| Some((text.as_str(), bare(text)?))).collect();
    if found.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    if let Some(text) = in_place(&String::from_utf8_lossy(&value), &found) {
        encode::push_structured(&mut out, name, text.trim());
        return Some(out);
    }
    let mut parts = Vec::with_capacity(entries.len());
    for entry in &entries {
        parts.push(match &entry.address {
            Ok(mailbox) => named(&entry.name, mailbox),
            // One that cannot be completed leaves the whole field alone: better untouched than half mended.
            Err(text) => named(&entry.name, &bare(text)?),
        });
    }
    encode::push_structured(&mut out, name, &parts.join(", "));
    Some(out)
}

/// Completes each name where it stands, so that comments (`root (Cron Daemon)`) and display names stay. `None` where quotes make that unsafe.
fn in_place(value: &str, found: &[(&str, Mailbox)]) -> Option<String> {
    if value.contains('"') {
        return None;
    }
    let mut out = String::with_capacity(value.len() + 32 * found.len());
    let mut rest = value;
    for (bare, mailbox) in found {
        let at = standing_alone(rest, bare)?;
        let (before, from) = rest.split_at_checked(at)?;
        out.push_str(before);
        out.push_str(&mailbox.to_string());
        rest = from.strip_prefix(*bare)?;
    }
    out.push_str(rest);
    Some(out)
}

/// Where `word` stands as a whole address: at the beginning or behind `<` or a comma, and before the end, `>`, a comma or a comment.
fn standing_alone(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        let (before, after) = (text.get(..at).unwrap_or("").trim_end(), text.get(at + word.len()..).unwrap_or("").trim_start());
        (before.is_empty() || before.ends_with(['<', ',', ':', ';'])) && (after.is_empty() || after.starts_with(['>', ',', '(', ';']))
    })
}

/// Encoded words are kept as they are.
fn named(name: &str, mailbox: &Mailbox) -> String {
    if name.contains("=?") { format!("{name} <{mailbox}>") } else { encode::address(name, mailbox) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_config::Config;
    use pillarbox_directory::MemoryDirectory;

    async fn mended(head: &str) -> String {
        let config = Config { hostname: "example.org".into(), ..Config::default() };
        let qualifier = Qualifier::new(&config, &MemoryDirectory::new()).await.unwrap();
        let sender = ReversePath::Mailbox("root@example.org".parse().unwrap());
        String::from_utf8(mend(head.as_bytes(), &qualifier, &sender, Some("System"))).unwrap()
    }

    #[tokio::test]
    async fn what_cron_writes_gets_whole_addresses() {
        let text = mended("From: root (Cron Daemon)\r\nTo: root\r\nSubject: Cron <root@box> x\r\n\r\n").await;
        assert!(text.starts_with("From: root@example.org (Cron Daemon)\r\n"), "{text}");
        assert!(text.contains("\r\nTo: root@example.org\r\n"), "{text}");
        assert!(text.ends_with("Subject: Cron <root@box> x\r\n\r\n"), "{text}");
    }

    #[tokio::test]
    async fn names_are_completed_where_they_stand() {
        let head = "To: root, Bob Root <bob>, root@x.org, group: a, b;\r\nCc: \"root, the\" <root>\r\n\r\n";
        let text = mended(head).await.replace("\r\n ", " ");
        assert!(text.contains("To: root@example.org, Bob Root <bob@example.org>, root@x.org, group: a@example.org,"), "{text}");
        assert!(text.contains("Cc: \"root, the\" <root@example.org>"), "{text}");
    }

    #[tokio::test]
    async fn whole_addresses_stay_as_they_were_written() {
        let head = "From:   \"A  B\"   <a@b.org>\r\nTo: undisclosed-recipients:;\r\n\r\n";
        assert_eq!(mended(head).await, head);
    }

    #[tokio::test]
    async fn a_missing_from_is_added_with_the_name_given() {
        assert_eq!(mended("Subject: x\r\n\r\n").await, "From: System <root@example.org>\r\nSubject: x\r\n\r\n");
        assert_eq!(mended("no field at all\r\n").await, "From: System <root@example.org>\r\nno field at all\r\n");
    }
}
