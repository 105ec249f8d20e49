//! Questions on the terminal: passwords twice, consent before anything destructive.

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;

use dialoguer::{Confirm, Password};
use pillarbox_smtp::Secret;

use crate::args::PasswordSource;
use crate::failure::{Failure, Trying};

/// Longest line taken as a password from standard input, octets.
const PASSWORD_LINE: u64 = 4096;

/// A password and whether it was made here, so that it must be shown.
pub(crate) struct Chosen {
    pub(crate) password: Secret,
    pub(crate) generated: bool,
}

/// Gets a password as the options say: made, read from standard input, or asked for twice.
pub(crate) fn password(source: PasswordSource, whose: &str) -> Result<Chosen, Failure> {
    if source.generate {
        return Ok(Chosen { password: pillarbox_directory::password::password(), generated: true });
    }
    if source.password_stdin {
        let mut line = String::new();
        std::io::stdin().lock().take(PASSWORD_LINE).read_line(&mut line).trying("read the password from standard input")?;
        let password = line.strip_suffix('\n').unwrap_or(&line);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            return Err(Failure::usage("standard input holds no password; write it as the first line"));
        }
        return Ok(Chosen { password: Secret::new(password), generated: false });
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for the password; use --password-stdin or --generate"));
    }
    let password = Password::new()
        .with_prompt(format!("Password of {whose}"))
        .with_confirmation("The same again", "The two differ; once more")
        .interact()
        .trying("ask for the password")?;
    Ok(Chosen { password: Secret::new(password), generated: false })
}

/// Consent to something destructive: `--yes`, or an answer on the terminal.
pub(crate) fn consent(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} There is no terminal to ask on; repeat with --yes to go ahead.")));
    }
    if ask(question, false)? { Ok(()) } else { Err(Failure::failed("nothing was changed")) }
}

/// A yes-or-no question on the terminal.
pub(crate) fn ask(question: &str, default: bool) -> Result<bool, Failure> {
    Confirm::new().with_prompt(question).default(default).interact().trying("ask")
}

/// The text of a file, or of standard input for `-`.
pub(crate) fn text_of(file: &Path) -> Result<String, Failure> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).trying("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).trying(format!("read {}", file.display()))
}
