//! The engine against the trainer: the same logits at every exit, the same decisions, on every
//! instruction set of this machine. Bounds and their reasons stand in `docs/parity.md`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use badge_core::config::ModelConfig;
use badge_core::distribution::{Prediction, PredictionKind};
use badge_core::policy::{ModelExits, Policy, PolicySpec};
use badge_engine::EngineOptions;
use badge_engine::kernels::isa::Isa;
use badge_lab::fine_tune::PackedEvaluator;
use badge_lab::inference::{Inference, PackedInference, Reference};
use badge_tasks::Encoding;
use badge_train::Device;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::{Evaluator, OwnModel};
use badge_train::model_directory::read_model;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Largest absolute difference of a logit that is allowed.
const ENGINE_EXIT: f32 = 5e-6;

const CASES: [&str; 6] = [
    "albert",
    "albert_groups",
    "bert_gelu",
    "bert_relu",
    "elasticbert",
    // With a learning-to-exit head.
    "../methods/albert_lte",
];

/// The tiny models hold every part that a model can have.
fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/parity")
        .join(case)
}

/// Rows of 1 to 40 tokens.
const SHORT: [usize; 20] = [
    30, 1, 7, 19, 40, 3, 3, 28, 12, 33, 2, 25, 9, 16, 38, 5, 21, 14, 1, 10,
];

/// Among them longer ones, of up to 512.
const MIXED: [usize; 12] = [30, 64, 1, 7, 512, 19, 100, 3, 40, 1, 17, 129];

/// Random rows of these lengths, or of the greatest that the model takes.
fn rows(config: &ModelConfig, lengths: &[usize]) -> EncodedSplit {
    let backbone = &config.backbone;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let encoding = |length: &usize| {
        let length = backbone.positions.min(*length);
        let mut below = |count: usize| -> Vec<u32> {
            let ids = 0..length;
            ids.map(|_| random.random_range(0..count as u32)).collect()
        };
        Encoding {
            ids: below(backbone.vocabulary),
            type_ids: below(backbone.token_types),
        }
    };
    EncodedSplit::from_encodings(lengths.iter().map(encoding).collect(), Vec::new(), 0)
}

/// Policies that leave early, late, never and by every kind of rule.
fn policies(config: &ModelConfig) -> Vec<Arc<Policy>> {
    let plan = config.exits().exits;
    let deepest = plan.deepest();
    let specs = [
        "full".to_owned(),
        "fixed:1".to_owned(),
        format!("fixed:{deepest}"),
        "dge:tau=0.02,t=1".to_owned(),
        "dge:tau=0.3,t=1".to_owned(),
        "dge:tau=0.9,t=2".to_owned(),
        "dge:tau=1.7,t=1,window=adjacent".to_owned(),
        "dge:tau=0.05,t=1,divergence=js".to_owned(),
        "patience:1,tolerance=0.1".to_owned(),
        "flexible-patience:tau=0.02,t=2".to_owned(),
    ];
    // These go by distributions, the last by classes.
    let by_kind = [
        "entropy:0.6",
        "maxprob:0.6",
        "pcee:tau=0.9,t=2",
        "vote:tau=1.4",
    ];
    let exits = ModelExits::of(config);
    let fitting = match exits.kind() {
        PredictionKind::SingleLabel { .. } => &by_kind[..],
        PredictionKind::MultiLabel { .. } => &by_kind[..3],
        PredictionKind::Regression => &[],
    };
    let specs = specs
        .into_iter()
        .chain(fitting.iter().map(ToString::to_string));
    let with_head = ["lte:0.45", "lte:0.5", "lte:0.55"].map(str::to_owned);
    let specs = specs.chain(
        exits
            .learns_to_exit()
            .then_some(with_head)
            .into_iter()
            .flatten(),
    );
    let build = |spec: String| {
        let spec: PolicySpec = spec.parse().unwrap();
        Arc::new(spec.build_for(&exits).unwrap())
    };
    specs.map(build).collect()
}

/// Runs a check on every model, by the trainer and by the engine on every instruction set.
fn for_each_case(check: impl Fn(&str, &mut dyn Inference, &mut [PackedInference])) {
    for case in CASES {
        let directory = fixture(case);
        let mut trainer = Reference::new(read_model(&directory, &Device::Cpu).unwrap());
        let engine = |isa| {
            let options = EngineOptions {
                threads: 2,
                isa: Some(isa),
                ..EngineOptions::default()
            };
            PackedInference::with_options(&directory, options).unwrap()
        };
        let mut engines: Vec<_> = Isa::available().into_iter().map(engine).collect();
        check(case, &mut trainer, &mut engines);
    }
}

/// The instruction set that an engine uses.
fn isa(engine: &PackedInference) -> String {
    engine.provenance().instruction_set
}

#[test]
fn every_exit_agrees_with_the_trainers() {
    for_each_case(|case, trainer, engines| {
        let rows = rows(trainer.config(), &MIXED);
        let expected = trainer.all_exits(&rows, &mut |_| {}).unwrap();
        for engine in engines {
            let isa = isa(engine);
            let mut done = 0;
            let found = engine.all_exits(&rows, &mut |rows| done += rows).unwrap();
            assert_eq!(done, rows.len(), "{case} on {isa}: rows told of");
            assert_eq!(found.values.len(), expected.values.len());
            let (ours, theirs) = (
                &found.continue_probabilities,
                &expected.continue_probabilities,
            );
            assert_eq!(ours.len(), theirs.len(), "{case} on {isa}");
            for (found, expected) in ours.iter().zip(theirs) {
                let difference = (found - expected).abs();
                assert!(
                    difference <= ENGINE_EXIT,
                    "{case} on {isa}: a probability to continue is off by {difference:e}"
                );
            }
            for row in 0..rows.len() {
                for exit in 0..expected.exits {
                    let pairs = found.logits(row, exit).iter();
                    for (found, expected) in pairs.zip(expected.logits(row, exit)) {
                        let difference = (found - expected).abs();
                        assert!(
                            difference <= ENGINE_EXIT,
                            "{case} on {isa}, row {row}, exit {exit}: off by {difference:e}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn a_run_scores_dev_on_the_engine_as_its_own_model_would() {
    for case in CASES {
        let model = read_model(&fixture(case), &Device::Cpu).unwrap();
        let rows = rows(model.config(), &MIXED);
        let expected = OwnModel.evaluate(&model, &rows).unwrap();
        let mut packed = PackedEvaluator::new(2).unwrap();
        // Weights may change between two evaluations; nothing of the first may be left.
        for _ in 0..2 {
            let found = packed.evaluate(&model, &rows).unwrap();
            assert_eq!(
                (found.exits, found.outputs),
                (expected.exits, expected.outputs)
            );
            assert_eq!(found.rows(), expected.rows(), "{case}");
            for (found, expected) in found.values.iter().zip(&expected.values) {
                let difference = (found - expected).abs();
                assert!(difference <= ENGINE_EXIT, "{case}: off by {difference:e}");
            }
        }
    }
}

#[test]
fn rows_leave_where_the_trainers_do_alone_and_in_a_batch() {
    for_each_case(|case, trainer, engines| {
        let rows = rows(trainer.config(), &SHORT);
        let mut left_at = BTreeSet::new();
        for policy in policies(trainer.config()) {
            let expected = trainer.classify(rows.encodings(), &policy).unwrap();
            left_at.extend(expected.iter().map(|answer| answer.depth));
            for engine in &mut *engines {
                let place = format!("{case} on {}, {}", isa(engine), policy.spec());
                let together = engine.classify(rows.encodings(), &policy).unwrap();
                assert_eq!(together.len(), rows.len(), "{place}");
                for (row, answer) in together.iter().enumerate() {
                    let encoding = &rows.encodings()[row];
                    let (alone, _) = engine.classify_one(encoding, &policy).unwrap();
                    assert_eq!(answer.depth, expected[row].depth, "{place}, row {row}");
                    assert_eq!(alone.depth, answer.depth, "{place}, row {row}");
                    assert_eq!(alone.prediction, answer.prediction, "{place}, row {row}");
                }
            }
        }
        let exits = trainer.config().exits().exits.count();
        assert_eq!(left_at.len(), exits, "{case}: rows left at {left_at:?}");
    });
}

#[test]
fn an_answer_is_what_its_exit_says_to_the_last_bit() {
    for_each_case(|case, _, engines| {
        for engine in engines {
            let rows = rows(engine.config(), &SHORT);
            let logits = engine.all_exits(&rows, &mut |_| {}).unwrap();
            for policy in policies(engine.config()) {
                let answers = engine.classify(rows.encodings(), &policy).unwrap();
                for (row, answer) in answers.iter().enumerate() {
                    let mut depths = policy.plan().depths().iter();
                    let exit = depths.position(|depth| *depth == answer.depth).unwrap();
                    let logits = logits.logits(row, exit);
                    let expected = Prediction::from_logits(policy.kind(), logits).unwrap();
                    let place = format!("{case} on {}, {}, row {row}", isa(engine), policy.spec());
                    assert_eq!(answer.prediction, expected, "{place}");
                }
            }
        }
    });
}
