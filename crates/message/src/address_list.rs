//! Address lists in `From`, `To` and their kin (RFC 5322 §3.4, obsolete forms of §4.4 included).
//!
//! Strict about addresses, since ownership of `From` is decided here; lenient about everything around them.

use pillarbox_smtp::Mailbox;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What stands before the angle brackets, quotes removed, encoded words kept; empty without.
    pub name: String,
    /// The address; what could not be read as one is given back as text.
    pub address: Result<Mailbox, String>,
}

/// Most entries that are read; the rest of a longer list is one malformed entry, so that nobody takes it for complete.
pub const MAX_ENTRIES: usize = 10_000;

/// All entries of an unfolded field value, members of groups included. Empty entries (`a@b,,c@d`) are skipped.
pub fn parse(value: &[u8]) -> Vec<Entry> {
    let text = String::from_utf8_lossy(value);
    let mut list = Vec::new();
    let mut reader = Reader::default();
    for (at, c) in text.char_indices() {
        if list.len() >= MAX_ENTRIES {
            list.push(Entry { name: String::new(), address: Err(text.get(at..).unwrap_or_default().chars().take(100).collect()) });
            return list;
        }
        if reader.push(c) {
            list.extend(std::mem::take(&mut reader).finish());
        }
    }
    list.extend(reader.finish());
    list
}

/// The addresses of a list that can be read.
pub fn mailboxes(value: &[u8]) -> Vec<Mailbox> {
    parse(value).into_iter().filter_map(|e| e.address.ok()).collect()
}

/// Reads one entry, character by character.
#[derive(Debug, Default)]
struct Reader {
    /// Text outside the angle brackets: a display name, or the address itself when there are none.
    outside: String,
    /// Text inside them.
    inside: Option<String>,
    closed: bool,
    after_close: bool,
    quoted: bool,
    escaped: bool,
    comment_depth: usize,
    literal: bool,
    bad: bool,
}

impl Reader {
    /// Takes a character; true when it ends the entry.
    fn push(&mut self, c: char) -> bool {
        if self.comment_depth > 0 {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '(' => self.comment_depth += 1,
                ')' => {
                    self.comment_depth -= 1;
                    // A comment separates words as white space does.
                    if self.comment_depth == 0 {
                        self.put(' ');
                    }
                }
                _ => {}
            }
            return false;
        }
        if self.quoted {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.quoted = false,
                _ => {}
            }
            self.put(c);
            return false;
        }
        match c {
            '(' => self.comment_depth = 1,
            '"' => {
                self.quoted = true;
                self.put(c);
            }
            '[' => {
                self.literal = true;
                self.put(c);
            }
            ']' => {
                self.literal = false;
                self.put(c);
            }
            '<' if self.inside.is_none() && !self.literal => self.inside = Some(String::new()),
            '>' if self.inside.is_some() && !self.closed => self.closed = true,
            '<' | '>' => self.bad = true,
            ',' | ';' if !self.literal && !self.in_brackets() => return true,
            ':' if !self.literal && self.inside.is_none() => {
                // The name of a group; its members follow.
                self.outside.clear();
                self.bad = false;
            }
            _ => self.put(c),
        }
        false
    }

    fn in_brackets(&self) -> bool {
        self.inside.is_some() && !self.closed
    }

    fn put(&mut self, c: char) {
        match &mut self.inside {
            Some(inside) if !self.closed => inside.push(c),
            Some(_) => self.after_close |= !c.is_ascii_whitespace(),
            None => self.outside.push(c),
        }
    }

    /// The entry, unless it is empty.
    fn finish(mut self) -> Option<Entry> {
        let unfinished = self.quoted || self.comment_depth > 0 || self.literal || self.in_brackets();
        let broken = unfinished || self.bad || self.after_close;
        match self.inside.take() {
            None => {
                let text = self.outside.trim().to_owned();
                if text.is_empty() && !broken {
                    return None;
                }
                let address = if broken { Err(text) } else { read_address(&text) };
                Some(Entry { name: String::new(), address })
            }
            Some(inside) => {
                let name = unquote(self.outside.trim());
                let inside = inside.trim();
                // A source route is dropped (RFC 5322 §4.4).
                let spec = match inside.strip_prefix('@') {
                    Some(route) => route.split_once(':').map_or(inside, |(_, rest)| rest.trim()),
                    None => inside,
                };
                let address = if broken { Err(spec.to_owned()) } else { read_address(spec) };
                Some(Entry { name, address })
            }
        }
    }
}

/// `addr-spec`; white space around dots and the `@` is obsolete but legal (RFC 5322 §4.4), anywhere else it is not.
fn read_address(text: &str) -> Result<Mailbox, String> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(text.to_owned());
    }
    if let Ok(mailbox) = text.parse() {
        return Ok(mailbox);
    }
    let mut squeezed = String::with_capacity(text.len());
    let mut quoted = false;
    let mut escaped = false;
    let mut gap = false;
    for c in text.chars() {
        if quoted {
            squeezed.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => {}
            }
            continue;
        }
        if c.is_ascii_whitespace() {
            gap = true;
            continue;
        }
        let joins = matches!(c, '.' | '@');
        if gap && !joins && !squeezed.is_empty() && !squeezed.ends_with(['.', '@']) {
            return Err(text.to_owned());
        }
        gap = false;
        quoted = c == '"';
        squeezed.push(c);
    }
    squeezed.parse().map_err(|_| text.to_owned())
}

/// A phrase without its quotes and backslashes.
fn unquote(phrase: &str) -> String {
    let mut out = String::with_capacity(phrase.len());
    let mut escaped = false;
    for c in phrase.chars() {
        match c {
            _ if escaped => {
                out.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => {}
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Vec<String> {
        parse(value.as_bytes())
            .into_iter()
            .map(|e| match e.address {
                Ok(m) if e.name.is_empty() => m.to_string(),
                Ok(m) => format!("{}|{m}", e.name),
                Err(text) => format!("!{text}"),
            })
            .collect()
    }

    #[test]
    fn forms_that_occur() {
        for (value, expected) in [
            ("ada@example.org", &["ada@example.org"][..]),
            ("Ada <ada@example.org>", &["Ada|ada@example.org"]),
            ("\"Lovelace, Ada\" <ada@example.org>, bob@example.net", &["Lovelace, Ada|ada@example.org", "bob@example.net"]),
            ("ada@example.org (Ada (the, first))", &["ada@example.org"]),
            ("(c)ada@example.org", &["ada@example.org"]),
            ("undisclosed-recipients:;", &[]),
            ("Friends: a@b.example, c@d.example;, e@f.example", &["a@b.example", "c@d.example", "e@f.example"]),
            ("<@a,@b:c@d.example>", &["c@d.example"]),
            ("a . b @ c . example", &["a.b@c.example"]),
            ("\"a b\"@c.example", &["\"a b\"@c.example"]),
            ("x@[192.0.2.1]", &["x@[192.0.2.1]"]),
            ("x@[IPv6:2001:db8::1]", &["x@[IPv6:2001:db8::1]"]),
            ("a@b.example,,c@d.example", &["a@b.example", "c@d.example"]),
            ("δοκιμή <δ@example.org>", &["δοκιμή|δ@example.org"]),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn tricks_are_malformed() {
        for value in [
            "a@b.example c@d.example",
            "<a@b.example> c@d.example",
            "<a@b.example><c@d.example>",
            "a@b.example <",
            "\"a@b.example",
            "(a@b.example",
            "<>",
            "a@b@c.example",
            "a@b.example>",
            "x@[192.0.2.1",
            "a b@c.example",
        ] {
            assert!(read(value).iter().any(|e| e.starts_with('!')), "{value} {:?}", read(value));
        }
    }

    #[test]
    fn endless_lists_are_cut_and_say_so() {
        let list = parse("a@b.example,".repeat(MAX_ENTRIES + 5).as_bytes());
        assert_eq!(list.len(), MAX_ENTRIES + 1);
        assert!(list.last().unwrap().address.is_err());
        assert_eq!(parse(&vec![b'('; 1_000_000]).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn another_parser_agrees_on_clean_lists(names in proptest::collection::vec(("[A-Za-z ,.]{0,12}", "[a-z][a-z0-9._-]{0,8}[a-z]", "[a-z]{1,8}"), 1..6)) {
            let list: Vec<(String, Mailbox)> = names.into_iter()
                .filter_map(|(n, l, d)| Some((n, format!("{l}@{d}.example").parse().ok()?))).collect();
            let value = list.iter().map(|(n, m)| crate::encode::address(n, m)).collect::<Vec<_>>().join(", ");
            let ours: Vec<String> = mailboxes(value.as_bytes()).iter().map(ToString::to_string).collect();
            let expected: Vec<String> = list.iter().map(|(_, m)| m.to_string()).collect();
            proptest::prop_assert_eq!(&ours, &expected);
            let message = format!("To: {value}\r\n\r\n");
            let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
            let theirs: Vec<String> = parsed.to().map(|t| t.iter().filter_map(|a| a.address().map(str::to_owned)).collect()).unwrap_or_default();
            proptest::prop_assert_eq!(theirs, expected);
        }

        #[test]
        fn never_panics(value in proptest::collection::vec(proptest::sample::select(b"a@.,;:<>()[]\\\" \xc3\xa4\xff".to_vec()), 0..80)) {
            parse(&value);
        }
    }
}
