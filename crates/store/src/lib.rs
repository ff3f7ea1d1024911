//! Data folders: the place where one program keeps what must outlast it.
//!
//! A folder belongs to one program and one format version, which `format.json` in it says, so that a program never
//! misreads what another, or a later one, wrote. Files are replaced whole: after a crash a reader finds the old bytes
//! or the new ones, never a mixture. The folder is made for its owner's eyes alone (0700), and so is every file (0600).
//!
//! What this crate does not do: it does not watch files, it does not encrypt, and it knows nothing of what is in them.

mod atomic;
mod error;

pub use error::StoreError;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that says whose folder it is.
const FORMAT_FILE: &str = "format.json";
/// The file that the running owner of the folder holds locked.
const LOCK_FILE: &str = "lock";
/// Longest file that is read, in bytes: what programs keep whole in memory is far smaller, and a folder may have been tampered with.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A folder of one program.
#[derive(Debug, Clone)]
pub struct DataFolder {
    dir: PathBuf,
    program: String,
    version: u32,
}

/// Whose folder it is, and how to read it.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    program: String,
    version: u32,
}

impl DataFolder {
    /// The folder at `dir`, made if there is none, for `program`, which reads format versions up to `version`.
    ///
    /// # Errors
    /// If the folder cannot be made or written to, is another program's, or has a later format.
    pub fn open(dir: &Path, program: &str, version: u32) -> Result<Self, StoreError> {
        let create = |source| StoreError::Create { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(create)?;
        let mut folder = Self { dir: dir.to_owned(), program: program.to_owned(), version };
        match folder.read_json::<Format>(FORMAT_FILE)? {
            None => folder.write_json(FORMAT_FILE, &Format { program: program.to_owned(), version })?,
            Some(format) if format.program != program => {
                return Err(StoreError::OtherProgram { dir: dir.to_owned(), found: format.program, expected: program.to_owned() });
            }
            Some(format) if format.version > version => {
                return Err(StoreError::Newer {
                    dir: dir.to_owned(),
                    found: format.version,
                    readable: version,
                    program: program.to_owned(),
                });
            }
            Some(format) => {
                atomic::check_writable(dir).map_err(|source| StoreError::Unwritable { dir: dir.to_owned(), source })?;
                folder.version = format.version;
            }
        }
        Ok(folder)
    }

    /// Where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The format version of what is in the folder: that of the program, or an earlier one.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Makes this process the one that owns the folder, until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process owns it.
    pub fn lock(&self) -> Result<FolderLock, StoreError> {
        let path = self.dir.join(LOCK_FILE);
        let failed = |source| StoreError::Write { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: self.dir.clone(), program: self.program.clone() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// What the file `name` holds, or `None` if there is no such file.
    ///
    /// # Errors
    /// If it is there and cannot be read, or is longer than [`FILE_BYTES_MAX`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.file(name)?;
        match read_bounded(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    /// Makes `bytes` the whole of the file `name`. When this returns, they are on the disk.
    ///
    /// # Errors
    /// If that failed; the file is as it was before.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.file(name)?;
        atomic::replace(&self.dir, name, bytes).map_err(|source| StoreError::Write { path, source })
    }

    /// Removes the file `name`, if there is one.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.file(name)?;
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Write { path, source }),
            _ => Ok(()),
        }
    }

    /// The value that the file `name` holds as JSON, or `None` if there is no such file.
    ///
    /// # Errors
    /// As [`DataFolder::read`], and [`StoreError::Damaged`] if the file holds something else.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(StoreError::Damaged { path: self.dir.join(name), reason: error.to_string() }),
        }
    }

    /// Makes `value`, as JSON, the whole of the file `name`.
    ///
    /// # Errors
    /// As [`DataFolder::write`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let json =
            serde_json::to_vec_pretty(value).map_err(|error| StoreError::Write { path: self.dir.join(name), source: error.into() })?;
        self.write(name, &json)
    }

    /// The path of a file, which is in the folder itself and nowhere else.
    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if plain { Ok(self.dir.join(name)) } else { Err(StoreError::Name(name.to_owned())) }
    }
}

/// Proof that this process owns the folder. Dropping it gives the folder free.
#[derive(Debug)]
pub struct FolderLock {
    // The lock belongs to the open file; the system gives it free when the file is closed.
    _file: File,
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
