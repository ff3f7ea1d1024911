//! Replacing a file whole: write beside it, bring that to the disk, rename.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes `bytes` the whole of `dir/name`, or leaves that file as it was.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(dir, name);
    let written = write_new(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, dir.join(name)));
    if let Err(error) = written {
        // What cannot be removed is a stray temporary file; the error that matters is the first.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    // The new name is on the disk only when the folder is.
    File::open(dir)?.sync_all()
}

/// Finds out whether files can be made in `dir`, which permission bits alone do not tell.
pub(crate) fn check_writable(dir: &Path) -> io::Result<()> {
    let temporary = temporary_path(dir, "writable");
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    std::fs::remove_file(&temporary)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name that no other writer uses: not in this process, nor in another.
fn temporary_path(dir: &Path, name: &str) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // A process id comes back after a restart, and with it a temporary file left by a crash; the time does not.
    let unique = (std::process::id(), since_epoch.as_nanos(), COUNTER.fetch_add(1, Ordering::Relaxed));
    dir.join(format!(".{name}.{}-{}-{}.tmp", unique.0, unique.1, unique.2))
}
