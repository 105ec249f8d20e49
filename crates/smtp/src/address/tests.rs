use proptest::prelude::*;

use super::*;

#[test]
fn quoted_local_parts_survive_a_round_trip() {
    for text in ["bob@example.org", "\"a b\"@example.org", "\"a\\\"b\\\\\"@example.org", "x@[192.0.2.1]", "x@[IPv6:2001:db8::1]"] {
        let mailbox: Mailbox = text.parse().unwrap();
        assert_eq!(mailbox.to_string(), text);
    }
}

#[test]
fn u_labels_and_a_labels_are_one_domain() {
    assert_eq!(Domain::new("BÜCHER.example").unwrap(), Domain::new("xn--bcher-kva.example.").unwrap());
    let nfd: Mailbox = "u\u{308}@example.org".parse().unwrap();
    let nfc: Mailbox = "Ü@example.org".parse().unwrap();
    assert!(nfd.same_as(&nfc));
}

#[test]
fn malformed_addresses_are_refused() {
    for text in [
        "",
        "bob",
        "@example.org",
        "a..b@example.org",
        ".a@example.org",
        "a.@example.org",
        "a@",
        "a@-x.org",
        "a@b..c",
        "a@.",
        "a b@c.org",
        "a@b@c",
        "a\0@c.org",
        "\"a\nb\"@c.org",
        "\"a\"b@c.org",
        "\"a@c.org",
        "\"\"@c.org",
        "a@[300.1.1.1]",
        "a@[IPv6:zz]",
        "a@[tag:x]",
        "a@[1.2.3.4",
        "a@1.2.3.4",
        "a@b c",
        "a@b\r\nRCPT TO:<x@y>",
        "a\u{202e}b@c.org",
    ] {
        assert!(text.parse::<Mailbox>().is_err(), "{text:?}");
    }
    let long = format!("{}@example.org", "a".repeat(MAX_FOREIGN_LOCAL_PART + 1));
    assert_eq!(long.parse::<Mailbox>(), Err(AddressError::TooLong));
    assert!(!long.get(1..).unwrap().parse::<Mailbox>().unwrap().local.is_hostable());
}

fn rcpt(text: &str) -> Result<(String, &str), AddressError> {
    ForwardPath::parse(text).map(|(path, rest)| (path.to_string(), rest))
}

#[test]
fn forward_paths() {
    for (text, path, rest) in [
        ("<bob@example.org>", "bob@example.org", ""),
        ("<bob@example.org> NOTIFY=NEVER", "bob@example.org", " NOTIFY=NEVER"),
        (" <bob@EXAMPLE.org.>", "bob@example.org", ""),
        ("bob@example.org", "bob@example.org", ""),
        ("bob@example.org SIZE=1", "bob@example.org", "SIZE=1"),
        ("<@a.example,@b.example:bob@example.org>", "bob@example.org", ""),
        ("<@[IPv6:::1]:bob@example.org>", "bob@example.org", ""),
        ("<\"a>b c\"@example.org> X", "\"a>b c\"@example.org", " X"),
        ("<\"a\\\">b\"@example.org>", "\"a\\\">b\"@example.org", ""),
        ("<Postmaster>", "postmaster", ""),
        ("<\"POSTMASTER\">", "postmaster", ""),
        ("postmaster", "postmaster", ""),
        ("<postmaster@example.org>", "postmaster@example.org", ""),
        ("<a%b.example@example.org>", "a%b.example@example.org", ""),
        ("<b.example!a@example.org>", "b.example!a@example.org", ""),
        ("<\"a@b.example\"@example.org>", "\"a@b.example\"@example.org", ""),
        ("<用户@例え.jp>", "用户@xn--r8jz45g.jp", ""),
    ] {
        assert_eq!(rcpt(text), Ok((path.to_owned(), rest)), "{text:?}");
    }
}

#[test]
fn what_is_no_forward_path() {
    for text in [
        "",
        " ",
        "<",
        "<>",
        "<bob>",
        "bob",
        "<bob@example.org",
        "<bob@example.org>x",
        "<bob@example.org>>",
        "<<bob@example.org>>",
        "<@a.example:>",
        "<@a.example>",
        "<@a.example,bob@example.org>",
        "<@a b:bob@example.org>",
        "<@[1.2.3.4:bob@example.org>",
        "<@-:bob@example.org>",
        "<bob@example.org@other.example>",
        "<bob@a.example,ann@b.example>",
        "<bob@ example.org>",
        "<;touch x;>",
        "bob <bob@example.org>",
        "<\"bob@example.org>",
        "\"bob",
        "<postmaster@>",
    ] {
        assert!(rcpt(text).is_err(), "{text:?} gave {:?}", rcpt(text));
    }
}

/// RFC 2505 §2.1, RFC 5321 §3.6: every way to write somebody else's domain stays that domain or no address at all.
#[test]
fn relay_syntaxes_name_no_other_domain_than_the_one_routed() {
    let ours = Domain::new("example.org").unwrap();
    for text in [
        "<x%evil.example@example.org>",
        "<evil.example!x@example.org>",
        "<@evil.example:x@example.org>",
        "<\"x@evil.example\"@example.org>",
    ] {
        let (path, _) = ForwardPath::parse(text).unwrap();
        assert!(matches!(path, ForwardPath::Mailbox(m) if m.domain == ours && !m.key().ends_with("evil.example")), "{text}");
    }
    for text in ["<@example.org:x@evil.example>", "<x@evil.example.>", "<\"x\"@evil.example>", "<x%example.org@evil.example>"] {
        let (path, _) = ForwardPath::parse(text).unwrap();
        assert!(matches!(path, ForwardPath::Mailbox(m) if m.domain.as_str() == "evil.example"), "{text}");
    }
}

#[test]
fn reverse_paths() {
    assert_eq!(ReversePath::parse("<> SIZE=3"), Ok((ReversePath::Null, " SIZE=3")));
    assert_eq!(ReversePath::parse("<a@b.example>").unwrap().0.to_string(), "a@b.example");
    assert_eq!(ReversePath::parse("<@x.example:a@b.example>").unwrap().0.to_string(), "a@b.example");
    for text in ["", " ", "<", "< >", "<postmaster>", "<@x.example:>", "SIZE=3"] {
        assert!(ReversePath::parse(text).is_err(), "{text:?}");
    }
}

prop_compose! {
    /// Any local part that [`LocalPart::new`] takes.
    fn local()(text in "[a-zA-Z0-9.\"\\\\ @<>+é用!%-]{1,20}") -> LocalPart {
        LocalPart::new(&text).unwrap()
    }
}

proptest! {
    #[test]
    fn parse_print_parse(local in local(), domain in "([a-z0-9]{1,8}\\.){1,3}[a-z]{2,5}") {
        let mailbox = Mailbox::new(local, Domain::new(&domain).unwrap());
        let printed = mailbox.to_string();
        prop_assert_eq!(printed.parse::<Mailbox>(), Ok(mailbox.clone()));
        let path = format!("<{printed}> SIZE=1");
        prop_assert_eq!(ForwardPath::parse(&path), Ok((ForwardPath::Mailbox(mailbox.clone()), " SIZE=1")));
        prop_assert_eq!(ReversePath::parse(&path), Ok((ReversePath::Mailbox(mailbox), " SIZE=1")));
    }

    #[test]
    fn any_text_parses_to_something_printable_or_to_nothing(text in "\\PC{0,60}|[<>@\",:.a\\\\ \\[\\]]{0,30}") {
        if let Ok((path, rest)) = ForwardPath::parse(&text) {
            prop_assert!(text.ends_with(rest));
            let again = ForwardPath::parse(&format!("<{path}>")).map(|(path, _)| path);
            prop_assert_eq!(again, Ok(path));
        }
        if let Ok((path, _)) = ReversePath::parse(&text) {
            prop_assert_eq!(path.to_string().parse::<ReversePath>(), Ok(path));
        }
    }

    #[test]
    fn keys_are_stable(text in "\\PC{1,20}@example.org") {
        if let Ok(mailbox) = text.parse::<Mailbox>() {
            let folded: Result<LocalPart, _> = LocalPart::new(&mailbox.local.key());
            if let Ok(folded) = folded {
                prop_assert_eq!(folded.key(), mailbox.local.key());
            }
        }
    }
}
