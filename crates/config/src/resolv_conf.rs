//! The system's name servers, as `/etc/resolv.conf` names them.

use std::fs;

/// The text of `/etc/resolv.conf`. Where it names no name server, or there is none, the one of this machine is meant (resolv.conf(5)), and
/// is named: a machine whose network comes later has none yet, and mail for its own users needs none.
pub fn resolv_conf() -> String {
    completed(fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn completed(mut text: String) -> String {
    let names_one = text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver") && words.next().is_some()
    });
    if !names_one {
        text.push_str("\nnameserver 127.0.0.1\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_server_it_is_the_one_of_this_machine() {
        for text in ["", "search example.org", "# nameserver 192.0.2.1\nnameserver\n"] {
            assert_eq!(completed(text.into()), format!("{text}\nnameserver 127.0.0.1\n"));
        }
        let text = "search example.org\n nameserver 192.0.2.1\n";
        assert_eq!(completed(text.into()), text);
    }
}
