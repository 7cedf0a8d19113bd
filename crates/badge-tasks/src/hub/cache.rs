//! The folder of one repository in the cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{HubId, RepositoryKind};
use crate::error::Result;
use crate::file;

/// The folder of one repository.
#[derive(Debug)]
pub(super) struct Repository {
    folder: PathBuf,
}

impl Repository {
    pub(super) fn new(cache: &Path, kind: RepositoryKind, id: &HubId) -> Self {
        let name = format!("{}--{}", kind.folder_prefix(), id.name.replace('/', "--"));
        Self {
            folder: cache.join(name),
        }
    }

    /// The commit a revision stood for when it was last downloaded; a commit stands for itself.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let recorded = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let commit = recorded.map_or_else(|| revision.to_owned(), |text| text.trim().to_owned());
        (is_safe_name(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Notes what commit a revision stands for.
    pub(super) fn record_revision(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        write_file(&self.folder.join("refs").join(revision), commit.as_bytes())
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn file(&self, commit: &str, name: &str) -> PathBuf {
        self.snapshot(commit).join(name)
    }

    /// Whether a snapshot has a file; a link to a blob that is gone does not count.
    pub(super) fn has(&self, commit: &str, name: &str) -> bool {
        self.file(commit, name).is_file()
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.blobs().join(etag)
    }

    pub(super) fn is_known_absent(&self, commit: &str, name: &str) -> bool {
        self.absence_mark(commit, name).is_file()
    }

    pub(super) fn mark_absent(&self, commit: &str, name: &str) -> Result<()> {
        write_file(&self.absence_mark(commit, name), b"")
    }

    /// Puts a blob into a snapshot under its name: by a relative link, so that the cache can be
    /// moved, or by a copy where the file system or the user's rights do not allow links.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.file(commit, name);
        if let Some(parent) = path.parent() {
            file::create_folder(parent)?;
        }
        // A link to a blob that is gone stands in the way of a new one.
        if path.is_symlink() && !path.exists() {
            fs::remove_file(&path).map_err(|source| file::write_error(&path, source))?;
        }
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        match symlink(&target, &path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => self.copy(etag, &path),
        }
    }

    fn copy(&self, etag: &str, path: &Path) -> Result<()> {
        let blob = self.blob(etag);
        let mut source = fs::File::open(&blob).map_err(|source| file::read_error(&blob, source))?;
        file::write_atomic_with(path, |writer| io::copy(&mut source, writer).map(|_| ()))
    }

    fn absence_mark(&self, commit: &str, name: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(name)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, _path: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        file::create_folder(parent)?;
    }
    file::write_atomic(path, content)
}

/// Whether a name that came from elsewhere stays in the folder it is put in.
pub(super) fn is_safe_name(name: &str) -> bool {
    is_safe_path(name) && !name.contains('/')
}

/// Whether a relative path that came from elsewhere stays below the folder it is put in.
pub(super) fn is_safe_path(path: &str) -> bool {
    let legal =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=');
    path.chars().all(legal)
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(cache: &Path) -> Repository {
        Repository::new(cache, RepositoryKind::Model, &"org/name".parse().unwrap())
    }

    #[test]
    fn folders_are_named_as_pythons() {
        let id = "nyu-mll/glue".parse().unwrap();
        let dataset = Repository::new(Path::new("/c"), RepositoryKind::Dataset, &id);
        let found = dataset.file("abc", "rte/train.parquet");
        let expected = "/c/datasets--nyu-mll--glue/snapshots/abc/rte/train.parquet";
        assert_eq!(found, Path::new(expected));
    }

    #[test]
    fn linked_blob_is_read_through_the_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(cache.path());
        file::create_folder(&repository.blobs()).unwrap();
        for (name, etag) in [("config.json", "e1"), ("sub/folder/x.bin", "e2")] {
            fs::write(repository.blob(etag), etag).unwrap();
            repository.link("c0", name, etag).unwrap();
            repository.link("c0", name, etag).unwrap();
            assert_eq!(
                fs::read_to_string(repository.file("c0", name)).unwrap(),
                etag
            );
        }
    }

    #[test]
    fn dangling_link_is_replaced() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(cache.path());
        repository.link("c0", "f", "gone").unwrap();
        assert!(!repository.has("c0", "f"));
        file::create_folder(&repository.blobs()).unwrap();
        fs::write(repository.blob("new"), "new").unwrap();
        repository.link("c0", "f", "new").unwrap();
        assert!(repository.has("c0", "f"));
    }

    #[test]
    fn copy_serves_where_links_do_not() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(cache.path());
        file::create_folder(&repository.blobs()).unwrap();
        file::create_folder(&repository.snapshot("c0")).unwrap();
        fs::write(repository.blob("e"), "content").unwrap();
        repository.copy("e", &repository.file("c0", "f")).unwrap();
        assert_eq!(
            fs::read_to_string(repository.file("c0", "f")).unwrap(),
            "content"
        );
    }

    #[test]
    fn revisions_are_recorded_under_their_names() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(cache.path());
        assert_eq!(repository.commit_of("main"), None);
        file::create_folder(&repository.snapshot("c0")).unwrap();
        repository.record_revision("refs/pr/1", "c0").unwrap();
        assert_eq!(repository.commit_of("refs/pr/1").as_deref(), Some("c0"));
        assert_eq!(repository.commit_of("c0").as_deref(), Some("c0"));
        fs::write(cache.path().join("models--org--name/refs/evil"), "../..").unwrap();
        assert_eq!(repository.commit_of("evil"), None);
    }

    #[test]
    fn paths_that_climb_are_not_safe() {
        for path in [
            "a",
            "a/b.txt",
            "refs/pr/1",
            "model-00001-of-00002.safetensors",
        ] {
            assert!(is_safe_path(path), "{path}");
        }
        for path in [
            "", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a b", "C:x",
        ] {
            assert!(!is_safe_path(path), "{path}");
        }
    }
}
