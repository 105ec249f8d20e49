//! The machine's fully qualified name, for when the file names none.

use std::fs;

/// The fully qualified name of this machine as far as it knows it without asking the network: the kernel's name if it has a dot, else what
/// `/etc/hosts` calls it, else the kernel's name in the domain of `/etc/resolv.conf`, else the bare name.
pub fn machine_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().trim_end_matches('.').to_ascii_lowercase();
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    qualify(&name, &hosts, &resolv)
}

fn qualify(name: &str, hosts: &str, resolv: &str) -> String {
    if name.is_empty() {
        return "localhost".into();
    }
    if name.contains('.') {
        return name.to_owned();
    }
    for line in hosts.lines() {
        let names: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().skip(1).collect();
        if !names.iter().any(|n| n.eq_ignore_ascii_case(name)) {
            continue;
        }
        let full = names.iter().find(|n| n.split_once('.').is_some_and(|(first, _)| first.eq_ignore_ascii_case(name)));
        if let Some(full) = full {
            return full.trim_end_matches('.').to_ascii_lowercase();
        }
    }
    let domain = resolv.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("domain" | "search")).then(|| words.next()).flatten()
    });
    match domain.map(|d| d.trim_matches('.')) {
        Some(domain) if !domain.is_empty() => format!("{name}.{}", domain.to_ascii_lowercase()),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::qualify;

    #[test]
    fn the_most_trustworthy_source_wins() {
        assert_eq!(qualify("mx.example.org", "", ""), "mx.example.org");
        assert_eq!(qualify("mx", "127.0.1.1 mx.example.org mx # me\n", "search lan\n"), "mx.example.org");
        assert_eq!(qualify("mx", "127.0.0.1 localhost mx\n", "nameserver 192.0.2.1\nsearch lan example.net\n"), "mx.lan");
        assert_eq!(qualify("mx", "", "search .\n"), "mx");
        assert_eq!(qualify("", "", ""), "localhost");
    }
}
