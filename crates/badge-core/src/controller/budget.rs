//! The mean-accuracy budget: a virtual queue of mistakes that load has made us accept.

use super::class::{Class, PerClass};
use super::ladder::Ladder;
use super::settings::Budget;

/// Z: expected mistakes beyond those that the mean score allows.
///
/// `Z ← max(0, Z + Σ n_c (A_mean - a(d_c)))`, the virtual queue of drift-plus-penalty control
/// (Neely, *Stochastic Network Optimization*, 2010). It is kept at 2 Z_max at most: what a floor
/// that has risen all the way cannot prevent is not held against later answers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct VirtualQueue {
    mistakes: f64,
}

impl VirtualQueue {
    /// Takes note of `answered` answers that were given at these levels.
    pub(super) fn tick(
        &mut self,
        budget: Budget,
        ladder: &Ladder,
        (answered, levels): (&PerClass<f64>, &PerClass<usize>),
    ) {
        let owed = |class: Class| {
            let score = ladder.levels()[*levels.of(class)].score;
            answered.of(class) * (budget.mean_score - score)
        };
        let owed: f64 = Class::ALL.into_iter().map(owed).sum();
        self.mistakes = (self.mistakes + owed).clamp(0.0, 2.0 * budget.reserve);
    }

    /// The floor in force: `floor` while Z < Z_max, from there in a straight line to the depth at
    /// which the mean score is kept, reached at 2 Z_max.
    pub(super) fn floor(self, budget: Budget, ladder: &Ladder, floor: f64) -> f64 {
        let keeping = ladder.levels()[ladder.at_score(budget.mean_score)].depth;
        let spent = (self.mistakes / budget.reserve - 1.0).clamp(0.0, 1.0);
        floor + spent * (keeping - floor).max(0.0)
    }

    /// The share of the reserve that is spent, from 0 to 2.
    pub(super) fn spent(self, budget: Budget) -> f64 {
        self.mistakes / budget.reserve
    }
}
