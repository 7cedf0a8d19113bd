//! Where weights come from, one tensor at a time: packing never holds a model twice.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use badge_core::checkpoint::Checkpoint;
use badge_core::checkpoint::layout::TensorSpec;
use badge_core::checkpoint::stored::StoredCheckpoint;

use crate::error::{Error, Result};

/// A set of tensors that are taken one after the other, each once.
pub(crate) trait Source {
    /// The values of a tensor, in row-major order.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>>;
}

/// Tensors in memory; each is freed once it has been packed.
impl Source for Checkpoint {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let tensor = Checkpoint::take(self, name, shape)?;
        let tensor = tensor.unwrap_or_else(|| panic!("{name} is taken twice or in no layout"));
        Ok(Cow::Owned(tensor.values))
    }
}

/// Tensors in a safetensors file.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    stored: StoredCheckpoint,
    /// The bytes of the tensor taken last.
    bytes: Vec<u8>,
}

impl TensorFile {
    /// Opens a file that holds exactly the tensors of `layout`.
    pub(crate) fn open(path: &Path, layout: &[TensorSpec]) -> Result<Self> {
        let failed = |source| Error::File {
            path: path.to_owned(),
            source,
        };
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut bytes = vec![0; size.min(8) as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        let header = StoredCheckpoint::header_bytes(&name, &bytes, size)?;
        let start = bytes.len();
        bytes.resize(header.max(start), 0);
        file.read_exact(&mut bytes[start..]).map_err(failed)?;
        let stored = StoredCheckpoint::from_header(&name, &bytes, size)?;
        stored.check(layout)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            stored,
            bytes,
        })
    }
}

impl Source for TensorFile {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let tensor = self.stored.find(name, shape)?;
        let place = tensor.place();
        self.bytes.resize((place.end - place.start) as usize, 0);
        let read = |file: &mut File, bytes: &mut [u8]| {
            file.seek(SeekFrom::Start(place.start))?;
            file.read_exact(bytes)
        };
        read(&mut self.file, &mut self.bytes).map_err(|source| Error::File {
            path: self.path.clone(),
            source,
        })?;
        Ok(tensor.values(&self.bytes)?)
    }
}
