//! What the laboratory asks of the system: commands to their end, threads and processes inside a namespace.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes `command` start in a namespace.
pub(crate) fn enter(command: &mut Command, namespace: &str) {
    let path = CString::new(format!("/run/netns/{namespace}")).expect("names of namespaces have no zero bytes");
    // SAFETY: between fork and exec only open, setns and close are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            let handle = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if handle < 0 || libc::setns(handle, libc::CLONE_NEWNET) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            libc::close(handle);
            Ok(())
        });
    }
}

/// Runs `work` on a thread inside a namespace; `None` is the one the test runs in.
///
/// # Panics
/// If the namespace cannot be entered, or `work` panics.
pub(crate) fn inside<T: Send>(namespace: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.map(|name| File::open(format!("/run/netns/{name}")).expect("the namespace exists"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if let Some(namespace) = namespace {
                // SAFETY: setns moves this thread alone, which ends with `work`.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "the namespace can be entered");
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives rules to the firewall of a namespace.
///
/// # Panics
/// If it refuses them.
pub(crate) fn nft(namespace: &str, rules: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("nft: {error}"));
    let written = child.stdin.take().expect("piped").write_all(rules.as_bytes());
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("nft: {error}"));
    assert!(written.is_ok() && output.status.success(), "nft refuses {rules}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Changes settings of the kernel in a namespace.
///
/// # Panics
/// If it refuses.
pub(crate) fn sysctl(namespace: &str, settings: &[&str]) {
    run("ip", &[&["netns", "exec", namespace, "sysctl", "-qw"], settings].concat());
}

/// Runs a command to its end.
///
/// # Panics
/// If it fails.
pub(crate) fn run(program: &str, args: &[&str]) {
    try_run(program, args).unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn try_run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Where a program of the system is; also in the folders that only an administrator's `PATH` names.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| Path::is_file(file))
}
