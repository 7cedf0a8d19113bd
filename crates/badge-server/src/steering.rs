//! A policy with what one request adds to it: a greatest depth, and a witness of every exit.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use badge_core::distribution::Prediction;
use badge_core::exit::Depth;
use badge_core::policy::{
    Decision, Evidence, ExitPoint, ExitReason, Memory, ModelExits, Observation, Outlook, Policy,
    PolicySpec, PolicyState, Rule,
};

/// What a request adds to a policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steering {
    /// The sample leaves at the exit of this depth if it has not before. It is an exit's depth.
    pub(crate) depth_max: Option<Depth>,
    /// Who is told what every exit says.
    pub(crate) witness: Option<Witness>,
}

/// What every exit has said about one sample, until it left.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Vec<Testimony>>>);

/// What one exit has said.
#[derive(Debug, Clone)]
pub(crate) struct Testimony {
    pub(crate) depth: Depth,
    pub(crate) prediction: Prediction,
    /// What the policy made of it.
    pub(crate) reason: String,
}

impl Witness {
    /// Takes what has been said.
    pub(crate) fn take(&self) -> Vec<Testimony> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut said)
    }

    fn hear(&self, testimony: Testimony) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.push(testimony);
    }
}

impl Steering {
    /// The policy with these additions.
    pub(crate) fn apply(&self, policy: &Arc<Policy>) -> Arc<Policy> {
        if self.depth_max.is_none() && self.witness.is_none() {
            return Arc::clone(policy);
        }
        let rule = Steered {
            inner: Arc::clone(policy),
            steering: self.clone(),
        };
        let steered = PolicySpec::other(rule).build_for(policy.exits());
        Arc::new(steered.expect("a model that runs a policy runs it with a greatest depth"))
    }
}

/// A policy as a rule, with a request's additions.
#[derive(Debug)]
struct Steered {
    inner: Arc<Policy>,
    steering: Steering,
}

/// What the policy remembers, and whether the greatest depth was what ended it.
#[derive(Debug, Clone)]
struct SteeredMemory {
    state: PolicyState,
    at_depth_max: Option<Depth>,
}

impl Memory for SteeredMemory {
    fn clear(&mut self) {
        self.state.reset();
        self.at_depth_max = None;
    }
}

impl Rule for Steered {
    type Memory = SteeredMemory;

    fn start(&self, _: &ModelExits) -> SteeredMemory {
        SteeredMemory {
            state: self.inner.start(),
            at_depth_max: None,
        }
    }

    fn observe(
        &self,
        memory: &mut SteeredMemory,
        at: ExitPoint,
        observation: Observation<'_>,
    ) -> bool {
        let decision = self.inner.observe(&mut memory.state, at.depth, observation);
        let reason = self.inner.reason(&memory.state);
        let settled = matches!(reason, ExitReason::Settled(_));
        let ends = self.steering.depth_max == Some(at.depth) && decision == Decision::Continue;
        memory.at_depth_max = ends.then_some(at.depth);
        if let Some(witness) = &self.steering.witness {
            witness.hear(Testimony {
                depth: at.depth,
                prediction: observation.prediction.clone(),
                reason: reason.to_string(),
            });
        }
        settled || ends
    }

    fn evidence(&self, memory: &SteeredMemory) -> Option<Evidence> {
        if let Some(depth) = memory.at_depth_max {
            return Some(Evidence::FixedDepth(depth));
        }
        match self.inner.reason(&memory.state) {
            ExitReason::Settled(evidence)
            | ExitReason::DeepestExit(evidence)
            | ExitReason::Undecided(evidence) => evidence,
            _ => None,
        }
    }

    fn needs(&self, depth: Depth, _: &ModelExits) -> bool {
        self.steering.witness.is_some()
            || self.steering.depth_max == Some(depth)
            || self.inner.needs(depth)
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        match self.steering.depth_max {
            Some(depth) if depth == at.depth => Outlook::Certain,
            Some(depth) if depth < at.depth => Outlook::Never,
            _ => self.inner.outlook(at.depth),
        }
    }
}

impl fmt::Display for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.spec().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use badge_core::distribution::PredictionKind;
    use badge_core::exit::ExitPlan;

    use super::*;

    const KIND: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

    /// Where a sample leaves whose exits are ever surer, and why.
    fn leaves(policy: &str, steering: &Steering) -> (Depth, String) {
        let spec: PolicySpec = policy.parse().unwrap();
        let policy = Arc::new(spec.build(&ExitPlan::every_block(5), KIND).unwrap());
        let steered = steering.apply(&policy);
        let outputs: Vec<_> = (0_u8..5)
            .map(|i| Prediction::from_logits(KIND, &[f32::from(i), 0.0]).unwrap())
            .collect();
        let mut state = steered.start();
        let at = steered.replay(&mut state, &outputs);
        (at.depth, steered.reason(&state).to_string())
    }

    fn depth_max(depth: usize) -> Steering {
        Steering {
            depth_max: Some(Depth(depth)),
            witness: None,
        }
    }

    #[test]
    fn a_greatest_depth_ends_what_the_policy_would_continue() {
        for policy in ["full", "maxprob:0.99", "fixed:4"] {
            let (depth, reason) = leaves(policy, &depth_max(2));
            assert_eq!(depth, Depth(2), "{policy}");
            assert_eq!(reason, "the policy answers at exit 2", "{policy}");
        }
        // It changes nothing for a sample that leaves before.
        let alone = leaves("maxprob:0.7", &Steering::default());
        assert_eq!(leaves("maxprob:0.7", &depth_max(4)), alone);
        assert_eq!(leaves("full", &depth_max(5)).1, "the deepest exit");
    }

    #[test]
    fn a_witness_hears_every_exit_and_changes_no_answer() {
        for policy in ["full", "maxprob:0.9", "fixed:3", "dge:tau=0.5,t=1"] {
            let witness = Witness::default();
            let steering = Steering {
                depth_max: None,
                witness: Some(witness.clone()),
            };
            let watched = leaves(policy, &steering);
            assert_eq!(watched, leaves(policy, &Steering::default()), "{policy}");
            let said = witness.take();
            let depths: Vec<_> = said.iter().map(|t| t.depth.0).collect();
            assert_eq!(depths, (1..=watched.0.0).collect::<Vec<_>>(), "{policy}");
            assert!(witness.take().is_empty());
        }
    }
}
