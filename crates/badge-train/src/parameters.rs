//! The trainable tensors of a model by their checkpoint names.

use std::collections::BTreeMap;

use badge_core::checkpoint::layout::{Initial, TensorSpec};
use badge_core::checkpoint::names::ModuleName;
use badge_core::checkpoint::{self, Checkpoint};
use badge_tasks::hash::ContentHasher;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::framework::{Device, Tensor, Var};

/// All variables of a model. Modules hold clones of the tensors, which share storage with the
/// variables, so that an optimiser's update in place is seen everywhere.
#[derive(Debug)]
pub struct Parameters {
    variables: BTreeMap<String, Var>,
}

impl Parameters {
    /// Takes over a checkpoint that fits the layout exactly.
    ///
    /// # Errors
    /// Names the first tensor that is missing, extra or misshapen.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        layout: &[TensorSpec],
        device: &Device,
    ) -> Result<Self> {
        checkpoint.check(layout)?;
        let mut variables = BTreeMap::new();
        for (name, tensor) in checkpoint.iter() {
            let var = Var::from_slice(&tensor.values, tensor.shape.as_slice(), device)?;
            variables.insert(name.to_owned(), var);
        }
        Ok(Self { variables })
    }

    /// The variable of this name as a tensor that shares its storage and its gradient.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.variables.get(name).map(|var| var.as_tensor().clone())
    }

    /// The variable's tensor.
    ///
    /// # Panics
    /// When the layout has no such name: names come from the same place as the layout.
    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let var = self.variables.get(name);
        var.unwrap_or_else(|| panic!("`{name}` is part of the layout"))
            .as_tensor()
            .clone()
    }

    pub(crate) fn weight(&self, module: &ModuleName) -> Tensor {
        self.tensor(&module.weight())
    }

    pub(crate) fn bias(&self, module: &ModuleName) -> Tensor {
        self.tensor(&module.bias())
    }

    /// All variables in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.variables
            .iter()
            .map(|(name, var)| (name.as_str(), var))
    }

    /// A copy of all values.
    ///
    /// # Errors
    /// When a value is not finite, which names the tensor.
    pub fn to_checkpoint(&self) -> Result<Checkpoint> {
        let mut copy = Checkpoint::default();
        for (name, var) in &self.variables {
            let values = var.flatten_all()?.to_vec1::<f32>()?;
            let tensor = checkpoint::Tensor {
                shape: var.dims().to_vec(),
                values,
            };
            copy.insert("the model in memory", name.clone(), tensor)?;
        }
        Ok(copy)
    }

    /// Overwrites every variable with the checkpoint's values.
    pub(crate) fn set(&self, values: &mut Checkpoint, file: &str) -> Result<()> {
        for (name, var) in &self.variables {
            let tensor =
                values
                    .take(name, var.dims())?
                    .ok_or_else(|| badge_core::Error::MissingTensor {
                        file: file.to_owned(),
                        tensor: name.clone(),
                    })?;
            var.set(&Tensor::from_slice(
                &tensor.values,
                var.dims(),
                var.device(),
            )?)?;
        }
        Ok(())
    }

    /// Overwrites one variable with another's values.
    pub(crate) fn copy(&self, from: &str, to: &str) -> Result<()> {
        // A copy of its own: the two must not share their storage.
        Ok(self.variables[to].set(&self.tensor(from).copy()?)?)
    }

    /// A hash of every name and value.
    pub(crate) fn sha256(&self) -> Result<String> {
        let mut hasher = ContentHasher::new();
        for (name, var) in &self.variables {
            hasher.update_field(name.as_bytes());
            for value in var.flatten_all()?.to_vec1::<f32>()?.chunks(4096) {
                let bytes: Vec<u8> = value.iter().flat_map(|v| v.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
        }
        Ok(hasher.finish())
    }

    /// Number of trainable values.
    pub fn count(&self) -> usize {
        self.variables.values().map(|var| var.elem_count()).sum()
    }
}

/// Completes a checkpoint: tensors that it lacks start as their layout says.
///
/// Every tensor draws from a stream of its own, derived from the seed and its place in the layout.
///
/// # Errors
/// Never for the values drawn here; the signature is that of [`Checkpoint::insert`].
pub fn initialise(mut given: Checkpoint, layout: &[TensorSpec], seed: u64) -> Result<Checkpoint> {
    let mut copies = Vec::new();
    for (place, spec) in layout.iter().enumerate() {
        if given.get(&spec.name).is_some() {
            continue;
        }
        let count = spec.shape.iter().product();
        let values = match &spec.initial {
            Initial::Normal(std) => {
                let mut generator = ChaCha8Rng::seed_from_u64(seed);
                generator.set_stream(place as u64 + 1);
                normal(&mut generator, count, *std)
            }
            Initial::Zeros => vec![0.0; count],
            Initial::Ones => vec![1.0; count],
            Initial::CopyOf(source) => {
                copies.push((spec, source));
                continue;
            }
        };
        let tensor = checkpoint::Tensor {
            shape: spec.shape.clone(),
            values,
        };
        given.insert("fresh", spec.name.clone(), tensor)?;
    }
    for (spec, source) in copies {
        let tensor = given
            .get(source)
            .expect("a layout holds the source of every copy")
            .clone();
        given.insert("fresh", spec.name.clone(), tensor)?;
    }
    Ok(given)
}

/// Normal values by Box and Muller's transform.
fn normal(generator: &mut ChaCha8Rng, count: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let (u, v): (f64, f64) = (generator.random(), generator.random());
        let radius = std * (-2.0 * (1.0 - u).ln()).sqrt();
        let (sin, cos) = (2.0 * std::f64::consts::PI * v).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use badge_core::checkpoint::layout::Part;

    use super::*;

    fn layout() -> Vec<TensorSpec> {
        let spec = |name: &str, initial| TensorSpec {
            name: name.to_owned(),
            shape: vec![100, 101],
            initial,
            part: Part::Backbone,
        };
        vec![
            spec("copy", Initial::CopyOf("a".to_owned())),
            spec("a", Initial::Normal(0.02)),
            spec("b", Initial::Normal(0.02)),
            spec("c", Initial::Ones),
        ]
    }

    #[test]
    fn fresh_tensors_follow_the_layout_and_the_seed() {
        let fresh = |seed| initialise(Checkpoint::default(), &layout(), seed).unwrap();
        let (one, two) = (fresh(1), fresh(2));
        assert_eq!(one, fresh(1));
        let values = |c: &Checkpoint, name: &str| c.get(name).unwrap().values.clone();
        assert_ne!(values(&one, "a"), values(&two, "a"));
        assert_ne!(values(&one, "a"), values(&one, "b"));
        assert_eq!(values(&one, "a"), values(&one, "copy"));
        let a = values(&one, "a");
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        let std = (a.iter().map(|v| v * v).sum::<f32>() / a.len() as f32).sqrt();
        assert!(
            mean.abs() < 1e-3 && (std - 0.02).abs() < 1e-3,
            "mean {mean}, std {std}"
        );
    }

    #[test]
    fn given_tensors_are_kept_and_copied_from() {
        let mut given = Checkpoint::default();
        let tensor = checkpoint::Tensor {
            shape: vec![100, 101],
            values: vec![7.0; 10_100],
        };
        given.insert("x", "a".to_owned(), tensor.clone()).unwrap();
        let complete = initialise(given, &layout(), 1).unwrap();
        assert_eq!(complete.get("a"), Some(&tensor));
        assert_eq!(complete.get("copy"), Some(&tensor));
    }
}
