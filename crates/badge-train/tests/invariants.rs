//! What must hold for any weights: bypasses touch exits only, early exits answer as the full run
//! does, padding and neighbours change nothing.

use badge_core::bypass::{BypassConfig, BypassLayerNorm};
use badge_core::checkpoint::{Checkpoint, Tensor, layout};
use badge_core::config::{EarlyExitConfig, HeadConfig, ModelConfig, ProblemType};
use badge_core::distribution::PredictionKind;
use badge_core::exit::{Depth, ExitPlan, Pooler};
use badge_core::policy::PolicySpec;
use badge_tasks::{Encoding, Target};
use badge_train::Device;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::evaluate;
use badge_train::infer::classify;
use badge_train::loss::Targets;
use badge_train::method::{Joint, Moment};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::optimizer::{AdamW, AdamWConfig};
use badge_train::parameters::initialise;
use badge_train::step::forward_backward;
use proptest::prelude::*;

const BLOCKS: usize = 4;
const CLASSES: usize = 3;
const KIND: PredictionKind = PredictionKind::SingleLabel { classes: CLASSES };

fn config(family: &str, pooler: Pooler, bypass: Option<BypassConfig>) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": family, "vocab_size": 99, "embedding_size": 11, "hidden_size": 24,
        "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "intermediate_size": 37,
        "max_position_embeddings": 16, "initializer_range": 0.2, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0
    });
    let head = HeadConfig {
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        problem: ProblemType::SingleLabel,
    };
    let exits = EarlyExitConfig::new(ExitPlan::every_block(BLOCKS), pooler, bypass, 0.0);
    ModelConfig::from_json(json.to_string().as_bytes())
        .unwrap()
        .with_exits(head, exits)
}

fn fresh(config: &ModelConfig, seed: u64) -> Checkpoint {
    initialise(Checkpoint::default(), &layout::of_model(config), seed).unwrap()
}

/// The tensors of a larger model that a smaller one has too.
fn restricted(weights: &Checkpoint, config: &ModelConfig) -> Checkpoint {
    let mut part = Checkpoint::default();
    for spec in layout::of_model(config) {
        let tensor = weights.get(&spec.name).unwrap().clone();
        part.insert("test", spec.name, tensor).unwrap();
    }
    part
}

/// The same weights with other values in every bypass tensor.
fn with_other_bypasses(weights: &Checkpoint, seed: u64) -> Checkpoint {
    let mut changed = weights.clone();
    for (name, tensor) in weights
        .iter()
        .filter(|(name, _)| name.starts_with("bypasses."))
    {
        let mut state = seed ^ name.len() as u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let values = tensor.values.iter().map(|_| next()).collect();
        let tensor = Tensor {
            shape: tensor.shape.clone(),
            values,
        };
        changed.insert("test", name.to_owned(), tensor).unwrap();
    }
    changed
}

fn model(config: &ModelConfig, weights: &Checkpoint) -> MultiExitModel {
    MultiExitModel::new(config.clone(), weights, &Device::Cpu).unwrap()
}

fn encodings(rows: &[Vec<u32>]) -> Vec<Encoding> {
    let encoding = |ids: &Vec<u32>| Encoding {
        ids: ids.clone(),
        type_ids: vec![0; ids.len()],
    };
    rows.iter().map(encoding).collect()
}

fn split(rows: &[Vec<u32>]) -> EncodedSplit {
    let targets = rows
        .iter()
        .map(|ids| Target::Class(ids.len() % CLASSES))
        .collect();
    EncodedSplit::from_encodings(encodings(rows), targets, 0)
}

fn batch(rows: &[Vec<u32>]) -> (ModelInput, Targets) {
    let batch = split(rows).batch(&(0..rows.len()).collect::<Vec<_>>());
    let targets: Vec<_> = batch.targets.iter().collect();
    let targets = Targets::new(ProblemType::SingleLabel, &targets, &Device::Cpu).unwrap();
    (ModelInput::of_batch(&batch, &Device::Cpu).unwrap(), targets)
}

/// Hidden states after every block and logits of every exit.
fn trace(model: &MultiExitModel, rows: &[Vec<u32>]) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut forward = model.start(&batch(rows).0, Mode::Evaluation).unwrap();
    let (mut hidden, mut logits) = (Vec::new(), Vec::new());
    while let Some(exit) = forward.next_exit().unwrap() {
        hidden.push(flat(forward.hidden()));
        logits.push(flat(&exit.logits));
    }
    (hidden, logits)
}

fn rows() -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(prop::collection::vec(1_u32..99, 1..16), 1..6)
}

fn bypass() -> impl Strategy<Value = BypassConfig> {
    (1_usize..20, any::<bool>(), any::<bool>()).prop_map(|(rank, bias, own)| BypassConfig {
        rank,
        bias,
        layer_norm: if own {
            BypassLayerNorm::Own
        } else {
            BypassLayerNorm::Shared
        },
        ..BypassConfig::default()
    })
}

fn family() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["albert", "bert"])
}

fn pooler() -> impl Strategy<Value = Pooler> {
    prop::sample::select(vec![Pooler::Shared, Pooler::Own, Pooler::None])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_fresh_bypass_changes_nothing(
        family in family(), pooler in pooler(), bypass in bypass(), rows in rows(), seed in 0_u64..99,
    ) {
        // W_up starts at 0 and the own LayerNorm as a copy: H'_m = H_m, to the last bit.
        let with = config(family, pooler, Some(bypass));
        let without = config(family, pooler, None);
        let weights = fresh(&with, seed);
        let plain = model(&without, &restricted(&weights, &without));
        prop_assert_eq!(trace(&model(&with, &weights), &rows), trace(&plain, &rows));
    }

    #[test]
    fn hidden_states_never_depend_on_bypass_weights(
        family in family(), pooler in pooler(), bypass in bypass(), rows in rows(), seed in 0_u64..99,
    ) {
        let config = config(family, pooler, Some(bypass));
        let weights = fresh(&config, seed);
        let (hidden, logits) = trace(&model(&config, &weights), &rows);
        let changed = model(&config, &with_other_bypasses(&weights, seed));
        let (changed_hidden, changed_logits) = trace(&changed, &rows);
        prop_assert_eq!(hidden, changed_hidden);
        prop_assert_ne!(logits, changed_logits, "the exits do see their bypasses");
    }

    #[test]
    fn a_row_answers_alone_as_it_does_in_a_padded_batch(
        family in family(), rows in rows(), seed in 0_u64..99,
    ) {
        let config = config(family, Pooler::Shared, Some(BypassConfig::default()));
        let model = model(&config, &with_other_bypasses(&fresh(&config, seed), seed));
        let (_, together) = trace(&model, &rows);
        for (index, row) in rows.iter().enumerate() {
            let (_, alone) = trace(&model, std::slice::from_ref(row));
            for (exit, alone) in alone.iter().enumerate() {
                let together = &together[exit][index * CLASSES..][..CLASSES];
                for (a, b) in alone.iter().zip(together) {
                    // Sums over tokens run in another order in a batch of another shape.
                    prop_assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{} and {}", a, b);
                }
            }
        }
    }

    #[test]
    fn stopping_early_answers_as_the_full_run_replayed(
        family in family(), rows in rows(), seed in 0_u64..99, tau in 0.2_f64..1.2, t in 1_usize..4,
    ) {
        let config = config(family, Pooler::Shared, Some(BypassConfig::default()));
        let model = model(&config, &with_other_bypasses(&fresh(&config, seed), seed));
        let spec: PolicySpec = format!("dge:tau={tau},t={t}").parse().unwrap();
        let policy = spec.build(&config.exits().exits, KIND).unwrap();
        for row in &rows {
            // One row at a time on both sides: the same numbers, to the last bit.
            let logits = evaluate(&model, &split(std::slice::from_ref(row)), |_| {}).unwrap();
            let outputs = logits.predictions(0, KIND).unwrap();
            let replayed = policy.replay(&mut policy.start(), &outputs);
            let answer = classify(&model, &encodings(std::slice::from_ref(row))[0], &policy).unwrap();
            prop_assert_eq!(answer.depth, replayed.depth);
            prop_assert_eq!(answer.logits.as_slice(), logits.logits(0, replayed.position));
            prop_assert!(answer.depth >= Depth(t + 1).min(Depth(BLOCKS)));
        }
    }
}

#[test]
fn a_patience_of_all_exits_is_the_full_model() {
    let config = config("albert", Pooler::Shared, Some(BypassConfig::default()));
    let model = model(&config, &fresh(&config, 7));
    let encoding = &encodings(&[vec![5, 6, 7]])[0];
    let run = |spec: &str| {
        let spec: PolicySpec = spec.parse().unwrap();
        classify(
            &model,
            encoding,
            &spec.build(&config.exits().exits, KIND).unwrap(),
        )
        .unwrap()
    };
    let (full, patient) = (run("full"), run(&format!("dge:tau=9,t={BLOCKS}")));
    assert_eq!(full.depth, patient.depth);
    assert_eq!(full.logits, patient.logits);
}

#[test]
fn a_bypass_learns_from_its_own_exit_alone() {
    let config = config("bert", Pooler::None, Some(BypassConfig::default()));
    let model = model(&config, &with_other_bypasses(&fresh(&config, 3), 3));
    let (input, targets) = batch(&[vec![1, 2, 3], vec![4, 5, 6, 7]]);
    let logits = model.forward_all_exits(&input, Mode::Evaluation).unwrap();
    for (exit, logits) in logits.iter().enumerate() {
        let gradients = targets.loss(logits).unwrap().backward().unwrap();
        for bypass in 0..BLOCKS {
            let name = format!("bypasses.{bypass}.up.weight");
            let parameter = model.parameters().get(&name).unwrap();
            let touched = gradients.get(&parameter).is_some();
            assert_eq!(
                touched,
                bypass == exit,
                "loss of exit {exit}, bypass {bypass}"
            );
        }
    }
}

#[test]
fn parameters_without_a_gradient_stay_bit_identical_under_weight_decay() {
    let config = config("bert", Pooler::None, Some(BypassConfig::default()));
    let weights = fresh(&config, 5);
    let model = model(&config, &weights);
    let (input, targets) = batch(&[vec![1, 2, 3]]);
    let (_, gradients) = forward_backward(
        &model,
        &Joint::default(),
        (&input, &targets),
        (&Moment::first(1, 0), Mode::Evaluation),
    )
    .unwrap();
    // No exit reads the last block's own LayerNorm: every exit has its bypass's.
    let unread = format!("bert.encoder.layer.{}.output.LayerNorm.weight", BLOCKS - 1);
    assert!(gradients.get(&unread).is_none());
    let decay = AdamWConfig {
        weight_decay: 0.5,
        ..AdamWConfig::default()
    };
    AdamW::new(decay)
        .step(model.parameters(), &gradients, 0.1)
        .unwrap();
    let after = model.parameters().to_checkpoint().unwrap();
    assert_eq!(after.get(&unread), weights.get(&unread));
    let moved = "bert.encoder.layer.0.intermediate.dense.weight";
    assert_ne!(after.get(moved), weights.get(moved));
}
