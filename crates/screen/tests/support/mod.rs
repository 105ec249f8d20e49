//! What the tests of the screen share: a name server that answers from a script, and the folder of other people's test data.

#![allow(dead_code, unreachable_pub)]

pub mod data;
pub mod dns;
pub mod session;
