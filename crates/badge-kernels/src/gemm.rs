//! Products of activations with packed weights: `Y = g(X Wᵀ + b) + R`.
//!
//! # How it is computed
//! Weights are packed once into *panels* of 32 outputs (module `pack`). A *tile* is up to eight
//! rows of `X` times one panel: its 8 x 32 sums stay in registers over the whole depth `K`
//! (modules `avx512`, `avx2`, `scalar`), then leave through the epilogue (module `epilogue`). `X` is
//! read where it lies: eight rows an odd number of cache lines apart need no packing. Threads share
//! the panels of a product, so that each weight is read by one core only.
//!
//! # Same result for every batch
//! Each element of `Y` is one chain of additions over `K` in ascending order, whatever the number of
//! rows, the height of the tile it falls in, or the number of threads. Neighbours change nothing,
//! not even the last bit.

use std::fmt;
use std::str::FromStr;

use half::bf16;

use crate::activation::Activation;
use crate::isa::Isa;
use crate::matrix::{Matrix, Rows, RowsMut, SharedRows};
use crate::quantise::QuantisedRows;
use crate::threads::{Pool, Task};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod epilogue;
mod pack;
pub(crate) mod repack;
mod scalar;
pub(crate) mod tile;

pub use pack::PackedMatrix;
use pack::Panels;

use epilogue::{Destination, Finish, Sums};
use tile::{PANEL, TILE_ROWS, Tile, TileFunction, WIDE};

/// The numbers that a product multiplies; sums are f32, of int8 exact integers over 64 inputs and f32
/// over these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// f32 weights and activations.
    F32,
    /// bf16 weights and activations, f32 sums.
    Bf16,
    /// i8 weights with a scale for each output and 64 inputs, u8 activations with a scale and zero
    /// point per row.
    Int8,
}

impl Precision {
    /// All of them, the most precise first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Its name, as flags and records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Inputs that share a 32-bit unit of a panel.
    fn group(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A precision that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not f32, bf16 or int8")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let mut all = Self::ALL.into_iter();
        all.find(|precision| precision.name() == name)
            .ok_or_else(|| UnknownPrecision(name.to_owned()))
    }
}

/// The left factor `X: [M, K]`, in the precision of the weights.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// For f32 weights.
    F32(Rows<'a, f32>),
    /// For bf16 weights.
    Bf16(Rows<'a, bf16>),
    /// For int8 weights.
    Int8(QuantisedRows<'a>),
}

/// Where `Y: [M, N]` goes.
#[derive(Debug)]
pub enum Output<'a> {
    /// As it was computed.
    F32(RowsMut<'a, f32>),
    /// Rounded to the nearest bf16.
    Bf16(RowsMut<'a, bf16>),
}

/// What happens to the sums before they are written, and what comes after them.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// `b: [N]`, added first.
    pub bias: Option<&'a [f32]>,
    /// `g`, applied next.
    pub activation: Activation,
    /// `R: [M, N]`, added last.
    pub residual: Option<Rows<'a, f32>>,
    /// Weights that the operations after the product read. A single row that meets them would wait
    /// for memory, which the product leaves idle: so it asks for them on its way. Products of fewer
    /// than three tiles of rows have no time to spare and ask for nothing.
    pub next: &'a [Upcoming],
}

impl Epilogue<'_> {
    /// The bare product.
    pub const NONE: Self = Self {
        bias: None,
        activation: Activation::Identity,
        residual: None,
        next: &[],
    };
}

impl Input<'_> {
    fn precision(&self) -> Precision {
        match self {
            Self::F32(_) => Precision::F32,
            Self::Bf16(_) => Precision::Bf16,
            Self::Int8(_) => Precision::Int8,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::F32(rows) => rows.count(),
            Self::Bf16(rows) => rows.count(),
            Self::Int8(rows) => rows.values.count(),
        }
    }

    /// Whether rows of `columns` elements may be read up to `padded` elements.
    fn fits(&self, columns: usize, padded: usize) -> bool {
        match self {
            Self::F32(x) => x.columns() == columns && x.is_padded_to(padded),
            Self::Bf16(x) => x.columns() == columns && x.is_padded_to(padded),
            Self::Int8(x) => x.values.columns() == columns && x.values.is_padded_to(padded),
        }
    }

    /// The first element of row 0 and the bytes from one row to the next.
    fn address(&self) -> (*const u8, usize) {
        fn of<T>(rows: &Rows<'_, T>) -> (*const u8, usize) {
            let bytes = rows.stride() * size_of::<T>();
            (rows.elements().as_ptr().cast(), bytes)
        }
        match self {
            Self::F32(rows) => of(rows),
            Self::Bf16(rows) => of(rows),
            Self::Int8(rows) => of(&rows.values),
        }
    }
}

/// `Y = g(X Wᵀ + b) + R`.
///
/// # Shapes
/// `X: [M, K]`, `W: [N, K]`, `b: [N]`, `R` and `Y: [M, N]`.
///
/// # Accuracy
/// f32: sums in f32, so within `2⁻²⁴ (K + 4) Σ|x w|` of the exact product. bf16: the same for the
/// rounded factors. int8: the integer sums over 64 inputs are exact on every instruction set; they
/// are scaled, added and freed of the zero point in f32, within `2⁻²⁴ (K / 64 + 4) s Σ(q + z)|w|`
/// for a row of scale `s` and zero point `z`.
///
/// # Panics
/// When shapes or precisions disagree.
pub fn gemm(
    pool: &Pool,
    input: Input<'_>,
    weights: &PackedMatrix,
    epilogue: &Epilogue<'_>,
    mut output: Output<'_>,
) {
    let (m, n, k) = (input.count(), weights.outputs(), weights.inputs());
    let precision = weights.precision();
    assert_eq!(
        input.precision(),
        precision,
        "activations and weights differ"
    );
    let padded = k.next_multiple_of(precision.group());
    assert!(
        input.fits(k, padded),
        "rows of other than {k} inputs, or cut from wider ones"
    );
    if let Input::Int8(x) = &input {
        assert!(
            x.scales.len() == m && x.zero_points.len() == m,
            "a scale and a zero point for each of {m} rows"
        );
    }
    assert!(
        epilogue.bias.is_none_or(|bias| bias.len() == n),
        "bias of {n}"
    );
    assert!(
        epilogue
            .residual
            .is_none_or(|r| r.count() == m && r.columns() == n),
        "residual of {m} x {n}"
    );
    let destination = match &mut output {
        Output::F32(rows) => Destination::F32(checked(rows, m, n)),
        Output::Bf16(rows) => Destination::Bf16(checked(rows, m, n)),
    };
    let product = Product {
        input,
        weights,
        epilogue,
        destination,
        isa: pool.isa(),
        tiles: tile::functions(pool.isa(), precision),
        wide: tile::wide(pool.isa(), precision),
        rows_max: tile::rows_max(pool.isa(), precision),
    };
    let parts = Parts::of(
        m,
        padded * size_of::<f32>() / precision.group(),
        weights.panels(),
        pool,
    );
    pool.run(parts.count(), &|task: Task| {
        // SAFETY: `parts` splits rows and panels into disjoint parts, one a task.
        unsafe { product.compute(&parts.rows(task.index), &parts.panels(task.index)) }
    });
}

/// The rows to write, checked to be `m` x `n`.
fn checked<T>(rows: &mut RowsMut<'_, T>, m: usize, n: usize) -> SharedRows<T> {
    assert_eq!(
        (rows.count(), rows.columns()),
        (m, n),
        "output of another shape"
    );
    rows.share()
}

/// How the rows and panels of one product are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    rows: usize,
    /// Parts that the rows are cut into.
    down: usize,
    panels: usize,
    /// Parts that the panels are cut into.
    across: usize,
}

/// Bytes of activations that stay in a core's second-level cache beside the panel in use: half of
/// the 1 MiB of Zen 4 and 5, a quarter of the 2 MiB of Sapphire Rapids.
const ROWS_IN_CACHE: usize = 512 << 10;

/// Multiply-adds below which a product is not split: the caller is done before others have joined.
const WORK_WORTH_SHARING: usize = 64 << 10;

/// Parts per thread: enough that a core which lost time to something else is relieved by the other,
/// few enough that claiming them costs nothing.
const PARTS_PER_THREAD: usize = 4;

impl Parts {
    fn of(rows: usize, row_bytes: usize, panels: usize, pool: &Pool) -> Self {
        let rows_in_cache = (ROWS_IN_CACHE / row_bytes.max(1)).max(TILE_ROWS);
        let threads = pool.threads();
        let work = rows * panels * PANEL * (row_bytes / size_of::<f32>());
        let wanted = if threads == 1 || work < WORK_WORTH_SHARING {
            1
        } else {
            threads * PARTS_PER_THREAD
        };
        let down = rows.div_ceil(rows_in_cache);
        Self {
            rows,
            down,
            panels,
            across: wanted.min(panels),
        }
    }

    fn count(&self) -> usize {
        self.down * self.across
    }

    fn rows(&self, task: usize) -> std::ops::Range<usize> {
        // Whole tiles of eight rows, so that few parts end in a low one.
        let tiles = self.rows.div_ceil(TILE_ROWS);
        let part = share(tiles, self.down, task / self.across);
        part.start * TILE_ROWS..(part.end * TILE_ROWS).min(self.rows)
    }

    fn panels(&self, task: usize) -> std::ops::Range<usize> {
        share(self.panels, self.across, task % self.across)
    }
}

/// Part `index` of `0..total` split into `parts` parts whose sizes differ by at most one.
fn share(total: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

/// Where weights lie that a later operation reads: an address to ask for, never read through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upcoming {
    address: usize,
    bytes: usize,
}

impl From<&PackedMatrix> for Upcoming {
    fn from(weights: &PackedMatrix) -> Self {
        Self {
            address: weights.panel(0).addr(),
            bytes: weights.panel_bytes(),
        }
    }
}

impl From<&Matrix<f32>> for Upcoming {
    fn from(weights: &Matrix<f32>) -> Self {
        Self {
            address: weights.row(0).as_ptr().addr(),
            bytes: weights.bytes(),
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Where a tile lies.
struct Place {
    /// Its first row.
    first: usize,
    panel: usize,
    /// Which of the tiles of its panel.
    index: usize,
    /// How many these are.
    tiles: usize,
}

/// A tile whose sums are in the buffer.
struct Done {
    /// Rows of the output.
    rows: std::ops::Range<usize>,
    panel: usize,
    /// The row of the buffer that holds the first row's sums.
    first: usize,
}

/// One product under way.
struct Product<'a> {
    input: Input<'a>,
    weights: &'a PackedMatrix,
    epilogue: &'a Epilogue<'a>,
    destination: Destination,
    isa: Isa,
    tiles: &'static [TileFunction; TILE_ROWS],
    wide: Option<TileFunction>,
    rows_max: usize,
}

impl Product<'_> {
    /// Computes `rows` x `panels` of the output.
    ///
    /// # Safety
    /// No other thread writes these rows and panels at the same time.
    unsafe fn compute(&self, rows: &std::ops::Range<usize>, panels: &std::ops::Range<usize>) {
        let mut buffer = tile::Buffer::new();
        let mut panels = panels.clone();
        if let (1, Some(wide)) = (rows.len(), self.wide) {
            while panels.len() >= WIDE {
                let place = Place {
                    first: rows.start,
                    panel: panels.start,
                    index: 0,
                    tiles: 1,
                };
                let tile = self.tile(&place, &mut buffer);
                // SAFETY: as below; there are `WIDE` panels from `panels.start` on, and the buffer
                // has a row for each.
                unsafe { wide(&tile) };
                for index in 0..WIDE {
                    let done = Done {
                        rows: rows.clone(),
                        panel: panels.start + index,
                        first: index,
                    };
                    // SAFETY: the caller's promise.
                    unsafe { self.finish(&buffer, &done) };
                }
                panels.start += WIDE;
            }
        }
        let tiles = rows.len().div_ceil(self.rows_max);
        for panel in panels {
            for index in 0..tiles {
                // Tiles of even height: 8 + 8 + 1 rows would waste most of the last one.
                let part = share(rows.len(), tiles, index);
                let part = rows.start + part.start..rows.start + part.end;
                let place = Place {
                    first: part.start,
                    panel,
                    index,
                    tiles,
                };
                let tile = self.tile(&place, &mut buffer);
                // SAFETY: `tiles` belongs to the pool's instruction set, which the machine has; the
                // tile's `part.len()` rows and its panel hold `groups` groups, and `buffer` has room
                // for the highest tile.
                unsafe { (self.tiles[part.len() - 1])(&tile) };
                let done = Done {
                    rows: part,
                    panel,
                    first: 0,
                };
                // SAFETY: the caller's promise.
                unsafe { self.finish(&buffer, &done) };
            }
        }
    }

    fn tile(&self, place: &Place, buffer: &mut tile::Buffer) -> Tile {
        let (start, stride) = self.input.address();
        Tile {
            groups: self.weights.groups(),
            // Row `first` exists; `gemm` has checked count, columns and padding.
            input: start.wrapping_add(place.first * stride),
            input_stride: stride,
            panel: self.weights.panel(place.panel),
            ahead: self.ahead(place),
            scales: self.weights.scales(place.panel),
            sums: buffer.as_mut_ptr(),
        }
    }

    /// What a tile asks for while it computes. The first two tiles of a panel ask for the next
    /// panel; the others would find it in the cache already, so the last of them in the product ask
    /// for what comes after it, a line a group.
    fn ahead(&self, place: &Place) -> *const u8 {
        let own = self.weights.ahead(place.panel, place.index);
        let Some(spare) = place.index.checked_sub(pack::TILES_PER_PANEL) else {
            return own;
        };
        let per_panel = place.tiles - pack::TILES_PER_PANEL;
        let to_come = (self.weights.panels() - place.panel) * per_panel - spare;
        // Without inputs there is no group, and nothing is asked for.
        let piece_bytes = self.weights.groups().max(1) * LINE;
        let mut behind = 0;
        for upcoming in self.epilogue.next.iter().rev() {
            let pieces = upcoming.bytes.div_ceil(piece_bytes);
            if to_come <= behind + pieces {
                let offset = (behind + pieces - to_come) * piece_bytes;
                return std::ptr::without_provenance(upcoming.address + offset);
            }
            behind += pieces;
        }
        own
    }

    /// Writes a tile's sums to the output.
    ///
    /// # Safety
    /// As [`Self::compute`].
    unsafe fn finish(&self, buffer: &tile::Buffer, done: &Done) {
        let Done { rows, panel, first } = done;
        let columns = panel * PANEL..((panel + 1) * PANEL).min(self.weights.outputs());
        let sums = match (&self.input, self.weights.content()) {
            (Input::Int8(input), Panels::Int8 { weight_sums, .. }) => Sums::Quantised {
                weight_sums: &weight_sums[columns.clone()],
                scales: &input.scales[rows.clone()],
                zero_points: &input.zero_points[rows.clone()],
            },
            _ => Sums::Plain,
        };
        let finish = Finish {
            buffer,
            sums,
            first: *first,
            rows: rows.clone(),
            bias: self.epilogue.bias.map(|bias| &bias[columns.clone()]),
            residual: self.epilogue.residual.map(|r| r.slice(columns.clone())),
            columns,
            destination: self.destination,
        };
        // SAFETY: the caller's promise.
        unsafe { finish.run(self.isa, self.epilogue.activation) }
    }
}
