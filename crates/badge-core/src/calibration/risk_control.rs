//! Which policies keep the expected loss on new rows below a bound.
//!
//! Policies come in chains: from the most conservative, which leaves late, to the most liberal.
//! Chains have to be fixed before the rows are looked at.

use super::tail::LossRange;

/// How many policies of each chain, from its conservative end, are shown to lose less than the
/// bound that `p_values` belong to, by fixed-sequence testing at level `delta` (Angelopoulos et
/// al., *Learn then Test*, 2021, with Bonferroni's correction over the chains).
///
/// Each chain has `delta / chains` to spend and is followed until a p-value exceeds that. With
/// probability at least `1 - delta` over the draw of the rows **none** of the accepted policies of
/// any chain has an expected loss of the bound or more, so that any of them may be chosen, by any
/// rule, and exchanged for another later. Losses need not be monotone along a chain.
///
/// # Example
/// ```
/// use badge_core::calibration::risk_control::fixed_sequence;
///
/// let patient = vec![0.001, 0.02, 0.2, 0.01]; // the last lies behind a gap
/// let hasty = vec![0.03];                     // more than 0.05 / 2
/// assert_eq!(fixed_sequence(&[patient, hasty], 0.05), [2, 0]);
/// ```
pub fn fixed_sequence(p_values: &[Vec<f64>], delta: f64) -> Vec<usize> {
    let level = chain_level(p_values.len(), delta);
    let accepted = |chain: &Vec<f64>| chain.iter().take_while(|p| **p <= level).count();
    p_values.iter().map(accepted).collect()
}

/// What one of so many chains may spend of `delta`.
pub fn chain_level(chains: usize, delta: f64) -> f64 {
    delta / chains.max(1) as f64
}

/// How many policies of one chain conformal risk control accepts, from its conservative end; the
/// last of them is the one to take (Angelopoulos et al., *Conformal Risk Control*, 2022):
///
/// ```text
/// mean of L_i(λ) over the n rows  ≤  ((n + 1) ε - B) / n
/// ```
///
/// `losses` has one list of n losses for every policy, the most conservative first. The method asks
/// that no row's loss falls along the chain; ours may, as a row can leave early with the wrong
/// answer under one threshold and earlier still with the right one under the next. Each loss is
/// therefore replaced by the greatest one up to its place in the chain, which can only be larger.
///
/// The expected loss of the policy taken, over the draw of the rows **and** of a new one, is at
/// most `epsilon`, where no policy being accepted counts as no loss. The promise holds for that one
/// policy of this one chain.
///
/// # Panics
/// When the lists differ in length.
pub fn conformal(losses: &[Vec<f64>], epsilon: f64, range: LossRange) -> usize {
    let allowed = allowed_mean(losses.first().map_or(0, Vec::len), epsilon, range);
    let means = monotone_means(losses).into_iter();
    // Sums of whole losses are exact; others may miss the bound by their last digits.
    means.take_while(|mean| *mean <= allowed + 1e-12).count()
}

/// The mean, policy by policy, of each row's greatest loss up to there in the chain.
///
/// # Panics
/// When the lists differ in length.
pub fn monotone_means(losses: &[Vec<f64>]) -> Vec<f64> {
    let rows = losses.first().map_or(0, Vec::len);
    let mut greatest = vec![0.0_f64; rows];
    let mean = |losses: &Vec<f64>| {
        assert_eq!(losses.len(), rows, "one loss per row");
        for (greatest, loss) in greatest.iter_mut().zip(losses) {
            *greatest = greatest.max(*loss);
        }
        greatest.iter().sum::<f64>() / rows as f64
    };
    losses.iter().map(mean).collect()
}

/// `((n + 1) ε - B) / n`: below 0 where n rows are too few for any policy.
pub fn allowed_mean(rows: usize, epsilon: f64, range: LossRange) -> f64 {
    let n = rows as f64;
    ((n + 1.0) * epsilon - range.max()) / n
}

/// The smallest `ε` for which conformal risk control accepts a policy with this mean loss on so
/// many rows: `(n R + B) / (n + 1)`.
pub fn conformal_bound(mean: f64, rows: usize, range: LossRange) -> f64 {
    (mean * rows as f64 + range.max()) / (rows as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_ends_at_its_first_gap_and_each_has_its_share() {
        let chain = vec![0.0, 0.024, 0.026, 0.0];
        assert_eq!(fixed_sequence(std::slice::from_ref(&chain), 0.05), [4]);
        assert_eq!(
            fixed_sequence(&[chain.clone(), chain.clone()], 0.05),
            [2, 2]
        );
        assert_eq!(
            fixed_sequence(&[chain, Vec::new(), vec![f64::NAN]], 0.05),
            [1, 0, 0]
        );
        assert_eq!(fixed_sequence(&[], 0.05), [0; 0]);
    }

    #[test]
    fn conformal_risk_control_follows_its_formula() {
        // ((9 + 1) 0.2 - 1) / 9 = 1/9: one loss among nine rows is allowed, two are not.
        let rows = |wrong: &[usize]| (0..9).map(|i| f64::from(wrong.contains(&i))).collect();
        let chain: Vec<Vec<f64>> = [&[][..], &[3], &[3], &[3, 4]].map(rows).to_vec();
        let range = LossRange::ZERO_OR_ONE;
        assert!((allowed_mean(9, 0.2, range) - 1.0 / 9.0).abs() < 1e-15);
        assert_eq!(conformal(&chain, 0.2, range), 3);
        assert_eq!(conformal(&chain, 0.3, range), 4);
        // B / (n + 1) = 0.1 is the least that nine rows can promise.
        assert_eq!(conformal(&chain, 0.1, range), 1);
        assert_eq!(conformal(&chain, 0.0999, range), 0);
        assert!((conformal_bound(0.0, 9, range) - 0.1).abs() < 1e-15);
        assert!((conformal_bound(1.0 / 9.0, 9, range) - 0.2).abs() < 1e-15);
        assert_eq!(conformal(&[], 0.2, range), 0);
    }

    #[test]
    fn a_loss_that_falls_along_the_chain_is_counted_at_its_greatest() {
        let rows = |wrong: usize| (0..9).map(|i| f64::from(i == wrong)).collect::<Vec<f64>>();
        // One row each, but another one every time.
        let chain = [rows(0), rows(1), rows(2)];
        assert_eq!(conformal(&chain, 0.2, LossRange::ZERO_OR_ONE), 1);
        assert_eq!(conformal(&chain, 0.3, LossRange::ZERO_OR_ONE), 2);
    }

    #[test]
    fn graded_losses_scale_with_their_range() {
        let chain = [vec![0.0; 9], vec![0.5; 9]];
        let doubled = [vec![0.0; 9], vec![1.0; 9]];
        for epsilon in [0.05, 0.1, 0.5, 0.54, 0.56, 0.6] {
            assert_eq!(
                conformal(&chain, epsilon, LossRange::up_to(1.0)),
                conformal(&doubled, 2.0 * epsilon, LossRange::up_to(2.0)),
                "{epsilon}"
            );
        }
    }
}
