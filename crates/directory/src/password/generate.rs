//! Generated passwords: letters and digits that are not mistaken for each other, in groups that can be read aloud.

use pillarbox_smtp::Secret;
use rand::Rng;

/// Without 0 o 1 l i: what people mistype. 31 signs, 4.95 bits each.
const SIGNS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
const APP_GROUPS: usize = 6;

fn groups(count: usize, rng: &mut impl Rng) -> String {
    let mut text = String::with_capacity(count * 5);
    for group in 0..count {
        if group > 0 {
            text.push('-');
        }
        for _ in 0..4 {
            let sign = SIGNS.get(rng.random_range(0..SIGNS.len())).copied().unwrap_or(b'a');
            text.push(char::from(sign));
        }
    }
    text
}

/// A password for a person: four groups of four, 79 bits.
pub fn password() -> Secret {
    Secret::new(groups(4, &mut rand::rng()))
}

/// A password for a device: six groups of four, 118 bits.
pub fn app_password() -> Secret {
    Secret::new(groups(APP_GROUPS, &mut rand::rng()))
}

/// Whether a text has the shape of [`app_password`]: then it is tried against app-passwords too.
pub fn looks_like_app_password(text: &[u8]) -> bool {
    text.len() == APP_GROUPS * 5 - 1 && text.iter().enumerate().all(|(at, b)| if at % 5 == 4 { *b == b'-' } else { SIGNS.contains(b) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let (a, b) = (app_password(), app_password());
        assert!(looks_like_app_password(a.as_bytes()) && looks_like_app_password(b.as_bytes()));
        assert_ne!(a, b);
        assert!(!looks_like_app_password(password().as_bytes()));
        assert_eq!(password().as_bytes().len(), 19);
    }
}
