//! For people who wait at a terminal: how far long work is. Nothing is drawn where standard error goes elsewhere.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Work that is over at once shows nothing but a flicker; a wheel turns this often.
const TURN: Duration = Duration::from_millis(120);

/// A line that says how far the work is, and vanishes with the value.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar, for work of a known extent.
    pub(crate) fn bar(total: u64) -> Self {
        Self::styled(Some(total), "{bar:30} {percent:>3} %  {msg}  {eta} left")
    }

    /// A wheel, for work that nobody can tell the extent of.
    pub(crate) fn wheel(doing: &'static str) -> Self {
        let this = Self::styled(None, "{spinner} {msg}  {elapsed}");
        this.say(doing);
        if !this.0.is_hidden() {
            this.0.enable_steady_tick(TURN);
        }
        this
    }

    fn styled(total: Option<u64>, template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// How far it is.
    pub(crate) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// What is told beside it.
    pub(crate) fn say(&self, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_message(text);
    }

    /// Counts what is read through it as work done.
    pub(crate) fn reading<R: Read>(&self, from: R) -> impl Read + use<R> {
        self.0.wrap_read(from)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
