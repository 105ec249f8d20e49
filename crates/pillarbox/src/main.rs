//! The admin command. `sendmail`, `mailq` and `newaliases` are the same file, told apart by the name it is called by.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod args;
mod commands;
mod complete;
mod failure;
mod local;
mod out;
mod progress;
mod prompt;
mod session;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::failure::Failure;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let called = arguments.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    if called == "pillarbox" {
        // Asked by the shell's completion script; ends the process if so.
        clap_complete::CompleteEnv::with_factory(args::Args::command).complete();
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return finish(Err(failure)),
    };
    match called.as_str() {
        "sendmail" => runtime.block_on(local::sendmail(arguments)),
        "mailq" => runtime.block_on(local::mailq()),
        "newaliases" => ExitCode::SUCCESS,
        _ => finish(runtime.block_on(commands::run(args::Args::parse()))),
    }
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
