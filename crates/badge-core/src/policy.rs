//! When to stop: exit policies, written once for training, replay, engine and server.
//!
//! A [`PolicySpec`] is what people write. [`PolicySpec::build`] checks it against a model's exits
//! and gives a [`Policy`], which many samples share. Each sample has a [`PolicyState`], fed with
//! one [`Prediction`] per evaluated exit in ascending depth.

mod divergence_based;
mod fixed_depth;
mod grammar;
mod reason;
mod spec;

pub use divergence_based::{DivergenceBased, Window};
pub use fixed_depth::FixedDepth;
pub use reason::{Agreement, ExitReason};
pub use spec::PolicySpec;

use divergence_based::EarlierExits;

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
    plan: ExitPlan,
    kind: PredictionKind,
}

/// What a policy remembers of one sample.
///
/// [`Policy::start`] allocates all of it; neither [`Policy::observe`] nor [`Self::reset`] does.
#[derive(Debug, Clone)]
pub struct PolicyState {
    last: Option<Depth>,
    memory: Memory,
}

#[derive(Debug, Clone)]
enum Memory {
    Nothing,
    EarlierExits(EarlierExits),
}

/// Where a sample leaves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitPoint {
    /// Number of blocks run.
    pub depth: Depth,
    /// Index of the exit among those of the plan, from 0.
    pub position: usize,
}

impl Policy {
    /// The specification that this policy was built from.
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// The exits of the model.
    pub fn plan(&self) -> &ExitPlan {
        &self.plan
    }

    /// The kind of the exits' answers.
    pub fn kind(&self) -> PredictionKind {
        self.kind
    }

    /// The state of a sample of which no exit has been seen.
    pub fn start(&self) -> PolicyState {
        let memory = match &self.spec {
            PolicySpec::Full | PolicySpec::Fixed(_) => Memory::Nothing,
            PolicySpec::Dge(_) => {
                Memory::EarlierExits(EarlierExits::new(self.plan.count(), self.kind))
            }
        };
        PolicyState { last: None, memory }
    }

    /// Whether the exit at `depth` has to be computed for this policy to decide.
    ///
    /// `full` needs the deepest exit only and `fixed:6` only the sixth; feeding the others as well
    /// changes nothing.
    pub fn needs(&self, depth: Depth) -> bool {
        self.position(depth).is_some()
            && match &self.spec {
                PolicySpec::Full => depth == self.plan.deepest(),
                PolicySpec::Fixed(rule) => depth == rule.depth(),
                PolicySpec::Dge(_) => true,
            }
    }

    /// Whether a sample that has come as far as `depth` may leave there.
    ///
    /// Where the outlook is certain, the block needs to compute what its exit reads and no more.
    /// Depths without an exit, and exits beyond the one where all have left, have no outlook.
    pub fn outlook(&self, depth: Depth) -> Outlook {
        let Some(earlier) = self.position(depth) else {
            return Outlook::Never;
        };
        if depth == self.plan.deepest() {
            return Outlook::Certain;
        }
        match &self.spec {
            PolicySpec::Fixed(rule) if depth == rule.depth() => Outlook::Certain,
            PolicySpec::Dge(rule) if rule.may_agree_with(earlier) => Outlook::Possible,
            PolicySpec::Full | PolicySpec::Fixed(_) | PolicySpec::Dge(_) => Outlook::Never,
        }
    }

    /// Takes note of what the exit at `depth` says and decides.
    ///
    /// # Panics
    /// When `depth` carries no exit or does not lie deeper than the exit seen last, when the
    /// prediction is of another kind than the policy was built for, or when the state was started
    /// by another kind of policy: mistakes of the calling program.
    pub fn observe(
        &self,
        state: &mut PolicyState,
        depth: Depth,
        prediction: &Prediction,
    ) -> Decision {
        assert!(
            self.position(depth).is_some(),
            "depth {depth} carries no exit"
        );
        assert!(
            state.last.is_none_or(|last| last < depth),
            "exit {depth} observed after exit {:?}",
            state.last
        );
        assert_eq!(
            prediction.kind(),
            self.kind,
            "the policy was built for another kind of answer"
        );
        state.last = Some(depth);
        let exits = match (&self.spec, &mut state.memory) {
            (PolicySpec::Full, Memory::Nothing) => false,
            (PolicySpec::Fixed(rule), Memory::Nothing) => depth == rule.depth(),
            (PolicySpec::Dge(rule), Memory::EarlierExits(earlier)) => {
                rule.agrees(earlier, depth, prediction)
            }
            _ => panic!("the state belongs to another policy than `{}`", self.spec),
        };
        if exits || depth == self.plan.deepest() {
            Decision::Exit
        } else {
            Decision::Continue
        }
    }

    /// Why the policy decided as it did at the exit observed last.
    pub fn reason(&self, state: &PolicyState) -> ExitReason {
        match (&self.spec, &state.memory, state.last) {
            (_, _, None) => ExitReason::NothingSeen,
            (PolicySpec::Dge(rule), Memory::EarlierExits(earlier), Some(depth)) => {
                let agreement = rule.agreement(earlier);
                if agreement.is_reached() {
                    ExitReason::Agreement(agreement)
                } else if depth == self.plan.deepest() {
                    ExitReason::DeepestExit(Some(agreement))
                } else {
                    ExitReason::Undecided(Some(agreement))
                }
            }
            (PolicySpec::Fixed(rule), _, Some(depth)) if depth == rule.depth() => {
                ExitReason::FixedDepth(depth)
            }
            (_, _, Some(depth)) if depth == self.plan.deepest() => ExitReason::DeepestExit(None),
            _ => ExitReason::Undecided(None),
        }
    }

    /// Where a sample leaves whose exits have all been evaluated, `outputs` being one answer per
    /// exit of the plan. `state` is reset first, so that one serves a whole data set.
    ///
    /// # Panics
    /// When there is not one output per exit, and as [`Self::observe`].
    pub fn replay(&self, state: &mut PolicyState, outputs: &[Prediction]) -> ExitPoint {
        assert_eq!(outputs.len(), self.plan.count(), "one output per exit");
        state.reset();
        for (position, (depth, output)) in self.plan.depths().iter().zip(outputs).enumerate() {
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
        match &self.spec {
            PolicySpec::Full | PolicySpec::Fixed(_) => Vec::new(),
            PolicySpec::Dge(rule) => rule.caveats(&self.plan, self.kind),
        }
    }

    fn position(&self, depth: Depth) -> Option<usize> {
        self.plan.depths().binary_search(&depth).ok()
    }
}

impl PolicyState {
    /// Forgets the sample, keeping the memory.
    pub fn reset(&mut self) {
        self.last = None;
        match &mut self.memory {
            Memory::Nothing => {}
            Memory::EarlierExits(earlier) => earlier.clear(),
        }
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
