//! The table that the bench ends with: what was asked, what came out, and what others make of the same.

use serde::Serialize;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Whether a row holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Verdict {
    /// It does.
    Pass,
    /// It does not.
    Short,
    /// It could not be measured, for this reason; counts as falling short.
    Missing(String),
    /// Nothing is asked.
    Told,
}

/// A row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// What came out.
    pub(crate) ours: String,
    /// What is asked for.
    pub(crate) limit: String,
    /// What others come to, in the same run.
    pub(crate) rivals: String,
    pub(crate) verdict: Verdict,
}

impl Row {
    /// A row that was measured.
    pub(crate) fn measured(what: impl Into<String>, ours: impl Into<String>, limit: impl Into<String>, holds: bool) -> Self {
        let verdict = if holds { Verdict::Pass } else { Verdict::Short };
        Self { what: what.into(), ours: ours.into(), limit: limit.into(), rivals: String::new(), verdict }
    }

    /// A row that nobody could measure.
    pub(crate) fn missing(what: impl Into<String>, limit: impl Into<String>, reason: impl Into<String>) -> Self {
        let verdict = Verdict::Missing(reason.into());
        Self { what: what.into(), ours: "not measured yet".to_owned(), limit: limit.into(), rivals: String::new(), verdict }
    }

    /// A figure without a limit.
    pub(crate) fn told(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self { what: what.into(), ours: ours.into(), limit: String::new(), rivals: String::new(), verdict: Verdict::Told }
    }

    /// The same row with rivals.
    pub(crate) fn with_rivals(self, rivals: impl Into<String>) -> Self {
        Self { rivals: rivals.into(), ..self }
    }

    /// Whether the bench may end well with it.
    pub(crate) fn holds(&self) -> bool {
        matches!(self.verdict, Verdict::Pass | Verdict::Told)
    }

    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Short => "FALLS SHORT",
            Verdict::Missing(_) => "MISSING",
            Verdict::Told => "",
        }
    }

    fn cells(&self) -> [String; 5] {
        let ours = match &self.verdict {
            Verdict::Missing(reason) => format!("{}: {reason}", self.ours),
            Verdict::Pass | Verdict::Short | Verdict::Told => self.ours.clone(),
        };
        [self.what.clone(), ours, self.limit.clone(), self.rivals.clone(), self.word().to_owned()]
    }
}

/// The rows of a part of the bench; where it fails or panics, one that says so.
pub(crate) fn or_missing(part: &str, rows: impl FnOnce() -> Result<Vec<Row>, String>) -> Vec<Row> {
    let outcome = catch_unwind(AssertUnwindSafe(rows)).unwrap_or_else(|_| Err("it broke off; see above".to_owned()));
    outcome.unwrap_or_else(|reason| vec![Row::missing(part, "", reason)])
}

const HEADINGS: [&str; 5] = ["what", "ours", "limit", "rivals, same run", ""];

/// The table for a terminal.
pub(crate) fn plain(rows: &[Row]) -> String {
    let lines: Vec<[String; 5]> = std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// The table for the documents.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = format!("| {} |\n|{}\n", HEADINGS.join(" | "), "---|".repeat(HEADINGS.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.cells().join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_falls_short_and_says_why() {
        let rows = [Row::measured("a", "1", "≤ 2", true), Row::missing("b", "≤ 2", "no such thing"), Row::told("c", "3")];
        assert_eq!(rows.each_ref().map(Row::holds), [true, false, true]);
        assert!(plain(&rows).contains("not measured yet: no such thing"));
        assert_eq!(markdown(&rows).lines().count(), 5);
    }

    #[test]
    fn a_part_that_fails_leaves_a_row_that_falls_short() {
        let rows = or_missing("a part", || Err("no such thing".to_owned()));
        assert!(!rows[0].holds() && plain(&rows).contains("a part"));
        assert!(!or_missing("a part", || panic!("on purpose"))[0].holds());
    }
}
