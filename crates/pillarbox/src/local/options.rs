//! The command line of sendmail, as programs have written it for forty years: clustered letters, values attached or not.

/// What sendmail is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// `-bm`: take a message.
    #[default]
    Send,
    /// `-bs`: speak SMTP.
    Smtp,
    /// `-bp`, `mailq`: show the queue.
    ShowQueue,
    /// `-bi`, `newaliases`: nothing to do here.
    NewAliases,
    /// `-q`: try the queue now.
    Flush,
}

/// The command line, understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) mode: Mode,
    /// `-t`.
    pub(super) from_header: bool,
    /// `-i`, `-oi`: a single dot is no end.
    pub(super) ignore_dots: bool,
    /// `-f`, `-r`.
    pub(super) sender: Option<String>,
    /// `-F`.
    pub(super) full_name: Option<String>,
    /// `-N`.
    pub(super) notify: Option<String>,
    /// `-R`.
    pub(super) ret: Option<String>,
    /// `-V`.
    pub(super) envid: Option<String>,
    pub(super) recipients: Vec<String>,
}

/// Options that take a value and mean nothing here: body type, configuration, queue options, traffic log, …
const SWALLOWED: &str = "BCDdhLOopXMA";
/// Options without a value that mean nothing here.
const IGNORED: &str = "GnUvmesx";

impl Options {
    /// Reads the arguments (without `argv[0]`); `Err` says what was not understood.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                options.recipients.extend(arguments);
                break;
            }
            match argument.strip_prefix('-') {
                Some(cluster) if !cluster.is_empty() => options.cluster(cluster, &mut arguments)?,
                _ => options.recipients.push(argument),
            }
        }
        Ok(options)
    }

    fn cluster(&mut self, cluster: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let mut letters = cluster.chars();
        while let Some(letter) = letters.next() {
            let attached = letters.as_str();
            let mut value = || -> Result<String, String> {
                if attached.is_empty() { rest.next().ok_or_else(|| format!("-{letter} needs a value")) } else { Ok(attached.to_owned()) }
            };
            match letter {
                't' => self.from_header = true,
                'i' => self.ignore_dots = true,
                'o' if attached.starts_with('i') => {
                    self.ignore_dots = true;
                    return Ok(());
                }
                // `-oem`, `-odb`, `-om`: always attached.
                'o' if !attached.is_empty() => return Ok(()),
                'f' | 'r' => return value().map(|v| self.sender = Some(v)),
                'F' => return value().map(|v| self.full_name = Some(v)),
                'N' => return value().map(|v| self.notify = Some(v)),
                'R' => return value().map(|v| self.ret = Some(v)),
                'V' => return value().map(|v| self.envid = Some(v)),
                'b' => {
                    self.mode = match value()?.as_str() {
                        "m" => Mode::Send,
                        "s" => Mode::Smtp,
                        "p" => Mode::ShowQueue,
                        "i" => Mode::NewAliases,
                        other => return Err(format!("-b{other} is not supported; -bm, -bs, -bp and -bi are")),
                    };
                    return Ok(());
                }
                // `-q`, `-qf`, `-q30m`: the daemon runs its own queue; asked by hand, it tries now.
                'q' => {
                    self.mode = Mode::Flush;
                    return Ok(());
                }
                letter if IGNORED.contains(letter) => {}
                letter if SWALLOWED.contains(letter) => return value().map(drop),
                letter => return Err(format!("the option -{letter} is not known")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn lines_that_programs_really_use() {
        let cron = parse("-FCronDaemon -i -B8BITMIME -oem root").unwrap();
        assert_eq!((cron.full_name.as_deref(), cron.ignore_dots, cron.recipients), (Some("CronDaemon"), true, vec!["root".into()]));
        let php = parse("-t -i -f www@example.org").unwrap();
        assert!(php.from_header && php.ignore_dots);
        assert_eq!(php.sender.as_deref(), Some("www@example.org"));
        let git = parse("-i bob@example.org -- -odd@example.org").unwrap();
        assert_eq!(git.recipients, ["bob@example.org", "-odd@example.org"]);
        let mutt = parse("-oem -oi -f a@b.org -N success,delay -R hdrs -V id1 -- c@d.org").unwrap();
        assert_eq!(
            (mutt.notify.as_deref(), mutt.ret.as_deref(), mutt.envid.as_deref()),
            (Some("success,delay"), Some("hdrs"), Some("id1"))
        );
        let clustered = parse("-ti").unwrap();
        assert!(clustered.from_header && clustered.ignore_dots);
        assert_eq!(parse("-bs").unwrap().mode, Mode::Smtp);
        assert_eq!(parse("-bp").unwrap().mode, Mode::ShowQueue);
        assert_eq!(parse("-q").unwrap().mode, Mode::Flush);
        assert_eq!(parse("-f <>").unwrap().sender.as_deref(), Some("<>"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse("-bd").is_err());
        assert!(parse("-Z").is_err());
        assert!(parse("-f").is_err());
    }
}
