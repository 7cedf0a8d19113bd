//! The golden ladder: embeddings, every block, every exit, the joint loss, all gradients and five
//! AdamW steps, against files made by `reference/make_golden.py` with Hugging Face's models in
//! f64. Tolerances and their reasons stand in `docs/parity.md`.

mod golden;
mod methods;

use badge_train::method::{ExitWeights, Joint, Moment};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::optimizer::{AdamW, AdamWConfig};
use badge_train::{Device, weights};

use golden::{Golden, Passes, WAYS, close, fixtures, flat, largest, load};

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

/// The joint loss that a golden file was made with.
fn joint(golden: &Golden) -> Joint {
    let weights = &golden.floats["loss_weights"];
    let uniform = weights.iter().all(|w| *w == 1.0);
    Joint {
        weights: if uniform {
            ExitWeights::Uniform
        } else {
            ExitWeights::Linear
        },
    }
}

const CASES: [&str; 5] = [
    "albert",
    "albert_groups",
    "bert_gelu",
    "bert_relu",
    "elasticbert",
];

/// The same both ways.
fn for_each_way(check: impl Fn(&str, &mut Passes, &MultiExitModel, &Golden)) {
    for way in WAYS {
        for_each_case(|case, model, golden| {
            check(
                &format!("{case} {way:?}"),
                &mut Passes::new(model, way),
                model,
                golden,
            );
        });
    }
}

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
        while let Some(exit) = forward.next_exit().unwrap() {
            let name = format!("block.{}.hidden", exit.depth.index().0);
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
        while let Some(exit) = forward.next_exit().unwrap() {
            let name = format!("exit.{}.logits", exit.depth.index().0);
            close(
                &format!("{case} {name}"),
                &flat(&exit.logits),
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
        while let Some(exit) = forward.next_exit().unwrap() {
            let name = format!("long.exit.{}.logits", exit.depth.index().0);
            close(
                &format!("{case} {name}"),
                &flat(&exit.logits),
                &golden.floats[&name],
                EXIT,
            );
        }
    });
}

#[test]
fn the_joint_loss_and_all_gradients_agree() {
    for_each_way(|case, passes, model, golden| {
        let targets = golden.targets(model.config());
        let (loss, gradients) = passes.run(
            &joint(golden),
            (&golden.input(), &targets),
            (&Moment::first(1, 0), Mode::Evaluation),
        );
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
    for_each_way(|case, passes, model, golden| {
        let (input, targets) = (golden.input(), golden.targets(model.config()));
        let config = AdamWConfig {
            weight_decay: 0.01,
            ..AdamWConfig::default()
        };
        let mut optimizer = AdamW::new(config);
        for step in 1..=5 {
            let batch = (&input, &targets);
            let when = (&Moment::first(5, 0), Mode::Evaluation);
            let (loss, gradients) = passes.run(&joint(golden), batch, when);
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
