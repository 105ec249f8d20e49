//! The order in which a host's addresses are tried: families in turn, so that one broken family costs one attempt (RFC 8305 §4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Weaves the two families together, IPv6 first. Where that is not wanted it serves hosts alone that have nothing else: what others refuse for
/// want of a PTR record they often refuse for good, so that even a dead IPv4 is better waited for.
pub fn interleave(v4: &[Ipv4Addr], v6: &[Ipv6Addr], v6_wanted: bool) -> Vec<IpAddr> {
    let v4 = v4.iter().copied().map(IpAddr::V4);
    let v6 = v6.iter().copied().map(IpAddr::V6);
    if !v6_wanted && v4.len() > 0 {
        return v4.collect();
    }
    let (mut v4, mut v6) = (v4.fuse(), v6.fuse());
    let mut woven = Vec::new();
    loop {
        let pair = (v6.next(), v4.next());
        woven.extend(pair.0);
        woven.extend(pair.1);
        if pair == (None, None) {
            return woven;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let v4: Vec<Ipv4Addr> = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|a| a.parse().unwrap()).into();
        let v6: Vec<Ipv6Addr> = ["2001:db8::1"].map(|a| a.parse().unwrap()).into();
        let text = |list: Vec<IpAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text(interleave(&v4, &v6, true)), "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3");
        assert_eq!(text(interleave(&v4, &v6, false)), "192.0.2.1 192.0.2.2 192.0.2.3");
        assert_eq!(text(interleave(&[], &v6, true)), "2001:db8::1");
        assert_eq!(text(interleave(&[], &v6, false)), "2001:db8::1");
    }
}
