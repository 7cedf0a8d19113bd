//! When to stop: exit policies, written once for training, replay, engine and server.
//!
//! A [`PolicySpec`] is what people write. [`PolicySpec::build_for`] checks it against a model's
//! exits and gives a [`Policy`], which many samples share. Each sample has a [`PolicyState`], fed
//! with one [`Observation`] per evaluated exit in ascending depth. How a policy decides is its
//! [`Rule`], one file each.

mod divergence_based;
mod entropy;
mod fixed_depth;
mod flexible_patience;
mod full_depth;
mod grammar;
mod learning_to_exit;
mod max_probability;
mod model_exits;
mod observation;
mod patience;
mod patient_confident;
mod reason;
mod rule;
mod score;
mod spec;
mod streak;
mod temperatures;
mod vote;

pub use divergence_based::{DivergenceBased, Window};
pub use entropy::Entropy;
pub use fixed_depth::FixedDepth;
pub use flexible_patience::FlexiblePatience;
pub use learning_to_exit::LearningToExit;
pub use max_probability::MaxProbability;
pub use model_exits::ModelExits;
pub use observation::Observation;
pub use patience::Patience;
pub use patient_confident::PatientConfident;
pub use reason::{Agreement, Comparison, Evidence, ExitReason, Side, Streak, Votes};
pub use rule::{Memory, Rule};
pub use spec::{OtherRule, PolicySpec};
pub use temperatures::Temperatures;
pub use vote::Vote;

use std::any::TypeId;

use rule::AnyMemory;

use crate::distribution::{Prediction, PredictionKind};
use crate::error::Result;
use crate::exit::{Depth, ExitPlan};

/// What to do after an exit has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Run the next block.
    Continue,
    /// Answer with what this exit said.
    Exit,
}

/// What may become of a sample at an exit, as far as the policy alone can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outlook {
    /// It goes on, whatever this exit says.
    Never,
    /// It leaves or goes on; the answers decide.
    Possible,
    /// It leaves here, if it has not left before.
    Certain,
}

/// A policy that fits a model: its parameters, the model's exits and the kind of their answers.
///
/// It is immutable and shared; all that belongs to one sample is in a [`PolicyState`]. Whatever
/// the rule, the deepest exit always answers.
///
/// # Example
/// ```
/// use badge_core::distribution::{Prediction, PredictionKind};
/// use badge_core::exit::{Depth, ExitPlan};
/// use badge_core::policy::{Decision, PolicySpec};
///
/// let kind = PredictionKind::SingleLabel { classes: 2 };
/// let spec: PolicySpec = "dge:tau=0.3,t=1".parse()?;
/// let policy = spec.build(&ExitPlan::every_block(12), kind)?;
///
/// let mut state = policy.start();
/// let sure = Prediction::from_logits(kind, &[4.0, 0.0])?;
/// assert_eq!(policy.observe(&mut state, Depth(1), &sure), Decision::Continue);
/// assert_eq!(policy.observe(&mut state, Depth(2), &sure), Decision::Exit);
/// assert_eq!(policy.reason(&state).to_string(), "1 earlier exit within 0.3: exit 1 (0.09)");
/// # Ok::<(), badge_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    spec: PolicySpec,
    exits: ModelExits,
}

/// What a policy remembers of one sample.
///
/// [`Policy::start`] allocates all of it; neither [`Policy::observe`] nor [`Self::reset`] does.
#[derive(Debug, Clone)]
pub struct PolicyState {
    last: Option<Depth>,
    /// Whether the rule's condition held at the exit observed last.
    settled: bool,
    rule: TypeId,
    memory: Box<dyn AnyMemory>,
}

/// An exit of a model; where a sample leaves, for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitPoint {
    /// Number of blocks run.
    pub depth: Depth,
    /// Index of the exit among those of the plan, from 0.
    pub position: usize,
}

impl Policy {
    /// The specification that this policy was built from, with what the model supplied.
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// The exits that this policy was built for.
    pub fn exits(&self) -> &ModelExits {
        &self.exits
    }

    /// Which blocks of the model carry an exit.
    pub fn plan(&self) -> &ExitPlan {
        self.exits.plan()
    }

    /// The kind of the exits' answers.
    pub fn kind(&self) -> PredictionKind {
        self.exits.kind()
    }

    /// The state of a sample of which no exit has been seen.
    pub fn start(&self) -> PolicyState {
        let rule = self.spec.rule();
        PolicyState {
            last: None,
            settled: false,
            rule: rule.id(),
            memory: rule.start(&self.exits),
        }
    }

    /// Whether the exit at `depth` has to be computed for this policy to decide.
    ///
    /// `full` needs the deepest exit only and `fixed:6` only the sixth; feeding the others as well
    /// changes nothing.
    pub fn needs(&self, depth: Depth) -> bool {
        self.point(depth).is_some() && self.spec.rule().needs(depth, &self.exits)
    }

    /// Whether a sample that has come as far as `depth` may leave there.
    ///
    /// Where the outlook is certain, the block needs to compute what its exit reads and no more.
    /// Depths without an exit, and exits beyond the one where all have left, have no outlook.
    pub fn outlook(&self, depth: Depth) -> Outlook {
        match self.point(depth) {
            None => Outlook::Never,
            Some(_) if depth == self.plan().deepest() => Outlook::Certain,
            Some(at) => self.spec.rule().outlook(at),
        }
    }

    /// Takes note of what the exit at `depth` says and decides.
    ///
    /// # Panics
    /// When `depth` carries no exit or does not lie deeper than the exit seen last, when the
    /// prediction is of another kind than the policy was built for or is no number, when the
    /// policy goes by a probability to continue and there is none, or when the state was started
    /// by another kind of policy: mistakes of the calling program.
    pub fn observe<'a>(
        &self,
        state: &mut PolicyState,
        depth: Depth,
        observation: impl Into<Observation<'a>>,
    ) -> Decision {
        let observation = observation.into();
        let Some(at) = self.point(depth) else {
            panic!("depth {depth} carries no exit");
        };
        assert!(
            state.last.is_none_or(|last| last < depth),
            "exit {depth} observed after exit {:?}",
            state.last
        );
        assert_eq!(
            observation.prediction.kind(),
            self.kind(),
            "the policy was built for another kind of answer"
        );
        if let Prediction::Regression(value) = observation.prediction {
            // Distributions are checked where they are made; a number is just a number.
            assert!(value.is_finite(), "exit {depth} answers {value}");
        }
        let rule = self.spec.rule();
        assert!(
            state.rule == rule.id(),
            "the state belongs to another policy than `{}`",
            self.spec
        );
        state.last = Some(depth);
        state.settled = rule.observe(&mut *state.memory, at, observation);
        if state.settled || depth == self.plan().deepest() {
            Decision::Exit
        } else {
            Decision::Continue
        }
    }

    /// Why the policy decided as it did at the exit observed last.
    pub fn reason(&self, state: &PolicyState) -> ExitReason {
        let Some(depth) = state.last else {
            return ExitReason::NothingSeen;
        };
        let evidence = self.spec.rule().evidence(&*state.memory);
        if state.settled {
            ExitReason::Settled(evidence)
        } else if depth == self.plan().deepest() {
            ExitReason::DeepestExit(evidence)
        } else {
            ExitReason::Undecided(evidence)
        }
    }

    /// Where a sample leaves whose exits have all been evaluated, `outputs` being what each exit
    /// of the plan gave. `state` is reset first, so that one serves a whole data set.
    ///
    /// # Panics
    /// When there is not one output per exit, and as [`Self::observe`].
    pub fn replay<'a, O>(&self, state: &mut PolicyState, outputs: O) -> ExitPoint
    where
        O: IntoIterator<Item: Into<Observation<'a>>, IntoIter: ExactSizeIterator>,
    {
        let outputs = outputs.into_iter();
        assert_eq!(outputs.len(), self.plan().count(), "one output per exit");
        state.reset();
        for (position, (depth, output)) in self.plan().depths().iter().zip(outputs).enumerate() {
            if self.observe(state, *depth, output) == Decision::Exit {
                return ExitPoint {
                    depth: *depth,
                    position,
                };
            }
        }
        unreachable!("every policy exits at the deepest exit")
    }

    /// What is legal in this policy but hardly meant, one sentence each.
    pub fn caveats(&self) -> Vec<String> {
        self.spec.rule().caveats(&self.exits)
    }

    fn point(&self, depth: Depth) -> Option<ExitPoint> {
        let position = self.plan().depths().binary_search(&depth).ok()?;
        Some(ExitPoint { depth, position })
    }
}

impl PolicyState {
    /// Forgets the sample, keeping the memory.
    pub fn reset(&mut self) {
        self.last = None;
        self.settled = false;
        self.memory.clear();
    }

    /// The exit observed last.
    pub fn last(&self) -> Option<Depth> {
        self.last
    }
}

/// Depth at which one sample leaves under `spec`, from the answers of all exits of `plan`.
///
/// For a whole data set build the policy once and use [`Policy::replay`].
///
/// # Errors
/// As [`PolicySpec::build`].
///
/// # Panics
/// When there is not one output per exit or their kinds differ.
pub fn replay(spec: &PolicySpec, plan: &ExitPlan, outputs: &[Prediction]) -> Result<Depth> {
    assert_eq!(outputs.len(), plan.count(), "one output per exit");
    let policy = spec.build(plan, outputs[0].kind())?;
    Ok(policy.replay(&mut policy.start(), outputs).depth)
}

/// The page on adding a policy, whose example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/adding-a-policy.md")]
struct AddingAPolicy;
