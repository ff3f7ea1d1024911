//! What is left of a run: the page of the documents with its pictures, and everything as JSON.

use crate::plot::Chart;
use crate::score::Score;
use crate::table::{self, Row};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands before the table, made by whoever changes the bench.
const METHOD: &str = include_str!("../method.md");

/// Writes the page and its pictures; `wire` is a table of what the calls sent.
pub(crate) fn write(folder: &Path, rows: &[Row], wire: &str, charts: &[(String, Chart)]) -> Result<(), String> {
    let put = |name: &str, text: &str| std::fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"));
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut page = format!("{METHOD}\n## Results\n\n{}", table::markdown(rows));
    for (name, chart) in charts {
        put(name, &chart.svg())?;
        page.push_str(&format!("\n![{}]({name})\n", chart.title));
    }
    page.push_str(&format!("\n## What calls send\n\nKilobits a second of each end, once a call has settled.\n\n{wire}"));
    put("voice.md", &page)
}

/// Keeps rows and scores for whoever looks closer.
pub(crate) fn keep(folder: &Path, rows: &[Row], scores: &BTreeMap<String, Score>) -> Result<(), String> {
    let path = folder.join("results.json");
    let results = serde_json::json!({ "rows": rows, "scores": scores });
    std::fs::write(&path, format!("{results:#}")).map_err(|error| format!("{}: {error}", path.display()))
}
