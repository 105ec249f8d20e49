//! The admin command. `sendmail`, `mailq` and `newaliases` are the same file, told apart by the name it is called by.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod args;
mod commands;
mod failure;
mod out;
mod prompt;
mod session;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;

fn main() -> ExitCode {
    let args = args::Args::parse();
    finish(runtime().and_then(|runtime| runtime.block_on(commands::run(args))))
}

/// One thread is enough to wait for answers; passwords are hashed on the blocking pool.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure::failed(format!("cannot start: {e}")))
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                anstream::eprintln!("pillarbox: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}
