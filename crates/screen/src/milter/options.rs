//! What the two sides agree on at the start: version, actions, protocol steps, and the macros the filter wants.

use super::wire::{Failure, number, put, strings};

/// The protocol version we speak, and the oldest we speak with.
const VERSION: u32 = 6;
const OLDEST: u32 = 2;

/// Changes we let a filter make: add, change and insert fields, change the body, add and remove recipients, quarantine, change the
/// sender, add recipients with parameters, choose macros.
const ACTIONS: u32 = 0x1ff;

/// Steps a filter may switch off, answers it may switch off, and refinements (`SMFIP_*`).
pub(super) mod step {
    pub(crate) const NO_CONNECT: u32 = 0x1;
    pub(crate) const NO_HELO: u32 = 0x2;
    pub(crate) const NO_MAIL: u32 = 0x4;
    pub(crate) const NO_RCPT: u32 = 0x8;
    pub(crate) const NO_BODY: u32 = 0x10;
    pub(crate) const NO_HEADERS: u32 = 0x20;
    pub(crate) const NO_END_OF_HEADER: u32 = 0x40;
    pub(crate) const MUTE_HEADERS: u32 = 0x80;
    pub(crate) const NO_DATA: u32 = 0x200;
    pub(crate) const MUTE_CONNECT: u32 = 0x1000;
    pub(crate) const MUTE_HELO: u32 = 0x2000;
    pub(crate) const MUTE_MAIL: u32 = 0x4000;
    pub(crate) const MUTE_RCPT: u32 = 0x8000;
    pub(crate) const MUTE_DATA: u32 = 0x1_0000;
    pub(crate) const MUTE_END_OF_HEADER: u32 = 0x4_0000;
    pub(crate) const MUTE_BODY: u32 = 0x8_0000;
    pub(crate) const LEADING_SPACE: u32 = 0x10_0000;
}

/// Everything above, with unknown commands (never sent: the switch is harmless), body skipping, and refused recipients (never told).
const STEPS: u32 = 0x1f_ffff & !0x800;

/// Stages for which a filter can choose macros.
pub(super) const STAGES: usize = 7;

/// What was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) steps: u32,
    pub(super) actions: u32,
    /// Macro names by stage, where the filter chose some.
    pub(super) macros: [Option<Vec<String>>; STAGES],
}

impl Options {
    /// Whether the filter asked for this step to be left out, or for this refinement.
    pub(super) fn has(&self, step: u32) -> bool {
        self.steps & step != 0
    }
}

/// The offer.
pub(super) fn offer(out: &mut Vec<u8>) {
    put(out, super::wire::command::OPTIONS, &[&VERSION.to_be_bytes(), &ACTIONS.to_be_bytes(), &STEPS.to_be_bytes()]);
}

/// Understands the filter's choice.
pub(super) fn agree(letter: u8, data: &[u8]) -> Result<Options, Failure> {
    if letter != super::wire::command::OPTIONS {
        return Err(Failure::Garbage("no answer to the option negotiation"));
    }
    let (version, rest) = number(data)?;
    let (actions, rest) = number(rest)?;
    let (steps, mut rest) = number(rest)?;
    if !(OLDEST..=VERSION).contains(&version) {
        return Err(Failure::Garbage("an unknown protocol version"));
    }
    if actions & !ACTIONS != 0 || steps & !STEPS & 0x1f_ffff != 0 {
        return Err(Failure::Garbage("it asks for what was not offered"));
    }
    let mut macros: [Option<Vec<String>>; STAGES] = Default::default();
    while !rest.is_empty() {
        let (stage, after) = number(rest)?;
        let ([names], after) = strings(after)?;
        let slot =
            usize::try_from(stage).ok().and_then(|stage| macros.get_mut(stage)).ok_or(Failure::Garbage("macros for an unknown stage"))?;
        let names = String::from_utf8_lossy(names);
        *slot = Some(names.split([' ', ',']).filter(|name| !name.is_empty()).take(64).map(str::to_owned).collect());
        rest = after;
    }
    Ok(Options { steps, actions, macros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filters_choice_of_macros_is_read() {
        let mut data = [6_u32, 0x1, 0x2].map(u32::to_be_bytes).concat();
        data.extend(2_u32.to_be_bytes());
        data.extend(b"i {auth_authen}\0");
        let options = agree(b'O', &data).unwrap();
        assert!(options.has(step::NO_HELO) && !options.has(step::NO_MAIL));
        assert_eq!(options.macros[2].as_deref().unwrap(), ["i", "{auth_authen}"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let words = |words: [u32; 3]| words.map(u32::to_be_bytes).concat();
        for data in [vec![], words([7, 0, 0]), words([1, 0, 0]), words([6, 0x200, 0]), [words([6, 0, 0]), vec![0, 0, 0, 9, 0]].concat()] {
            assert!(agree(b'O', &data).is_err(), "{data:?}");
        }
        assert!(agree(b'c', &words([6, 0, 0])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_agreed_to_or_refused(letter in proptest::sample::select(b"Oc".to_vec()), data: Vec<u8>) {
            if let Ok(options) = agree(letter, &data) {
                proptest::prop_assert_eq!(options.actions & !ACTIONS, 0);
            }
        }
    }
}
