//! The policies that are tried: chains from the most conservative to the most liberal.
//!
//! The parameters are fixed before any row is looked at. Risk control needs that, and the same
//! chains serve the plain search. A policy joins with an arm of `Exits::texts`.

use anyhow::Result;
use badge_core::distribution::PredictionKind;
use badge_core::policy::{ModelExits, PolicySpec};

use crate::sweep::Family;

/// Thresholds of a chain: each a tenth above the one before, over three powers of ten.
const THRESHOLDS: u32 = 72;

/// Policies of one family that leave the earlier the later they come.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The family.
    pub family: Family,
    /// The policies, the most conservative first.
    pub specs: Vec<PolicySpec>,
}

/// The exits that policies are made for.
#[derive(Debug, Clone, Copy)]
pub struct Exits<'a> {
    /// Where they are and what they give.
    pub model: &'a ModelExits,
    /// For regression the range of the training targets, which distances are compared with.
    pub target_range: Option<f64>,
}

/// The chains of these families on a model, without those that it cannot run.
///
/// # Errors
/// When a family refuses its own parameters, which none does.
pub fn chains(families: &[Family], exits: Exits<'_>) -> Result<Vec<Chain>> {
    let mut chains = Vec::new();
    if exits.model.plan().count() < 2 {
        return Ok(chains);
    }
    for family in families {
        for texts in exits.texts(*family) {
            chains.push(chain(*family, texts.into_iter())?);
        }
    }
    let runs = |spec: &PolicySpec| spec.check(exits.model).is_ok();
    chains.retain(|chain: &Chain| chain.specs.first().is_some_and(runs));
    Ok(chains)
}

fn chain(family: Family, specs: impl Iterator<Item = String>) -> Result<Chain> {
    let specs = specs.map(|spec| Ok(spec.parse()?));
    Ok(Chain {
        family,
        specs: specs.collect::<Result<_>>()?,
    })
}

/// Ascending thresholds up to `greatest`, of three digits each.
fn thresholds(greatest: f64) -> impl Iterator<Item = f64> {
    let step = 1000_f64.ln() / f64::from(THRESHOLDS);
    (0..=THRESHOLDS).rev().map(move |steps| {
        let threshold = greatest * (-step * f64::from(steps)).exp();
        let text = format!("{threshold:.2e}");
        text.parse().expect("a number's text is a number")
    })
}

impl Exits<'_> {
    /// The key that gives the model's temperatures in numbers, if it has any.
    fn temperatures(self) -> String {
        let Some(temperatures) = self.model.temperatures() else {
            return String::new();
        };
        let numbers: Vec<_> = temperatures.iter().map(f64::to_string).collect();
        format!(",temperatures={}", numbers.join("/"))
    }

    /// The policies of a family, chain by chain. Every chain takes its share of what may go wrong, so
    /// that counts in a row beyond the third are left to DGE, whose count has no need of a row.
    fn texts(self, family: Family) -> Vec<Vec<String>> {
        const IN_A_ROW: std::ops::RangeInclusive<usize> = 1..=3;
        let exits = self.model.plan().count();
        let regression = self.model.kind() == PredictionKind::Regression;
        match family {
            Family::Fixed => {
                let depths = self.model.plan().depths().iter().rev().skip(1);
                vec![depths.map(|depth| format!("fixed:{depth}")).collect()]
            }
            // A larger t is never reached before the deepest exit.
            Family::Dge => (1..exits.saturating_sub(1))
                .map(|t| self.up_to_clueless(|tau| format!("dge:tau={tau},t={t}")))
                .collect(),
            Family::Entropy => vec![self.up_to_clueless(|tau| format!("entropy:{tau}"))],
            // From certainty down; 1 - threshold is what varies over three powers of ten.
            Family::Maxprob => vec![
                thresholds(1.0)
                    .map(|doubt| format!("{:.6}", 1.0 - doubt))
                    .filter(|threshold| threshold != "0.000000")
                    .map(|threshold| format!("maxprob:{threshold}{}", self.temperatures()))
                    .collect(),
            ],
            Family::Patience if regression => IN_A_ROW
                .map(|t| self.up_to_clueless(|tau| format!("patience:{t},tolerance={tau}")))
                .collect(),
            Family::Patience => {
                let patient = (1..exits.saturating_sub(1)).rev();
                vec![patient.map(|t| format!("patience:{t}")).collect()]
            }
            Family::Lte => vec![thresholds(1.0).map(|u| format!("lte:{u}")).collect()],
            // One in a row is normalised entropy.
            Family::Pcee => IN_A_ROW
                .skip(1)
                .map(|t| {
                    thresholds(1.0)
                        .map(|tau| format!("pcee:tau={tau},t={t}"))
                        .collect()
                })
                .collect(),
            // Jensen-Shannon divergence is at most ln 2, label by label.
            Family::FlexiblePatience => IN_A_ROW
                .map(|t| self.up_to_clueless(|tau| format!("flexible-patience:tau={tau},t={t}")))
                .collect(),
            // With the square root of the exits as divisor, k votes of k exits are worth its root.
            Family::Vote => {
                let votes = (1..exits).rev().map(|votes| (votes as f64).sqrt());
                vec![votes.map(|tau| format!("vote:tau={tau:.4}")).collect()]
            }
            Family::Full => Vec::new(),
        }
    }

    fn up_to_clueless(self, text: impl Fn(f64) -> String) -> Vec<String> {
        thresholds(self.greatest_divergence()).map(text).collect()
    }

    /// A divergence that means nothing any more: that from an exit which knows nothing, or the
    /// range of the targets.
    fn greatest_divergence(self) -> f64 {
        match self.model.kind() {
            PredictionKind::SingleLabel { classes } => (classes.max(2) as f64).ln(),
            PredictionKind::MultiLabel { labels } => labels as f64 * std::f64::consts::LN_2,
            PredictionKind::Regression => self.target_range.unwrap_or(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use badge_core::exit::ExitPlan;
    use badge_core::policy::PolicySpec;

    use super::*;

    const KINDS: [PredictionKind; 3] = [
        PredictionKind::SingleLabel { classes: 3 },
        PredictionKind::MultiLabel { labels: 4 },
        PredictionKind::Regression,
    ];

    #[test]
    fn every_policy_with_a_threshold_has_chains() {
        let plan = ExitPlan::every_block(6);
        let count = |family: Family, kind| {
            let model = ModelExits::new(plan.clone(), kind).with_learning_to_exit();
            let exits = Exits {
                model: &model,
                target_range: Some(5.0),
            };
            let texts = exits.texts(family);
            for text in texts.iter().flatten() {
                let spec: PolicySpec = text.parse().unwrap();
                assert_eq!(spec.name(), family.name());
                spec.build_for(&model).unwrap();
            }
            texts.len()
        };
        let [label, labels, number] = KINDS;
        let counts = [
            (Family::Fixed, label, 1),
            (Family::Dge, label, 4),
            (Family::Entropy, labels, 1),
            (Family::Maxprob, label, 1),
            (Family::Patience, labels, 1),
            (Family::Patience, number, 3),
            (Family::Lte, number, 1),
            (Family::Pcee, label, 2),
            (Family::FlexiblePatience, number, 3),
            (Family::Vote, label, 1),
            (Family::Full, label, 0),
        ];
        for (family, kind, expected) in counts {
            assert_eq!(count(family, kind), expected, "{family}");
        }
    }

    #[test]
    fn every_family_with_a_curve_has_chains_that_fit_the_model() {
        let plan = ExitPlan::new(vec![2, 3, 5, 8], 8).unwrap();
        for family in Family::CURVES {
            let mut found = 0;
            for kind in KINDS {
                let model = ModelExits::new(plan.clone(), kind).with_learning_to_exit();
                let exits = Exits {
                    model: &model,
                    target_range: Some(5.0),
                };
                for chain in chains(&[family], exits).unwrap() {
                    found += 1;
                    assert!(chain.specs.len() > 1, "{family}");
                    for spec in &chain.specs {
                        spec.build_for(&model).unwrap();
                        assert_eq!(spec.name(), family.name());
                    }
                    let mut specs = chain.specs.iter().map(PolicySpec::to_string);
                    let first = specs.next();
                    assert!(specs.all(|spec| Some(spec) != first), "{family}: one twice");
                }
            }
            assert!(found > 0, "{family} has no chain");
        }
    }

    #[test]
    fn chains_of_dge_reach_from_a_thousandth_to_a_clueless_exit() {
        let plan = ExitPlan::every_block(5);
        let model = ModelExits::new(plan, PredictionKind::SingleLabel { classes: 2 });
        let exits = Exits {
            model: &model,
            target_range: None,
        };
        let chains = chains(&[Family::Dge], exits).unwrap();
        assert_eq!(chains.len(), 3);
        let text = |spec: Option<&PolicySpec>| spec.unwrap().to_string();
        assert_eq!(text(chains[1].specs.first()), "dge:tau=0.000693,t=2");
        assert_eq!(text(chains[1].specs.last()), "dge:tau=0.693,t=2");
    }

    #[test]
    fn a_single_exit_leaves_nothing_to_try() {
        let plan = ExitPlan::new(vec![3], 3).unwrap();
        let model = ModelExits::new(plan, KINDS[0]).with_learning_to_exit();
        let exits = Exits {
            model: &model,
            target_range: None,
        };
        assert!(chains(&Family::CURVES, exits).unwrap().is_empty());
    }
}
