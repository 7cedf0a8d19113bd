//! Golden files: tensors by name, and what tests make of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use badge_core::config::{ModelConfig, ProblemType};
use badge_tasks::Target;
use badge_train::gradients::Gradients;
use badge_train::loss::Targets;
use badge_train::method::{Loss, Method, Moment};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::step::{Backpropagation, PassSettings, forward_backward};
use badge_train::{Device, weights};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

pub(crate) fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(folder)
}

pub(crate) struct Golden {
    pub(crate) floats: BTreeMap<String, Vec<f32>>,
    pub(crate) integers: BTreeMap<String, Vec<i64>>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let mut golden = Self {
            floats: BTreeMap::new(),
            integers: BTreeMap::new(),
            shapes: BTreeMap::new(),
        };
        for (name, view) in parsed.iter() {
            golden.shapes.insert(name.to_owned(), view.shape().to_vec());
            match view.dtype() {
                Dtype::F32 => {
                    let values = view.data().as_chunks::<4>().0;
                    let values = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    golden.floats.insert(name.to_owned(), values);
                }
                Dtype::I64 => {
                    let values = view.data().as_chunks::<8>().0;
                    let values = values.iter().map(|b| i64::from_le_bytes(*b)).collect();
                    golden.integers.insert(name.to_owned(), values);
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        golden
    }

    pub(crate) fn input(&self) -> ModelInput {
        let ids = |name: &str| -> Vec<u32> {
            self.integers[name]
                .iter()
                .map(|id| u32::try_from(*id).unwrap())
                .collect()
        };
        let tokens = self.shapes["input_ids"][1];
        let lengths: Vec<usize> = self.integers["attention_mask"]
            .chunks(tokens)
            .map(|row| row.iter().sum::<i64>() as usize)
            .collect();
        ModelInput::new(
            &ids("input_ids"),
            &ids("token_type_ids"),
            &lengths,
            &Device::Cpu,
        )
        .unwrap()
    }

    pub(crate) fn targets(&self, config: &ModelConfig) -> Targets {
        let targets: Vec<Target> = match config.head.problem {
            ProblemType::SingleLabel => self.integers["labels"]
                .iter()
                .map(|id| Target::Class(*id as usize))
                .collect(),
            ProblemType::MultiLabel => self.floats["labels"]
                .chunks(config.head.outputs())
                .map(|row| Target::Classes(row.iter().map(|v| *v > 0.5).collect()))
                .collect(),
            ProblemType::Regression => self.floats["labels"]
                .iter()
                .map(|v| Target::Value(*v))
                .collect(),
        };
        Targets::new(
            config.head.problem,
            &targets.iter().collect::<Vec<_>>(),
            &Device::Cpu,
        )
        .unwrap()
    }
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

pub(crate) fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    let difference = largest_difference(found, expected);
    assert!(
        difference <= tolerance,
        "{what}: off by {difference:e}, allowed {tolerance:e}"
    );
}

pub(crate) fn flat(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, v| top.max(v.abs()))
}

pub(crate) fn load(folder: &Path) -> MultiExitModel {
    let config = weights::read_config(folder).unwrap();
    let checkpoint = weights::read_checkpoint(folder).unwrap();
    MultiExitModel::new(config, &checkpoint, &Device::Cpu).unwrap()
}

/// The two ways to compute a pass: the framework's graph and the hand-written one. Both are held to
/// the same bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Graph,
    Fused,
}

pub(crate) const WAYS: [Way; 2] = [Way::Graph, Way::Fused];

/// A way to compute the passes of a model.
pub(crate) struct Passes<'a> {
    model: &'a MultiExitModel,
    fused: Option<Backpropagation<'a>>,
}

impl<'a> Passes<'a> {
    pub(crate) fn new(model: &'a MultiExitModel, way: Way) -> Self {
        let fused = || Backpropagation::new(model, PassSettings::default()).unwrap();
        Self {
            model,
            fused: matches!(way, Way::Fused).then(fused),
        }
    }

    pub(crate) fn run(
        &mut self,
        method: &dyn Method,
        batch: (&ModelInput, &Targets),
        when: (&Moment, Mode),
    ) -> (Loss, Gradients) {
        match &mut self.fused {
            None => forward_backward(self.model, method, batch, when),
            Some(passes) => passes.run(method, batch, when),
        }
        .unwrap()
    }
}
