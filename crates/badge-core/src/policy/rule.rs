//! What every policy is made of: a rule, and what it remembers of one sample.

use std::any::{Any, TypeId};
use std::fmt;

use super::{Evidence, ExitPoint, ModelExits, Observation, Outlook};
use crate::exit::Depth;

/// How a policy decides.
///
/// [`fmt::Display`] writes the policy as text, `name:...`. A rule is immutable; all that belongs to
/// one sample is in its [`Memory`]. The deepest exit answers whatever the rule says, so that no
/// rule needs to know where it is.
pub trait Rule: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What the rule remembers of one sample.
    type Memory: Memory;

    /// The memory of a sample of which no exit has been seen. All that is ever needed is allocated
    /// here.
    fn start(&self, exits: &ModelExits) -> Self::Memory;

    /// Takes note of what an exit says: does the sample leave there? Allocates nothing.
    ///
    /// Exits come in ascending depth, each once; some of the model's may be left out.
    fn observe(
        &self,
        memory: &mut Self::Memory,
        at: ExitPoint,
        observation: Observation<'_>,
    ) -> bool;

    /// What the last decision rested on.
    fn evidence(&self, memory: &Self::Memory) -> Option<Evidence>;

    /// Whether a model can run the rule.
    ///
    /// # Errors
    /// A sentence that names the key and what would be right.
    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        let _ = exits;
        Ok(())
    }

    /// Whether the exit at `depth` has to be computed for the rule to decide.
    fn needs(&self, depth: Depth, exits: &ModelExits) -> bool {
        let _ = (depth, exits);
        true
    }

    /// What may become of a sample at an exit that is not the deepest.
    fn outlook(&self, at: ExitPoint) -> Outlook {
        let _ = at;
        Outlook::Possible
    }

    /// What is legal but hardly meant, one sentence each.
    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        let _ = exits;
        Vec::new()
    }
}

/// What a rule remembers of one sample.
pub trait Memory: Clone + fmt::Debug + Send + Sync + 'static {
    /// Forgets the sample, keeping what is allocated.
    fn clear(&mut self);
}

impl Memory for () {
    fn clear(&mut self) {}
}

/// A [`Rule`] whose memory has any type.
pub(super) trait AnyRule: fmt::Debug + fmt::Display + Send + Sync {
    fn id(&self) -> TypeId;
    fn start(&self, exits: &ModelExits) -> Box<dyn AnyMemory>;
    fn observe(
        &self,
        memory: &mut dyn AnyMemory,
        at: ExitPoint,
        observation: Observation<'_>,
    ) -> bool;
    fn evidence(&self, memory: &dyn AnyMemory) -> Option<Evidence>;
    fn check(&self, exits: &ModelExits) -> Result<(), String>;
    fn needs(&self, depth: Depth, exits: &ModelExits) -> bool;
    fn outlook(&self, at: ExitPoint) -> Outlook;
    fn caveats(&self, exits: &ModelExits) -> Vec<String>;
}

/// A [`Memory`] of any type.
pub(super) trait AnyMemory: Any + fmt::Debug + Send + Sync {
    fn clear(&mut self);
    fn boxed_clone(&self) -> Box<dyn AnyMemory>;
}

/// A state remembers which rule started it, and [`super::Policy`] compares.
const OF_THIS_RULE: &str = "the memory was started by this rule";

impl<R: Rule> AnyRule for R {
    fn id(&self) -> TypeId {
        TypeId::of::<R>()
    }

    fn start(&self, exits: &ModelExits) -> Box<dyn AnyMemory> {
        Box::new(Rule::start(self, exits))
    }

    fn observe(
        &self,
        memory: &mut dyn AnyMemory,
        at: ExitPoint,
        observation: Observation<'_>,
    ) -> bool {
        let memory: &mut dyn Any = memory;
        let memory = memory.downcast_mut().expect(OF_THIS_RULE);
        Rule::observe(self, memory, at, observation)
    }

    fn evidence(&self, memory: &dyn AnyMemory) -> Option<Evidence> {
        let memory: &dyn Any = memory;
        Rule::evidence(self, memory.downcast_ref().expect(OF_THIS_RULE))
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        Rule::check(self, exits)
    }

    fn needs(&self, depth: Depth, exits: &ModelExits) -> bool {
        Rule::needs(self, depth, exits)
    }

    fn outlook(&self, at: ExitPoint) -> Outlook {
        Rule::outlook(self, at)
    }

    fn caveats(&self, exits: &ModelExits) -> Vec<String> {
        Rule::caveats(self, exits)
    }
}

impl<M: Memory> AnyMemory for M {
    fn clear(&mut self) {
        Memory::clear(self);
    }

    fn boxed_clone(&self) -> Box<dyn AnyMemory> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn AnyMemory> {
    fn clone(&self) -> Self {
        // Of the value in the box: the box is a memory of its own otherwise.
        self.as_ref().boxed_clone()
    }
}
