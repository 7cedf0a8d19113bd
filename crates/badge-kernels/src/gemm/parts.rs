//! Which thread computes which part of a product.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tile::{PANEL, TILE_ROWS};

/// How the rows and panels of one product are handed out.
///
/// The panels are cut into a *share* for each thread, of which it takes its parts before it helps
/// another: what an earlier product asked for then lies in the cache of the core that multiplies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    rows: usize,
    /// Parts that the rows are cut into.
    down: usize,
    panels: usize,
    /// Parts that the panels are cut into.
    across: usize,
    /// Shares that the panels are cut into.
    shares: usize,
}

/// Some rows and panels of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) share: Share,
}

/// The share of the panels that a part belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) shares: usize,
    pub(super) panels: Range<usize>,
}

/// Which of a product's parts: `0..down` and `0..across`.
pub(super) type PartIndex = [usize; 2];

/// Bytes of activations that stay in a core's second-level cache beside the panel in use: half of
/// the 1 MiB of Zen 4 and 5, a quarter of the 2 MiB of Sapphire Rapids.
const ROWS_IN_CACHE: usize = 512 << 10;

/// Whether a product is split among threads. Below 64 Ki units of 32 bits times outputs (in f32:
/// multiply-adds) the caller is done before others have joined.
pub(super) fn is_worth_sharing(rows: usize, panels: usize, groups: usize) -> bool {
    rows * panels * PANEL * groups >= 64 << 10
}

/// Parts per thread: enough that a core which lost time to something else is relieved by the other,
/// few enough that claiming them costs nothing. A single row is done before that could matter.
const PARTS_PER_THREAD: usize = 4;

/// Shares at most; more threads than that have them in common.
const SHARES_MAX: usize = 16;

impl Parts {
    /// Cuts a product of rows and panels, with rows of so many bytes.
    pub(super) fn of([rows, panels]: [usize; 2], row_bytes: usize, threads: usize) -> Self {
        let rows_in_cache = (ROWS_IN_CACHE / row_bytes.max(1)).max(TILE_ROWS);
        let groups = row_bytes / size_of::<f32>();
        let wanted = if threads == 1 || !is_worth_sharing(rows, panels, groups) {
            1
        } else if rows == 1 {
            threads
        } else {
            threads * PARTS_PER_THREAD
        };
        let across = wanted.min(panels);
        Self {
            rows,
            down: rows.div_ceil(rows_in_cache),
            panels,
            across,
            shares: threads.min(SHARES_MAX).min(across.max(1)),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.down * self.across
    }

    pub(super) fn part(&self, [down, across]: PartIndex) -> Part {
        // Whole tiles of eight rows, so that few parts end in a low one.
        let tiles = self.rows.div_ceil(TILE_ROWS);
        let tiles = share(tiles, self.down, down);
        let index = (0..self.shares).find(|index| self.across_of(*index).contains(&across));
        let index = index.expect("shares cover all parts");
        let parts = self.across_of(index);
        Part {
            rows: tiles.start * TILE_ROWS..(tiles.end * TILE_ROWS).min(self.rows),
            panels: share(self.panels, self.across, across),
            share: Share {
                index,
                shares: self.shares,
                panels: share(self.panels, self.across, parts.start).start
                    ..share(self.panels, self.across, parts.end - 1).end,
            },
        }
    }

    /// The parts across that belong to a share.
    fn across_of(&self, index: usize) -> Range<usize> {
        share(self.across, self.shares, index)
    }
}

/// Who computes which part: each thread its own share first, in rising order.
pub(super) struct Claims<'a> {
    parts: &'a Parts,
    /// Parts of each share that are claimed, or more.
    claimed: [AtomicUsize; SHARES_MAX],
}

impl<'a> Claims<'a> {
    pub(super) fn of(parts: &'a Parts) -> Self {
        Self {
            parts,
            claimed: [const { AtomicUsize::new(0) }; SHARES_MAX],
        }
    }

    /// A part that nobody has claimed. There is one, for each of `parts.count()` calls.
    pub(super) fn claim(&self, worker: usize) -> PartIndex {
        let shares = self.parts.shares;
        let found = (0..shares).find_map(|other| self.claim_of((worker + other) % shares));
        found.expect("as many parts as calls")
    }

    fn claim_of(&self, share: usize) -> Option<PartIndex> {
        let across = self.parts.across_of(share);
        // Nothing is read that another thread writes: the pool orders what the parts compute.
        let index = self.claimed[share].fetch_add(1, Ordering::Relaxed);
        let part = [index / across.len(), across.start + index % across.len()];
        (part[0] < self.parts.down).then_some(part)
    }
}

/// Part `index` of `0..total` split into `parts` parts whose sizes differ by at most one.
pub(super) fn share(total: usize, parts: usize, index: usize) -> Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each part once, whoever asks in whatever order, and together all rows and panels.
    #[test]
    fn every_part_is_claimed_once() {
        for threads in [1, 2, 3, 5, 16, 40] {
            for [rows, panels] in [[1, 1], [1, 12], [1, 24], [32, 5], [300, 24], [2000, 3]] {
                let parts = Parts::of([rows, panels], 3072, threads);
                let claims = Claims::of(&parts);
                let mut written = vec![0; rows * panels];
                for call in 0..parts.count() {
                    let part = parts.part(claims.claim(call * call % threads));
                    assert!(part.share.panels.start <= part.panels.start);
                    assert!(part.panels.end <= part.share.panels.end);
                    for row in part.rows {
                        for panel in part.panels.clone() {
                            written[row * panels + panel] += 1;
                        }
                    }
                }
                assert!(written.iter().all(|n| *n == 1), "{threads} {rows} {panels}");
            }
        }
    }

    /// The same where threads claim at once.
    #[test]
    fn threads_that_claim_at_once_get_different_parts() {
        let parts = Parts::of([2000, 24], 3072, 4);
        let claims = Claims::of(&parts);
        let calls = AtomicUsize::new(0);
        let mut claimed = std::thread::scope(|scope| {
            let claimed = |worker| {
                let (claims, calls, count) = (&claims, &calls, parts.count());
                move || -> Vec<PartIndex> {
                    let is_wanted = || calls.fetch_add(1, Ordering::Relaxed) < count;
                    std::iter::repeat_with(|| is_wanted().then(|| claims.claim(worker)))
                        .map_while(|part| part)
                        .collect()
                }
            };
            let workers = [0, 1, 2, 3].map(|worker| scope.spawn(claimed(worker)));
            let claimed = workers.map(|worker| worker.join().unwrap());
            claimed.concat()
        });
        claimed.sort_unstable();
        let all = (0..parts.down).flat_map(|down| (0..parts.across).map(move |a| [down, a]));
        assert_eq!(claimed, all.collect::<Vec<_>>());
    }

    /// A thread stays with its share while there is some of it left.
    #[test]
    fn a_thread_takes_its_own_share_first() {
        let parts = Parts::of([64, 24], 3072, 2);
        let claims = Claims::of(&parts);
        let own = parts.count() / 2;
        let shares: Vec<_> = (0..parts.count())
            .map(|_| parts.part(claims.claim(1)).share.index)
            .collect();
        assert!(shares[..own].iter().all(|share| *share == 1), "{shares:?}");
        assert!(shares[own..].iter().all(|share| *share == 0), "{shares:?}");
    }
}
