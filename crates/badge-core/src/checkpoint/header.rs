//! The header of a safetensors file: which tensors it holds, of which type, and where.
//!
//! Eight bytes of length `n`, `n` bytes of JSON, then the values. The checks are those of the
//! `safetensors` crate, which would want the whole file in memory.

use std::collections::HashMap;
use std::fmt;

use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result};

/// Bytes of the length that a file begins with.
const LENGTH_BYTES: usize = size_of::<u64>();

/// A longer header describes no model; the same bound as in the `safetensors` crate.
const JSON_BYTES_MAX: u64 = 100_000_000;

/// What a header says, once it agrees with itself and with the size of the file.
pub(super) struct Header {
    /// Entries for people and programs.
    pub(super) metadata: HashMap<String, String>,
    /// Every tensor in the order of the file; offsets count from the end of the header.
    pub(super) tensors: Vec<(String, TensorInfo)>,
    /// Where the values begin.
    pub(super) bytes: usize,
}

impl Header {
    /// Reads the header at the start of a file of `file_bytes` bytes.
    pub(super) fn parse(file: &str, start: &[u8], file_bytes: u64) -> Result<Self> {
        let bytes = bytes(file, start, file_bytes)?;
        let parsed = parse(start, bytes, file_bytes);
        let (metadata, tensors) = parsed.map_err(|source| named(file, source))?;
        Ok(Self {
            metadata,
            tensors,
            bytes,
        })
    }
}

/// How many bytes the header takes, its length included.
pub(super) fn bytes(file: &str, start: &[u8], file_bytes: u64) -> Result<usize> {
    if file_bytes < LENGTH_BYTES as u64 {
        return Err(named(file, SafeTensorError::HeaderTooSmall));
    }
    let length = start.first_chunk::<LENGTH_BYTES>();
    let length = length.expect("a caller gives the first eight bytes of a file that has them");
    let json_bytes = u64::from_le_bytes(*length);
    if json_bytes > JSON_BYTES_MAX {
        return Err(named(file, SafeTensorError::HeaderTooLarge));
    }
    let bytes = LENGTH_BYTES as u64 + json_bytes;
    if bytes > file_bytes {
        return Err(named(file, SafeTensorError::InvalidHeaderLength));
    }
    Ok(bytes as usize)
}

fn named(file: &str, source: SafeTensorError) -> Error {
    Error::Safetensors {
        file: file.to_owned(),
        source,
    }
}

type Contents = (HashMap<String, String>, Vec<(String, TensorInfo)>);

fn parse(start: &[u8], bytes: usize, file_bytes: u64) -> Result<Contents, SafeTensorError> {
    assert!(start.len() >= bytes, "{} of {bytes} bytes", start.len());
    let json = &start[LENGTH_BYTES..bytes];
    let text = std::str::from_utf8(json).map_err(SafeTensorError::InvalidHeader)?;
    let Entries { metadata, tensors } =
        serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    let mut ordered: Vec<_> = tensors.into_iter().collect();
    ordered.sort_by_key(|(_, tensor)| tensor.data_offsets);
    // Offsets without gaps, each tensor as long as its shape and type say.
    let checked = Metadata::new(None, ordered.clone())?;
    let end = (checked.data_len() as u64).checked_add(bytes as u64);
    if end != Some(file_bytes) {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    Ok((metadata, ordered))
}

/// The JSON object as it is written.
struct Entries {
    metadata: HashMap<String, String>,
    tensors: HashMap<String, TensorInfo>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    /// Refuses a name that occurs twice: readers do not agree on which of the two counts.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let (mut metadata, mut tensors) = (None, HashMap::new());
        while let Some(name) = map.next_key::<String>()? {
            let repeated = if name == "__metadata__" {
                let entries: Option<HashMap<_, _>> = map.next_value()?;
                metadata.replace(entries.unwrap_or_default()).is_some()
            } else {
                tensors.insert(name.clone(), map.next_value()?).is_some()
            };
            if repeated {
                return Err(A::Error::custom(format!("`{name}` occurs twice")));
            }
        }
        Ok(Entries {
            metadata: metadata.unwrap_or_default(),
            tensors,
        })
    }
}
