//! The engine: who is alive, who joins, who has left.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::{CONFIG_FILE, ModelConfig};
use badge_core::exit::Depth;
use badge_core::policy::{ModelExits, Policy, PolicySpec};
use badge_kernels::isa::Isa;
use badge_kernels::threads::Pool;

use crate::answer::{Answer, ExitOutput, Finished};
use crate::cost_model::CostModel;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::options::{EngineOptions, When};
use crate::packed::{PackedModel, Packer, Precisions};
use crate::pass::{OnExit, Pass};
use crate::profile::{Operation, Profile};
use crate::sequence::{Sequence, TokenIds, Watch};
use crate::source::{Source, TensorFile};
use crate::support::check_support;
use crate::workspace::Workspace;

/// The weights of a model directory.
const WEIGHTS_FILE: &str = "model.safetensors";

/// A model with packed weights and all memory it needs.
///
/// # Example
/// ```no_run
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use badge_core::policy::PolicySpec;
/// use badge_engine::{Engine, EngineOptions, Precision, TokenIds};
///
/// let options = EngineOptions::new(Precision::Bf16);
/// let mut engine = Engine::load(Path::new("models/rte"), options)?;
/// let policy: PolicySpec = "dge:tau=0.3,t=2".parse()?;
/// let policy = Arc::new(engine.policy(&policy)?);
/// let input = TokenIds { ids: &[2, 48, 25, 3], type_ids: &[0, 0, 0, 0] };
/// let answers = engine.classify(&[input], &policy)?;
/// println!("exit {}: {}", answers[0].depth, answers[0].reason());
/// # Ok::<(), badge_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    config: ModelConfig,
    exits: ModelExits,
    options: EngineOptions,
    model: PackedModel,
    machine: Machine,
    space: Workspace,
    costs: CostModel,
    /// In order of admission, hence by descending depth.
    live: Vec<Sequence>,
    /// Rows of all live sequences.
    rows: usize,
    finished: Vec<Finished>,
}

/// Whether a sequence has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The next step runs its first block.
    Accepted,
    /// There is no room; steps make some.
    Full,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepReport {
    /// Sequences that moved one block on.
    pub advanced: usize,
    /// Those of them that left.
    pub left: usize,
}

impl Engine {
    /// Reads and packs the model in `directory`, tensor by tensor.
    ///
    /// # Errors
    /// Names the file, key or tensor that is wrong, or an option.
    pub fn load(directory: &Path, options: EngineOptions) -> Result<Self> {
        let path = directory.join(CONFIG_FILE);
        let bytes = fs::read(&path).map_err(|source| Error::File { path, source })?;
        let config = ModelConfig::from_json(&bytes)?;
        check_support(&config)?;
        let layout = layout::of_model(&config);
        let mut file = TensorFile::open(&directory.join(WEIGHTS_FILE), &layout)?;
        Self::pack(config, &mut file, options)
    }

    /// Packs weights that are in memory; each tensor is freed when it has been packed.
    ///
    /// # Errors
    /// Names the first tensor that is missing, extra or misshapen, or an option.
    pub fn new(config: ModelConfig, weights: Checkpoint, options: EngineOptions) -> Result<Self> {
        let mut weights = weights;
        weights.check(&layout::of_model(&config))?;
        Self::pack(config, &mut weights, options)
    }

    fn pack(config: ModelConfig, source: &mut dyn Source, options: EngineOptions) -> Result<Self> {
        check(&options)?;
        check_support(&config)?;
        let isa = options.isa.map_or_else(Isa::choose, Ok)?;
        let precisions = Precisions::of(options.precision, &config);
        let model = PackedModel::pack(&mut Packer {
            source,
            config: &config,
            precisions,
        })?;
        let blocks = config.backbone.blocks;
        let profile = Profile::new(options.profiling, blocks);
        Ok(Self {
            exits: ModelExits::of(&config),
            machine: Machine::new(Pool::new(isa, options.threads), profile),
            space: Workspace::new(&config, &model, &options, precisions),
            costs: CostModel::new(blocks),
            live: Vec::with_capacity(options.sequences_max),
            rows: 0,
            finished: Vec::with_capacity(options.sequences_max),
            config,
            options,
            model,
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the engine was built with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The vector instructions that are used.
    pub fn isa(&self) -> Isa {
        self.machine.pool().isa()
    }

    /// The policy for this model.
    ///
    /// # Errors
    /// When the policy asks for an exit that the model does not have.
    pub fn policy(&self, spec: &PolicySpec) -> Result<Policy> {
        Ok(spec.build_for(&self.exits)?)
    }

    /// Memory of the packed weights, in bytes.
    pub fn packed_bytes(&self) -> usize {
        self.model.bytes()
    }

    /// Memory of the workspace, in bytes.
    pub fn workspace_bytes(&self) -> usize {
        self.space.bytes()
    }

    /// Where the time went, if the engine was built to take times.
    pub fn profile(&self) -> &Profile {
        &self.machine.profile
    }

    /// Sets all times of the profile to zero.
    pub fn reset_profile(&mut self) {
        self.machine.profile.reset();
    }

    /// Lets a sequence join under the number `request`, which need not be unique.
    ///
    /// This is the one place where a sequence's memory is allocated.
    ///
    /// # Errors
    /// When the sequence does not fit the model or the workspace, or the policy was built for
    /// another model.
    pub fn admit(
        &mut self,
        request: u64,
        tokens: TokenIds<'_>,
        policy: &Arc<Policy>,
    ) -> Result<Admission> {
        let (theirs, ours) = (policy.exits(), &self.exits);
        let fits = theirs.plan() == ours.plan()
            && theirs.kind() == ours.kind()
            // A policy may rely on a learning-to-exit head only where there is one.
            && (ours.learns_to_exit() || !theirs.learns_to_exit());
        if !fits {
            let policy = policy.spec().to_string();
            return Err(Error::Policy { policy });
        }
        self.admit_with(request, tokens, policy, Watch::Policy)
    }

    fn admit_with(
        &mut self,
        request: u64,
        tokens: TokenIds<'_>,
        policy: &Arc<Policy>,
        watch: Watch,
    ) -> Result<Admission> {
        tokens.check(&self.config.backbone)?;
        let (count, tokens_max) = (tokens.ids.len(), self.options.tokens_max);
        if count > tokens_max {
            let tokens = count;
            return Err(Error::NoRoom { tokens, tokens_max });
        }
        let end = self.rows + count;
        if end > tokens_max || self.live.len() == self.options.sequences_max {
            return Ok(Admission::Full);
        }
        self.live
            .push(Sequence::new(request, policy, watch, self.rows..end)?);
        self.space.pending.extend(tokens.tokens());
        self.rows = end;
        // Steps must not allocate, however long nobody takes what has finished.
        self.finished.reserve(self.live.len());
        Ok(Admission::Accepted)
    }

    /// Number of sequences that are alive.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Runs one block of every live sequence, at whatever depth each is. Nothing is allocated.
    pub fn step(&mut self) -> StepReport {
        self.step_with(&mut |_, _, _| {})
    }

    fn step_with(&mut self, on_exit: OnExit<'_>) -> StepReport {
        self.embed();
        let exits_wait = match self.live.len() {
            1 => self.options.exits_wait,
            _ => When::Never,
        };
        let (mut first, mut rows) = (0, 0);
        while first < self.live.len() {
            let block_of = |s: &Sequence| self.model.block_of[s.blocks_run];
            let rest = &self.live[first..];
            let same = |s: &&Sequence| block_of(s) == block_of(&rest[0]);
            let end = first + rest.iter().take_while(same).count();
            let mut pass = Pass {
                model: &self.model,
                machine: &mut self.machine,
                space: &mut self.space,
                costs: &mut self.costs,
                cls_first: self.options.cls_first,
                exits_wait,
                sequences: &mut self.live[first..end],
            };
            rows = pass.run(rows, on_exit);
            first = end;
        }
        self.rows = rows;
        let (advanced, finished) = (self.live.len(), self.finished.len());
        let left = self.live.extract_if(.., |sequence| sequence.has_left());
        self.finished.extend(left.map(Sequence::finish));
        StepReport {
            advanced,
            left: self.finished.len() - finished,
        }
    }

    /// Computes the first block's input of the sequences that have joined.
    fn embed(&mut self) {
        let Workspace {
            pending,
            embeddings,
            hidden,
            ..
        } = &mut self.space;
        if pending.is_empty() {
            return;
        }
        let range = self.rows - pending.len()..self.rows;
        let model = &self.model.embeddings;
        self.machine.run(Operation::Embeddings, |pool| {
            model.forward(pool, pending, embeddings, (hidden, range));
        });
        pending.clear();
    }

    /// Takes the sequences that have left, in the order in which they did.
    pub fn finished(&mut self) -> impl Iterator<Item = Finished> + '_ {
        self.finished.drain(..)
    }

    /// Answers a batch of any size; the answers come in the order of the inputs.
    ///
    /// # Errors
    /// When an input does not fit the model or the workspace, the policy was built for another
    /// model, or a logit is not finite. The engine is empty then.
    ///
    /// # Panics
    /// When sequences are alive or have not been taken: an engine is driven one way at a time.
    pub fn classify(
        &mut self,
        inputs: &[TokenIds<'_>],
        policy: &Arc<Policy>,
    ) -> Result<Vec<Answer>> {
        let mut answers: Vec<_> = inputs.iter().map(|_| None).collect();
        let admit =
            |engine: &mut Self, index: usize| engine.admit(index as u64, inputs[index], policy);
        let done = self.run_all(inputs.len(), admit, &mut |_, _, _| {}, |finished| {
            answers[finished.request as usize] = Some(finished.answer?);
            Ok(())
        });
        self.clear();
        done?;
        let answer = |answer: Option<_>| answer.expect("every input leaves at some exit");
        Ok(answers.into_iter().map(answer).collect())
    }

    /// Computes every exit of the model on every input, whatever a policy would say. `on_exit` is
    /// told the input's index, the exit and what it says, in no order but that of depth.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    ///
    /// # Panics
    /// As [`classify`](Self::classify).
    pub fn all_exits(
        &mut self,
        inputs: &[TokenIds<'_>],
        mut on_exit: impl FnMut(usize, Depth, ExitOutput<'_>),
    ) -> Result<()> {
        let policy = Arc::new(self.policy(&PolicySpec::Full)?);
        let admit = |engine: &mut Self, index: usize| {
            engine.admit_with(index as u64, inputs[index], &policy, Watch::EveryExit)
        };
        let mut on_exit =
            |request, depth, output: ExitOutput<'_>| on_exit(request as usize, depth, output);
        let take = |finished: Finished| finished.answer.map(|_| ());
        let done = self.run_all(inputs.len(), admit, &mut on_exit, take);
        self.clear();
        done
    }

    /// Lets `count` inputs join as there is room, and steps until all have left.
    fn run_all(
        &mut self,
        count: usize,
        mut admit: impl FnMut(&mut Self, usize) -> Result<Admission>,
        on_exit: OnExit<'_>,
        mut take: impl FnMut(Finished) -> Result<()>,
    ) -> Result<()> {
        assert!(
            self.live.is_empty() && self.finished.is_empty(),
            "{} sequences are alive, {} not taken",
            self.live.len(),
            self.finished.len()
        );
        let mut next = 0;
        while next < count || !self.live.is_empty() {
            // With weights of its own for each block, a newcomer would need a pass of its own.
            if self.model.shares_one_block() || self.live.is_empty() {
                while next < count && admit(self, next)? == Admission::Accepted {
                    next += 1;
                }
            }
            self.step_with(on_exit);
            for finished in self.finished.drain(..) {
                take(finished)?;
            }
        }
        Ok(())
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        self.live.clear();
        self.finished.clear();
        self.space.pending.clear();
        self.space.exits.entries.clear();
        self.rows = 0;
    }
}

/// Refuses options of which nothing can be made.
fn check(options: &EngineOptions) -> Result<()> {
    let counts = [
        ("threads", options.threads),
        ("tokens_max", options.tokens_max),
        ("sequences_max", options.sequences_max),
    ];
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((option, _)) => Err(Error::Option { option }),
        None => Ok(()),
    }
}
