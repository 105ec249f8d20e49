//! What was measured, over all runs.

use std::collections::BTreeMap;

/// Every figure, by row, server and kind; several where there were several runs.
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<(String, String, &'static str), Vec<f64>>,
    /// What went wrong.
    pub(crate) notes: Vec<String>,
}

impl Results {
    /// Takes note of a figure, and shows it.
    pub(crate) fn put(&mut self, row: &str, server: &str, kind: &'static str, figure: f64) {
        println!("{row:<38} {server:<11} {kind:<14} {}", shown(figure));
        self.figures.entry((row.to_owned(), server.to_owned(), kind)).or_default().push(figure);
    }

    /// Takes note of something that went wrong.
    pub(crate) fn note(&mut self, text: String) {
        println!("  ({text})");
        if self.notes.len() < 200 && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The median over the runs.
    pub(crate) fn median(&self, row: &str, server: &str, kind: &'static str) -> Option<f64> {
        let mut all = self.figures.get(&(row.to_owned(), server.to_owned(), kind))?.clone();
        all.sort_by(f64::total_cmp);
        match all.len() {
            0 => None,
            n if n % 2 == 1 => all.get(n / 2).copied(),
            n => Some((all.get(n / 2 - 1)? + all.get(n / 2)?) / 2.0),
        }
    }

    /// Whoever has a figure in this row.
    pub(crate) fn servers_of(&self, row: &str) -> Vec<String> {
        let mut servers: Vec<String> = self.figures.keys().filter(|(of, ..)| of == row).map(|(_, server, _)| server.clone()).collect();
        servers.dedup();
        servers
    }

    /// Smallest and largest.
    pub(crate) fn span(&self, row: &str, server: &str, kind: &'static str) -> Option<(f64, f64)> {
        let all = self.figures.get(&(row.to_owned(), server.to_owned(), kind))?;
        let least = all.iter().copied().min_by(f64::total_cmp)?;
        Some((least, all.iter().copied().max_by(f64::total_cmp)?))
    }
}

/// Every kind of figure.
const KINDS: [&str; 16] = [
    "accepted/s",
    "stored/s",
    "cpu s/1000",
    "p50 ms",
    "p99 ms",
    "messages/s",
    "handshakes/s",
    "MiB before",
    "MiB at most",
    "MiB",
    "KiB each",
    "start s",
    "RCPT/s",
    "fdatasync+fsync",
    "all kinds",
    "instructions",
];

impl Results {
    /// Takes in what an earlier run printed, one that was ended before its end included.
    pub(crate) fn read(&mut self, text: &str) {
        for line in text.lines() {
            let found = || {
                let (rest, figure) = line.trim_end().rsplit_once(' ')?;
                let figure = figure.parse().ok()?;
                let (rest, kind) = KINDS.iter().find_map(|kind| Some((rest.trim_end().strip_suffix(kind)?.trim_end(), *kind)))?;
                // Columns are at least two blanks apart, or as wide as they were made.
                let (row, server) = rest.rsplit_once("  ").or_else(|| rest.rsplit_once(' '))?;
                Some(((row.trim_end().to_owned(), server.trim().to_owned(), kind), figure))
            };
            match found() {
                Some((key, figure)) => self.figures.entry(key).or_default().push(figure),
                None => {
                    if let Some(note) = line.strip_prefix("  (").and_then(|rest| rest.strip_suffix(')')) {
                        self.notes.push(note.to_owned());
                    }
                }
            }
        }
        self.notes.sort_unstable();
        self.notes.dedup();
    }
}

/// Three digits that count, or all of those before the point.
pub(crate) fn shown(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        size if size >= 0.1 => format!("{figure:.3}"),
        _ => format!("{figure:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_is_read_again() {
        let printed = "run 1 of 2\n\
            20 × 4 KiB, connections reused         pillarbox   stored/s       4000\n\
            20 × 4 KiB, connections reused         pillarbox   stored/s       6000\n\
            sender, a connection each              ours, step by step cpu s/1000     0.0512\n  (exim: no)\n";
        let mut results = Results::default();
        results.read(printed);
        assert_eq!(results.median("20 × 4 KiB, connections reused", "pillarbox", "stored/s"), Some(5000.0));
        assert_eq!(results.median("sender, a connection each", "ours, step by step", "cpu s/1000"), Some(0.0512));
        assert_eq!(results.notes, ["exim: no"]);
    }

    #[test]
    fn medians_and_digits() {
        let mut results = Results::default();
        for figure in [3.0, 1.0, 2.0] {
            results.put("row", "server", "rate", figure);
        }
        assert_eq!(results.median("row", "server", "rate"), Some(2.0));
        results.put("row", "server", "rate", 9.0);
        assert_eq!((results.median("row", "server", "rate"), results.span("row", "server", "rate")), (Some(2.5), Some((1.0, 9.0))));
        assert_eq!(results.median("row", "server", "cpu"), None);
        assert_eq!([0.0, 0.01234, 0.5, 4.567, 45.67, 1234.5].map(shown), ["0", "0.0123", "0.500", "4.57", "45.7", "1234"]);
    }
}
