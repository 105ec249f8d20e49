//! The first evening as a new administrator has it: a terminal on a machine with nothing but the package, from `setup` to a message read over IMAP.
//!
//! The commands are those of `docs/first-mail.md`, which a test here holds. `PILLARBOX_BLESS=1` draws `docs/images/first-mail.svg` anew.

mod machine;
mod picture;
mod screen;

use std::path::PathBuf;

use machine::Machine;
use screen::Stream;

/// What is typed, in order. With systemd, the second and the fourth are `systemctl restart pillarbox` and `systemctl restart dovecot`.
const COMMANDS: [&str; 6] = [
    "pillarbox setup example.org --admin alice",
    "pillarboxd 2>/var/log/pillarbox.log &",
    "cp /etc/pillarbox/dovecot.conf /etc/dovecot/dovecot.conf",
    "dovecot",
    "printf 'Subject: first\\n\\nIt works.\\n' | sendmail alice@example.org",
    "curl --insecure --user alice@example.org 'imaps://localhost/INBOX;UID=1'",
];
/// Answers to questions: host name, certificate, the password twice, and once to curl.
const ANSWERS: usize = 5;
const PASSWORD: &str = "a good password";

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn the_page_tells_the_commands_of_the_walk_and_their_number() {
    let page = std::fs::read_to_string(docs().join("first-mail.md")).unwrap();
    for command in COMMANDS {
        let with_systemd = match command.split(' ').next() {
            Some("pillarboxd") => "systemctl restart pillarbox",
            Some("dovecot") => "systemctl restart dovecot",
            _ => command,
        };
        assert!(page.contains(with_systemd), "{with_systemd} is not in docs/first-mail.md");
    }
    let words = ["no", "one", "two", "three", "four", "five", "six", "seven"];
    let told = format!("{} commands and {} answers", words[COMMANDS.len()], words[ANSWERS]);
    assert!(page.contains(&told), "docs/first-mail.md does not say {told:?}");
}

#[tokio::test]
async fn from_an_empty_machine_to_a_message_read_over_imap() {
    let Some(machine) = Machine::start().await else { return };
    let folder = machine.folder();
    let (mut terminal, mut log) = (Stream::open(&folder.join("screen")), Stream::open(&folder.join("daemon.log")));
    // The prompt of a shell that waits comes again after each command.
    let prompt = "# ";
    let [setup, daemon, copy, dovecot, send, read] = COMMANDS;

    screen::line(folder, setup).await;
    for (question, answer) in [
        ("Name of this server in DNS", ""),
        ("The server's certificate", ""),
        ("Password of alice@example.org", PASSWORD),
        ("The same again", PASSWORD),
    ] {
        terminal.until(question).await;
        screen::line(folder, answer).await;
    }
    terminal.until("pillarbox check").await;
    terminal.until(prompt).await;
    screen::line(folder, daemon).await;
    log.until("ready").await;
    terminal.until(prompt).await;
    for command in [copy, dovecot, send] {
        screen::line(folder, command).await;
        terminal.until(prompt).await;
    }
    log.until("status=delivered").await;
    screen::line(folder, read).await;
    terminal.until("Enter host password for user 'alice@example.org':").await;
    screen::line(folder, PASSWORD).await;
    terminal.until("It works.").await;
    terminal.until(prompt).await;

    let all = screen::everything(folder).await;
    for wanted in [
        "Delivered-To: alice@example.org",
        "Subject: first",
        "IN MX 10 mail.example.org.",
        "v=DKIM1",
        "Added the domain example.org and made its DKIM keys.",
    ] {
        assert!(all.contains(wanted), "{wanted} is not in\n{all}");
    }
    assert!(!all.contains(PASSWORD), "the password was shown");
    if std::env::var_os("PILLARBOX_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(docs().join("images/first-mail.svg"), picture::svg(&all)).unwrap();
    }
}
