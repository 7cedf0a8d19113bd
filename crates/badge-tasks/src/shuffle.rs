//! Seeded permutations whose result never changes: splits and resumed runs depend on them.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A generator for one purpose: `stream` keeps purposes (splits, epochs) with the same seed apart.
pub(crate) fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    generator
}

/// Shuffles `items` in place, every order equally likely (Fisher and Yates).
///
/// Written out here because a library's shuffle may change its order of draws between releases,
/// and with it every recorded split.
pub(crate) fn shuffle<T>(items: &mut [T], generator: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        // The high half of a 64 × 64 bit product is uniform below its factor up to 2^-64.
        let product = u128::from(generator.next_u64()) * (last as u128 + 1);
        items.swap(last, (product >> 64) as usize);
    }
}

/// The numbers `0..count` in a random order.
pub(crate) fn permutation(count: usize, generator: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut order, generator);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_holds_every_number_once() {
        for count in [0, 1, 2, 7, 100] {
            let mut order = permutation(count, &mut generator(3, 0));
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seed_and_stream_decide_the_order() {
        let order = |seed, stream| permutation(50, &mut generator(seed, stream));
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(2, 2));
        assert_ne!(order(1, 2), order(1, 3));
    }

    #[test]
    fn every_position_is_reached_about_equally_often() {
        let mut counts = [0_usize; 5];
        let mut generator = generator(11, 0);
        for _ in 0..5_000 {
            counts[permutation(5, &mut generator)[0]] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn order_of_a_seed_is_pinned() {
        // Recorded once: a change here changes every split ever drawn.
        assert_eq!(
            permutation(8, &mut generator(42, 0)),
            [4, 7, 0, 1, 3, 2, 6, 5]
        );
    }
}
