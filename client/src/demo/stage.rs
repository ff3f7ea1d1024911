//! What the demo stands on: a temporary folder and child processes, and the end of both.

use super::DemoError;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// This program, which plays alice and bob.
pub(super) const OWN_PROGRAM: &str = "ahoy";
/// The programs that must lie beside it.
const OTHER_PROGRAMS: [&str; 3] = ["ahoy-login", "ahoy-supernode", "ahoy-relay"];
/// How many lines of a program's standard error a failure shows.
const LAST_WORDS_MAX: usize = 5;

/// The folder and the processes. Dropping it kills the processes; [`clear`](Self::clear) also waits for them.
#[derive(Debug)]
pub(super) struct Stage {
    own_program: PathBuf,
    programs: PathBuf,
    folder: TempDir,
    password: String,
    children: Vec<tokio::process::Child>,
}

impl Stage {
    /// Makes the folder, after seeing that all programs are there.
    pub(super) fn set() -> Result<Self, DemoError> {
        let own_program = std::env::current_exe().map_err(DemoError::OwnProgram)?;
        let programs = own_program.parent().unwrap_or(Path::new("/")).to_owned();
        if let Some(program) = missing(&programs) {
            return Err(DemoError::MissingProgram { program, folder: programs });
        }
        let folder = tempfile::Builder::new().prefix("ahoy-demo-").tempdir().map_err(DemoError::Folder)?;
        let password = ahoy_identity::random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { own_program, programs, folder, password, children: Vec::new() })
    }

    /// A path in the folder, as an argument for a command.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Writes a file into the folder and returns its path.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<String, DemoError> {
        let path = self.path(name);
        std::fs::write(&path, bytes).map_err(DemoError::Folder)?;
        Ok(path)
    }

    /// Starts a program.
    pub(super) fn start(&mut self, name: &str, program: &str, args: &[&str]) -> Result<Child, DemoError> {
        let path = if program == OWN_PROGRAM { self.own_program.clone() } else { self.programs.join(program) };
        let mut command = Command::new(path);
        command.args(args).env("AHOY_PASSWORD", &self.password);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A group of its own, so that Ctrl-C reaches the demo alone, which then ends the others in good order.
        #[cfg(unix)]
        command.process_group(0);
        die_with_parent(&mut command);
        let mut child = command.spawn().map_err(|source| DemoError::Start { name: name.to_owned(), source })?;
        let output = child.stdout.take().expect("standard output is piped");
        let errors = child.stderr.take().expect("standard error is piped");
        self.children.push(child);
        Ok(Child::new(name, output, errors))
    }

    /// Ends all processes, waits until they are gone, and removes the folder.
    pub(super) async fn clear(mut self) {
        for child in &mut self.children {
            // It fails only for a process that has ended already.
            let _ = child.start_kill();
        }
        for child in &mut self.children {
            let _ = child.wait().await;
        }
        let folder = self.folder.path().to_owned();
        if let Err(error) = self.folder.close() {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
    }
}

/// The first of the other programs that is not in `folder`.
fn missing(folder: &Path) -> Option<&'static str> {
    OTHER_PROGRAMS.into_iter().find(|program| !folder.join(format!("{program}{}", std::env::consts::EXE_SUFFIX)).is_file())
}

/// Moves `recording` out of the temporary folder to a place where it stays.
pub(super) fn keep(recording: &Path, prefix: &str) -> std::io::Result<PathBuf> {
    let (mut file, path) = tempfile::Builder::new().prefix(prefix).suffix(".wav").tempfile()?.keep()?;
    std::io::copy(&mut std::fs::File::open(recording)?, &mut file)?;
    Ok(path)
}

/// Even if the demo itself is killed, nothing that it started goes on.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe, and this call only sets an attribute of the calling process.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// What a child process says.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    output: Lines<BufReader<ChildStdout>>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    errors: Option<tokio::task::JoinHandle<()>>,
}

impl Child {
    fn new(name: &str, output: ChildStdout, errors: ChildStderr) -> Self {
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let errors = Some(tokio::spawn(collect(errors, last_words.clone())));
        Self { name: name.to_owned(), output: BufReader::new(output).lines(), last_words, errors }
    }

    /// Its next line; `None` at its end.
    pub(super) async fn line(&mut self) -> Option<String> {
        match self.output.next_line().await {
            Ok(Some(line)) => Some(line),
            Ok(None) | Err(_) => {
                // What it said about its end is worth having before the end is reported.
                if let Some(errors) = &mut self.errors {
                    let _ = errors.await;
                    self.errors = None;
                }
                None
            }
        }
    }

    /// Waits for a line from which `pick` takes something.
    pub(super) async fn wait<T>(
        &mut self,
        awaited: &'static str,
        limit: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<T, DemoError> {
        let search = async {
            while let Some(line) = self.line().await {
                if let Some(found) = pick(&line) {
                    return Some(found);
                }
            }
            None
        };
        match timeout(limit, search).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(self.ended(awaited)),
            Err(_) => Err(self.too_slow(awaited, limit)),
        }
    }

    /// Its last line, once it has ended.
    pub(super) async fn last_line(&mut self, limit: Duration) -> Result<String, DemoError> {
        self.end(limit).await?.ok_or_else(|| self.ended("it said anything"))
    }

    /// Waits for its end. Returns the last line since then.
    pub(super) async fn end(&mut self, limit: Duration) -> Result<Option<String>, DemoError> {
        let mut last = None;
        let read = async {
            while let Some(line) = self.line().await {
                last = Some(line);
            }
        };
        match timeout(limit, read).await {
            Ok(()) => Ok(last),
            Err(_) => Err(self.too_slow("its end", limit)),
        }
    }

    /// It ended, and should not have.
    pub(super) fn ended(&self, awaited: &'static str) -> DemoError {
        DemoError::Ended { name: self.name.clone(), awaited, last_words: self.last_words() }
    }

    /// It takes too long.
    pub(super) fn too_slow(&self, awaited: &'static str, limit: Duration) -> DemoError {
        DemoError::TooSlow { name: self.name.clone(), awaited, limit_s: limit.as_secs(), last_words: self.last_words() }
    }

    fn last_words(&self) -> String {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.is_empty() { String::new() } else { format!(":\n  {}", words.iter().cloned().collect::<Vec<_>>().join("\n  ")) }
    }
}

/// Keeps the last lines of a stream, and reads it to its end so that its writer never blocks.
async fn collect(stream: ChildStderr, last: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_WORDS_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(missing(folder.path()), Some("ahoy-login"));
        for program in ["ahoy-login", "ahoy-relay"] {
            std::fs::write(folder.path().join(program), "").expect("the folder can be written");
        }
        assert_eq!(missing(folder.path()), Some("ahoy-supernode"));
    }

    #[test]
    fn the_recording_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("received.wav");
        std::fs::write(&path, "sound").expect("the folder can be written");
        let kept = keep(&path, "ahoy-demo-test-").expect("it can be copied");
        drop(folder);
        assert_eq!(std::fs::read_to_string(&kept).expect("it is there"), "sound");
        std::fs::remove_file(kept).expect("it is ours");
    }
}
