//! SHA-256 of contents, in lower-case hexadecimal, as records and cache entries carry it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use badge_core::config::CONFIG_FILE;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::file;

/// SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
///
/// # Example
///
/// ```
/// let digest = badge_tasks::hash::sha256_hex(b"abc");
/// assert!(digest.starts_with("ba7816bf8f01cfea"));
/// ```
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hasher = ContentHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// A SHA-256 that is fed piece by piece.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher {
    state: Sha256,
}

impl ContentHasher {
    /// A hasher that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds `bytes` as they are.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// Feeds one field of a record behind its length, so that moving a byte from one field to its
    /// neighbour changes the digest.
    pub fn update_field(&mut self, bytes: &[u8]) {
        self.state.update((bytes.len() as u64).to_le_bytes());
        self.state.update(bytes);
    }

    /// The digest of all that was fed, as 64 lower-case hexadecimal digits.
    pub fn finish(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.state.finalize() {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        text
    }
}

/// SHA-256 of a model directory's configuration and weights, in whichever files they are.
///
/// # Errors
///
/// Names the file that cannot be read.
pub fn model_sha256(directory: &Path) -> Result<String> {
    let failed = |source| file::read_error(directory, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy().into_owned();
        let is_weights = ["model", "pytorch_model"].iter().any(|stem| {
            let rest = name.strip_prefix(stem);
            rest.is_some_and(|rest| rest.starts_with(['.', '-']))
        });
        if is_weights || name == CONFIG_FILE {
            names.push(name);
        }
    }
    names.sort();
    let mut hasher = ContentHasher::new();
    for name in names {
        hasher.update_field(name.as_bytes());
        let bytes = file::read_bytes(&directory.join(&name))?;
        hasher.update_field(sha256_hex(&bytes).as_bytes());
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_the_standard_one() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b""), empty);
        assert_eq!(sha256_hex(b"abc"), abc);
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut hasher = ContentHasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), sha256_hex(b"abc"));
    }

    #[test]
    fn fields_are_kept_apart() {
        let digest = |fields: [&str; 2]| {
            let mut hasher = ContentHasher::new();
            for field in fields {
                hasher.update_field(field.as_bytes());
            }
            hasher.finish()
        };
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
    }

    #[test]
    fn a_model_is_its_configuration_and_weights() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let hash = model_sha256(folder.path()).unwrap();
        for beside in ["record.json", "logits-dev.safetensors", "modeling_badge.py"] {
            write(beside, "x");
        }
        assert_eq!(model_sha256(folder.path()).unwrap(), hash);
        for (name, text) in [
            ("config.json", "{ }"),
            ("model.safetensors", "others"),
            ("model-00001-of-00002.safetensors", "shard"),
        ] {
            write(name, text);
            assert_ne!(model_sha256(folder.path()).unwrap(), hash, "{name}");
        }
        let told = model_sha256(&folder.path().join("absent")).unwrap_err();
        assert!(told.to_string().contains("absent"));
    }
}
