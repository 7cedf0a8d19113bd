//! Quantiles by nearest rank: always a value that was measured.

/// The least of the ascending `sorted` that at least the share `q` of them do not exceed; none
/// of none.
///
/// # Example
/// ```
/// use badge_lab::quantile::of_sorted;
///
/// let ten: Vec<f64> = (1..=10).map(f64::from).collect();
/// assert_eq!(of_sorted(&ten, 0.5), Some(5.0));
/// assert_eq!(of_sorted(&ten, 0.99), Some(10.0));
/// assert_eq!(of_sorted(&[], 0.5), None);
/// ```
pub fn of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}
