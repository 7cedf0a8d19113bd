//! Tensors by name and the files they came from, whether their values are in memory or not.

use std::collections::{BTreeMap, HashMap};

use super::layout::TensorSpec;
use crate::error::{Error, Result};

/// What has a shape.
pub(super) trait Shaped {
    /// Extent of every axis.
    fn shape(&self) -> &[usize];
}

/// All tensors of a model by name, as one set even when they came from several files.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorSet<T> {
    pub(super) tensors: BTreeMap<String, T>,
    /// The file each tensor came from, for messages.
    pub(super) files: HashMap<String, String>,
    /// The types of the integer tensors that were skipped, for messages.
    pub(super) integers: BTreeMap<String, String>,
}

impl<T> Default for TensorSet<T> {
    fn default() -> Self {
        Self {
            tensors: BTreeMap::new(),
            files: HashMap::new(),
            integers: BTreeMap::new(),
        }
    }
}

impl<T: Shaped> TensorSet<T> {
    pub(super) fn insert(&mut self, file: &str, name: String, tensor: T) {
        self.files.insert(name.clone(), file.to_owned());
        self.tensors.insert(name, tensor);
    }

    /// Remembers an integer tensor, which holds no weights.
    pub(super) fn skip(&mut self, file: &str, name: String, dtype: String) {
        self.files.insert(name.clone(), file.to_owned());
        self.integers.insert(name, dtype);
    }

    /// Takes over every tensor of another file, unless both hold one of the same name.
    pub(super) fn extend(&mut self, other: Self) -> Result<()> {
        if let Some(tensor) = other
            .tensors
            .keys()
            .find(|name| self.tensors.contains_key(*name))
        {
            return Err(Error::DuplicateTensor {
                tensor: tensor.clone(),
                first: self.file_of(tensor),
                second: other.file_of(tensor),
            });
        }
        self.tensors.extend(other.tensors);
        self.integers.extend(other.integers);
        self.files.extend(other.files);
        Ok(())
    }

    /// The error of a tensor that is there with another shape than the expected one.
    pub(super) fn check_shape(&self, name: &str, tensor: &T, expected: &[usize]) -> Result<()> {
        if tensor.shape() == expected {
            return Ok(());
        }
        Err(Error::TensorShape {
            file: self.file_of(name),
            tensor: name.to_owned(),
            found: tensor.shape().to_vec(),
            expected: expected.to_vec(),
        })
    }

    /// Holds the set against a layout and names the first tensor that does not fit.
    pub(super) fn check(&self, layout: &[TensorSpec]) -> Result<()> {
        let mut expected = HashMap::with_capacity(layout.len());
        for spec in layout {
            expected.insert(spec.name.as_str(), spec.shape.as_slice());
            let Some(tensor) = self.tensors.get(&spec.name) else {
                return Err(self.absent(&spec.name));
            };
            self.check_shape(&spec.name, tensor, &spec.shape)?;
        }
        match self
            .tensors
            .keys()
            .find(|name| !expected.contains_key(name.as_str()))
        {
            None => Ok(()),
            Some(extra) => Err(Error::UnexpectedTensor {
                file: self.file_of(extra),
                tensor: extra.clone(),
            }),
        }
    }

    /// The error for a tensor that is needed: it is not there, or holds no weights.
    pub(super) fn absent(&self, name: &str) -> Error {
        let tensor = name.to_owned();
        match self.integers.get(name) {
            None => Error::MissingTensor {
                file: self.any_file(),
                tensor,
            },
            Some(dtype) => Error::TensorType {
                file: self.file_of(name),
                tensor,
                dtype: dtype.clone(),
            },
        }
    }

    /// The file a tensor came from.
    pub(super) fn file_of(&self, name: &str) -> String {
        self.files
            .get(name)
            .cloned()
            .unwrap_or_else(|| "checkpoint".to_owned())
    }

    fn any_file(&self) -> String {
        self.files
            .values()
            .min()
            .cloned()
            .unwrap_or_else(|| "model.safetensors".to_owned())
    }
}
