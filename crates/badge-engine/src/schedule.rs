//! Which rows of a block are computed, and when.
//!
//! The last layer of a block always computes keys and values of all rows. Of the rest (queries,
//! context, feed-forward) only what somebody reads is computed: a sequence that ends here is read
//! at its \[CLS\] row alone. Where the answers decide whether it ends, there are two ways:
//!
//! * *together*: all its rows, and its exit afterwards. The rows of one that ends were in vain.
//! * *\[CLS\] first*: the \[CLS\] rows of all that ask for an exit, then all rows of those that go
//!   on. Nothing is in vain, but the weights are read twice.
//!
//! Long inputs and likely exits speak for the second; how much is measured, not guessed
//! (`cost_model`). Both ways give the same bits, since no row's arithmetic depends on the others.
//!
//! An exit of a sequence that is alone may also *wait* for those of the next blocks, to be computed
//! with them ([`waits`]): a single row of \[CLS\] takes as long as four, since reading the pooler's
//! weights is all there is.

use badge_core::policy::Outlook;
use badge_kernels::attention::Segment;

use crate::cost_model::{CostModel, Prospect};
use crate::options::When;
use crate::sequence::Sequence;

/// In which order rows of a block's last layer are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Together,
    ClsFirst,
}

/// How much of a sequence is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    Cls,
    All,
}

/// The rows of a pass that a layer computes, sequence by sequence.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Where the selected rows lie in the pass.
    sources: Vec<Segment>,
    /// Where they lie in the selection.
    queries: Vec<Segment>,
    /// All rows of the same sequences, in the pass.
    keys: Vec<Segment>,
    rows: usize,
    pass_rows: usize,
}

impl Selection {
    pub(crate) fn with_room(sequences: usize) -> Self {
        Self {
            sources: Vec::with_capacity(sequences),
            queries: Vec::with_capacity(sequences),
            keys: Vec::with_capacity(sequences),
            rows: 0,
            pass_rows: 0,
        }
    }

    /// Starts anew with nothing selected of a pass of `pass_rows` rows.
    pub(crate) fn restart(&mut self, pass_rows: usize) {
        self.sources.clear();
        self.queries.clear();
        self.keys.clear();
        self.rows = 0;
        self.pass_rows = pass_rows;
    }

    /// Selects rows of the sequence that is `keys` in the pass. Sequences come in ascending order.
    pub(crate) fn push(&mut self, keys: Segment, share: Share) {
        let length = match share {
            Share::Cls => 1,
            Share::All => keys.length,
        };
        let segment = |start| Segment { start, length };
        self.sources.push(segment(keys.start));
        self.queries.push(segment(self.rows));
        self.keys.push(keys);
        self.rows += length;
    }

    pub(crate) fn queries(&self) -> &[Segment] {
        &self.queries
    }

    pub(crate) fn keys(&self) -> &[Segment] {
        &self.keys
    }

    /// Number of selected rows, `M`.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of rows of the pass, `T`.
    pub(crate) fn pass_rows(&self) -> usize {
        self.pass_rows
    }

    /// Whether the selected rows are those of the pass, in their order.
    pub(crate) fn is_everything(&self) -> bool {
        self.rows == self.pass_rows
    }

    /// The selected rows of the pass, in order.
    pub(crate) fn source_rows(&self) -> impl Iterator<Item = usize> {
        self.sources
            .iter()
            .flat_map(|s| s.start..s.start + s.length)
    }
}

/// The better way for the next block of these sequences.
pub(crate) fn way(pass: &[Sequence], choice: When, costs: &CostModel) -> Way {
    if !pass.iter().any(|s| s.outlook() == Outlook::Possible) {
        return Way::Together;
    }
    let is_better = match choice {
        When::Always => true,
        When::Never => false,
        When::Auto => costs.prefers_cls_first(&prospect(pass, costs)),
    };
    if is_better {
        Way::ClsFirst
    } else {
        Way::Together
    }
}

/// Exits of one sequence at most that are computed together.
pub(crate) const EXITS_TOGETHER: usize = 4;

/// A row of a block and an exit take about the same time: an exit multiplies a twelfth of it, but
/// alone. Three of four together gain three quarters of a row each, and cost a block or two of all
/// rows where a sequence turns out to have left.
const ROWS_AN_EXIT_MAY_WASTE: f64 = 1.0 / 3.0;

/// Whether a sequence's exits, of which so many wait if this one does, wait for its next one.
pub(crate) fn waits(sequence: &Sequence, waiting: usize, choice: When, costs: &CostModel) -> bool {
    let depth = sequence.next_depth();
    let may = waiting < EXITS_TOGETHER && sequence.outlook() != Outlook::Certain;
    may && match choice {
        When::Always => true,
        When::Never => false,
        When::Auto => match sequence.outlook() {
            Outlook::Never | Outlook::Certain => true,
            Outlook::Possible => {
                let wasted = costs.known_exit_rate(depth) * sequence.rows.len() as f64;
                wasted < ROWS_AN_EXIT_MAY_WASTE
            }
        },
    }
}

/// How many rows either way is expected to compute.
fn prospect(pass: &[Sequence], costs: &CostModel) -> Prospect {
    let mut prospect = Prospect::NOTHING;
    for sequence in pass {
        let rows = sequence.rows.len() as f64;
        prospect.cls += f64::from(u8::from(sequence.needs_next_exit()));
        let stays = match sequence.outlook() {
            Outlook::Certain => {
                prospect.together += 1.0;
                continue;
            }
            Outlook::Never => 1.0,
            Outlook::Possible => 1.0 - costs.exit_rate(sequence.next_depth()),
        };
        prospect.together += rows;
        prospect.rest += stays * rows;
        prospect.all_leave *= 1.0 - stays;
    }
    prospect
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: usize, length: usize) -> Segment {
        Segment { start, length }
    }

    #[test]
    fn selected_rows_close_ranks_in_order() {
        let mut selection = Selection::with_room(3);
        selection.restart(9);
        selection.push(segment(0, 4), Share::All);
        selection.push(segment(4, 3), Share::Cls);
        selection.push(segment(7, 2), Share::All);
        assert_eq!(
            selection.source_rows().collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 7, 8]
        );
        assert_eq!(
            selection.queries(),
            [segment(0, 4), segment(4, 1), segment(5, 2)]
        );
        assert_eq!(
            selection.keys(),
            [segment(0, 4), segment(4, 3), segment(7, 2)]
        );
        assert_eq!((selection.rows(), selection.pass_rows()), (7, 9));
        assert!(!selection.is_everything());
    }

    #[test]
    fn sequences_of_one_token_are_everything_either_way() {
        let mut selection = Selection::with_room(2);
        for share in [Share::Cls, Share::All] {
            selection.restart(2);
            selection.push(segment(0, 1), share);
            selection.push(segment(1, 1), share);
            assert!(selection.is_everything());
        }
    }
}
