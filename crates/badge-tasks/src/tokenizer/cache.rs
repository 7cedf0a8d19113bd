//! Token ids of whole splits, kept on the disk under a hash of everything that they follow from.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;
use crate::hash::{ContentHasher, sha256_hex};
use crate::split::content_sha256;
use crate::task::Example;
use crate::tokenizer::{Encoding, Tokenizer};

/// Raised with the form of the files, and whenever the same texts may become other ids.
const VERSION: u32 = 1;

/// What every file begins with.
const MAGIC: &[u8; 8] = b"BADGETOK";

/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// A folder of token ids, or none.
///
/// A file is named by the hash of the examples, the tokeniser's `tokenizer.json`, the longest
/// input and the version of this program, so that nothing in it can be out of date. It ends with
/// a hash of its own content: a file that was damaged or cut short is made again. Any file may be
/// removed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCache {
    folder: Option<PathBuf>,
}

/// Where token ids came from.
#[derive(Debug)]
pub enum Origin {
    /// The texts, and nothing was kept.
    Texts,
    /// The texts; they now lie in this file.
    Kept(PathBuf),
    /// The texts, because this file was damaged; it is whole again.
    Mended(PathBuf),
    /// The texts; they could not be kept.
    NotKept(Error),
    /// This file.
    Cache(PathBuf),
}

impl Origin {
    /// Whether somebody should hear of it: something is wrong, though nothing is lost but time.
    pub fn is_remarkable(&self) -> bool {
        matches!(self, Self::Mended(_) | Self::NotKept(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Texts => write!(f, "tokenised"),
            Self::Kept(path) => write!(f, "tokenised, and kept in {}", path.display()),
            Self::Mended(path) => write!(
                f,
                "tokenised again, as the token ids in {} were damaged",
                path.display()
            ),
            Self::NotKept(error) => write!(
                f,
                "tokenised, but not kept for the next time: {error} \
                 (BADGE_CACHE names another folder, --no-cache does without)"
            ),
            Self::Cache(path) => write!(f, "token ids read from {}", path.display()),
        }
    }
}

impl TokenCache {
    /// No cache: every split is tokenised.
    pub fn off() -> Self {
        Self { folder: None }
    }

    /// A cache in this folder, which is made when something is to be kept.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
        }
    }

    /// The cache that the environment of this process describes.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The cache that `variable` describes: `tokens` in `BADGE_CACHE`, else in `badge` in
    /// `XDG_CACHE_HOME`, else in `.cache/badge` in `HOME`, else none.
    ///
    /// An empty variable counts as none, and so does a relative `XDG_CACHE_HOME`, as the XDG base
    /// directory specification asks.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let path = |name: &str| {
            let value = variable(name).filter(|value| !value.trim().is_empty());
            value.map(PathBuf::from)
        };
        let user = || path("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
        let home = || {
            let home = path("HOME").or_else(|| path("USERPROFILE"))?;
            Some(home.join(".cache"))
        };
        let ours = || Some(user().or_else(home)?.join("badge"));
        Self {
            folder: path("BADGE_CACHE")
                .or_else(ours)
                .map(|folder| folder.join("tokens")),
        }
    }

    /// The folder, if there is a cache.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The tokens of examples, read from the cache or made and kept.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode_all`]. That a file cannot be read or written is no error but part
    /// of the [`Origin`].
    pub fn encode(
        &self,
        examples: &[Example],
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(Vec<Encoding>, Origin)> {
        let Some(folder) = &self.folder else {
            let encodings = tokenizer.encode_all(examples, max_length)?;
            return Ok((encodings, Origin::Texts));
        };
        let key = key(examples, tokenizer, max_length);
        let path = folder.join(format!("{key}.bin"));
        let found = fs::read(&path).ok();
        if let Some(encodings) = found.as_deref().and_then(|bytes| decode(bytes, &key))
            && encodings.len() == examples.len()
        {
            return Ok((encodings, Origin::Cache(path)));
        }
        let encodings = tokenizer.encode_all(examples, max_length)?;
        let kept = file::create_folder(folder)
            .and_then(|()| file::write_atomic(&path, &encode(&encodings, &key)));
        let origin = match kept {
            Err(error) => Origin::NotKept(error),
            Ok(()) if found.is_some() => Origin::Mended(path),
            Ok(()) => Origin::Kept(path),
        };
        Ok((encodings, origin))
    }
}

/// A hash of everything that token ids follow from.
fn key(examples: &[Example], tokenizer: &Tokenizer, max_length: usize) -> String {
    let mut hasher = ContentHasher::new();
    hasher.update(&VERSION.to_le_bytes());
    // Another release may come with another tokeniser library.
    hasher.update_field(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update_field(content_sha256(examples).as_bytes());
    hasher.update_field(tokenizer.json());
    hasher.update(&(max_length as u64).to_le_bytes());
    hasher.finish()
}

/// `MAGIC`, version, key, number of rows, their lengths, all ids, all segment ids, and the SHA-256
/// of what stands before it; numbers in 32 bits, little-endian.
fn encode(encodings: &[Encoding], key: &str) -> Vec<u8> {
    let numbers: usize = encodings
        .iter()
        .map(|encoding| 1 + 2 * encoding.len())
        .sum();
    let mut bytes = Vec::with_capacity(MAGIC.len() + 8 + 2 * DIGITS + 4 * numbers);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend((encodings.len() as u32).to_le_bytes());
    for encoding in encodings {
        bytes.extend((encoding.len() as u32).to_le_bytes());
    }
    for ids in encodings.iter().map(|encoding| &encoding.ids) {
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    for ids in encodings.iter().map(|encoding| &encoding.type_ids) {
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    let digest = sha256_hex(&bytes);
    bytes.extend(digest.as_bytes());
    bytes
}

/// What [`encode`] wrote; `None` for anything else.
fn decode(bytes: &[u8], key: &str) -> Option<Vec<Encoding>> {
    let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGITS)?)?;
    if sha256_hex(content).as_bytes() != digest {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix(&VERSION.to_le_bytes())?;
    let rest = rest.strip_prefix(key.as_bytes())?;
    let (numbers, []) = rest.as_chunks::<4>() else {
        return None;
    };
    let (rows, rest) = numbers.split_first()?;
    let (lengths, tokens) = rest.split_at_checked(u32::from_le_bytes(*rows) as usize)?;
    let (mut ids, mut type_ids) = tokens.split_at_checked(tokens.len() / 2)?;
    let mut encodings = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length = u32::from_le_bytes(*length) as usize;
        encodings.push(Encoding {
            ids: take(&mut ids, length)?,
            type_ids: take(&mut type_ids, length)?,
        });
    }
    (ids.is_empty() && type_ids.is_empty()).then_some(encodings)
}

/// The next numbers of a list.
fn take(rest: &mut &[[u8; 4]], count: usize) -> Option<Vec<u32>> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken.iter().map(|id| u32::from_le_bytes(*id)).collect())
}

#[cfg(test)]
mod tests;
