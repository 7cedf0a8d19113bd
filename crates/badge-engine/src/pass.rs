//! One block over some of the live sequences.

use std::time::Instant;

use badge_core::distribution::ContinueProbability;
use badge_core::exit::Depth;
use badge_core::policy::Outlook;
use badge_kernels::attention::Segment;
use badge_kernels::layer_norm::layer_norm;

use crate::answer::ExitOutput;
use crate::cost_model::CostModel;
use crate::machine::Machine;
use crate::model::block::Block;
use crate::model::exit::forward_exits;
use crate::options::When;
use crate::packed::{Next, PackedModel};
use crate::profile::Operation;
use crate::schedule::{Share, Way, waits, way};
use crate::sequence::Sequence;
use crate::workspace::Workspace;

/// Who is told of what every exit says that is computed: request, exit, output.
pub(crate) type OnExit<'a> = &'a mut dyn FnMut(u64, Depth, ExitOutput<'_>);

/// One block over neighbouring sequences that all run the same weights, at whatever depth each is.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a PackedModel,
    pub(crate) machine: &'a mut Machine,
    pub(crate) space: &'a mut Workspace,
    pub(crate) costs: &'a mut CostModel,
    pub(crate) cls_first: When,
    /// When exits may wait; never where other sequences are alive.
    pub(crate) exits_wait: When,
    /// The sequences, by descending depth.
    pub(crate) sequences: &'a mut [Sequence],
}

impl Pass<'_> {
    /// Runs the block and its exits. The rows of the sequences that go on are written to row
    /// `target` of the hidden states and what follows; returns the row behind them.
    pub(crate) fn run(&mut self, target: usize, on_exit: OnExit<'_>) -> usize {
        let start = self.machine.profile.is_on().then(Instant::now);
        let first = &self.sequences[0];
        let block = &self.model.blocks[self.model.block_of[first.blocks_run]];
        let offset = first.rows.start;
        self.space.exits.enter(self.sequences, &self.space.hidden);
        if offset > 0 {
            self.stage(offset);
        }
        self.compute(block, on_exit);
        if offset > 0 {
            std::mem::swap(&mut self.space.hidden, &mut self.space.staged);
        }
        self.close(block, target);
        if let Some(start) = start {
            self.count_time(start);
        }
        self.advance(target)
    }

    /// Copies the rows of the pass to where they start at row 0, and lets that be the hidden
    /// states for the time being.
    fn stage(&mut self, offset: usize) {
        let Workspace { hidden, staged, .. } = &mut *self.space;
        let end = offset + rows_of(self.sequences);
        self.machine
            .run(Operation::Gather, |_| staged.gather(hidden, offset..end));
        std::mem::swap(hidden, staged);
    }

    /// Computes the feed-forward sums and exits, and lists the survivors' rows of the sums.
    fn compute(&mut self, block: &Block, on_exit: OnExit<'_>) {
        let rows = rows_of(self.sequences);
        if block.has_inner() {
            self.select(|_| Some(Share::All));
            let Workspace {
                hidden,
                selection,
                layer,
                ..
            } = &mut *self.space;
            block.forward_inner(self.machine, hidden, selection, layer);
        }
        let Workspace { hidden, layer, .. } = &mut *self.space;
        block.last.keys_values(self.machine, hidden, rows, layer);
        if self.exits_wait() {
            return self.compute_without_exits(block);
        }
        match way(self.sequences, self.cls_first, self.costs) {
            Way::Together => self.compute_together(block, on_exit),
            Way::ClsFirst => self.compute_cls_first(block, on_exit),
        }
    }

    /// Whether the exits that are asked for wait for those of the next block.
    fn exits_wait(&self) -> bool {
        let waiting = self.space.exits.entries.len();
        waits(&self.sequences[0], waiting, self.exits_wait, self.costs)
    }

    /// All rows go on, and what their exits need is kept.
    fn compute_without_exits(&mut self, block: &Block) {
        self.select(|_| Some(Share::All));
        for entry in self.space.exits.entered() {
            entry.row = 0;
        }
        self.feed_forward_sum(block, Next::default());
        let Workspace {
            exits,
            layer,
            selection,
            survivors,
            ..
        } = &mut *self.space;
        exits.take_sums(&layer.products.sum);
        survivors.clear();
        survivors.extend(0..selection.rows() as u32);
    }

    fn compute_together(&mut self, block: &Block, on_exit: OnExit<'_>) {
        self.select(|sequence| match sequence.outlook() {
            Outlook::Certain => Some(Share::Cls),
            Outlook::Never | Outlook::Possible => Some(Share::All),
        });
        let Workspace {
            exits, selection, ..
        } = &mut *self.space;
        for entry in exits.entered() {
            entry.row = selection.queries()[entry.sequence].start;
        }
        self.feed_forward_sum(block, self.upcoming());
        self.answer(on_exit);
        let Workspace {
            selection,
            survivors,
            ..
        } = &mut *self.space;
        survivors.clear();
        for (sequence, rows) in self.sequences.iter().zip(selection.queries()) {
            if !sequence.has_left() {
                survivors.extend((rows.start..rows.start + rows.length).map(|row| row as u32));
            }
        }
    }

    fn compute_cls_first(&mut self, block: &Block, on_exit: OnExit<'_>) {
        self.select(|sequence| sequence.needs_next_exit().then_some(Share::Cls));
        for (row, entry) in self.space.exits.entered().iter_mut().enumerate() {
            entry.row = row;
        }
        self.feed_forward_sum(block, self.upcoming());
        self.answer(on_exit);
        self.select(|sequence| (!sequence.has_left()).then_some(Share::All));
        let rows = self.space.selection.rows();
        if rows > 0 {
            self.feed_forward_sum(block, Next::default());
        }
        self.space.survivors.clear();
        self.space.survivors.extend(0..rows as u32);
    }

    /// Selects a share of each sequence.
    fn select(&mut self, share: impl Fn(&Sequence) -> Option<Share>) {
        let selection = &mut self.space.selection;
        let offset = self.sequences[0].rows.start;
        selection.restart(rows_of(self.sequences));
        for sequence in &*self.sequences {
            if let Some(share) = share(sequence) {
                let keys = Segment {
                    start: sequence.rows.start - offset,
                    length: sequence.rows.len(),
                };
                selection.push(keys, share);
            }
        }
    }

    /// The weights of the exits that come next. Those of one depth will do: a pass over several has
    /// rows enough to hide its waiting.
    fn upcoming(&self) -> Next {
        let next = self.space.exits.entries.last().and_then(|entry| {
            let exit = self.model.exits[entry.depth.index().0].as_ref()?;
            Some(exit.upcoming(self.model))
        });
        next.unwrap_or_default()
    }

    /// The selected rows' feed-forward sums; `next` is what is multiplied after them.
    fn feed_forward_sum(&mut self, block: &Block, next: Next) {
        let start = Instant::now();
        let Workspace {
            hidden,
            selection,
            layer,
            ..
        } = &mut *self.space;
        layer.products.next = next;
        block
            .last
            .feed_forward_sum(self.machine, hidden, selection, layer);
        let seconds = start.elapsed().as_secs_f64();
        self.costs.measured(self.space.selection.rows(), seconds);
    }

    /// Computes the exits that are wanted and lets the sequences hear them, by ascending depth.
    fn answer(&mut self, on_exit: OnExit<'_>) {
        let Workspace { exits, layer, .. } = &mut *self.space;
        if exits.entries.is_empty() {
            return;
        }
        exits.take_sums(&layer.products.sum);
        forward_exits(self.machine, self.model, exits);
        self.machine.run(Operation::Policy, |_| {
            for (row, entry) in exits.entries.iter().enumerate() {
                let sequence = &mut self.sequences[entry.sequence];
                if sequence.has_left() {
                    continue;
                }
                let head = exits.continue_logits.row(row).first();
                let head = head.map(|logit| ContinueProbability::from_logit(*logit));
                match head.transpose() {
                    Err(error) => sequence.fail(error),
                    Ok(continue_probability) => {
                        let output = ExitOutput {
                            logits: exits.logits.row(row),
                            continue_probability,
                        };
                        on_exit(sequence.request(), entry.depth, output);
                        sequence.hear(entry.depth, output);
                    }
                }
                if sequence.outlook_at(entry.depth) == Outlook::Possible {
                    self.costs.decided(entry.depth, sequence.has_left());
                }
            }
        });
        exits.entries.clear();
    }

    /// Writes the survivors' rows to their new place: the layer norm that ends the block reads the
    /// sums of these rows only and writes them side by side, so that closing ranks costs nothing.
    fn close(&mut self, block: &Block, target: usize) {
        let Workspace {
            hidden,
            selection,
            survivors,
            layer,
            ..
        } = &mut *self.space;
        if survivors.is_empty() {
            return;
        }
        let sum = layer.products.sum.rows(selection.rows());
        let all_survive = survivors.len() == selection.rows();
        let source = (!all_survive).then_some(&survivors[..]);
        let output = hidden.norm_output(target..target + survivors.len());
        self.machine.run(Operation::LayerNorm, |pool| {
            layer_norm(pool, sum, source, &block.last.norm, output);
        });
    }

    /// Counts the time since `start` to the depths of the pass.
    fn count_time(&mut self, start: Instant) {
        let (time, rows) = (start.elapsed(), rows_of(self.sequences) as f64);
        for sequence in &*self.sequences {
            let share = sequence.rows.len() as f64 / rows;
            let profile = &mut self.machine.profile;
            profile.add_block(sequence.blocks_run, time, share);
        }
    }

    /// Moves the survivors one block on; returns the row behind the last.
    fn advance(&mut self, target: usize) -> usize {
        let mut end = target;
        for sequence in self.sequences.iter_mut().filter(|s| !s.has_left()) {
            let start = end;
            end += sequence.rows.len();
            sequence.rows = start..end;
            sequence.blocks_run += 1;
        }
        end
    }
}

/// Rows of neighbouring sequences.
fn rows_of(sequences: &[Sequence]) -> usize {
    sequences.iter().map(|sequence| sequence.rows.len()).sum()
}
