//! What can be wrong with a data folder, in one sentence each that says what to do.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a data folder, or a file in it, cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder is not there and cannot be made.
    #[error("cannot make the data folder {dir}: {source}; name another folder, or make this one and give yourself the right to write to it", dir = .dir.display())]
    Create {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder is there and nothing can be written to it.
    #[error("cannot write to the data folder {dir}: {source}; give yourself the right to write to it, or name another folder", dir = .dir.display())]
    Unwritable {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written or removed.
    #[error("cannot write {path}: {source}; check the folder's permissions and the free space on its disk", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check who owns it and its permissions", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something that this program did not write.
    #[error("{path} is damaged ({reason}); restore it from a backup, or begin with an empty folder", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder is another program's.
    #[error("the data folder {dir} belongs to {found}, not to {expected}; name a folder of its own for {expected}", dir = .dir.display())]
    OtherProgram {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: String,
    },
    /// A later version of the program wrote the folder.
    #[error(
        "the data folder {dir} was written by a newer {program} (format {found}; this one reads up to {readable}); update {program}, or name another folder",
        dir = .dir.display()
    )]
    Newer {
        /// The folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that this program reads.
        readable: u32,
        /// The program.
        program: String,
    },
    /// Another process owns the folder.
    #[error("the data folder {dir} is in use by another {program}; stop that one first, or name another folder", dir = .dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The program.
        program: String,
    },
    /// Not the name of a file in the folder.
    #[error("{0:?} is not the name of a file in a data folder; use one without '/'")]
    Name(String),
}
