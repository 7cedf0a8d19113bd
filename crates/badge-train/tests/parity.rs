//! The golden ladder: embeddings, every block, every exit, the joint loss, all gradients and five
//! AdamW steps, against files made by `reference/make_golden.py` with Hugging Face's models in
//! f64. Tolerances and their reasons stand in `docs/parity.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use badge_core::config::{ModelConfig, ProblemType};
use badge_tasks::Target;
use badge_train::loss::Targets;
use badge_train::method::{ExitWeights, Method};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::optimizer::{AdamW, AdamWConfig};
use badge_train::step::forward_backward;
use badge_train::{Device, weights};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// Largest absolute difference that is allowed, per rung of the ladder.
const EMBEDDINGS: f32 = 2e-6;
const BLOCK: f32 = 1e-5;
const EXIT: f32 = 5e-6;
const LOSS: f32 = 5e-6;
const GRADIENT: f32 = 1e-5;
const STEP_LOSS: f32 = 1e-5;
const GRADIENT_NORM: f32 = 2e-5;
const AFTER: f32 = 1e-5;
/// A key's bias has no influence (softmax ignores what is the same for all keys): its gradient is
/// rounding noise, which AdamW blows up to steps of the learning rate. Five steps of 1e-3 bound it.
const AFTER_KEY_BIAS: f32 = 5.5e-3;

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(folder)
}

struct Golden {
    floats: BTreeMap<String, Vec<f32>>,
    integers: BTreeMap<String, Vec<i64>>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Golden {
    fn read(path: &Path) -> Self {
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

    fn input(&self) -> ModelInput {
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

    fn targets(&self, config: &ModelConfig) -> Targets {
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

    fn method(&self) -> Method {
        let weights = &self.floats["loss_weights"];
        let uniform = weights.iter().all(|w| *w == 1.0);
        Method::Joint(if uniform {
            ExitWeights::Uniform
        } else {
            ExitWeights::Linear
        })
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

fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    let difference = largest_difference(found, expected);
    assert!(
        difference <= tolerance,
        "{what}: off by {difference:e}, allowed {tolerance:e}"
    );
}

fn flat(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, v| top.max(v.abs()))
}

fn load(folder: &Path) -> MultiExitModel {
    let config = weights::read_config(folder).unwrap();
    let checkpoint = weights::read_checkpoint(folder).unwrap();
    MultiExitModel::new(config, &checkpoint, &Device::Cpu).unwrap()
}

const CASES: [&str; 5] = [
    "albert",
    "albert_groups",
    "bert_gelu",
    "bert_relu",
    "elasticbert",
];

fn for_each_case(check: impl Fn(&str, &MultiExitModel, &Golden)) {
    for case in CASES {
        let folder = fixtures("parity").join(case);
        check(
            case,
            &load(&folder),
            &Golden::read(&folder.join("golden.safetensors")),
        );
    }
}

/// Rows of padding hold numbers that no real row reads; only real rows are compared.
fn real_rows(values: &[f32], lengths: &[usize], tokens: usize) -> Vec<f32> {
    let width = values.len() / lengths.len() / tokens;
    let samples = values.chunks(tokens * width).zip(lengths);
    samples
        .flat_map(|(sample, length)| sample[..length * width].to_vec())
        .collect()
}

#[test]
fn embeddings_and_every_block_agree() {
    for_each_case(|case, model, golden| {
        let lengths: Vec<usize> = golden.integers["attention_mask"]
            .chunks(7)
            .map(|row| row.iter().sum::<i64>() as usize)
            .collect();
        let real = |values: &[f32]| real_rows(values, &lengths, 7);
        let mut forward = model.start(&golden.input(), Mode::Evaluation).unwrap();
        let expected = real(&golden.floats["embeddings"]);
        close(
            &format!("{case} embeddings"),
            &real(&flat(forward.hidden())),
            &expected,
            EMBEDDINGS,
        );
        while let Some((depth, _)) = forward.next_exit().unwrap() {
            let name = format!("block.{}.hidden", depth.index().0);
            let found = real(&flat(forward.hidden()));
            close(
                &format!("{case} {name}"),
                &found,
                &real(&golden.floats[&name]),
                BLOCK,
            );
        }
    });
}

#[test]
fn every_exit_agrees_on_a_padded_batch_of_pairs() {
    for_each_case(|case, model, golden| {
        let mut forward = model.start(&golden.input(), Mode::Evaluation).unwrap();
        let mut exits = 0;
        while let Some((depth, logits)) = forward.next_exit().unwrap() {
            let name = format!("exit.{}.logits", depth.index().0);
            close(
                &format!("{case} {name}"),
                &flat(&logits),
                &golden.floats[&name],
                EXIT,
            );
            exits += 1;
        }
        assert_eq!(exits, golden.floats["loss_weights"].len(), "{case}");
    });
}

#[test]
fn every_exit_agrees_on_512_tokens() {
    for_each_case(|case, model, golden| {
        let ids: Vec<u32> = golden.integers["long.input_ids"]
            .iter()
            .map(|id| *id as u32)
            .collect();
        let input = ModelInput::new(&ids, &[0; 512], &[512], &Device::Cpu).unwrap();
        let mut forward = model.start(&input, Mode::Evaluation).unwrap();
        while let Some((depth, logits)) = forward.next_exit().unwrap() {
            let name = format!("long.exit.{}.logits", depth.index().0);
            close(
                &format!("{case} {name}"),
                &flat(&logits),
                &golden.floats[&name],
                EXIT,
            );
        }
    });
}

#[test]
fn the_joint_loss_and_all_gradients_agree() {
    for_each_case(|case, model, golden| {
        let targets = golden.targets(model.config());
        let (loss, gradients) = forward_backward(
            model,
            golden.method(),
            (&golden.input(), &targets),
            Mode::Evaluation,
        )
        .unwrap();
        close(
            &format!("{case} loss"),
            &flat(&loss.total),
            &golden.floats["loss"],
            LOSS,
        );
        let mut compared = 0;
        for (name, expected) in &golden.floats {
            let Some(parameter) = name.strip_prefix("gradient.") else {
                continue;
            };
            let found = flat(
                gradients
                    .get(parameter)
                    .unwrap_or_else(|| panic!("{case} {name}")),
            );
            let tolerance = GRADIENT * largest(expected).max(1.0);
            close(&format!("{case} {name}"), &found, expected, tolerance);
            compared += 1;
        }
        assert!(compared > 30, "{case}: {compared} gradients");
    });
}

#[test]
fn five_adamw_steps_agree() {
    for_each_case(|case, model, golden| {
        let (input, targets) = (golden.input(), golden.targets(model.config()));
        let config = AdamWConfig {
            weight_decay: 0.01,
            ..AdamWConfig::default()
        };
        let mut optimizer = AdamW::new(config);
        for step in 1..=5 {
            let batch = (&input, &targets);
            let (loss, gradients) =
                forward_backward(model, golden.method(), batch, Mode::Evaluation).unwrap();
            let expected = &golden.floats[&format!("step.{step}.loss")];
            close(
                &format!("{case} loss of step {step}"),
                &flat(&loss.total),
                expected,
                STEP_LOSS,
            );
            let norm = optimizer
                .step(model.parameters(), &gradients, 1e-3)
                .unwrap() as f32;
            let expected = &golden.floats[&format!("step.{step}.gradient_norm")];
            let tolerance = GRADIENT_NORM * expected[0].max(1.0);
            close(
                &format!("{case} gradient norm of step {step}"),
                &[norm],
                expected,
                tolerance,
            );
        }
        let after = model.parameters().to_checkpoint().unwrap();
        for (name, expected) in &golden.floats {
            let Some(parameter) = name.strip_prefix("after.") else {
                continue;
            };
            let found = &after
                .get(parameter)
                .unwrap_or_else(|| panic!("{case} {name}"))
                .values;
            let tolerance = if name.ends_with("key.bias") {
                AFTER_KEY_BIAS
            } else {
                AFTER
            };
            close(&format!("{case} {name}"), found, expected, tolerance);
        }
    });
}

#[test]
fn every_file_format_gives_the_same_hidden_states() {
    let golden = Golden::read(&fixtures("formats").join("expected.safetensors"));
    for format in ["no_prefix", "gamma_beta", "sharded", "pytorch_bin", "half"] {
        let folder = fixtures("formats").join(format);
        let config = weights::read_config(&folder).unwrap();
        let read = weights::read_pretrained(&folder, &config).unwrap();
        let missing: Vec<_> = read.missing.iter().map(String::as_str).collect();
        assert_eq!(
            missing,
            ["classifier.weight", "classifier.bias"],
            "{format}"
        );
        let layout = badge_core::checkpoint::layout::of_model(&config);
        let complete = badge_train::parameters::initialise(read.tensors, &layout, 1).unwrap();
        let model = MultiExitModel::new(config, &complete, &Device::Cpu).unwrap();
        let mut forward = model.start(&golden.input(), Mode::Evaluation).unwrap();
        while forward.next_exit().unwrap().is_some() {}
        let lengths = &golden.integers["attention_mask"];
        let lengths: Vec<usize> = lengths
            .chunks(5)
            .map(|row| row.iter().sum::<i64>() as usize)
            .collect();
        let found = real_rows(&flat(forward.hidden()), &lengths, 5);
        let expected = real_rows(&golden.floats["last_hidden"], &lengths, 5);
        close(format, &found, &expected, BLOCK);
    }
}

#[test]
fn elasticbert_files_give_each_exit_its_own_pretrained_pooler() {
    let folder = fixtures("parity").join("elasticbert");
    let fine_tuned = weights::read_config(&folder).unwrap();
    let read = weights::read_pretrained(&folder.join("source"), &fine_tuned).unwrap();
    let written = weights::read_checkpoint(&folder).unwrap();
    assert!(
        read.missing.iter().all(|name| name.contains("classifier")),
        "{:?}",
        read.missing
    );
    for (name, tensor) in written
        .iter()
        .filter(|(name, _)| !name.contains("classifier"))
    {
        assert_eq!(read.tensors.get(name), Some(tensor), "{name}");
    }
}
