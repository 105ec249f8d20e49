//! `pillarbox completions`, `pillarbox man`: made from the same types as the command line itself.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::{Failure, Trying};
use crate::session::Session;

pub(crate) fn completions(session: &Session, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "pillarbox", &mut script);
    session.out.bytes(&script)
}

/// One page a command, `pillarbox-queue-list.1` and so on.
pub(crate) fn man(session: &Session, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).trying(format!("make {}", dir.display()))?;
    clap_mangen::generate_to(Args::command(), dir).trying(format!("write to {}", dir.display()))?;
    session.out.done(format!("Wrote the manual pages to {}.", dir.display()))
}
