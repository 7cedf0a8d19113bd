//! Which candidates a promise holds for.

use anyhow::{Result, ensure};
use badge_core::calibration::risk_control::{
    chain_level, conformal, conformal_bound, fixed_sequence, monotone_means,
};
use badge_core::calibration::{Certificate, Goal, LossSum, Method};
use badge_core::exit::Depth;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::losses::LossTable;
use super::{Candidate, Guarantee, Outcome, Promise, Refusal, Search};

/// One in so many rows chooses what the others test, where one cannot do without the other.
const CHOOSING_SHARE: usize = 3;

/// What a promise is tested with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial<'a> {
    pub(super) losses: &'a LossTable,
    pub(super) depths: &'a [Depth],
    pub(super) promise: Promise,
    pub(super) seed: u64,
}

/// Rows that choose, and rows that prove.
#[derive(Debug)]
struct Rows {
    choosing: Vec<usize>,
    proving: Vec<usize>,
}

/// How far a chain is from being certified.
#[derive(Debug, Clone, Copy)]
struct Need {
    epsilon: f64,
    rows: Option<usize>,
}

impl Trial<'_> {
    /// Marks the candidates that the promise holds for, and chooses among them.
    pub(super) fn certify(&self, search: &mut Search) -> Result<Outcome> {
        // Nothing is lost by `full` against itself, whatever the rows.
        search.full.certified = self.losses.is_relative();
        match (search.goal, self.promise.guarantee) {
            (Goal::TargetSpeedup(least), Guarantee::Confidence(confidence)) => {
                self.at_speedup(search, least, confidence)
            }
            (Goal::TargetSpeedup(_), Guarantee::Expectation) => {
                anyhow::bail!(
                    "conformal risk control finds a threshold for a given loss; for a given \
                     speed-up use learn then test"
                )
            }
            (Goal::MaxDrop(epsilon), Guarantee::Confidence(confidence)) => {
                Ok(self.learn_then_test(search, epsilon, confidence))
            }
            (Goal::MinScore(score), Guarantee::Confidence(confidence)) => {
                Ok(self.learn_then_test(search, 1.0 - score, confidence))
            }
            (Goal::MaxDrop(epsilon), Guarantee::Expectation) => self.conformal(search, epsilon),
            (Goal::MinScore(score), Guarantee::Expectation) => self.conformal(search, 1.0 - score),
        }
    }

    /// All rows prove; every chain has its share of what may go wrong.
    fn learn_then_test(&self, search: &mut Search, epsilon: f64, confidence: f64) -> Outcome {
        let rows: Vec<usize> = (0..search.full.replayed.places.len()).collect();
        let range = self.losses.range();
        let delta = 1.0 - confidence;
        let level = chain_level(search.chains.len(), delta);
        let sum = |c: &Candidate| self.losses.sum(&rows, &c.replayed.places);
        let sums: Vec<Vec<LossSum>> = (search.chains.iter())
            .map(|chain| chain.iter().map(sum).collect())
            .collect();
        let p_value = |sum: &LossSum| range.p_value(*sum, epsilon);
        let p_values: Vec<Vec<f64>> = (sums.iter())
            .map(|chain| chain.iter().map(p_value).collect())
            .collect();
        for (chain, count) in search
            .chains
            .iter_mut()
            .zip(fixed_sequence(&p_values, delta))
        {
            chain[..count]
                .iter_mut()
                .for_each(|candidate| candidate.certified = true);
        }
        let certificate = self.certificate(epsilon, (rows.len(), search.chains.len()));
        if let Some(outcome) = self.choose(search, certificate, &rows) {
            return outcome;
        }
        let needs = search.chains.iter().zip(&sums).filter_map(|(chain, sums)| {
            let until = chain.iter().position(Candidate::saves)?;
            let bound = |sum: &LossSum| Need {
                epsilon: range.upper_bound(*sum, level),
                rows: range.rows_needed(*sum, epsilon, level),
            };
            sums[..=until].iter().map(bound).reduce(Need::both)
        });
        refused(rows.len(), needs)
    }

    /// Some rows choose the chain, the others prove how far it may be followed.
    fn conformal(&self, search: &mut Search, epsilon: f64) -> Result<Outcome> {
        let rows = self.rows(search, search.chains.len() > 1)?;
        let chains = search.chains.iter().enumerate();
        let Some((chosen, _)) = chains.min_by(|(_, a), (_, b)| {
            let depth = |chain: &[Candidate]| self.depth_reached(chain, &rows.choosing, epsilon);
            depth(a).total_cmp(&depth(b))
        }) else {
            return Ok(refused(rows.proving.len(), std::iter::empty()));
        };
        let losses: Vec<Vec<f64>> = (search.chains[chosen].iter())
            .map(|c| self.losses.of_rows(&rows.proving, &c.replayed.places))
            .collect();
        let range = self.losses.range();
        let count = conformal(&losses, epsilon, range);
        for candidate in &mut search.chains[chosen][..count] {
            candidate.certified = true;
        }
        let certificate = self.certificate(epsilon, (rows.proving.len(), 1));
        if let Some(outcome) = self.choose(search, certificate, &rows.proving) {
            return Ok(outcome);
        }
        let until = search.chains[chosen].iter().position(Candidate::saves);
        let need = until.map(|until| {
            let n = rows.proving.len();
            let mean = monotone_means(&losses)[until];
            // (n R + B) / (n + 1) <= epsilon, and the rows that choose come on top.
            let enough = ((range.max() - epsilon) / (epsilon - mean)).ceil().max(1.0);
            let all = enough * (n + rows.choosing.len()) as f64 / n as f64;
            Need {
                epsilon: conformal_bound(mean, n, range),
                rows: (mean < epsilon).then_some(all.ceil() as usize),
            }
        });
        Ok(refused(rows.proving.len(), need.into_iter()))
    }

    /// Some rows choose a point that is fast enough, the others bound what it loses.
    fn at_speedup(&self, search: &mut Search, least: f64, confidence: f64) -> Result<Outcome> {
        let rows = self.rows(search, true)?;
        let deepest = self.depths[self.depths.len() - 1].0 as f64;
        let speedup = |c: &Candidate| deepest / self.mean_depth(c, &rows.choosing);
        let loss = |c: &Candidate| self.losses.sum(&rows.choosing, &c.replayed.places).sum;
        let fast = (search.chains.iter_mut().flatten()).filter(|c| speedup(c) >= least);
        let best = fast.min_by(|a, b| {
            let by_loss = loss(a).total_cmp(&loss(b));
            by_loss.then(speedup(b).total_cmp(&speedup(a)))
        });
        let Some(best) = best else {
            let speedups = search.chains.iter().flatten().map(speedup);
            let best = speedups.fold(1.0, f64::max);
            return Ok(Outcome::Refused(Refusal::Unreachable { best }));
        };
        best.certified = true;
        let sum = self.losses.sum(&rows.proving, &best.replayed.places);
        let epsilon = self.losses.range().upper_bound(sum, 1.0 - confidence);
        let certificate = Certificate {
            mean_loss: sum.mean(),
            ..self.certificate(epsilon, (rows.proving.len(), 1))
        };
        Ok(Outcome::Chosen(best.spec.clone(), Some(certificate)))
    }

    /// The choice among certified candidates; none where none of them saves anything.
    fn choose(&self, search: &Search, certificate: Certificate, rows: &[usize]) -> Option<Outcome> {
        let mut certified = search.candidates().filter(|c| c.certified);
        if !certified.any(Candidate::saves) {
            return None;
        }
        let mut outcome = search.choose(Some(certificate));
        if let Outcome::Chosen(spec, Some(certificate)) = &mut outcome {
            let chosen = search.candidates().find(|c| c.spec == *spec);
            let places = &chosen.expect("it was chosen among them").replayed.places;
            certificate.mean_loss = self.losses.sum(rows, places).mean();
        }
        Some(outcome)
    }

    fn certificate(&self, epsilon: f64, (rows, chains): (usize, usize)) -> Certificate {
        let (method, confidence) = match self.promise.guarantee {
            Guarantee::Confidence(confidence) => (Method::Ltt, Some(confidence)),
            Guarantee::Expectation => (Method::Crc, None),
        };
        Certificate {
            method,
            loss: self.promise.loss,
            loss_scale: self.losses.scale(),
            epsilon,
            confidence,
            rows,
            chains,
            mean_loss: 0.0,
        }
    }

    /// The rows in a random order, a part of them to choose with where that is `needed`.
    fn rows(&self, search: &Search, needed: bool) -> Result<Rows> {
        let count = search.full.replayed.places.len();
        let mut order: Vec<usize> = (0..count).collect();
        if !needed {
            return Ok(Rows {
                choosing: Vec::new(),
                proving: order,
            });
        }
        ensure!(
            count >= CHOOSING_SHARE,
            "the dev split holds {count} rows: too few for some to choose and others to prove"
        );
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        for last in (1..count).rev() {
            order.swap(last, random.random_range(0..=last));
        }
        let proving = order.split_off(count / CHOOSING_SHARE);
        Ok(Rows {
            choosing: order,
            proving,
        })
    }

    /// The least mean depth that a chain comes to before its greatest losses exceed `epsilon`.
    fn depth_reached(&self, chain: &[Candidate], rows: &[usize], epsilon: f64) -> f64 {
        let losses: Vec<Vec<f64>> = (chain.iter())
            .map(|c| self.losses.of_rows(rows, &c.replayed.places))
            .collect();
        let within = monotone_means(&losses).into_iter().zip(chain);
        let within = within.take_while(|(mean, _)| *mean <= epsilon);
        let depths = within.map(|(_, candidate)| self.mean_depth(candidate, rows));
        depths.fold(f64::INFINITY, f64::min)
    }

    fn mean_depth(&self, candidate: &Candidate, rows: &[usize]) -> f64 {
        let depth = |row: &usize| self.depths[candidate.replayed.places[*row]].0;
        rows.iter().map(depth).sum::<usize>() as f64 / rows.len() as f64
    }
}

impl Need {
    /// What a chain needs whose policies need these two.
    fn both(self, other: Self) -> Self {
        Self {
            epsilon: self.epsilon.max(other.epsilon),
            rows: self.rows.zip(other.rows).map(|(a, b)| a.max(b)),
        }
    }
}

/// The refusal that tells the least of what some chain needs.
fn refused(rows: usize, needs: impl Iterator<Item = Need>) -> Outcome {
    let needs: Vec<_> = needs.collect();
    Outcome::Refused(Refusal::NotCertified {
        rows,
        least_epsilon: needs.iter().map(|need| need.epsilon).reduce(f64::min),
        rows_needed: needs.iter().filter_map(|need| need.rows).min(),
    })
}

#[cfg(test)]
mod tests;
