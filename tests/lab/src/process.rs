//! A child process whose output is collected line by line, so that a test can wait for what it says.

use crate::event::Event;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Most lines of one stream that are kept: hours of a call's statistics. What comes later is read and dropped, so that no program blocks.
const LINES_MAX: usize = 100_000;
/// How many lines of each stream a failure shows.
const LINES_SHOWN: usize = 60;
/// A process that was killed is gone within this time.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running program. Dropping it kills it; if the test is failing, its last lines are shown.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Output>,
}

/// How a program ended, and all that it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// The lines of its standard output.
    pub stdout: Vec<String>,
    /// The lines of its standard error.
    pub stderr: Vec<String>,
}

#[derive(Debug, Default)]
struct Output {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    stdout: Vec<String>,
    stderr: Vec<String>,
    open_streams: u8,
}

impl Process {
    /// Starts a program; `label` names it in failures.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(label: &str, mut command: Command) -> Self {
        // The child must not outlive the test, however the test ends.
        // SAFETY: prctl is async-signal-safe and touches nothing but the calling process.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{label}: cannot start {command:?}: {error}"));
        let output = Arc::new(Output::default());
        output.lock().open_streams = 2;
        collect(child.stdout.take().expect("piped"), output.clone(), |said| &mut said.stdout);
        collect(child.stderr.take().expect("piped"), output.clone(), |said| &mut said.stderr);
        let input = child.stdin.take();
        Self { label: label.to_owned(), child, input, output }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// If the process does not take it.
    pub fn send(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open until the process ends");
        let written = writeln!(input, "{line}").and_then(|()| input.flush());
        written.unwrap_or_else(|error| panic!("{}: standard input: {error}\n{}", self.label, self.transcript()));
    }

    /// Waits for a line of standard output from which `pick` takes something.
    ///
    /// # Panics
    /// If none comes in time, or the process ends without one.
    pub fn wait_line<T>(&self, timeout: Duration, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        self.output.wait(timeout, |said| said.stdout.iter().find_map(|line| pick(line))).unwrap_or_else(|| self.fail(what))
    }

    /// Waits for a line of standard error that `test` holds for.
    ///
    /// # Panics
    /// If none comes in time, or the process ends without one.
    pub fn wait_error_line(&self, timeout: Duration, what: &str, test: impl Fn(&str) -> bool) {
        self.output.wait(timeout, |said| said.stderr.iter().any(|line| test(line)).then_some(())).unwrap_or_else(|| self.fail(what));
    }

    /// Waits for the event `name`.
    ///
    /// # Panics
    /// If it does not come in time, or the process ends without it.
    pub fn wait_for(&self, name: &str, timeout: Duration) -> Event {
        self.wait_event(0, name, timeout, |_| true)
    }

    /// Waits for an event `name` that `test` holds for, later than the first `mark` lines (see [`mark`](Self::mark)).
    ///
    /// # Panics
    /// If it does not come in time, or the process ends without it.
    pub fn wait_event(&self, mark: usize, name: &str, timeout: Duration, test: impl Fn(&Event) -> bool) -> Event {
        self.try_event(mark, name, timeout, test).unwrap_or_else(|| self.fail(&format!("the event {name:?}")))
    }

    /// Like [`wait_event`](Self::wait_event), but `None` if it does not come.
    pub fn try_event(&self, mark: usize, name: &str, timeout: Duration, test: impl Fn(&Event) -> bool) -> Option<Event> {
        let fits = |line: &String| Event::parse(line).filter(|event| event.is(name) && test(event));
        self.output.wait(timeout, |said| said.stdout.iter().skip(mark).find_map(fits))
    }

    /// A point in its output: what is said from here on is later.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.output.lock().stdout.len()
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.output.lock().stdout.iter().filter_map(|line| Event::parse(line)).collect()
    }

    /// The events later than the first `mark` lines.
    #[must_use]
    pub fn events_since(&self, mark: usize) -> Vec<Event> {
        self.output.lock().stdout.iter().skip(mark).filter_map(|line| Event::parse(line)).collect()
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(libc::SIGINT);
    }

    /// Stops it where it stands, as a computer that goes to sleep does.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it without asking, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn finish(mut self, timeout: Duration) -> Finished {
        let deadline = Instant::now() + timeout;
        // Both streams close when the process ends; then the status is there at once.
        self.output.wait(timeout, |said| (said.open_streams == 0).then_some(()));
        loop {
            match self.child.try_wait().expect("our own child can be waited for") {
                Some(status) => {
                    let said = self.output.lock();
                    return Finished { status, stdout: said.stdout.clone(), stderr: said.stderr.clone() };
                }
                None if Instant::now() >= deadline => self.fail("its end"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(self) -> Finished {
        self.interrupt();
        self.finish(END_TIMEOUT)
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("process ids are small");
        // SAFETY: the child has not been waited for while `self.child` can still be, so the id is its own.
        unsafe { libc::kill(pid, signal) };
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: waited in vain for {what}\n{}", self.label, self.transcript())
    }

    /// The last lines it said.
    #[must_use]
    pub fn transcript(&self) -> String {
        let said = self.output.lock();
        let mut text = String::new();
        for (stream, lines) in [("output", &said.stdout), ("error", &said.stderr)] {
            let last: VecDeque<_> = lines.iter().rev().take(LINES_SHOWN).rev().collect();
            let _ = writeln!(text, "--- {} standard {stream}, last {} of {} lines", self.label, last.len(), lines.len());
            for line in last {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprint!("{}", self.transcript());
        }
    }
}

impl Finished {
    /// Its events.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.stdout.iter().filter_map(|line| Event::parse(line)).collect()
    }

    /// The last event `name`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn event(&self, name: &str) -> Event {
        self.events().into_iter().rfind(|event| event.is(name)).unwrap_or_else(|| panic!("no event {name:?} in {self:#?}"))
    }

    /// Checks that it succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }

    /// Checks that it failed the way a person can do something with: status 1 and one sentence on standard error that has all of `words` in it.
    ///
    /// # Panics
    /// If it did not.
    pub fn failed_with(&self, words: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{self:#?}");
        // ALSA's library complains of a missing sound card by itself.
        let lines: Vec<_> = self.stderr.iter().filter(|line| !line.trim().is_empty() && !line.starts_with("ALSA lib")).collect();
        assert_eq!(lines.len(), 1, "one line on standard error: {self:#?}");
        let sentence = lines[0].to_lowercase();
        for word in words {
            assert!(sentence.contains(&word.to_lowercase()), "{word:?} is not in {sentence:?}");
        }
        for inner in ["panicked", "os { code", "backtrace", "some(", "err("] {
            assert!(!sentence.contains(inner), "{inner:?} is nothing to show to a person: {sentence:?}");
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("no reader panics")
    }

    /// Waits until `pick` finds something in what was said; gives up at the time limit, or when nothing more can come.
    fn wait<T>(&self, timeout: Duration, mut pick: impl FnMut(&Said) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut said = self.lock();
        loop {
            if let Some(found) = pick(&said) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || said.open_streams == 0 {
                return None;
            }
            said = self.changed.wait_timeout(said, left).expect("no reader panics").0;
        }
    }
}

/// Reads a stream to its end on a thread of its own.
fn collect(stream: impl Read + Send + 'static, output: Arc<Output>, lines: fn(&mut Said) -> &mut Vec<String>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            bytes.clear();
            let mut said = output.lock();
            let kept = lines(&mut said);
            if kept.len() < LINES_MAX {
                kept.push(line);
            }
            drop(said);
            output.changed.notify_all();
        }
        output.lock().open_streams -= 1;
        output.changed.notify_all();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command)
    }

    #[test]
    fn events_are_told_from_other_lines_and_from_earlier_ones() {
        let mut process = shell(r#"echo hello; echo '{"event":"a","n":1}'; read x; echo '{"event":"a","n":2}'"#);
        assert!((process.wait_for("a", LONG).number("n") - 1.0).abs() < 1e-9);
        let mark = process.mark();
        process.send("go on");
        assert!((process.wait_event(mark, "a", LONG, |_| true).number("n") - 2.0).abs() < 1e-9);
        assert!(process.finish(LONG).status.success());
    }

    #[test]
    fn an_end_is_noticed_before_the_time_limit() {
        let process = shell("exit 3");
        assert!(process.try_event(0, "never", LONG, |_| true).is_none());
        assert_eq!(process.finish(LONG).status.code(), Some(3));
    }

    #[test]
    fn dropping_kills() {
        let process = shell("echo up; exec sleep 1000");
        process.wait_line(LONG, "up", |line| (line == "up").then_some(()));
        let folder = format!("/proc/{}", process.pid());
        drop(process);
        assert!(!std::path::Path::new(&folder).exists());
    }

    #[test]
    fn one_sentence_with_status_one_is_how_to_fail() {
        shell("echo 'the name is taken; choose another' >&2; exit 1").finish(LONG).failed_with(&["taken", "choose"]);
        assert!(std::panic::catch_unwind(|| shell("echo a >&2; echo b >&2; exit 1").finish(LONG).failed_with(&[])).is_err());
        assert!(std::panic::catch_unwind(|| shell("exit 1").finish(LONG).failed_with(&[])).is_err());
    }
}
