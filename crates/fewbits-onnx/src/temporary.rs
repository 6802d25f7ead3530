//! Files that become an output when they are complete.
//!
//! Each lies beside its output, under a name that tells whose it is, and is locked for as long as the
//! run that writes it lives: what bears such a name and is not locked was left by a run that was
//! killed, and the next one that writes the same output removes it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// Letters and digits at the end of a name, which tell files of one output apart.
const RANDOM: usize = 6;
/// So much of an output's name is part of it: file systems take 255 bytes.
const MOST_OF_A_NAME: usize = 200;
/// Names that are tried, should another run take a new file for one that was left over.
const ATTEMPTS: usize = 16;

/// Makes a file that [`publish`] renames to `path`, and removes those that killed runs left there.
pub(crate) fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    remove_left_over(path);
    let prefix = prefix(path);
    for _ in 0..ATTEMPTS {
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(RANDOM)
            .tempfile_in(folder(path))?;
        // Where a file system has no locks nothing is taken for left over.
        let _ = file.as_file().lock();
        if file.path().exists() {
            return Ok(file);
        }
    }
    Err(io::Error::other("other runs remove its temporary file; run one at a time"))
}

/// Removes what killed runs left beside an output. What cannot be removed stays: it does no harm.
pub fn remove_left_over(path: &Path) {
    let prefix = prefix(path);
    let Ok(entries) = std::fs::read_dir(folder(path)) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && is_of(&entry.file_name(), &prefix) {
            let _ = remove_if_left_over(&entry.path());
        }
    }
}

/// Gives a complete file its name.
pub(crate) fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    // A temporary file is private; the result gets the permissions of any new file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Writes a file through `write` to a temporary one beside `path`, and renames it when it is
/// complete.
///
/// # Errors
/// Those of `write`, and of making and renaming the file. What stood at `path` stays as it was then.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = temporary(path)?;
    write(file.as_file_mut())?;
    publish(file, path)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// How the names of an output's temporary files begin.
fn prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ends = name.char_indices().map(|(start, c)| start + c.len_utf8());
    let end = ends.take_while(|&end| end <= MOST_OF_A_NAME).last().unwrap_or(0);
    format!(".tmp-{}-", &name[..end])
}

fn is_of(name: &OsStr, prefix: &str) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(prefix));
    random.is_some_and(|r| r.len() == RANDOM && r.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Removes a file that no run holds any more. The lock is kept until it is gone: a run that has just
/// made it waits for the lock, and then sees that it has to make another.
fn remove_if_left_over(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_a_killed_run_left_of_this_output_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.onnx");
        // Of a run that lives.
        let alive = temporary(&path).unwrap();
        let name = alive.path().file_name().unwrap().to_str().unwrap().to_string();
        // Left over; of another output; of nobody that we know.
        let kept =
            [".tmp-q.onnx.data-abcdef", ".tmp-q.onnx-abc", ".tmp-q.onnx-x-abcdef", ".tmpabc"];
        for name in kept.iter().chain(&[".tmp-q.onnx-abcdef"]) {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        write_whole(&path, |file| file.write_all(b"whole")).unwrap();
        let mut expected: Vec<&str> = kept.iter().copied().chain(["q.onnx", &name]).collect();
        expected.sort_unstable();
        assert_eq!(names(folder.path()), expected);
        publish(alive, &path).unwrap();
        assert!(!names(folder.path()).contains(&name));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn names_as_long_as_a_file_system_takes_have_room() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ä".repeat(127), "n".repeat(255)] {
            let path = folder.path().join(name);
            write_whole(&path, |file| file.write_all(b"whole")).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        }
    }

    #[test]
    fn runs_that_write_one_output_at_once_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.onnx");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        write_whole(&path, |file| file.write_all(b"whole")).unwrap();
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["q.onnx"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}
