//! Every training method against golden files of a PyTorch implementation: logits, losses,
//! gradients and three AdamW steps. What the files hold stands in `fixtures/methods/README.md`.

use badge_core::checkpoint::layout::Part;
use badge_core::exit::ExitPlan;
use badge_train::Result;
use badge_train::loss::{KlDirection, Targets};
use badge_train::method::{
    Alternating, ExitWeights, GlobalPastFuture, GradientEquilibrium, Joint, LearningToExit, Loss,
    LteTraining, Method, Moment, SecondStage, Single, TwoStage,
};
use badge_train::model::{ExitOutput, Junction, Mode, MultiExitModel};
use badge_train::optimizer::{AdamW, AdamWConfig};
use badge_train::step::forward_backward;

use super::golden::{Golden, Passes, WAYS, Way, close, fixtures, flat, largest, load};
use super::{AFTER, AFTER_KEY_BIAS, EXIT, GRADIENT, GRADIENT_NORM, LOSS, STEP_LOSS};

const STEPS: u64 = 3;
const RATE: f64 = 1e-3;

/// One golden file and the method that made it.
struct Case {
    folder: &'static str,
    file: &'static str,
    method: Box<dyn Method>,
    stage: usize,
}

fn case(folder: &'static str, file: &'static str, method: impl Method + 'static) -> Case {
    Case {
        folder,
        file,
        method: Box::new(method),
        stage: 0,
    }
}

impl Case {
    fn at_stage(self, stage: usize) -> Self {
        Self { stage, ..self }
    }

    fn read(&self) -> (MultiExitModel, Golden) {
        let folder = fixtures("methods").join(self.folder);
        let golden = Golden::read(&folder.join(format!("{}.safetensors", self.file)));
        (load(&folder), golden)
    }

    fn moment(&self, step: u64) -> Moment {
        Moment {
            stage: self.stage,
            step,
            step_in_epoch: step,
            ..Moment::first(STEPS, 0)
        }
    }

    /// Holds the whole file against our numbers, both ways.
    fn check(&self) {
        for way in WAYS {
            self.check_way(way);
        }
    }

    fn check_way(&self, way: Way) {
        let (model, golden) = self.read();
        let mut passes = Passes::new(&model, way);
        self.check_outputs(&model, &golden);
        let before = model.parameters().to_checkpoint().unwrap();
        let (input, targets) = (golden.input(), golden.targets(model.config()));
        let mut optimizer = AdamW::new(AdamWConfig {
            weight_decay: 0.01,
            ..AdamWConfig::default()
        });
        for step in 0..STEPS {
            let when = (&self.moment(step), Mode::Evaluation);
            let (loss, gradients) = passes.run(self.method.as_ref(), (&input, &targets), when);
            if step == 0 {
                self.check_loss(&golden, &loss);
                self.check_gradients(&golden, &model, &gradients);
            }
            let name = |what| format!("step.{}.{what}", step + 1);
            self.close(&golden, &name("loss"), &flat(&loss.total), STEP_LOSS);
            let parameters = model.parameters();
            let norm = optimizer.step(parameters, &gradients, RATE).unwrap() as f32;
            let expected = &golden.floats[&name("gradient_norm")];
            let tolerance = GRADIENT_NORM * expected[0].max(1.0);
            self.close(&golden, &name("gradient_norm"), &[norm], tolerance);
        }
        let after = model.parameters().to_checkpoint().unwrap();
        for (name, tensor) in after.iter() {
            let tolerance = if name.ends_with("key.bias") {
                AFTER_KEY_BIAS
            } else {
                AFTER
            };
            let golden_name = format!("after.{name}");
            if golden.floats.contains_key(&golden_name) {
                self.close(&golden, &golden_name, &tensor.values, tolerance);
            } else {
                // What does not learn stays as it was, bit by bit, in spite of weight decay.
                assert_eq!(Some(tensor), before.get(name), "{} {name}", self.file);
            }
        }
    }

    fn check_outputs(&self, model: &MultiExitModel, golden: &Golden) {
        let plain = vec![Junction::PLAIN; model.config().backbone.blocks];
        let outputs = model.outputs(&golden.input(), &plain, Mode::Evaluation);
        let outputs = outputs.unwrap();
        let logits = golden.floats.keys().filter(|name| is_logits(name)).count();
        assert_eq!(outputs.len(), logits);
        for output in outputs {
            let m = output.depth.index().0;
            let name = format!("exit.{m}.logits");
            self.close(golden, &name, &flat(&output.logits), EXIT);
            let name = format!("exit.{m}.uncertainty");
            assert_eq!(
                output.uncertainty.is_some(),
                golden.floats.contains_key(&name)
            );
            if let Some(uncertainty) = &output.uncertainty {
                self.close(golden, &name, &flat(uncertainty), EXIT);
            }
        }
    }

    fn check_loss(&self, golden: &Golden, loss: &Loss) {
        self.close(golden, "loss", &flat(&loss.total), LOSS);
        for (name, term) in &loss.terms {
            // Half of the imitation loss goes into the total.
            let scale = if *name == "imitation" { 2.0 } else { 1.0 };
            let term = flat(&(term * scale).unwrap());
            self.close(golden, &format!("loss.{name}"), &term, LOSS);
        }
        let has_terms = ["loss.imitation", "loss.lte"]
            .iter()
            .filter(|name| golden.floats.contains_key(**name));
        assert_eq!(has_terms.count(), loss.terms.len(), "{}", self.file);
    }

    fn check_gradients(
        &self,
        golden: &Golden,
        model: &MultiExitModel,
        gradients: &badge_train::gradients::Gradients,
    ) {
        let parameters = model.parameters().to_checkpoint().unwrap();
        for (parameter, _) in parameters.iter() {
            let name = format!("gradient.{parameter}");
            let found = gradients.get(parameter);
            let expected = golden.floats.get(&name);
            let what = format!("{}/{} {name}", self.folder, self.file);
            assert_eq!(found.is_some(), expected.is_some(), "{what} is there");
            if let (Some(found), Some(expected)) = (found, expected) {
                let tolerance = GRADIENT * largest(expected).max(1.0);
                close(&what, &flat(found), expected, tolerance);
            }
        }
    }

    fn close(&self, golden: &Golden, name: &str, found: &[f32], tolerance: f32) {
        let what = format!("{}/{} {name}", self.folder, self.file);
        let expected = golden.floats.get(name);
        close(
            &what,
            found,
            expected.unwrap_or_else(|| panic!("{what}")),
            tolerance,
        );
    }
}

fn is_logits(name: &str) -> bool {
    name.starts_with("exit.") && name.ends_with(".logits")
}

fn linear() -> Joint {
    Joint {
        weights: ExitWeights::Linear,
    }
}

fn distilling(direction: KlDirection, temperature: f64) -> TwoStage {
    TwoStage {
        second: SecondStage::Distillation {
            direction,
            temperature,
        },
    }
}

const CROSS_ENTROPY: TwoStage = TwoStage {
    second: SecondStage::CrossEntropy,
};

fn with_lte(method: impl Method + 'static, training: LteTraining) -> LearningToExit {
    LearningToExit {
        method: Box::new(method),
        training,
    }
}

#[test]
fn joint_training_agrees() {
    for folder in ["bert", "albert"] {
        case(folder, "joint_uniform", Joint::default()).check();
        case(folder, "joint_linear", linear()).check();
    }
}

#[test]
fn single_exits_agree() {
    for folder in ["bert_single_2", "albert_single_3"] {
        case(folder, "single", Single).check();
    }
}

#[test]
fn the_second_stage_agrees_and_leaves_the_rest_bit_identical() {
    for folder in ["bert", "albert"] {
        let (teacher, student) = (KlDirection::TeacherFirst, KlDirection::StudentFirst);
        for (file, method) in [
            ("two_stage_ce", CROSS_ENTROPY),
            ("two_stage_kl", distilling(teacher, 1.0)),
            ("two_stage_kl_temperature", distilling(teacher, 2.5)),
            ("two_stage_reverse_kl", distilling(student, 2.5)),
        ] {
            case(folder, file, method).at_stage(1).check();
        }
    }
    case("bert_bypass_block", "two_stage_ce", CROSS_ENTROPY)
        .at_stage(1)
        .check();
}

#[test]
fn the_first_stage_is_an_even_step_of_alternating_training() {
    // Only what belongs to the deepest exit and the backbone has gradients there.
    let alternating = case("bert", "alternating", Alternating);
    let (model, golden) = alternating.read();
    let (input, targets) = (golden.input(), golden.targets(model.config()));
    let when = (&alternating.moment(0), Mode::Evaluation);
    let (loss, gradients) =
        forward_backward(&model, &CROSS_ENTROPY, (&input, &targets), when).unwrap();
    alternating.check_loss(&golden, &loss);
    alternating.check_gradients(&golden, &model, &gradients);
}

#[test]
fn alternating_training_agrees() {
    for folder in ["bert", "albert", "bert_bypass_block"] {
        case(folder, "alternating", Alternating).check();
    }
}

#[test]
fn gradient_equilibrium_agrees() {
    for folder in ["bert", "albert"] {
        case(folder, "gradient_equilibrium", GradientEquilibrium).check();
    }
}

#[test]
fn in_equilibrium_a_block_learns_from_the_average_of_its_exits() {
    let case = case("bert", "gradient_equilibrium", GradientEquilibrium);
    let (model, golden) = case.read();
    let (input, targets) = (golden.input(), golden.targets(model.config()));
    let blocks = model.config().backbone.blocks;
    let plain = vec![Junction::PLAIN; blocks];
    let of_exits: Vec<_> = model
        .outputs(&input, &plain, Mode::Evaluation)
        .unwrap()
        .iter()
        .map(|output| targets.loss(&output.logits).unwrap().backward().unwrap())
        .collect();
    let when = (&case.moment(0), Mode::Evaluation);
    let (_, gradients) =
        forward_backward(&model, &GradientEquilibrium, (&input, &targets), when).unwrap();
    for block in 0..blocks {
        for parameter in ["output.LayerNorm.bias", "intermediate.dense.weight"] {
            let name = format!("bert.encoder.layer.{block}.{parameter}");
            let tensor = model.parameters().get(&name).unwrap();
            let fed = &of_exits[block..];
            let mut average = vec![0.0; tensor.elem_count()];
            for gradients in fed {
                let gradient = flat(gradients.get(&tensor).unwrap());
                for (sum, value) in average.iter_mut().zip(gradient) {
                    *sum += value / fed.len() as f32;
                }
            }
            let found = flat(gradients.get(&name).unwrap());
            close(
                &name,
                &found,
                &average,
                GRADIENT * largest(&average).max(1.0),
            );
            if parameter == "output.LayerNorm.bias" {
                // The bias is added to every row of H_m: its gradient is the sum of dH_m.
                let hidden = &golden.floats[&format!("block.{block}.hidden_gradient")];
                let mut sum = vec![0.0; tensor.elem_count()];
                for row in hidden.chunks(sum.len()) {
                    sum.iter_mut()
                        .zip(row)
                        .for_each(|(sum, value)| *sum += value);
                }
                close(&name, &found, &sum, GRADIENT * largest(&sum).max(1.0));
            }
        }
    }
}

/// Global past-future whose coins were thrown by somebody else.
#[derive(Debug)]
struct GivenCoins {
    /// By step and block: 1 stops gradients.
    coins: Vec<i64>,
    thawing_blocks: usize,
}

impl Method for GivenCoins {
    fn name(&self) -> &'static str {
        "given-coins"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, moment: &Moment) -> Result<Loss> {
        GlobalPastFuture { thawing_blocks: 0 }.loss(outputs, targets, moment)
    }

    fn junctions(&self, plan: &ExitPlan, moment: &Moment) -> Vec<Junction> {
        let mut junctions = vec![Junction::PLAIN; plan.deepest().0];
        let coins = self.coins.chunks(self.thawing_blocks);
        let coins = coins.into_iter().nth(moment.step as usize).unwrap();
        for (junction, coin) in junctions.iter_mut().zip(coins) {
            if *coin == 1 {
                *junction = Junction::STOP;
            }
        }
        junctions
    }
}

#[test]
fn global_past_future_agrees() {
    for folder in ["bert_gpf", "albert_gpf"] {
        let method = GlobalPastFuture { thawing_blocks: 0 };
        case(folder, "global_past_future", method).check();
        let frozen = case(folder, "global_past_future_freezing", method);
        let coins = frozen.read().1.integers["freeze.coins"].clone();
        assert!(coins.contains(&0) && coins.contains(&1), "{coins:?}");
        let method = GivenCoins {
            thawing_blocks: coins.len() / STEPS as usize,
            coins,
        };
        case(folder, "global_past_future_freezing", method).check();
    }
}

#[test]
fn the_deepest_exit_has_no_future() {
    let (model, golden) = case(
        "bert_gpf",
        "global_past_future",
        GlobalPastFuture { thawing_blocks: 0 },
    )
    .read();
    let plain = vec![Junction::PLAIN; model.config().backbone.blocks];
    let outputs = model
        .outputs(&golden.input(), &plain, Mode::Evaluation)
        .unwrap();
    let exits = outputs.len();
    for (exit, output) in outputs.iter().enumerate() {
        let states = output.states.as_ref().unwrap();
        assert_eq!(states.deeper.len(), exits - 1 - exit);
    }
    let gradients = outputs[exits - 1]
        .logits
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    for block in 1..exits {
        let name = format!("gpf.future.{block}.weight");
        let imitation = model.parameters().get(&name).unwrap();
        assert!(gradients.get(&imitation).is_none(), "{name}");
    }
}

#[test]
fn every_placement_of_bypasses_agrees() {
    for placement in ["block", "mhsa", "ffn"] {
        for family in ["bert", "albert"] {
            let folder = format!("{family}_bypass_{placement}").leak();
            case(folder, "joint_uniform", Joint::default()).check();
        }
    }
}

#[test]
fn every_activation_of_bypasses_agrees_at_every_placement() {
    for placement in ["block", "mhsa", "ffn"] {
        let folder = fixtures("methods").join(format!("bert_bypass_{placement}"));
        let golden = Golden::read(&folder.join("activations.safetensors"));
        for activation in ["gelu", "relu", "swish", "tanh", "identity", "leaky_relu"] {
            let mut config = badge_train::weights::read_config(&folder).unwrap();
            let exits = config.early_exit.as_mut().unwrap();
            exits.bypass.as_mut().unwrap().activation = activation.parse().unwrap();
            let weights = badge_train::weights::read_checkpoint(&folder).unwrap();
            let model = MultiExitModel::new(config, &weights, &badge_train::Device::Cpu).unwrap();
            let targets = golden.targets(model.config());
            let (loss, gradients) = forward_backward(
                &model,
                &Joint::default(),
                (&golden.input(), &targets),
                (&Moment::first(1, 0), Mode::Evaluation),
            )
            .unwrap();
            let what = |name: &str| format!("{placement} {activation}.{name}");
            let of = |name: &str| &golden.floats[&format!("{activation}.{name}")];
            close(&what("loss"), &flat(&loss.total), of("loss"), LOSS);
            let prefix = format!("{activation}.gradient.");
            let named = golden
                .floats
                .keys()
                .filter_map(|name| name.strip_prefix(&prefix));
            let mut compared = 0;
            for name in named {
                let expected = of(&format!("gradient.{name}"));
                let tolerance = GRADIENT * largest(expected).max(1.0);
                close(
                    &what(name),
                    &flat(gradients.get(name).unwrap()),
                    expected,
                    tolerance,
                );
                compared += 1;
            }
            assert_eq!(compared, 12);
        }
    }
}

#[test]
fn attention_exits_agree() {
    for form in ["bottleneck", "fastbert"] {
        for family in ["bert", "albert"] {
            let folder = format!("{family}_mha_{form}").leak();
            case(folder, "joint_uniform", Joint::default()).check();
        }
    }
}

#[test]
fn learning_to_exit_agrees_with_every_method() {
    for folder in ["bert_lte", "albert_lte"] {
        let joint = LteTraining::Joint;
        case(folder, "joint_uniform", with_lte(Joint::default(), joint)).check();
        case(folder, "alternating", with_lte(Alternating, joint)).check();
        case(folder, "two_stage_ce", with_lte(CROSS_ENTROPY, joint))
            .at_stage(1)
            .check();
        case(
            folder,
            "head_alone",
            with_lte(Joint::default(), LteTraining::Frozen),
        )
        .at_stage(1)
        .check();
    }
}

#[test]
fn a_head_on_the_frozen_model_learns_in_a_stage_of_its_own() {
    let plan = ExitPlan::every_block(3);
    let method = with_lte(CROSS_ENTROPY, LteTraining::Frozen);
    let names: Vec<_> = method.stages().iter().map(|stage| stage.name).collect();
    assert_eq!(names, ["backbone", "exits", "learning-to-exit"]);
    for stage in 0..3 {
        let is_last = stage == 2;
        assert_eq!(method.trains(stage, Part::LearningToExit, &plan), is_last);
        assert_eq!(method.trains(stage, Part::Backbone, &plan), stage == 0);
    }
}
