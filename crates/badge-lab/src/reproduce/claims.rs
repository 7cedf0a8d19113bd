//! What the paper claims, as differences that can come out either way.

use anyhow::Result;
use badge_core::bypass::BypassPlacement;
use badge_tasks::Target;
use serde::Serialize;

use super::experiment::{Experiment, SplitOfTask};
use super::paper::PaperTable;
use super::plan::Group;
use super::statistics::{
    Compared, Difference, Run, SEEDS_TO_TELL, Scoring, Verdict, average, difference, mean_score,
};
use super::summary::{Grid, SeedCells, label};
use super::variant::{BypassShape, Method, Variant};
use crate::sweep::Family;

/// A claim and what our runs say of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// What is claimed.
    pub statement: String,
    /// Where.
    pub source: String,
    /// In which quantity.
    pub quantity: String,
    /// How our runs differ, as a share of 1; nothing while one side has not run.
    pub difference: Option<Difference>,
    /// Which side of 0 the difference lies on.
    pub verdict: Option<Verdict>,
    /// What that means for the claim.
    pub judgement: Judgement,
}

/// What runs say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The interval speaks for it.
    Holds,
    /// The interval speaks against it.
    DoesNotHold,
    /// The interval leaves it open.
    CannotTell,
    /// One of the curves never gets as fast as the claim asks.
    OutOfReach,
    /// One side has not run.
    NotRun,
}

/// Two sides held against each other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Difference(Difference),
    OutOfReach,
    NotRun,
}

impl Comparison {
    fn of(difference: Option<Difference>) -> Self {
        difference.map_or(Self::NotRun, Self::Difference)
    }

    fn difference(self) -> Option<Difference> {
        match self {
            Self::Difference(difference) => Some(difference),
            Self::OutOfReach | Self::NotRun => None,
        }
    }
}

impl Judgement {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::CannotTell => "cannot tell",
            Self::OutOfReach => "out of reach",
            Self::NotRun => "not run",
        }
    }
}

/// So much of a score more or less counts as no difference where the paper claims that there is none.
/// The largest difference in S-avg that it calls comparable is one of 0.6 points, between placements
/// on RTE (paper, Table 2).
pub(super) const COMPARABLE: f64 = 0.006;

/// What a claim expects of the left side's difference from the right side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Better,
    Comparable,
}

/// What sides are compared by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    Average,
    /// The score of the exit that is best on dev: a maximum over the reported rows themselves would
    /// favour whoever's exits disagree most.
    Best,
    /// The mean score of a policy's curve from this share of blocks saved to where both curves
    /// reach.
    Curve {
        from: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Side {
    variant: Variant,
    family: Option<Family>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Claim {
    left: Side,
    right: Side,
    quantity: Quantity,
    expected: Expected,
}

impl Quantity {
    fn words(self) -> String {
        match self {
            Self::Average => "S-avg".to_owned(),
            Self::Best => "the exit that is best on dev".to_owned(),
            Self::Curve { from: 0.0 } => "mean score over blocks saved".to_owned(),
            Self::Curve { from } => {
                format!("the same from {:.0} % of blocks saved on", 100.0 * from)
            }
        }
    }
}

/// The claims about one table, and what our runs say of them.
pub(super) fn judge(grid: &Grid<'_>, groups: &[&Group], split: SplitOfTask) -> Result<Vec<Judged>> {
    let experiment = grid.experiment;
    let Some(paper) = experiment.paper else {
        return Ok(Vec::new());
    };
    let is_first = groups[0].task.splits.first() == Some(&split);
    let mut judged = Vec::new();
    for claim in claims(paper, experiment) {
        if matches!(claim.quantity, Quantity::Curve { .. }) && !is_first {
            continue; // Curves are drawn on the first split alone.
        }
        let comparison = claim.compare(grid, groups, split)?;
        let difference = comparison.difference();
        judged.push(Judged {
            statement: claim.statement(experiment),
            source: format!("paper, {}", paper.title()),
            quantity: claim.quantity.words(),
            verdict: difference.map(|difference| difference.verdict()),
            judgement: claim.judgement(comparison),
            difference,
        });
    }
    Ok(judged)
}

fn claims(paper: PaperTable, experiment: &Experiment) -> Vec<Claim> {
    let variants = experiment.variants();
    let of = |method| variants.iter().find(|v| v.method == method).copied();
    let side = |variant| Side {
        variant,
        family: None,
    };
    let better = |left, right, quantity| Claim {
        left: side(left),
        right: side(right),
        quantity,
        expected: Expected::Better,
    };
    let Some(badge) = of(Method::Badge) else {
        return Vec::new();
    };
    let bypasses = |test: fn(BypassShape) -> bool| {
        variants
            .iter()
            .copied()
            .filter(move |v| v.bypass.is_some_and(test))
    };
    match paper {
        PaperTable::Table1 | PaperTable::Table6 => {
            let others = variants.iter().filter(|v| v.method != Method::Badge);
            let mut claims: Vec<_> = others
                .flat_map(|other| {
                    [Quantity::Average, Quantity::Best].map(|q| better(badge, *other, q))
                })
                .collect();
            if let (Some(attends), Some(joint)) = (of(Method::JointMha), of(Method::Joint)) {
                claims.push(better(attends, joint, Quantity::Average));
            }
            claims
        }
        PaperTable::Table2 => {
            let block = bypasses(|shape| shape.placement == BypassPlacement::Block).next();
            let Some(block) = block else {
                return Vec::new();
            };
            let mhsa = bypasses(|shape| shape.placement == BypassPlacement::Mhsa);
            let ffn = bypasses(|shape| shape.placement == BypassPlacement::Ffn);
            let mhsa = mhsa.map(|mhsa| better(block, mhsa, Quantity::Average));
            let ffn = ffn.map(|ffn| Claim {
                expected: Expected::Comparable,
                ..better(block, ffn, Quantity::Average)
            });
            mhsa.chain(ffn).collect()
        }
        PaperTable::Table3 => {
            let sixteen = bypasses(|shape| shape.rank == 16).next();
            let Some(sixteen) = sixteen else {
                return Vec::new();
            };
            let others = bypasses(|shape| shape.rank != 16);
            let others = others.map(|other| Claim {
                expected: Expected::Comparable,
                ..better(sixteen, other, Quantity::Average)
            });
            others.collect()
        }
        PaperTable::Table5 => Vec::new(),
        PaperTable::Figure2 => curve_claims(experiment, badge, of(Method::Joint)),
    }
}

/// The paper's policies; what came later is drawn, but nothing is claimed of it there.
const RIVALS: [Family; 4] = [
    Family::Entropy,
    Family::Maxprob,
    Family::Patience,
    Family::Lte,
];

/// Where the paper's "especially when the speedup ratio is large" is taken to begin.
const LARGE: f64 = 0.5;

fn curve_claims(experiment: &Experiment, badge: Variant, joint: Option<Variant>) -> Vec<Claim> {
    let drawn = |variant: Variant, family| {
        let side = Side {
            variant,
            family: Some(family),
        };
        experiment
            .policies(variant.method)
            .contains(&family)
            .then_some(side)
    };
    let claim = |left, right, from| Claim {
        left,
        right,
        quantity: Quantity::Curve { from },
        expected: Expected::Better,
    };
    let mut claims = Vec::new();
    for rival in RIVALS {
        if let (Some(dge), Some(rival)) = (drawn(badge, Family::Dge), drawn(badge, rival)) {
            claims.extend([0.0, LARGE].map(|from| claim(dge, rival, from)));
        }
    }
    let patience = joint.and_then(|joint| drawn(joint, Family::Patience));
    if let (Some(ours), Some(theirs)) = (drawn(badge, Family::Patience), patience) {
        claims.push(claim(ours, theirs, 0.0));
    }
    claims
}

impl Claim {
    fn statement(&self, experiment: &Experiment) -> String {
        let name = |side: &Side| {
            let model = label(experiment, &side.variant);
            match side.family {
                Some(family) => format!("{family} on {model}"),
                None => model,
            }
        };
        let (left, right) = (name(&self.left), name(&self.right));
        match self.expected {
            Expected::Better => format!("{left} is better than {right}"),
            Expected::Comparable => format!("{left} and {right} are comparable"),
        }
    }

    fn judgement(&self, comparison: Comparison) -> Judgement {
        let difference = match comparison {
            Comparison::Difference(difference) => difference,
            Comparison::OutOfReach => return Judgement::OutOfReach,
            Comparison::NotRun => return Judgement::NotRun,
        };
        let interval = difference.interval;
        match (self.expected, difference.verdict()) {
            (Expected::Better, Verdict::Better) => Judgement::Holds,
            (Expected::Better, Verdict::Worse) => Judgement::DoesNotHold,
            (Expected::Better, Verdict::CannotTell) => Judgement::CannotTell,
            (Expected::Comparable, _) => {
                if difference.seeds < SEEDS_TO_TELL {
                    Judgement::CannotTell
                } else if interval.low > -COMPARABLE && interval.high < COMPARABLE {
                    Judgement::Holds
                } else if interval.low > COMPARABLE || interval.high < -COMPARABLE {
                    Judgement::DoesNotHold
                } else {
                    Judgement::CannotTell
                }
            }
        }
    }

    fn compare(
        &self,
        grid: &Grid<'_>,
        groups: &[&Group],
        split: SplitOfTask,
    ) -> Result<Comparison> {
        let seeds = |side: &Side| -> Vec<SeedCells<'_>> {
            let group = groups.iter().find(|group| group.variant == side.variant);
            group.map_or_else(Vec::new, |group| grid.seeds(group))
        };
        let (left, right) = (seeds(&self.left), seeds(&self.right));
        let mut pairs = Vec::new();
        for one in &left {
            let other = right.iter().find(|other| other.seed == one.seed);
            pairs.extend(other.map(|other| (one, other)));
        }
        match self.quantity {
            Quantity::Average | Quantity::Best => {
                let of_dev = self.quantity == Quantity::Best;
                of_exits(&pairs, split, of_dev).map(Comparison::of)
            }
            Quantity::Curve { from } => self.of_curves(&pairs, split, from),
        }
    }

    fn of_curves(
        &self,
        pairs: &[(&SeedCells<'_>, &SeedCells<'_>)],
        split: SplitOfTask,
        from: f64,
    ) -> Result<Comparison> {
        let mut runs = Vec::new();
        let mut scoring = None;
        for (one, other) in pairs {
            let one = CurveRun::read(one, self.left.family, split)?;
            let other = CurveRun::read(other, self.right.family, split)?;
            if let (Some((one, rows)), Some((other, _))) = (one, other) {
                scoring = Some(rows);
                runs.push((one, other));
            }
        }
        let Some(scoring) = scoring else {
            return Ok(Comparison::NotRun);
        };
        let both = runs.iter().flat_map(|(one, other)| [one, other]);
        let most = both.map(CurveRun::reach).fold(1.0, f64::min);
        if most <= from {
            return Ok(Comparison::OutOfReach);
        }
        let pairs: Vec<_> = runs.iter().map(|(one, other)| (one, other)).collect();
        let found = difference(&scoring, &pairs, &|run: &CurveRun, rows| {
            run.mean_score(&scoring, rows, (from, most))
        })?;
        Ok(Comparison::of(found))
    }
}

/// The difference in the mean score of all exits, or in that of the exit that is best on dev.
fn of_exits(
    pairs: &[(&SeedCells<'_>, &SeedCells<'_>)],
    split: SplitOfTask,
    of_dev: bool,
) -> Result<Option<Difference>> {
    let mut runs: Vec<(Run, Run)> = Vec::new();
    let mut scoring: Option<Scoring> = None;
    let read = |seed: &SeedCells<'_>| -> Result<Option<(Run, Scoring)>> {
        let mut found = seed.run(split)?;
        if let Some((run, _)) = found.as_mut().filter(|_| of_dev) {
            run.answers = vec![run.answers.swap_remove(seed.best_on_dev())];
        }
        Ok(found)
    };
    for (one, other) in pairs {
        if let (Some((one, rows)), Some((other, _))) = (read(one)?, read(other)?) {
            scoring = Some(rows);
            runs.push((one, other));
        }
    }
    let Some(scoring) = scoring else {
        return Ok(None);
    };
    let pairs: Vec<_> = runs.iter().map(|(one, other)| (one, other)).collect();
    difference(&scoring, &pairs, &|run: &Run, rows| {
        average(&run.scores(&scoring, rows))
    })
}

/// A policy's curve with what every row does under each of its points.
struct CurveRun {
    /// Answers under every point's policy; the last list is the deepest exit's.
    run: Run,
    /// The share of blocks that each point saves on each row.
    saved: Vec<Vec<f64>>,
}

impl Compared for CurveRun {
    fn truth(&self) -> &[Target] {
        self.run.truth()
    }
}

impl CurveRun {
    fn read(
        seed: &SeedCells<'_>,
        family: Option<Family>,
        split: SplitOfTask,
    ) -> Result<Option<(Self, Scoring)>> {
        let cell = seed.cells[0];
        let (Some(family), Some(curves)) = (family, &cell.results.curves) else {
            return Ok(None);
        };
        let has_points = curves
            .curve(family)
            .is_some_and(|curve| !curve.points.is_empty());
        let Some((mut run, scoring)) = seed.run(split)?.filter(|_| has_points) else {
            return Ok(None);
        };
        let replays = curves.replays(&cell.folder, family)?;
        let deepest = *curves.depths.last().unwrap_or(&1) as f64;
        let share = |depths: &Vec<usize>| -> Vec<f64> {
            depths
                .iter()
                .map(|depth| 1.0 - *depth as f64 / deepest)
                .collect()
        };
        let full = run.answers.pop();
        let targets = |classes: Vec<usize>| -> Vec<Target> {
            classes.into_iter().map(Target::Class).collect()
        };
        run.answers = replays.answers.into_iter().map(targets).collect();
        run.answers.extend(full);
        let saved = replays.depths.iter().map(share).collect();
        Ok(Some((Self { run, saved }, scoring)))
    }

    /// The largest share of blocks that a point saves on all rows.
    fn reach(&self) -> f64 {
        let mean = |saved: &Vec<f64>| average(saved);
        self.saved.iter().map(mean).fold(0.0, f64::max)
    }

    fn mean_score(&self, scoring: &Scoring, rows: &[usize], range: (f64, f64)) -> f64 {
        let mut scores = self.run.scores(scoring, rows);
        let full = scores.pop().expect("the deepest exit is the last");
        let saved = self
            .saved
            .iter()
            .map(|saved| rows.iter().map(|row| saved[*row]).sum::<f64>() / rows.len() as f64);
        let points: Vec<_> = saved.zip(scores).collect();
        mean_score(&points, full, range)
    }
}

#[cfg(test)]
mod tests {
    use super::super::paper::PaperTable;
    use super::*;
    use crate::interval::Interval;

    #[test]
    fn the_papers_own_comparable_figures_lie_within_the_margin() {
        let figure = |paper: PaperTable, placement, rank, task| {
            let variant = Variant {
                method: Method::Badge,
                bypass: Some(BypassShape { placement, rank }),
                lte: false,
            };
            paper
                .figure(&variant, task, None)
                .map(|figure| figure.average)
        };
        let mut compared = 0;
        let mut within = |one: Option<f64>, other: Option<f64>| {
            if let (Some(one), Some(other)) = (one, other) {
                assert!(
                    (one - other).abs() <= 100.0 * COMPARABLE + 1e-9,
                    "{one}, {other}"
                );
                compared += 1;
            }
        };
        for task in ["RTE", "MRPC", "QID", "QDR", "DoS", "MNLI"] {
            let (block, ffn) = (BypassPlacement::Block, BypassPlacement::Ffn);
            let of = |placement| figure(PaperTable::Table2, placement, 16, task);
            within(of(block), of(ffn));
            let of = |rank| figure(PaperTable::Table3, block, rank, task);
            for rank in [4, 8, 32, 64] {
                within(of(16), of(rank));
            }
        }
        assert!(compared >= 9, "{compared}");
    }

    fn claim(expected: Expected) -> Claim {
        let side = Side {
            variant: Variant {
                method: Method::Joint,
                bypass: None,
                lte: false,
            },
            family: None,
        };
        Claim {
            left: side,
            right: side,
            quantity: Quantity::Average,
            expected,
        }
    }

    #[test]
    fn a_claim_is_judged_by_the_interval_and_not_by_the_estimate() {
        let between = |low: f64, high: f64| {
            Comparison::Difference(Difference {
                estimate: 0.5 * (low + high),
                interval: Interval { low, high },
                seeds: 3,
            })
        };
        let (better, comparable) = (claim(Expected::Better), claim(Expected::Comparable));
        for (low, high, as_better, as_comparable) in [
            (0.010, 0.030, Judgement::Holds, Judgement::DoesNotHold),
            (-0.001, 0.030, Judgement::CannotTell, Judgement::CannotTell),
            (0.001, 0.004, Judgement::Holds, Judgement::Holds),
            (-0.004, 0.004, Judgement::CannotTell, Judgement::Holds),
            (
                -0.030,
                -0.010,
                Judgement::DoesNotHold,
                Judgement::DoesNotHold,
            ),
        ] {
            let found = (
                better.judgement(between(low, high)),
                comparable.judgement(between(low, high)),
            );
            assert_eq!(found, (as_better, as_comparable), "{low} to {high}");
        }
        let of_two = Comparison::Difference(Difference {
            estimate: 0.02,
            interval: Interval {
                low: 0.01,
                high: 0.03,
            },
            seeds: 2,
        });
        for claim in [better, comparable] {
            assert_eq!(claim.judgement(of_two), Judgement::CannotTell);
        }
        assert_eq!(better.judgement(Comparison::NotRun), Judgement::NotRun);
        assert_eq!(
            better.judgement(Comparison::OutOfReach),
            Judgement::OutOfReach
        );
    }
}
