//! The hand-written backward pass against the framework's graph: the same loss and the same gradient
//! of every parameter, for every family, placement of a bypass, head and method, with ragged lengths and
//! dropout; and what must hold of it alone: threads change no bit, recomputation changes none, bf16
//! stays near.

use badge_core::bypass::{BypassConfig, BypassLayerNorm, BypassPlacement};
use badge_core::checkpoint::{Checkpoint, Tensor, layout};
use badge_core::config::{EarlyExitConfig, HeadConfig, ModelConfig, ProblemType};
use badge_core::exit::{ExitPlan, Pooler};
use badge_core::exit_head::ExitHead;
use badge_tasks::Target;
use badge_train::Device;
use badge_train::gradients::Gradients;
use badge_train::loss::Targets;
use badge_train::method::{Alternating, GradientEquilibrium, Joint, Method, Moment};
use badge_train::model::{Mode, ModelInput, MultiExitModel};
use badge_train::parameters::initialise;
use badge_train::precision::Precision;
use badge_train::step::{Backpropagation, PassSettings, forward_backward};

const BLOCKS: usize = 4;
const CLASSES: usize = 3;
const F32: PassSettings = PassSettings {
    precision: Precision::F32,
    recompute: false,
};

/// Largest difference to the framework's gradient, of values up to 1: both round in f32, each in
/// its own order, over sums of up to 50 tokens and four blocks of width 24.
const GRADIENT: f32 = 2e-5;
/// Euclidean norm of what bf16 changes of a gradient, as a share of its own: factors carry an error
/// of 2⁻⁹ each, through four blocks forwards and backwards.
const BF16_GRADIENT: f32 = 0.05;
/// Norms below this share of the whole gradient's are rounding noise.
const NOISE: f32 = 1e-4;

fn backbone(family: &str, activation: &str, dropout: f64) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": family, "vocab_size": 99, "embedding_size": 11, "hidden_size": 24,
        "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "intermediate_size": 37,
        "max_position_embeddings": 16, "initializer_range": 0.2, "hidden_act": activation,
        "num_hidden_groups": 2, "inner_group_num": 2, "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout
    });
    ModelConfig::from_json(json.to_string().as_bytes()).unwrap()
}

fn with_exits(plain: &ModelConfig, exits: EarlyExitConfig) -> MultiExitModel {
    let head = HeadConfig {
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        problem: ProblemType::SingleLabel,
    };
    let config = plain.with_exits(head, exits);
    let layout = layout::of_model(&config);
    let fresh = initialise(Checkpoint::default(), &layout, 11).unwrap();
    MultiExitModel::new(config, &shaken(&fresh), &Device::Cpu).unwrap()
}

/// The same weights where no tensor is all zero or all one: a fresh bypass would teach nothing.
fn shaken(weights: &Checkpoint) -> Checkpoint {
    let mut shaken = Checkpoint::default();
    let mut state = 7_u64;
    for (name, tensor) in weights.iter() {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let values = tensor.values.iter().map(|v| v + 0.2 * next()).collect();
        let tensor = Tensor {
            shape: tensor.shape.clone(),
            values,
        };
        shaken.insert("test", name.to_owned(), tensor).unwrap();
    }
    shaken
}

fn every_block(bypass: Option<BypassConfig>) -> EarlyExitConfig {
    EarlyExitConfig::new(ExitPlan::every_block(BLOCKS), Pooler::Shared, bypass, 0.1)
}

/// Rows of 1 to 13 tokens.
fn batch() -> (ModelInput, Targets) {
    let lengths = [13, 1, 6, 2, 9, 5, 13];
    let t = 13;
    let id = |i: usize| {
        if i % t < lengths[i / t] {
            i * 31 % 98 + 1
        } else {
            0
        }
    };
    let ids: Vec<u32> = (0..lengths.len() * t).map(|i| id(i) as u32).collect();
    let type_ids: Vec<u32> = (0..ids.len()).map(|i| u32::from(i % t > 4)).collect();
    let input = ModelInput::new(&ids, &type_ids, &lengths, &Device::Cpu).unwrap();
    let targets: Vec<_> = (0..lengths.len())
        .map(|i| Target::Class(i % CLASSES))
        .collect();
    let targets = Targets::new(
        ProblemType::SingleLabel,
        &targets.iter().collect::<Vec<_>>(),
        &Device::Cpu,
    );
    (input, targets.unwrap())
}

const TRAINING: Mode = Mode::Training { seed: 3, pass: 5 };

fn moment() -> Moment {
    Moment::first(100, 1)
}

fn plain(model: &MultiExitModel, method: &dyn Method) -> (f32, Gradients) {
    let (input, targets) = batch();
    let how = (&moment(), TRAINING);
    let (loss, gradients) = forward_backward(model, method, (&input, &targets), how).unwrap();
    (loss.total.to_scalar().unwrap(), gradients)
}

fn fused(model: &MultiExitModel, method: &dyn Method, settings: PassSettings) -> (f32, Gradients) {
    let mut passes = Backpropagation::new(model, settings).unwrap();
    let (input, targets) = batch();
    let mut run = || {
        let how = (&moment(), TRAINING);
        let (loss, gradients) = passes.run(method, (&input, &targets), how).unwrap();
        (loss.total.to_scalar::<f32>().unwrap(), gradients)
    };
    let (first, again) = (run(), run());
    assert_eq!(
        first.0, again.0,
        "memory that is used again changes nothing"
    );
    assert_same_bits(model, &first.1, &again.1);
    again
}

fn values(gradients: &Gradients, name: &str) -> Option<Vec<f32>> {
    let gradient = gradients.get(name)?;
    Some(gradient.flatten_all().unwrap().to_vec1().unwrap())
}

fn assert_same_bits(model: &MultiExitModel, a: &Gradients, b: &Gradients) {
    for spec in layout::of_model(model.config()) {
        assert_eq!(
            values(a, &spec.name),
            values(b, &spec.name),
            "{}",
            spec.name
        );
    }
}

fn assert_near(
    what: &str,
    model: &MultiExitModel,
    found: &Gradients,
    expected: &Gradients,
    bound: impl Fn(f32) -> f32,
) {
    let mut compared = 0;
    for spec in layout::of_model(model.config()) {
        let name = &spec.name;
        let (found, expected) = (values(found, name), values(expected, name));
        assert_eq!(
            found.is_some(),
            expected.is_some(),
            "{what}: is there a gradient of {name}?"
        );
        let (Some(found), Some(expected)) = (found, expected) else {
            continue;
        };
        let largest = expected.iter().fold(0.0_f32, |top, v| top.max(v.abs()));
        let pairs = found.iter().zip(&expected);
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            difference <= bound(largest),
            "{what}: {name} is off by {difference:e}, largest {largest:e}"
        );
        compared += 1;
    }
    assert!(compared > 20, "{what}: {compared} gradients");
}

fn assert_agrees(what: &str, model: &MultiExitModel, method: &dyn Method) {
    let (loss, gradients) = plain(model, method);
    let (found_loss, found) = fused(model, method, F32);
    assert!(
        (loss - found_loss).abs() <= 1e-5 * loss.abs().max(1.0),
        "{what}: losses {loss} and {found_loss}"
    );
    assert_near(what, model, &found, &gradients, |largest| {
        GRADIENT * largest.max(1.0)
    });
}

#[test]
fn every_family_and_activation_agrees() {
    for family in ["bert", "albert", "elasticbert"] {
        for activation in ["gelu", "gelu_new", "relu"] {
            for dropout in [0.0, 0.2] {
                let model = with_exits(&backbone(family, activation, dropout), every_block(None));
                assert_agrees(
                    &format!("{family} {activation} {dropout}"),
                    &model,
                    &Joint::default(),
                );
            }
        }
    }
}

fn bypass(placement: BypassPlacement, layer_norm: BypassLayerNorm, bias: bool) -> BypassConfig {
    BypassConfig {
        rank: 5,
        bias,
        layer_norm,
        placement,
        ..BypassConfig::default()
    }
}

#[test]
fn every_bypass_agrees() {
    for family in ["bert", "albert"] {
        let plain = backbone(family, "gelu", 0.1);
        for placement in [
            BypassPlacement::Block,
            BypassPlacement::Mhsa,
            BypassPlacement::Ffn,
        ] {
            for (layer_norm, bias) in [
                (BypassLayerNorm::Own, false),
                (BypassLayerNorm::Shared, true),
            ] {
                let exits = every_block(Some(bypass(placement, layer_norm, bias)));
                let model = with_exits(&plain, exits);
                assert_agrees(
                    &format!("{family} {placement:?} {layer_norm:?}"),
                    &model,
                    &Joint::default(),
                );
            }
        }
    }
}

#[test]
fn exits_that_read_all_rows_and_exits_at_some_blocks_agree() {
    let plain = backbone("bert", "gelu", 0.1);
    let mut attention = every_block(None);
    attention.exit_head = Some(ExitHead::MhaBottleneck { rank: 6, heads: 2 });
    let model = with_exits(&plain, attention);
    assert_agrees("attention exits", &model, &Joint::default());
    let plan = ExitPlan::new(vec![2, BLOCKS], BLOCKS).unwrap();
    for pooler in [Pooler::None, Pooler::Own] {
        let exits = EarlyExitConfig::new(plan.clone(), pooler, Some(BypassConfig::default()), 0.0);
        assert_agrees("two exits", &with_exits(&plain, exits), &Joint::default());
    }
}

#[test]
fn junctions_and_losses_of_one_exit_agree() {
    for family in ["bert", "albert"] {
        let model = with_exits(
            &backbone(family, "gelu", 0.0),
            every_block(Some(BypassConfig::default())),
        );
        assert_agrees(
            &format!("{family} equilibrium"),
            &model,
            &GradientEquilibrium,
        );
        assert_agrees(&format!("{family} deepest"), &model, &Alternating);
    }
}

#[test]
fn recomputation_changes_no_bit() {
    for (family, precision) in [("bert", Precision::F32), ("albert", Precision::Bf16)] {
        let exits = every_block(Some(bypass(
            BypassPlacement::Mhsa,
            BypassLayerNorm::Shared,
            true,
        )));
        let model = with_exits(&backbone(family, "gelu", 0.1), exits);
        let run = |recompute| {
            let settings = PassSettings {
                precision,
                recompute,
            };
            fused(&model, &Joint::default(), settings)
        };
        let ((loss, gradients), (again_loss, again)) = (run(false), run(true));
        assert_eq!(loss, again_loss);
        assert_same_bits(&model, &gradients, &again);
    }
}

#[test]
fn bf16_stays_near_f32() {
    for family in ["bert", "albert"] {
        let exits = every_block(Some(BypassConfig::default()));
        let model = with_exits(&backbone(family, "gelu", 0.1), exits);
        let settings = PassSettings {
            precision: Precision::Bf16,
            recompute: false,
        };
        let (_, expected) = fused(&model, &Joint::default(), F32);
        let (_, found) = fused(&model, &Joint::default(), settings);
        let floor = NOISE * expected.norm().unwrap() as f32;
        let mut shares = Vec::new();
        // A key's bias has no influence: its gradient is rounding alone.
        let specs = layout::of_model(model.config()).into_iter();
        for spec in specs.filter(|spec| !spec.name.ends_with("key.bias")) {
            let [found, expected] = [&found, &expected].map(|g| values(g, &spec.name));
            let (Some(found), Some(expected)) = (found, expected) else {
                continue;
            };
            let differences: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
            let share = norm(&differences) / norm(&expected).max(floor);
            shares.push((share, spec.name));
        }
        let worst = shares.iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        assert!(
            worst.0 <= BF16_GRADIENT,
            "{family}: {} differs by {}",
            worst.1,
            worst.0
        );
        assert!(worst.0 > 1e-3, "{family}: bf16 rounds");
    }
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| v * v).sum::<f32>().sqrt()
}

#[test]
fn threads_change_no_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let model = with_exits(
            &backbone("bert", "gelu", 0.1),
            every_block(Some(BypassConfig::default())),
        );
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let settings = PassSettings { precision, ..F32 };
            pool.install(|| fused(&model, &Joint::default(), settings))
        };
        let (one, two) = (on(1), on(2));
        assert_eq!(one.0, two.0);
        assert_same_bits(&model, &one.1, &two.1);
    }
}
