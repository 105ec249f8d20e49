//! Mail from programs on this machine: `sendmail` and its kin, `pillarbox deliver`.

mod deliver;
mod dialogue;
mod hand_in;
mod options;
mod recipients;
mod sendmail;
mod spool;
pub(crate) mod sysexits;

pub(crate) use deliver::deliver;
pub(crate) use sendmail::{mailq, sendmail};
