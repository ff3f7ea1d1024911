//! How calls sound: `make bench-voice`.
//!
//! Whole calls between the client programs over an emulated link, recorded and scored, with rivals over the same losses beside them. It prints a table and
//! ends with status 1 if a row falls short of its limit. With `--rivals` it hears the programs of others, too, where they are installed. A full run also writes `docs/benchmarks/voice.md` and its pictures; `--quick` makes one call where
//! the full run makes several, of fewer words, and writes nothing.

mod call;
mod device_rows;
mod link_rows;
mod loopback_rows;
mod loss;
mod plot;
mod quality_rows;
mod report;
mod rival;
mod rival_programs;
mod score;
mod signal;
mod sound_server;
mod speech;
mod stage;
mod table;
mod urgency;
mod virtual_rows;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Calls at a time. More, and they disturb one another on two cores.
const PAIRS: usize = 3;
/// Calls at a time whose delay is measured: two programs each would fill two cores only for moments.
const PAIRS_TIMED: usize = 2;
/// Seconds of speech in a quick run, those that are not judged included.
const QUICK_SPEECH_SECONDS: f64 = 17.2;

struct Options {
    is_quick: bool,
    /// Only calls whose names begin with one of these; empty: all.
    only: Vec<String>,
    /// Whether the calls run before everything else on the machine. What is measured on a busy machine is worth little, but calls stumble less.
    is_urgent: bool,
    /// Whether the programs of others are heard, too, where they are installed.
    has_rivals: bool,
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
    let mut options = Options {
        is_quick: false,
        only: Vec::new(),
        is_urgent: false,
        has_rivals: false,
        root: "target/voice-bench".into(),
        docs: "docs/benchmarks".into(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--quick" => options.is_quick = true,
            "--urgent" => options.is_urgent = true,
            "--rivals" => options.has_rivals = true,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--root" => options.root = value()?.into(),
            "--docs" => options.docs = value()?.into(),
            _ => {
                return Err(
                    "usage: ahoy-voice-bench [--quick] [--urgent] [--rivals] [--only NAME,…] [--root FOLDER] [--docs FOLDER]".to_owned()
                );
            }
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
    let wanted = |mut plans: Vec<call::CallPlan>| {
        plans.retain(|plan| is_wanted(&plan.id));
        plans
    };
    let plans = wanted([link_rows::plans(options.is_quick), quality_rows::plans(options.is_quick)].concat());
    let planned: Vec<String> = plans.iter().map(|plan| plan.id.clone()).collect();
    let timed = wanted(loopback_rows::plans());
    eprintln!("{} calls, {PAIRS} at a time, and {}, {PAIRS_TIMED} at a time …", plans.len(), timed.len());
    let mut outcomes = Vec::new();
    let mut sound_rows = Vec::new();
    let mut heard = Vec::new();
    if !plans.is_empty() || !timed.is_empty() || is_wanted("devices") || options.has_rivals {
        let _urgent = options.is_urgent.then(urgency::Urgent::begin);
        let stage = stage::Stage::build(PAIRS)?;
        outcomes = call::make_all(&stage, &stage.pairs, &voices, plans, &folder);
        if !timed.is_empty() {
            let timed = call::make_all(&stage, &stage.pairs[..PAIRS_TIMED], &voices, timed, &folder);
            sound_rows.extend(table::or_missing("mouth to ear", || loopback_rows::rows(&timed, &voices)));
        }
        if is_wanted("devices") {
            sound_rows.extend(table::or_missing("calls with devices", || device_rows::rows(&stage, &root, &voices)));
        }
        if options.has_rivals {
            eprintln!("the programs of others …");
            heard = rival_programs::hear_all(&stage, &root, &voices);
        }
    }
    eprintln!("{:.0} s so far", began.elapsed().as_secs_f64());
    eprintln!("the rivals …");
    let mut recordings = quality_rows::rivals(options.is_quick, &outcomes, &voices, &folder)?;
    let judged = outcomes.iter().filter(|outcome| outcome.plan.seconds.is_none());
    recordings.extend(judged.flat_map(quality_rows::recordings));
    recordings.extend(heard.iter().flat_map(|heard| heard.recordings.clone()));
    eprintln!("{} recordings are judged …", recordings.len());
    let scores = score::judge(&root, &voices, &recordings)?;
    let mut rows = quality_rows::rows(options.is_quick, &planned, &outcomes, &scores);
    rows.extend(link_rows::rows(&planned, &outcomes, &scores));
    if let Some(row) = sound_rows.iter_mut().find(|row: &&mut table::Row| row.what == device_rows::MOUTH_TO_EAR) {
        let others = heard.iter().map(|heard| format!("{} {:.0} ms, the sinks included", heard.program.name(), heard.mouth_to_ear_ms));
        row.rivals = others.collect::<Vec<_>>().join("; ");
    }
    rows.extend(sound_rows);
    rows.extend(quality_rows::programs_row(&heard, &scores));
    if is_wanted("virtual") {
        eprintln!("made-up networks and rooms …");
        rows.extend(table::or_missing("made-up networks and rooms", || virtual_rows::rows(options.is_quick, &root, &voices)));
    }
    let mut charts = quality_rows::charts(options.is_quick, &scores);
    charts.extend(link_rows::charts(&outcomes));
    let wire = wire::table(&outcomes);
    println!("{}\n{wire}", table::plain(&rows));
    report::keep(&root, &rows, &scores)?;
    if !options.is_quick && options.only.is_empty() {
        report::write(&options.docs, &rows, &wire, &charts)?;
    } else {
        report::write(&root.join("report"), &rows, &wire, &charts)?;
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
