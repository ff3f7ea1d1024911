//! What a data folder promises to the program that opens it.

use ahoy_store::{DataFolder, FILE_BYTES_MAX, StoreError};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PROGRAM: &str = "ahoy-test";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

fn open(dir: &Path) -> DataFolder {
    DataFolder::open(dir, PROGRAM, 1).expect("opens")
}

#[test]
fn a_folder_and_its_files_are_for_their_owner_alone() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let dir = parent.path().join("a/b");
    let folder = open(&dir);
    folder.write("key", b"secret").expect("writes");
    let _lock = folder.lock().expect("free");
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("key")), 0o600);
    assert_eq!(mode(&dir.join("format.json")), 0o600);
    assert_eq!(mode(&dir.join("lock")), 0o600);
}

#[test]
fn what_was_written_is_read_after_reopening() {
    let dir = tempfile::tempdir().expect("temporary folder");
    open(dir.path()).write("key", b"first").expect("writes");
    open(dir.path()).write("key", b"second").expect("writes");
    let folder = open(dir.path());
    assert_eq!(folder.read("key").expect("reads"), Some(b"second".to_vec()));
    assert_eq!(folder.read("other").expect("reads"), None);
    folder.remove("key").expect("removes");
    folder.remove("key").expect("removing nothing is no error");
    assert_eq!(folder.read("key").expect("reads"), None);
}

#[test]
fn values_are_kept_as_json() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = open(dir.path());
    folder.write_json("value.json", &vec![1, 2, 3]).expect("writes");
    assert_eq!(folder.read_json::<Vec<u8>>("value.json").expect("reads"), Some(vec![1, 2, 3]));
    folder.write("value.json", b"[1,").expect("writes");
    let error = folder.read_json::<Vec<u8>>("value.json").expect_err("is damaged");
    assert!(matches!(error, StoreError::Damaged { .. }));
    assert!(error.to_string().contains("value.json is damaged"), "{error}");
}

#[test]
fn writing_leaves_no_temporary_files() {
    let dir = tempfile::tempdir().expect("temporary folder");
    open(dir.path()).write("key", b"first").expect("writes");
    open(dir.path());
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).expect("reads").map(|entry| entry.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["format.json", "key"]);
}

#[test]
fn a_write_that_fails_leaves_the_rest_as_it_was() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = open(dir.path());
    // A folder in the place of the file: the rename fails, whoever runs the test.
    std::fs::create_dir_all(dir.path().join("key/inside")).expect("makes");
    assert!(matches!(folder.write("key", b"new"), Err(StoreError::Write { .. })));
    assert!(dir.path().join("key/inside").is_dir());
    assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 2, "a temporary file was left");
}

#[test]
fn readers_see_whole_files_while_many_write() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = open(dir.path());
    folder.write("key", &[0; 4096]).expect("writes");
    std::thread::scope(|scope| {
        for writer in 1..=4_u8 {
            let folder = &folder;
            scope.spawn(move || (0..20).for_each(|_| folder.write("key", &[writer; 4096]).expect("writes")));
        }
        for _ in 0..200 {
            let bytes = folder.read("key").expect("reads").expect("is there");
            assert!(bytes.len() == 4096 && bytes.iter().all(|byte| *byte == bytes[0]));
        }
    });
}

#[test]
fn a_folder_that_cannot_be_made_is_named_in_the_message() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let file = parent.path().join("file");
    std::fs::write(&file, b"in the way").expect("writes");
    let error = DataFolder::open(&file.join("data"), PROGRAM, 1).expect_err("a file is in the way");
    assert!(matches!(error, StoreError::Create { .. }));
    assert!(error.to_string().contains(&file.join("data").display().to_string()), "{error}");
    assert!(error.to_string().contains("name another folder"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_says_so() {
    let dir = tempfile::tempdir().expect("temporary folder");
    open(dir.path());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o500)).expect("changes mode");
    if std::fs::write(dir.path().join("probe"), b"").is_ok() {
        eprintln!("skipped: this user may write anywhere");
        return;
    }
    let error = DataFolder::open(dir.path(), PROGRAM, 1).expect_err("cannot write");
    assert!(matches!(error, StoreError::Unwritable { .. }));
    assert!(error.to_string().contains("give yourself the right"), "{error}");
}

#[test]
fn a_folder_of_another_program_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    DataFolder::open(dir.path(), "ahoy-relay", 1).expect("opens");
    let error = DataFolder::open(dir.path(), PROGRAM, 1).expect_err("is another's");
    assert!(matches!(error, StoreError::OtherProgram { .. }));
    assert!(error.to_string().contains("belongs to ahoy-relay, not to ahoy-test"), "{error}");
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_an_older_one_is_not() {
    let dir = tempfile::tempdir().expect("temporary folder");
    DataFolder::open(dir.path(), PROGRAM, 2).expect("opens");
    assert_eq!(DataFolder::open(dir.path(), PROGRAM, 3).expect("reads the older").version(), 2);
    let error = DataFolder::open(dir.path(), PROGRAM, 1).expect_err("is newer");
    assert!(matches!(error, StoreError::Newer { found: 2, readable: 1, .. }));
    assert!(error.to_string().contains("update ahoy-test"), "{error}");
}

#[test]
fn one_owner_at_a_time_and_the_next_when_it_has_gone() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let first = open(dir.path()).lock().expect("free");
    let error = open(dir.path()).lock().expect_err("in use");
    assert!(matches!(error, StoreError::InUse { .. }));
    assert!(error.to_string().contains("is in use by another ahoy-test"), "{error}");
    drop(first);
    open(dir.path()).lock().expect("free again");
}

#[test]
fn only_names_of_files_in_the_folder_are_taken() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = open(dir.path());
    for name in ["", ".", "..", "../x", "a/b", "a\0b"] {
        assert!(matches!(folder.write(name, b""), Err(StoreError::Name(_))), "{name:?} was taken");
    }
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = open(dir.path());
    std::fs::File::create(dir.path().join("huge")).and_then(|file| file.set_len(FILE_BYTES_MAX + 1)).expect("makes");
    assert!(matches!(folder.read("huge"), Err(StoreError::Read { .. })));
}
