//! `pillarbox completions`, `pillarbox man`: made from the same types as the command line itself.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::args::Args;
use crate::failure::{Failure, Trying};
use crate::session::Session;

/// A script that asks the command itself at each Tab, so that domains and users are offered too.
pub(crate) fn completions(session: &Session, shell: Shell) -> Result<(), Failure> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(|| Failure::usage(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    completer.write_registration("COMPLETE", "pillarbox", "pillarbox", "pillarbox", &mut script).trying("write the script")?;
    session.out.bytes(&script)
}

/// One page a command, `pillarbox-queue-list.1` and so on, one for sendmail, and one for the configuration file.
pub(crate) fn man(session: &Session, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).trying(format!("make {}", dir.display()))?;
    clap_mangen::generate_to(Args::command(), dir).trying(format!("write to {}", dir.display()))?;
    let config = pillarbox_config::reference::manual();
    for (name, page) in [("sendmail.1", SENDMAIL), ("mailq.1", LINK), ("newaliases.1", LINK), ("pillarbox.toml.5", &config)] {
        let path = dir.join(name);
        std::fs::write(&path, page).trying(format!("write {}", path.display()))?;
    }
    session.out.done(format!("Wrote the manual pages to {}.", dir.display()))
}

const LINK: &str = ".so man1/sendmail.1\n";

const SENDMAIL: &str = r#".TH SENDMAIL 1 "" "Pillarbox" "User Commands"
.SH NAME
sendmail, mailq, newaliases \- hand mail to Pillarbox
.SH SYNOPSIS
.B sendmail
[\fB\-t\fR] [\fB\-i\fR] [\fB\-f\fR \fIsender\fR] [\fB\-F\fR \fIname\fR] [\fB\-N\fR \fIdsn\fR] [\fB\-R\fR \fIreturn\fR] [\fB\-V\fR \fIenvid\fR] [\fIrecipient\fR ...]
.br
.B sendmail \-bs
.br
.B mailq
.br
.B newaliases
.SH DESCRIPTION
.B sendmail
reads a message from standard input and hands it to the mail server. Once it exits with 0 the message is safe: with the daemon, or, where the
daemon does not run or the user may not speak to it, in the drop folder (STATE/drop), from which the daemon takes it at once or at its next start.
.PP
Names without a domain are completed with the domain that stands for this host. One that nobody has, such as root, goes to postmaster.
A recipient that is refused keeps the message from none of the others; the sender is told of it by mail.
.PP
.B mailq
(\fBsendmail \-bp\fR) shows the queue.
.B newaliases
(\fBsendmail \-bi\fR) does nothing: aliases are kept by \fBpillarbox alias\fR.
.SH OPTIONS
.TP
.B \-t
Take the recipients from To, Cc and Bcc, besides those on the command line, and leave Bcc out of the message.
.TP
.BR \-i ", " \-oi
A line of a single dot does not end the message.
.TP
.BI \-f " sender"
Where reports go; by default the calling user.
.TP
.BI \-F " name"
The name in a From field that has to be added.
.TP
.BI \-N " dsn"
When to report (RFC 3461): never, or some of success,failure,delay.
.TP
.BI \-R " return"
How much of the message a report returns: full or hdrs.
.TP
.BI \-V " envid"
An identifier that reports repeat.
.TP
.B \-bs
Speak SMTP on standard input and output.
.TP
.B \-bp
Show the queue.
.TP
.B \-q
Try the queue now.
.PP
Other options that sendmail has had over the years are taken and mean nothing.
.SH EXIT STATUS
As in sysexits.h: 0 safe, 64 usage, 65 the message names no recipient, 67 no such user, 73 the drop folder cannot be written, 75 try again, 77 refused.
.SH ENVIRONMENT
.TP
.B PILLARBOX_CONFIG
The configuration file, /etc/pillarbox/pillarbox.toml by default.
.SH SEE ALSO
.BR pillarbox (1)
"#;
