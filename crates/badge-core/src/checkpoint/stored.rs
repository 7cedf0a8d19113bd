//! Tensors that stay in their files until each is wanted.

use std::borrow::Cow;
use std::ops::Range;

use safetensors::tensor::{Dtype, TensorInfo};

use super::header::{self, Header};
use super::layout::TensorSpec;
use super::tensor_set::{Shaped, TensorSet};
use super::values::{FloatType, first_not_finite};
use crate::error::{Error, Result};

/// What safetensors files say they hold: every name, shape and place, and not one value.
///
/// For readers that must not hold a model twice. The caller does the reading:
///
/// # Example
/// ```
/// # use badge_core::checkpoint::{Checkpoint, Tensor, stored::StoredCheckpoint};
/// # let mut checkpoint = Checkpoint::default();
/// # let tensor = Tensor { shape: vec![2], values: vec![0.5, -1.0] };
/// # checkpoint.insert("memory", "classifier.bias".to_owned(), tensor)?;
/// # let file = checkpoint.to_safetensors();
/// let size = file.len() as u64;
/// let header = StoredCheckpoint::header_bytes("model.safetensors", &file[..8], size)?;
/// let stored = StoredCheckpoint::from_header("model.safetensors", &file[..header], size)?;
/// let tensor = stored.find("classifier.bias", &[2])?;
/// let place = tensor.place().start as usize..tensor.place().end as usize;
/// assert_eq!(*tensor.values(&file[place])?, [0.5, -1.0]);
/// # Ok::<(), badge_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredCheckpoint {
    pub(super) set: TensorSet<StoredTensor>,
}

/// Where one tensor lies.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    name: String,
    file: String,
    shape: Vec<usize>,
    float: FloatType,
    place: Range<u64>,
}

impl StoredCheckpoint {
    /// Number of bytes at the start of a file that [`from_header`](Self::from_header) needs.
    /// `start` holds the file's first eight bytes or more, and all of a file that has fewer;
    /// `file_bytes` is the size of the whole file.
    ///
    /// # Errors
    /// When the file has fewer bytes than its header claims.
    ///
    /// # Panics
    /// When `start` is shorter than it should be.
    pub fn header_bytes(file: &str, start: &[u8], file_bytes: u64) -> Result<usize> {
        header::bytes(file, start, file_bytes)
    }

    /// Reads the header of one file. `start` holds its first bytes, the header at least.
    /// Integer tensors, which are buffers such as `position_ids`, are skipped.
    ///
    /// # Errors
    /// A header that lies, a type that holds no weights.
    ///
    /// # Panics
    /// When `start` is shorter than [`header_bytes`](Self::header_bytes) says.
    pub fn from_header(file: &str, start: &[u8], file_bytes: u64) -> Result<Self> {
        let header = Header::parse(file, start, file_bytes)?;
        let mut stored = Self::default();
        for (name, info) in header.tensors {
            match info.dtype {
                Dtype::BOOL | Dtype::U8 | Dtype::I64 | Dtype::I32 => {
                    let dtype = format!("{:?}", info.dtype);
                    stored.set.skip(file, name, dtype);
                }
                _ => {
                    let tensor = StoredTensor::new(file, &name, info, header.bytes)?;
                    stored.set.insert(file, name, tensor);
                }
            }
        }
        Ok(stored)
    }

    /// Takes over every tensor of another file of the same model.
    ///
    /// # Errors
    /// When both hold a tensor of the same name.
    pub fn extend(&mut self, other: Self) -> Result<()> {
        self.set.extend(other.set)
    }

    /// Holds the files against a layout: nothing missing, extra or misshapen.
    ///
    /// # Errors
    /// Names the first tensor that does not fit.
    pub fn check(&self, layout: &[TensorSpec]) -> Result<()> {
        self.set.check(layout)
    }

    /// The tensor of this name and shape.
    ///
    /// # Errors
    /// When it is not there, holds no weights or has another shape.
    pub fn find(&self, name: &str, shape: &[usize]) -> Result<&StoredTensor> {
        let tensor = self.set.tensors.get(name);
        let tensor = tensor.ok_or_else(|| self.set.absent(name))?;
        self.set.check_shape(name, tensor, shape)?;
        Ok(tensor)
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &StoredTensor> {
        self.set.tensors.values()
    }
}

impl StoredTensor {
    fn new(file: &str, name: &str, info: TensorInfo, header_bytes: usize) -> Result<Self> {
        let Some(float) = FloatType::of(info.dtype) else {
            return Err(Error::TensorType {
                file: file.to_owned(),
                tensor: name.to_owned(),
                dtype: format!("{:?}", info.dtype),
            });
        };
        let (start, end) = info.data_offsets;
        let from_start = |offset: usize| offset as u64 + header_bytes as u64;
        Ok(Self {
            name: name.to_owned(),
            file: file.to_owned(),
            shape: info.shape,
            float,
            place: from_start(start)..from_start(end),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it, as the caller called it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Extent of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Which bytes of the file it is.
    pub fn place(&self) -> Range<u64> {
        self.place.clone()
    }

    /// The values, in row-major order, of the bytes at the tensor's [`place`](Self::place).
    /// F16 and BF16 are widened; f32 values that start at a multiple of four are not copied.
    ///
    /// # Errors
    /// When a value is NaN or infinite.
    ///
    /// # Panics
    /// When the number of bytes is another than the place's.
    pub fn values<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [f32]>> {
        let expected = self.place.end - self.place.start;
        assert_eq!(bytes.len() as u64, expected, "{}", self.name);
        let values = self.float.widen(bytes);
        check_finite(&self.file, &self.name, &values)?;
        Ok(values)
    }
}

impl Shaped for StoredTensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// Names the first value that is NaN or infinite.
pub(super) fn check_finite(file: &str, tensor: &str, values: &[f32]) -> Result<()> {
    match first_not_finite(values) {
        None => Ok(()),
        Some(element) => Err(Error::NotFinite {
            file: file.to_owned(),
            tensor: tensor.to_owned(),
            value: values[element],
            element,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    /// A file with this header and `values` bytes behind it.
    fn file(header: &str, values: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + values, 0);
        bytes
    }

    /// What is wrong with a file, in whichever of the two ways it is read.
    fn refusal(bytes: &[u8]) -> String {
        let size = bytes.len() as u64;
        let whole = Checkpoint::from_safetensors("m", bytes).unwrap_err();
        let header = StoredCheckpoint::header_bytes("m", bytes, size)
            .and_then(|header| StoredCheckpoint::from_header("m", &bytes[..header], size))
            .unwrap_err();
        assert_eq!(whole.to_string(), header.to_string());
        header.to_string()
    }

    #[test]
    fn values_are_read_one_tensor_at_a_time_from_the_place_that_is_named() {
        let header = r#"{"b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [4, 12]},
            "ids": {"dtype": "I32", "shape": [1], "data_offsets": [12, 16]},
            "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}"#;
        let mut bytes = file(header, 16);
        let start = bytes.len() - 16;
        bytes[start..start + 4].copy_from_slice(&[0x80, 0x3f, 0x00, 0xc0]);
        bytes[start + 8..start + 12].copy_from_slice(&0.25_f32.to_le_bytes());
        let stored = StoredCheckpoint::from_header("m", &bytes[..start], bytes.len() as u64);
        let stored = stored.unwrap();
        let names: Vec<_> = stored.iter().map(StoredTensor::name).collect();
        assert_eq!(names, ["a", "b"]);
        let values = |tensor: &StoredTensor| {
            let place = tensor.place();
            let bytes = &bytes[place.start as usize..place.end as usize];
            tensor.values(bytes).unwrap().into_owned()
        };
        assert_eq!(values(stored.find("a", &[2]).unwrap()), [1.0, -2.0]);
        assert_eq!(values(stored.find("b", &[1, 2]).unwrap()), [0.0, 0.25]);
        let refused = |name, shape: &[usize]| stored.find(name, shape).unwrap_err().to_string();
        assert!(refused("b", &[2, 1]).contains("[1, 2], but the model needs [2, 1]"));
        assert!(refused("ids", &[1]).contains("has type I32"));
        assert!(refused("c", &[1]).contains("`c` is missing"));
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_when_its_tensor_is_read() {
        let header = r#"{"a": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]}}"#;
        let bytes = file(header, 6);
        let stored = StoredCheckpoint::from_header("m", &bytes, bytes.len() as u64).unwrap();
        let tensor = stored.find("a", &[3]).unwrap();
        assert_eq!(*tensor.values(&[0; 6]).unwrap(), [0.0; 3]);
        let error = tensor.values(&[0, 0, 0, 0, 0, 0x7c]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "m: tensor `a` holds inf at element 2; weights must be finite"
        );
    }

    #[test]
    fn the_first_tensor_of_an_unknown_type_is_named() {
        let header = r#"{"b": {"dtype": "I8", "shape": [1], "data_offsets": [1, 2]},
            "a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}"#;
        assert!(refusal(&file(header, 2)).contains("`a` has type F8_E4M3"));
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let header = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}"#;
        assert!(refusal(&file(header, 0)).contains("`a` occurs twice"));
        let header = r#"{"__metadata__": {"format": "pt"}, "__metadata__": null}"#;
        assert!(refusal(&file(header, 0)).contains("`__metadata__` occurs twice"));
    }

    #[test]
    fn sizes_that_no_file_has_are_refused_before_anything_is_made_for_them() {
        let tensor = |name: usize, start: u64, end: u64| {
            let shape = end - start;
            format!(
                r#""{name}": {{"dtype": "U8", "shape": [{shape}], "data_offsets": [{start}, {end}]}}"#
            )
        };
        let size = (1 << 61) - 1;
        let one = format!("{{{}}}", tensor(0, 0, size));
        assert!(refusal(&file(&one, 0)).contains("file not fully covered"));
        // Eight of them end eight bytes before the largest number there is.
        let eight: Vec<_> = (0..8)
            .map(|i| tensor(i, i as u64 * size, (i as u64 + 1) * size))
            .collect();
        let eight = format!("{{{}}}", eight.join(", "));
        assert!(refusal(&file(&eight, 0)).contains("file not fully covered"));
        let header =
            r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}"#;
        assert!(refusal(&file(header, 0)).contains("overflow"));
        for length in [100_000_001, u64::MAX] {
            let mut bytes = file("{}", 0);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            assert!(refusal(&bytes).contains("header too large"));
        }
    }
}
