//! Named tensors, in and out of safetensors bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::tensor::Dtype;

use crate::error::Result;

pub mod layout;
pub mod names;
pub mod pretrained;
pub mod stored;

mod header;
mod tensor_set;
mod values;

use header::Header;
use stored::{StoredCheckpoint, check_finite};
use tensor_set::{Shaped, TensorSet};

/// The Python module that is written beside the weights: with it `transformers` gives every
/// exit's logits (`trust_remote_code`).
pub const MODELING_BADGE: &str = include_str!("checkpoint/modeling_badge.py");

/// A dense f32 array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extent of every axis.
    pub shape: Vec<usize>,
    /// The values, the last axis fastest.
    pub values: Vec<f32>,
}

/// All tensors of a model by name, as one set even when they came from several files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    set: TensorSet<Tensor>,
}

impl Checkpoint {
    /// Reads one safetensors file. F16 and BF16 are widened; integer tensors, which are buffers
    /// such as `position_ids`, are skipped.
    ///
    /// # Errors
    /// A header that lies, a type that holds no weights, a value that is not finite.
    pub fn from_safetensors(file: &str, bytes: &[u8]) -> Result<Self> {
        let stored = StoredCheckpoint::from_header(file, bytes, bytes.len() as u64)?;
        let mut set = TensorSet::default();
        for tensor in stored.iter() {
            let place = tensor.place();
            let values = tensor.values(&bytes[place.start as usize..place.end as usize])?;
            let shape = tensor.shape().to_vec();
            let values = values.into_owned();
            set.insert(file, tensor.name().to_owned(), Tensor { shape, values });
        }
        for (name, dtype) in stored.set.integers {
            set.skip(file, name, dtype);
        }
        Ok(Self { set })
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// When a value is NaN or infinite.
    ///
    /// # Panics
    /// When the shape and the number of values disagree.
    pub fn insert(&mut self, file: &str, name: String, tensor: Tensor) -> Result<()> {
        assert_eq!(
            tensor.shape.iter().product::<usize>(),
            tensor.values.len(),
            "{name}"
        );
        check_finite(file, &name, &tensor.values)?;
        self.set.insert(file, name, tensor);
        Ok(())
    }

    /// Takes over every tensor of another file of the same model.
    ///
    /// # Errors
    /// When both hold a tensor of the same name.
    pub fn extend(&mut self, other: Self) -> Result<()> {
        self.set.extend(other.set)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.set.tensors.get(name)
    }

    /// Whether the checkpoint holds nothing.
    pub fn is_empty(&self) -> bool {
        self.set.tensors.is_empty()
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let tensors = self.set.tensors.iter();
        tensors.map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Removes and returns the tensor if its shape is the expected one.
    ///
    /// # Errors
    /// When it is there with another shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let Some(tensor) = self.set.tensors.remove(name) else {
            return Ok(None);
        };
        self.set.check_shape(name, &tensor, shape)?;
        Ok(Some(tensor))
    }

    /// Holds the checkpoint against a layout: nothing missing, extra or misshapen.
    ///
    /// # Errors
    /// Names the first tensor that does not fit.
    pub fn check(&self, layout: &[layout::TensorSpec]) -> Result<()> {
        self.set.check(layout)
    }

    /// The bytes of a safetensors file that `transformers` accepts (`format: pt`).
    pub fn to_safetensors(&self) -> Vec<u8> {
        self.to_safetensors_with(HashMap::new())
    }

    /// The same with more entries in the file's metadata.
    pub fn to_safetensors_with(&self, mut metadata: HashMap<String, String>) -> Vec<u8> {
        metadata.insert("format".to_owned(), "pt".to_owned());
        let views = self
            .set
            .tensors
            .iter()
            .map(|(name, tensor)| (name, F32View(tensor)));
        safetensors::serialize(views, Some(metadata))
            .expect("names are unique and lengths follow from shapes")
    }
}

impl Shaped for Tensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// The metadata of a safetensors file.
///
/// # Errors
/// When the header cannot be read.
pub fn read_metadata(file: &str, bytes: &[u8]) -> Result<HashMap<String, String>> {
    Ok(Header::parse(file, bytes, bytes.len() as u64)?.metadata)
}

/// Lets `safetensors` write our arrays.
struct F32View<'a>(&'a Tensor);

impl safetensors::View for F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            bytemuck::cast_slice(&self.0.values).into()
        } else {
            self.0
                .values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>()
                .into()
        }
    }

    fn data_len(&self) -> usize {
        self.0.values.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use safetensors::tensor::TensorView;

    use super::*;

    fn two_tensors() -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        for (name, shape, start) in [("a.weight", vec![2, 3], 0.5), ("b", vec![4], -2.0)] {
            let count = shape.iter().product::<usize>();
            let values = (0..count).map(|i| start + i as f32).collect();
            checkpoint
                .insert("here", name.to_owned(), Tensor { shape, values })
                .unwrap();
        }
        checkpoint
    }

    #[test]
    fn bytes_round_trip() {
        let written = two_tensors();
        let read = Checkpoint::from_safetensors("here", &written.to_safetensors()).unwrap();
        assert_eq!(read, written);
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        let values = [1.5_f32, -0.25, 1024.0];
        let f16s: Vec<u8> = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        let bf16s: Vec<u8> = values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect();
        let views = [
            ("f16", TensorView::new(Dtype::F16, vec![3], &f16s).unwrap()),
            (
                "bf16",
                TensorView::new(Dtype::BF16, vec![3], &bf16s).unwrap(),
            ),
        ];
        let bytes = safetensors::serialize(views, None).unwrap();
        let read = Checkpoint::from_safetensors("x", &bytes).unwrap();
        assert_eq!(read.get("f16").unwrap().values, values);
        assert_eq!(read.get("bf16").unwrap().values, values);
    }

    #[test]
    fn an_integer_tensor_is_skipped_unless_it_should_be_a_weight() {
        let bytes = 7_i32.to_le_bytes();
        let view = TensorView::new(Dtype::I32, vec![1], &bytes).unwrap();
        let bytes = safetensors::serialize([("position_ids", view)], None).unwrap();
        let read = Checkpoint::from_safetensors("x", &bytes).unwrap();
        read.check(&[]).unwrap();
        let layout = layout::TensorSpec {
            name: "position_ids".to_owned(),
            shape: vec![1],
            initial: layout::Initial::Zeros,
            part: layout::Part::Backbone,
        };
        assert_eq!(
            read.check(&[layout]).unwrap_err().to_string(),
            "x: tensor `position_ids` has type I32; weights must be F32, F16 or BF16"
        );
    }

    #[test]
    fn the_same_tensor_in_two_files_is_refused() {
        let error = two_tensors().extend(two_tensors()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `a.weight` is in here and again in here; remove one of them"
        );
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_panic() {
        let bytes = two_tensors().to_safetensors();
        for length in 0..bytes.len() {
            let error = Checkpoint::from_safetensors("cut", &bytes[..length]).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("cut: not a valid safetensors file"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_weight_that_is_not_finite_is_named_with_its_place() {
        let mut checkpoint = Checkpoint::default();
        let tensor = Tensor {
            shape: vec![3],
            values: vec![0.0, f32::NAN, 1.0],
        };
        let error = checkpoint
            .insert("w.safetensors", "x".to_owned(), tensor)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "w.safetensors: tensor `x` holds NaN at element 1; weights must be finite"
        );
    }

    #[test]
    fn a_layout_finds_what_is_missing_extra_or_misshapen() {
        let spec = |name: &str, shape: &[usize]| layout::TensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initial: layout::Initial::Zeros,
            part: layout::Part::Backbone,
        };
        let checkpoint = two_tensors();
        let fits = [spec("a.weight", &[2, 3]), spec("b", &[4])];
        checkpoint.check(&fits).unwrap();
        let message =
            |specs: &[layout::TensorSpec]| checkpoint.check(specs).unwrap_err().to_string();
        assert!(message(&fits[..1]).contains("`b` is not part of the model"));
        assert!(
            message(&[spec("a.weight", &[3, 2])]).contains("[2, 3], but the model needs [3, 2]")
        );
        assert!(message(&[spec("c", &[1])]).contains("`c` is missing"));
    }
}
