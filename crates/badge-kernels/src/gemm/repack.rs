//! Weights packed over and over: into memory that is there, as they are and transposed, by all
//! threads.
//!
//! Squares of 32 x 32 weights go through the first-level cache. What lies side by side in a square is
//! copied or paired into the panels of one direction and transposed into those of the other.

use half::bf16;

use super::pack::SharedPanels;
use super::tile::PANEL;
use super::{PackedMatrix, Precision};
use crate::attention::transpose::{SIDE, transpose};
use crate::isa::Isa;
use crate::simd::{Operation, Simd};
use crate::threads::{Pool, Task};

/// Writes `weights: [N, K]`, row after row, to `forward` and their transpose to `backward`.
///
/// # Panics
/// When shapes or precisions disagree.
pub(crate) fn repack(
    pool: &Pool,
    weights: &[f32],
    forward: &mut PackedMatrix,
    backward: &mut PackedMatrix,
) {
    let (n, k) = (forward.outputs(), forward.inputs());
    assert_eq!(weights.len(), n * k, "{n} x {k} weights");
    assert_eq!((backward.outputs(), backward.inputs()), (k, n), "transpose");
    let precision = forward.precision();
    assert_eq!(precision, backward.precision(), "precision of both");
    let job = Repack {
        isa: pool.isa(),
        precision,
        weights,
        rows: n,
        columns: k,
        forward: forward.share(),
        backward: backward.share(),
    };
    // SAFETY: a task writes the panel of `forward` and the groups of `backward` that belong to its
    // outputs, and no other task writes these.
    pool.run(n.div_ceil(PANEL), &|Task { index, .. }| unsafe {
        job.panel(index);
    });
}

/// A square of weights; zeros beyond the last output and input.
#[repr(align(64))]
struct Square([[f32; PANEL]; PANEL]);

/// Groups of 32 units as panels hold them.
#[repr(align(64))]
struct Groups([[i32; PANEL]; PANEL]);

/// One call of [`repack`].
struct Repack<'a> {
    isa: Isa,
    precision: Precision,
    weights: &'a [f32],
    rows: usize,
    columns: usize,
    forward: SharedPanels,
    backward: SharedPanels,
}

impl Repack<'_> {
    /// Packs the outputs of one panel.
    ///
    /// # Safety
    /// Nobody else writes what belongs to these outputs at the same time.
    unsafe fn panel(&self, panel: usize) {
        let mut square = Square([[0.0; PANEL]; PANEL]);
        let mut units = Groups([[0; PANEL]; PANEL]);
        let mut groups = Groups([[0; PANEL]; PANEL]);
        let count = PANEL / self.precision.group();
        for block in 0..self.columns.div_ceil(PANEL) {
            self.load(&mut square, panel, block);
            self.isa.run(Pair {
                precision: self.precision,
                square: &square,
                units: &mut units,
                groups: &mut groups,
            });
            // SAFETY: the groups of these outputs, of which the caller promises.
            unsafe {
                self.backward
                    .write(block, panel * count, &groups.0[..count]);
            }
            self.transpose(&units, &mut groups, count);
            // SAFETY: this panel, of which the caller promises.
            unsafe {
                self.forward.write(panel, block * count, &groups.0[..count]);
            }
        }
    }

    fn load(&self, square: &mut Square, panel: usize, block: usize) {
        let columns = block * PANEL..self.columns.min((block + 1) * PANEL);
        for (index, to) in square.0.iter_mut().enumerate() {
            let row = panel * PANEL + index;
            if row < self.rows {
                let from = &self.weights[row * self.columns..][columns.clone()];
                if let Ok(from) = <&[f32; PANEL]>::try_from(from) {
                    *to = *from;
                } else {
                    to[..from.len()].copy_from_slice(from);
                    to[from.len()..].fill(0.0);
                }
            } else {
                to.fill(0.0);
            }
        }
    }

    /// Turns 32 rows of `count` units into `count` groups.
    fn transpose(&self, units: &Groups, groups: &mut Groups, count: usize) {
        for row in (0..PANEL).step_by(SIDE) {
            let rows = &units.0[row..row + SIDE];
            for unit in (0..count).step_by(SIDE) {
                let rows: [*const i32; SIDE] = std::array::from_fn(|i| rows[i][unit..].as_ptr());
                let out = &mut groups.0.as_flattened_mut()[unit * PANEL + row..];
                // SAFETY: each row holds sixteen units from `unit` on, for `count` is 16 or 32.
                unsafe { transpose(self.isa, &rows, out, PANEL) };
            }
        }
    }
}

/// Makes units of the rows of a square, and groups of pairs of its rows; of f32, both are the square.
struct Pair<'a> {
    precision: Precision,
    square: &'a Square,
    units: &'a mut Groups,
    groups: &'a mut Groups,
}

impl Operation for Pair<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            square,
            units,
            groups,
            ..
        } = self;
        if self.precision == Precision::F32 {
            for (row, (units, group)) in square.0.iter().zip(units.0.iter_mut().zip(&mut groups.0))
            {
                *units = row.map(|x| x.to_bits() as i32);
                *group = *units;
            }
            return;
        }
        let mut narrow = [[bf16::ZERO; PANEL]; PANEL];
        for (row, narrow) in square.0.iter().zip(&mut narrow) {
            let vectors = row.chunks_exact(S::LANES);
            for (x, narrow) in vectors.zip(narrow.chunks_exact_mut(S::LANES)) {
                s.store_bf16(s.load(x), narrow);
            }
        }
        let unit = |low: bf16, high: bf16| {
            (u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16) as i32
        };
        for (row, units) in narrow.iter().zip(&mut units.0) {
            for (unit_of, pair) in units.iter_mut().zip(row.as_chunks::<2>().0) {
                *unit_of = unit(pair[0], pair[1]);
            }
        }
        for (rows, group) in narrow.as_chunks::<2>().0.iter().zip(&mut groups.0) {
            for (column, to) in group.iter_mut().enumerate() {
                *to = unit(rows[0][column], rows[1][column]);
            }
        }
    }
}
