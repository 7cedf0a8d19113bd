//! Reading files with errors that name them, and writing files that are whole or not there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Reads a whole file.
///
/// # Errors
///
/// [`Error::FileMissing`], [`Error::FilePermission`] or [`Error::FileIo`], naming the path.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| read_error(path, source))
}

/// Reads a whole UTF-8 file; a byte order mark at its start is removed.
///
/// # Errors
///
/// As [`read_bytes`], and [`Error::NotUtf8`] with the offset of the first bad byte.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bytes(path)?;
    decode(path, &bytes).map(str::to_owned)
}

/// Writes `bytes` to `path`, or leaves what was there.
///
/// # Errors
///
/// As [`write_atomic_with`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |writer| writer.write_all(bytes))
}

/// Writes what `fill` produces to `path`, or leaves what was there.
///
/// The content goes to a temporary file in the same folder, reaches the disk, and only then takes
/// the name: a reader, a crash or a full disk never meets half a file.
///
/// # Errors
///
/// [`Error::FolderMissing`], [`Error::FilePermission`], [`Error::DiskFull`] or [`Error::FileIo`];
/// the temporary file is gone then.
pub fn write_atomic_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    stage_with(path, fill)?.commit()
}

/// A file that is whole on the disk and waits, under a temporary name, to take its own.
#[derive(Debug)]
pub struct Staged {
    temporary: TemporaryFile,
    path: PathBuf,
}

impl Staged {
    /// Takes the name; what had it before is gone.
    ///
    /// # Errors
    ///
    /// [`Error::FilePermission`] or [`Error::FileIo`].
    pub fn commit(self) -> Result<()> {
        let renamed = fs::rename(&self.temporary.path, &self.path);
        renamed.map_err(|source| write_error(&self.path, source))?;
        sync_folder(&self.path);
        Ok(())
    }
}

/// Writes `bytes` beside `path`, to be renamed by [`Staged::commit`] or removed when dropped.
///
/// # Errors
///
/// As [`write_atomic_with`].
pub fn stage(path: &Path, bytes: &[u8]) -> Result<Staged> {
    stage_with(path, |writer| writer.write_all(bytes))
}

fn stage_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Staged> {
    let temporary = TemporaryFile {
        path: temporary_path(path),
    };
    write_through(&temporary.path, fill).map_err(|source| write_error(path, source))?;
    Ok(Staged {
        temporary,
        path: path.to_path_buf(),
    })
}

/// Makes a folder and those above it.
///
/// # Errors
///
/// [`Error::FilePermission`], [`Error::DiskFull`] or [`Error::FileIo`].
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| write_error(path, source))
}

/// Removes the temporary files that a killed process has left in `folder`, if there are any.
///
/// Call it where no other process writes: a file that is being written would go too.
///
/// # Errors
///
/// [`Error::FilePermission`] or [`Error::FileIo`].
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let failed = |source| read_error(folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_ours = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_temporary_name);
        if is_ours && path.is_file() {
            fs::remove_file(&path).map_err(|source| write_error(&path, source))?;
        }
    }
    Ok(())
}

/// The error for a failed reading operation on `path`.
pub fn read_error(path: &Path, source: io::Error) -> Error {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound => Error::FileMissing { path },
        ErrorKind::PermissionDenied => Error::FilePermission {
            path,
            action: "read",
        },
        _ => Error::FileIo {
            path,
            action: "read",
            source,
        },
    }
}

/// The error for a failed writing operation on `path`.
pub fn write_error(path: &Path, source: io::Error) -> Error {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound => Error::FolderMissing { path },
        ErrorKind::PermissionDenied => Error::FilePermission {
            path,
            action: "write",
        },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull { path },
        _ => Error::FileIo {
            path,
            action: "write",
            source,
        },
    }
}

/// `bytes` as text without a byte order mark; `path` is for the message.
pub(crate) fn decode<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let offset = error.valid_up_to();
            let line = bytes[..offset].split(|byte| *byte == b'\n').count();
            Err(Error::NotUtf8 {
                path: path.to_path_buf(),
                line,
                offset,
            })
        }
    }
}

/// Removes the file when a write fails or panics half-way; after the rename it removes nothing.
#[derive(Debug)]
struct TemporaryFile {
    path: PathBuf,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // Best effort: the error that brought us here is the one to report.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_through(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = BufWriter::new(File::create(path)?);
    fill(&mut writer)?;
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

/// Makes the rename itself durable where folders can be opened; elsewhere there is no such call.
fn sync_folder(path: &Path) {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}

/// A hidden neighbour of `path` that no other writer uses.
fn temporary_path(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{count}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Whether a file is called as [`temporary_path`] calls them: `.NAME.PID-COUNT.tmp`.
fn is_temporary_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.starts_with('.')
        && name
            .strip_suffix(".tmp")
            .and_then(|name| name.rsplit_once('.'))
            .and_then(|(_, numbers)| numbers.split_once('-'))
            .is_some_and(|(process, count)| number(process) && number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn missing_file_is_named() {
        let error = read_bytes(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/no/such/file: no such file; check the path"
        );
    }

    #[test]
    fn bad_utf8_is_located() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.txt");
        fs::write(&path, b"one\ntwo \xff").unwrap();
        let error = read_text(&path).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NotUtf8 {
                    line: 2,
                    offset: 8,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn byte_order_mark_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bom.txt");
        fs::write(&path, "\u{feff}text").unwrap();
        assert_eq!(read_text(&path).unwrap(), "text");
    }

    #[test]
    fn write_replaces_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        write_atomic(&path, b"first").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn full_disk_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_with(&path, |writer| {
            writer.write_all(b"half of the ne")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let left = temporary_path(&folder.path().join("model.safetensors"));
        fs::write(&left, b"half").unwrap();
        let kept = [
            ".hidden",
            ".notes.tmp",
            ".x.1-y.tmp",
            "a.1-2.tmp",
            "config.json",
        ];
        for name in kept {
            fs::write(folder.path().join(name), b"whole").unwrap();
        }
        remove_leftovers(folder.path()).unwrap();
        assert_eq!(names(folder.path()), kept);
        remove_leftovers(&folder.path().join("absent")).unwrap();
    }

    #[test]
    fn missing_folder_is_an_error_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomic(&folder.path().join("no/out"), b"x").unwrap_err();
        assert!(matches!(error, Error::FolderMissing { .. }), "{error}");
    }

    #[test]
    fn name_taken_by_a_folder_is_refused_cleanly() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        assert!(write_atomic(&folder.path().join("out"), b"x").is_err());
        assert_eq!(names(folder.path()), ["out"]);
    }
}
