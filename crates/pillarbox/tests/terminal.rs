//! How the command looks on a terminal, made by script(1), and in a pipe.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::Home;

const LONG: &str = "a.very.long.name.that.no.narrow.terminal.has.room.for@example.test";

/// A server with users of names short and long.
fn home() -> Home {
    let home = Home::new();
    home.run(&["domain", "add", "example.test"], 0);
    for user in ["bob@example.test", LONG] {
        home.run(&["user", "add", user, "--generate"], 0);
    }
    home
}

/// Runs the command on a terminal of this width and returns all that is drawn there. `None`, with a word, without script(1).
fn drawn(home: &Home, width: u16, before: &str, arguments: &str) -> Option<String> {
    let program = env!("CARGO_BIN_EXE_pillarbox");
    let command = format!("stty cols {width}; {before} '{program}' --config '{}' {arguments}", home.file.display());
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-c", &command, "/dev/null"]).stdin(std::process::Stdio::null());
    script.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("PILLARBOX_CONFIG");
    match script.output() {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
        Err(_) => {
            eprintln!("skipped: script(1) is not installed");
            None
        }
    }
}

#[test]
fn colours_are_for_terminals_alone() {
    let home = home();
    let Some(text) = drawn(&home, 80, "", "user list") else { return };
    assert!(text.contains("\u{1b}[1m"), "{text}");
    assert!(!drawn(&home, 80, "NO_COLOR=1", "user list").unwrap().contains('\u{1b}'));
    assert!(!home.text(&["user", "list"]).contains('\u{1b}'));
    let piped = home.run(&["check", "system"], 1).get_output().clone();
    assert!(!piped.stdout.contains(&0x1b) && !piped.stderr.contains(&0x1b));
}

#[test]
fn tables_fit_the_terminal_and_are_whole_in_a_pipe() {
    let home = home();
    for width in [40, 60, 100] {
        let Some(text) = drawn(&home, width, "NO_COLOR=1", "user list") else { return };
        let longest = text.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
        assert!(longest <= usize::from(width), "{longest} columns of {width}:\n{text}");
        assert_eq!(text.lines().any(|line| line.contains(LONG)), width == 100, "{text}");
    }
    assert!(home.text(&["user", "list"]).lines().any(|line| line.starts_with(LONG)));
}

#[test]
fn long_work_says_how_far_it_is_and_leaves_no_trace_in_a_pipe() {
    let home = home();
    let mbox: String = (0..300).map(|n| format!("From x@client.test Thu Jan  1 00:00:00 1970\nSubject: {n}\n\nhello\n\n")).collect();
    let file = home.path().join("mbox");
    std::fs::write(&file, mbox).unwrap();
    let arguments = format!("import mbox '{}' --to bob@example.test", file.display());
    let Some(text) = drawn(&home, 100, "", &arguments) else { return };
    assert!(text.contains(" %  ") && text.contains(" stored, "), "{text:?}");
    assert!(text.contains("300 messages stored"), "{text:?}");
    let backup = home.path().join("backup");
    let text = drawn(&home, 100, "", &format!("backup create '{}' --with-mail", backup.display())).unwrap();
    assert!(text.contains(" files, "), "{text:?}");
    let text = drawn(&home, 100, "", &format!("backup verify '{}'", backup.display())).unwrap();
    assert!(text.contains(" %  "), "{text:?}");
    let quiet = home.run(&["backup", "verify", backup.to_str().unwrap()], 0).get_output().clone();
    assert!(quiet.stderr.is_empty() && !quiet.stdout.contains(&b'%'));
}

#[test]
fn a_misspelt_word_is_answered_with_the_right_one() {
    let home = Home::new();
    for (wrong, right) in [
        (&["usr", "list"][..], "'user'"),
        (&["user", "lst"], "'list'"),
        (&["user", "list", "--jsn"], "'--json'"),
        (&["check", "sytem"], "system"),
        (&["config", "explain", "lisen.smtp"], "listen.smtp"),
    ] {
        let output = home.command(wrong).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(right), "{wrong:?}: {said}");
    }
}
