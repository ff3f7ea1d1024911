//! How calls sound: `make bench-voice`.
//!
//! Whole calls between the client programs over an emulated link, recorded and scored, with rivals over the same losses beside them. It prints a table and
//! ends with status 1 if a row falls short of its limit. A full run also writes `docs/benchmarks/voice.md` and its pictures; `--quick` makes one call where
//! the full run makes several, of fewer words, and writes nothing.

mod call;
mod device_rows;
mod link_rows;
mod loss;
mod missing_rows;
mod plot;
mod quality_rows;
mod report;
mod rival;
mod score;
mod signal;
mod sound_server;
mod speech;
mod stage;
mod table;
mod urgency;
mod virtual_rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Calls at a time. More, and they disturb one another on two cores.
const PAIRS: usize = 3;
/// Seconds of speech in a quick run, those that are not judged included.
const QUICK_SPEECH_SECONDS: f64 = 17.2;

struct Options {
    is_quick: bool,
    /// Only calls whose names begin with one of these; empty: all.
    only: Vec<String>,
    /// Whether the calls run before everything else on the machine. What is measured on a busy machine is worth little, but calls stumble less.
    is_urgent: bool,
    /// Where everything that is made lies.
    root: PathBuf,
    /// Where the documents are.
    docs: PathBuf,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, from, to] = &args[..]
        && flag == "--pass-through"
    {
        sound_server::pass_through(from, to);
    }
    let options = match parse(args.into_iter()) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("the bench cannot go on: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options =
        Options { is_quick: false, only: Vec::new(), is_urgent: false, root: "target/voice-bench".into(), docs: "docs/benchmarks".into() };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--quick" => options.is_quick = true,
            "--urgent" => options.is_urgent = true,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--root" => options.root = value()?.into(),
            "--docs" => options.docs = value()?.into(),
            _ => return Err("usage: ahoy-voice-bench [--quick] [--urgent] [--only NAME,…] [--root FOLDER] [--docs FOLDER]".to_owned()),
        }
    }
    Ok(options)
}

/// True if no row falls short.
fn run(options: &Options) -> Result<bool, String> {
    let began = Instant::now();
    let root = std::path::absolute(&options.root).map_err(|error| format!("{}: {error}", options.root.display()))?;
    let folder = fresh(&root.join("calls"))?;
    let voices = speech::load(&root, if options.is_quick { QUICK_SPEECH_SECONDS } else { f64::INFINITY })?;
    let is_wanted = |id: &str| options.only.is_empty() || options.only.iter().any(|only| id.starts_with(only));
    let mut plans = link_rows::plans(options.is_quick);
    plans.extend(quality_rows::plans(options.is_quick));
    plans.retain(|plan| is_wanted(&plan.id));
    eprintln!("{} calls, {PAIRS} at a time …", plans.len());
    let (outcomes, device_rows) = if plans.is_empty() && !is_wanted("devices") {
        (Vec::new(), Vec::new())
    } else {
        let _urgent = options.is_urgent.then(urgency::Urgent::begin);
        let stage = stage::Stage::build(PAIRS)?;
        let outcomes = call::make_all(&stage, &voices, plans, &folder);
        let device_rows = if is_wanted("devices") { device_rows::rows(&stage, &root, &voices)? } else { Vec::new() };
        (outcomes, device_rows)
    };
    eprintln!("{:.0} s so far", began.elapsed().as_secs_f64());
    eprintln!("the rivals …");
    let mut recordings = quality_rows::rivals(options.is_quick, &outcomes, &voices, &folder)?;
    let judged = outcomes.iter().filter(|outcome| outcome.plan.seconds.is_none());
    recordings.extend(judged.flat_map(quality_rows::recordings));
    eprintln!("{} recordings are judged …", recordings.len());
    let scores = score::judge(&root, &voices, &recordings)?;
    let mut rows = quality_rows::rows(options.is_quick, &outcomes, &scores);
    rows.extend(link_rows::rows(&outcomes, &scores));
    rows.extend(device_rows);
    if is_wanted("virtual") {
        eprintln!("made-up networks and rooms …");
        rows.extend(virtual_rows::rows(options.is_quick, &root, &voices)?);
    }
    if options.only.is_empty() {
        rows.extend(missing_rows::rows());
    }
    let mut charts = quality_rows::charts(options.is_quick, &scores);
    charts.extend(link_rows::charts(&outcomes));
    println!("{}", table::plain(&rows));
    report::keep(&root, &rows, &scores)?;
    if !options.is_quick && options.only.is_empty() {
        report::write(&options.docs, &rows, &charts)?;
    } else {
        report::write(&root.join("report"), &rows, &charts)?;
    }
    let short = rows.iter().filter(|row| !row.holds()).count();
    println!("{short} of {} rows fall short; {:.0} s", rows.len(), began.elapsed().as_secs_f64());
    Ok(short == 0)
}

/// An empty folder.
fn fresh(folder: &Path) -> Result<PathBuf, String> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder.to_owned())
}
