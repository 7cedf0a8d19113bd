//! The parameters that each policy's curve is drawn with.

use anyhow::Result;
use badge_core::distribution::{ContinueProbability, Prediction, PredictionKind};
use badge_core::divergence::Divergence;
use badge_core::exit::ExitPlan;
use badge_core::policy::{
    DivergenceBased, Entropy, FixedDepth, FlexiblePatience, LearningToExit, MaxProbability,
    ModelExits, Patience, PatientConfident, PolicySpec, Vote,
};

use super::Family;
use super::thresholds::thresholds;
use crate::evaluation::ExitOutputs;

/// Thresholds that are tried of a policy that has nothing but a threshold.
const THRESHOLDS_ALONE: usize = 24;

/// Thresholds that are tried for every value of a policy's other parameter.
const THRESHOLDS_EACH: usize = 16;

/// Powers of the number of voters that are tried.
const GAMMAS: [f64; 3] = [0.25, 0.5, 0.75];

/// Every row's scores at some exits in a row, the last of which is the last but one of the plan: a
/// policy leaves where its score is below a threshold.
type Scores = Vec<Vec<f64>>;

/// What the curves of one model are drawn from.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a> {
    pub(super) exits: &'a ModelExits,
    pub(super) outputs: &'a ExitOutputs,
}

impl Grid<'_> {
    /// The policies of one curve, which the model can run.
    pub(super) fn specs(self, family: Family) -> Result<Vec<PolicySpec>> {
        match family {
            Family::Full => Ok(vec![PolicySpec::Full]),
            Family::Fixed => {
                let depths = self.plan().depths().iter();
                depths.map(|d| Ok(FixedDepth::new(d.0)?.into())).collect()
            }
            Family::Dge => collect(
                self.dge(),
                |t, tau| Ok(DivergenceBased::new(tau, t)?.into()),
            ),
            Family::Entropy => {
                let taus = self.alone(self.scores(0, |row, exit| known(row[exit].entropy())));
                let specs = taus.into_iter().map(|tau| Ok(Entropy::new(tau)?.into()));
                specs.collect()
            }
            Family::Maxprob => self.maxprob(),
            Family::Patience => self.patience(),
            Family::Lte => {
                // No probability to continue is below a threshold above 1.
                let taus = self.alone(self.doubts()).into_iter();
                let specs = taus.map(|tau| Ok(LearningToExit::new(tau.min(1.0))?.into()));
                specs.collect()
            }
            Family::Pcee => {
                let sure = |row: &[Prediction], exit: usize| known(row[exit].normalised_entropy());
                let groups = self.streaks(0, &self.scores(0, sure));
                collect(groups, |t, tau| Ok(PatientConfident::new(tau, t)?.into()))
            }
            Family::FlexiblePatience => {
                let groups = self.streaks(1, &self.changes(Divergence::JensenShannon));
                collect(groups, |t, tau| Ok(FlexiblePatience::new(tau, t)?.into()))
            }
            Family::Vote => self.vote(),
        }
    }

    fn plan(&self) -> &ExitPlan {
        self.exits.plan()
    }

    /// Scores at the exits from `first` to the last but one.
    fn scores(&self, first: usize, score: impl Fn(&[Prediction], usize) -> f64) -> Scores {
        let exits = first..self.plan().count() - 1;
        let rows = self.outputs.predictions.iter();
        rows.map(|row| exits.clone().map(|exit| score(row, exit)).collect())
            .collect()
    }

    /// Divergences from the exit before, from the second exit on.
    fn changes(&self, divergence: Divergence) -> Scores {
        self.scores(1, |row, exit| {
            divergence.between_predictions(&row[exit - 1], &row[exit])
        })
    }

    /// The learning-to-exit head's probabilities to continue at all exits but the last.
    fn doubts(&self) -> Scores {
        let exits = self.plan().count() - 1;
        let doubt = |u: &Option<ContinueProbability>| {
            let u = u.expect("the family fits the model");
            f64::from(u.value())
        };
        let rows = self.outputs.continuations.iter();
        rows.map(|row| row[..exits].iter().map(doubt).collect())
            .collect()
    }

    /// Thresholds on scores of all exits but the last.
    fn alone(&self, scores: Scores) -> Vec<f64> {
        thresholds(scores.into_iter(), self.plan(), 0, THRESHOLDS_ALONE)
    }

    /// For every `t` that can save a block, thresholds of a policy that leaves when `t` scores in
    /// a row lie below one, which is when the greatest of them does. Scores begin at `first`.
    fn streaks(&self, first: usize, scores: &Scores) -> Vec<(usize, Vec<f64>)> {
        let exits = self.plan().count() - 1;
        let of_t = |t: usize| {
            let greatest = |window: &[f64]| window.iter().copied().fold(0.0, f64::max);
            let rows = scores
                .iter()
                .map(|row| row.windows(t).map(greatest).collect());
            let taus = thresholds(rows, self.plan(), first + t - 1, THRESHOLDS_EACH);
            (t, taus)
        };
        (1..=exits.saturating_sub(first)).map(of_t).collect()
    }

    /// For every `t` that can save a block, thresholds of divergence-based exiting: a row leaves
    /// when the `t`-th smallest of its divergences from earlier exits lies below one.
    fn dge(&self) -> Vec<(usize, Vec<f64>)> {
        let exits = self.plan().count() - 1;
        let divergences = |row: &Vec<Prediction>| -> Vec<Vec<f64>> {
            let of_exit = |exit: usize| {
                let between =
                    |earlier| Divergence::default().between_predictions(&row[exit], earlier);
                let mut scores: Vec<f64> = row[..exit].iter().map(between).collect();
                scores.sort_by(f64::total_cmp);
                scores
            };
            (0..exits).map(of_exit).collect()
        };
        let rows: Vec<_> = self.outputs.predictions.iter().map(divergences).collect();
        let of_t = |t: usize| {
            let smallest =
                |row: &Vec<Vec<f64>>| row[t..].iter().map(|scores| scores[t - 1]).collect();
            let taus = thresholds(rows.iter().map(smallest), self.plan(), t, THRESHOLDS_EACH);
            (t, taus)
        };
        (1..exits).map(of_t).collect()
    }

    /// With the model's temperatures, if it has been calibrated.
    fn maxprob(&self) -> Result<Vec<PolicySpec>> {
        let temperatures = self.exits.temperatures();
        let temperature = |exit: usize| temperatures.map_or(1.0, |all| all[exit]);
        // A probability must reach its threshold: less of it is a smaller score.
        let scores = self.scores(0, |row, exit| {
            -known(row[exit].max_probability(temperature(exit)))
        });
        let rule = |tau: f64| -> Result<PolicySpec> {
            let rule = MaxProbability::new(-tau)?;
            Ok(match temperatures {
                Some(temperatures) => rule.with_temperatures(temperatures)?.into(),
                None => rule.into(),
            })
        };
        self.alone(scores).into_iter().map(rule).collect()
    }

    /// Labels leave nothing to vary but `t`; numbers have a tolerance.
    fn patience(&self) -> Result<Vec<PolicySpec>> {
        if self.exits.kind() == PredictionKind::Regression {
            let groups = self.streaks(1, &self.changes(Divergence::LabelMismatch));
            return collect(groups, |t, tolerance| {
                Ok(Patience::new(t)?.with_tolerance(tolerance)?.into())
            });
        }
        let longest = self.plan().count().saturating_sub(2);
        (1..=longest)
            .map(|t| Ok(Patience::new(t)?.into()))
            .collect()
    }

    fn vote(&self) -> Result<Vec<PolicySpec>> {
        let mut specs = Vec::new();
        for gamma in GAMMAS {
            let scores = self
                .outputs
                .predictions
                .iter()
                .map(|row| self.ballot(row, gamma));
            for tau in self.alone(scores.collect()) {
                specs.push(Vote::new(-tau)?.with_gamma(gamma)?.into());
            }
        }
        Ok(specs)
    }

    /// The negative of the leader's weighted votes at all exits but the last.
    fn ballot(&self, row: &[Prediction], gamma: f64) -> Vec<f64> {
        let mut votes = vec![0_usize; self.exits.kind().logits()];
        let voters = row[..row.len() - 1].iter().zip(1_u32..);
        let score = voters.map(|(prediction, cast)| {
            if let Prediction::SingleLabel(p) = prediction {
                votes[p.argmax()] += 1;
            }
            let most = votes.iter().copied().max().unwrap_or(0);
            -(most as f64) / f64::from(cast).powf(gamma)
        });
        score.collect()
    }
}

/// What the answers of a family that goes by distributions have.
fn known(value: Option<f64>) -> f64 {
    value.expect("the family fits the model")
}

/// The policies of all thresholds of all groups.
fn collect(
    groups: Vec<(usize, Vec<f64>)>,
    spec: impl Fn(usize, f64) -> Result<PolicySpec>,
) -> Result<Vec<PolicySpec>> {
    let spec = &spec;
    let of_group = |(t, taus): (usize, Vec<f64>)| taus.into_iter().map(move |tau| spec(t, tau));
    let each = groups.into_iter().flat_map(of_group);
    each.collect()
}

#[cfg(test)]
mod tests {
    use badge_core::cost::ExitHistogram;
    use badge_core::exit::ExitPlan;
    use badge_tasks::Target;

    use super::*;
    use crate::evaluation::Replay;

    const BINARY: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

    /// Rows whose exits become sure, and steady, at very different rates.
    fn outputs(kind: PredictionKind, exits: usize) -> ExitOutputs {
        let logit = |row: usize, exit: usize, output: usize| {
            let wave = ((row * 37 + exit * 11 + output * 5) % 23) as f32 - 11.0;
            // A little of its own for each row: equal scores cannot be told apart.
            (0.02 * exit as f32 + 0.003) * (row * output) as f32 + 0.1 * wave
        };
        let row = |row: usize| -> Vec<Prediction> {
            let logits = |exit| (0..kind.logits()).map(move |output| logit(row, exit, output + 1));
            let exits = (0..exits).map(|exit| logits(exit).collect::<Vec<_>>());
            exits
                .map(|logits| Prediction::from_logits(kind, &logits).unwrap())
                .collect()
        };
        let doubts = |row: usize| -> Vec<_> {
            let doubt = |exit| ContinueProbability::from_logit(1.0 - 0.2 * logit(row, exit, 1));
            (0..exits).map(|exit| Some(doubt(exit).unwrap())).collect()
        };
        let predictions: Vec<_> = (0..200).map(row).collect();
        ExitOutputs {
            continuations: (0..200).map(doubts).collect(),
            answers: vec![vec![Target::Class(0); exits]; predictions.len()],
            predictions,
        }
    }

    fn specs(kind: PredictionKind, exits: &ModelExits, family: Family) -> Vec<PolicySpec> {
        let outputs = &outputs(kind, exits.plan().count());
        Grid { exits, outputs }.specs(family).unwrap()
    }

    fn blocks_saved(outputs: &ExitOutputs, exits: &ModelExits, spec: &PolicySpec) -> f64 {
        let policy = spec.build_for(exits).unwrap();
        let Replay { depths, .. } = outputs.replay(&policy);
        let histogram = ExitHistogram::of(exits.plan(), depths);
        exits.plan().deepest().0 as f64 - histogram.mean_depth().unwrap()
    }

    #[test]
    fn points_are_evenly_spaced_in_blocks_saved() {
        let plan = ExitPlan::new(vec![1, 2, 4, 7, 8, 12], 12).unwrap();
        let exits = ModelExits::new(plan, BINARY).with_learning_to_exit();
        let outputs = outputs(BINARY, exits.plan().count());
        // (Curve, first exit at which a patience of 1 may leave, thresholds of each group.)
        for (family, first, steps) in [
            (Family::Entropy, 0, THRESHOLDS_ALONE),
            (Family::Maxprob, 0, THRESHOLDS_ALONE),
            (Family::Lte, 0, THRESHOLDS_ALONE),
            (Family::Dge, 1, THRESHOLDS_EACH),
            (Family::Pcee, 0, THRESHOLDS_EACH),
            (Family::FlexiblePatience, 1, THRESHOLDS_EACH),
        ] {
            let specs = specs(BINARY, &exits, family);
            let groups = specs.chunks(steps);
            assert_eq!(specs.len() % steps, 0, "{family}: {}", specs.len());
            for (t, group) in groups.enumerate() {
                let most = (12 - exits.plan().depths()[first + t].0) as f64;
                for (step, spec) in group.iter().enumerate() {
                    let saved = blocks_saved(&outputs, &exits, spec);
                    let expected = most * (step + 1) as f64 / steps as f64;
                    assert!(
                        (saved - expected).abs() < 0.25,
                        "{spec}: {saved} blocks saved, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_curve_reaches_over_the_range_of_speed_as_far_as_its_policy_allows() {
        let exits = ModelExits::new(ExitPlan::every_block(12), BINARY).with_learning_to_exit();
        let outputs = outputs(BINARY, 12);
        for (family, least) in [
            (Family::Entropy, 20),
            (Family::Maxprob, 20),
            (Family::Lte, 20),
            (Family::Dge, 20),
            (Family::Pcee, 20),
            (Family::FlexiblePatience, 20),
            (Family::Vote, 20),
            // As many as there are.
            (Family::Patience, 10),
            (Family::Fixed, 12),
        ] {
            let specs = specs(BINARY, &exits, family);
            assert!(specs.len() >= least, "{family}: {} points", specs.len());
            let saved = specs.iter().map(|spec| {
                assert_eq!(spec.name(), family.name());
                blocks_saved(&outputs, &exits, spec)
            });
            let (low, high) = saved.fold((f64::INFINITY, 0.0), |(low, high), saved| {
                (saved.min(low), saved.max(high))
            });
            assert!(
                low < 2.0 && high > 7.0,
                "{family}: {low} to {high} blocks saved"
            );
        }
    }

    #[test]
    fn temperatures_of_the_model_stand_in_the_policies() {
        let exits = ModelExits::new(ExitPlan::every_block(3), BINARY);
        let exits = exits.with_temperatures(vec![2.0, 1.5, 1.0]).unwrap();
        let specs = specs(BINARY, &exits, Family::Maxprob);
        assert!(specs.len() > 20);
        for spec in specs {
            let text = spec.to_string();
            assert!(text.ends_with(",temperatures=2/1.5/1"), "{text}");
        }
    }

    #[test]
    fn numbers_and_label_sets_have_the_curves_that_make_sense() {
        let plan = ExitPlan::every_block(6);
        let curves = |kind| -> Vec<&str> {
            let exits = ModelExits::new(plan.clone(), kind);
            let fitting = Family::CURVES.into_iter();
            let fitting = fitting.filter(|family| family.check(&exits).is_ok());
            fitting
                .map(|family| {
                    assert!(specs(kind, &exits, family).len() > 3, "{family}");
                    family.name()
                })
                .collect()
        };
        assert_eq!(
            curves(PredictionKind::Regression),
            ["dge", "patience", "flexible-patience", "fixed"]
        );
        assert_eq!(
            curves(PredictionKind::MultiLabel { labels: 3 }),
            [
                "dge",
                "entropy",
                "maxprob",
                "patience",
                "pcee",
                "flexible-patience",
                "fixed"
            ]
        );
    }

    #[test]
    fn few_exits_leave_nothing_to_choose() {
        for depths in [vec![3], vec![1, 3]] {
            let exits = ModelExits::new(ExitPlan::new(depths, 3).unwrap(), BINARY);
            for family in [Family::Dge, Family::Patience, Family::FlexiblePatience] {
                assert_eq!(specs(BINARY, &exits, family), []);
            }
        }
    }
}
