//! Products of activations with packed weights: `Y = g(X Wᵀ + b) + R`.
//!
//! # How it is computed
//! Weights are packed once into *panels* of 32 outputs (module `pack`). A *tile* is up to eight
//! rows of `X` times one panel: its 8 x 32 sums stay in registers over the whole depth `K`
//! (modules `avx512`, `avx2`, `scalar`), then leave through the epilogue (module `epilogue`); those of
//! int8 visit memory after every run of inputs with one scale. `X` is
//! read where it lies: eight rows an odd number of cache lines apart need no packing. Threads share
//! the panels of a product, so that each weight is read by one core only.
//!
//! # Same result for every batch
//! Each element of `Y` is one chain of additions over `K` in ascending order, whatever the number of
//! rows, the height of the tile it falls in, or the number of threads. Neighbours change nothing,
//! not even the last bit.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use half::bf16;

use crate::activation::Activation;
#[cfg(target_arch = "x86_64")]
use crate::isa::Amx;
use crate::isa::Isa;
use crate::matrix::{Matrix, Rows, RowsMut, SharedRows};
use crate::quantise::QuantisedRows;
use crate::threads::{Pool, Task};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod epilogue;
mod pack;
mod parts;
pub(crate) mod repack;
mod scalar;
pub(crate) mod tile;

pub use pack::PackedMatrix;
use pack::Panels;

use epilogue::{Destination, Finish, Sums};
use parts::{Claims, Part, Parts, Share, is_worth_sharing, share};
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
    /// for memory, which the product leaves idle: so it asks for them on its way. Products of up to
    /// sixteen rows have no time to spare and ask for nothing.
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
        rows_max: tile::rows_max(pool.isa()),
        #[cfg(target_arch = "x86_64")]
        unit: match pool.isa() {
            Isa::Amx(amx) => Some(amx),
            _ => None,
        },
    };
    let row_bytes = padded * size_of::<f32>() / precision.group();
    let parts = Parts::of([m, weights.panels()], row_bytes, pool.threads());
    let claims = Claims::of(&parts);
    pool.run(parts.count(), &|task: Task| {
        // SAFETY: `parts` splits rows and panels into disjoint parts, and each is claimed once.
        unsafe { product.compute(&parts.part(claims.claim(task.worker))) }
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

/// Where weights lie that a later operation reads: addresses to ask for, never read through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upcoming {
    address: usize,
    /// Bytes of a piece that one thread reads.
    piece: usize,
    pieces: usize,
    /// Whether all threads will read it, each its share, or the caller alone.
    is_shared: bool,
}

impl Upcoming {
    /// Addresses and bytes of what one thread will read.
    fn of(&self, part: &Share) -> Range<usize> {
        let pieces = if self.is_shared {
            share(self.pieces, part.shares, part.index)
        } else if part.index == 0 {
            0..self.pieces
        } else {
            0..0
        };
        self.address + pieces.start * self.piece..self.address + pieces.end * self.piece
    }
}

impl From<&PackedMatrix> for Upcoming {
    fn from(weights: &PackedMatrix) -> Self {
        let pieces = weights.panels();
        Self {
            address: weights.panel(0).addr(),
            piece: weights.panel_bytes() / pieces.max(1),
            pieces,
            is_shared: is_worth_sharing(1, pieces, weights.groups()),
        }
    }
}

impl From<&Matrix<f32>> for Upcoming {
    fn from(weights: &Matrix<f32>) -> Self {
        Self {
            address: weights.row(0).as_ptr().addr(),
            piece: weights.bytes(),
            pieces: 1,
            is_shared: false,
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes of input beyond which its rows pass through the first-level cache anew for every panel.
const INPUT_IN_FIRST_LEVEL: usize = 64 << 10;

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
    rows: Range<usize>,
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
    wide: Option<&'static [TileFunction; WIDE]>,
    rows_max: usize,
    /// The tile unit, where it computes this product.
    #[cfg(target_arch = "x86_64")]
    unit: Option<Amx>,
}

impl Product<'_> {
    /// Computes `rows` x `panels` of the output.
    ///
    /// # Safety
    /// No other thread writes these rows and panels at the same time.
    unsafe fn compute(&self, part: &Part) {
        let Part { rows, panels, .. } = part;
        #[cfg(target_arch = "x86_64")]
        if let Some(amx) = self.unit
            && amx::is_for(self.weights.precision(), rows.len())
        {
            // SAFETY: the caller's promise.
            unsafe { self.compute_with_unit(amx, part) };
            return;
        }
        let mut buffer = tile::Buffer::new();
        if let (1, Some(wide)) = (rows.len(), self.wide) {
            let groups = panels.len().div_ceil(WIDE);
            for group in 0..groups {
                let abreast = share(panels.len(), groups, group);
                let abreast = panels.start + abreast.start..panels.start + abreast.end;
                let place = Place {
                    first: rows.start,
                    panel: abreast.start,
                    index: 0,
                    tiles: 1,
                };
                let tile = self.tile(&place, part, &mut buffer);
                // SAFETY: as below; there are as many panels as the function takes, and the buffer
                // has a row for each.
                unsafe { (wide[abreast.len() - 1])(&tile) };
                for (index, panel) in abreast.enumerate() {
                    let done = Done {
                        rows: rows.clone(),
                        panel,
                        first: index,
                    };
                    // SAFETY: the caller's promise.
                    unsafe { self.finish(&buffer, &done) };
                }
            }
            return;
        }
        let asks_for_output = self.output_may_be_far(rows.len());
        let tiles = rows.len().div_ceil(self.rows_max);
        for panel in panels.clone() {
            for index in 0..tiles {
                // Tiles of even height: 8 + 8 + 1 rows would waste most of the last one.
                let height = share(rows.len(), tiles, index);
                let height = rows.start + height.start..rows.start + height.end;
                let place = Place {
                    first: height.start,
                    panel,
                    index,
                    tiles,
                };
                if asks_for_output {
                    self.ask_for_output(&height, panel);
                }
                let tile = self.tile(&place, part, &mut buffer);
                // SAFETY: `tiles` belongs to the pool's instruction set, which the machine has; the
                // tile's `height.len()` rows and its panel hold `groups` groups, and `buffer` has room
                // for the highest tile.
                unsafe { (self.tiles[height.len() - 1])(&tile) };
                let done = Done {
                    rows: height,
                    panel,
                    first: 0,
                };
                // SAFETY: the caller's promise.
                unsafe { self.finish(&buffer, &done) };
            }
        }
    }

    /// The same with the tile unit. Its tiles are laid out once: all are of one height, and where the
    /// rows are no multiple of that, each begins with a few rows of the one before, which come out
    /// the same.
    ///
    /// # Safety
    /// As [`Self::compute`].
    #[cfg(target_arch = "x86_64")]
    unsafe fn compute_with_unit(&self, amx: Amx, part: &Part) {
        let mut buffers = [const { tile::Buffer::new() }; amx::STRIP];
        let precision = self.weights.precision();
        let Part { rows, panels, .. } = part;
        let tiles = rows.len().div_ceil(amx::ROWS_MAX);
        let height = rows.len().div_ceil(tiles);
        let unit = amx::Unit::new(amx, precision, height);
        for panel in panels.clone().step_by(amx::STRIP) {
            let strip = panel..panels.end.min(panel + amx::STRIP);
            for index in 0..tiles {
                let new =
                    rows.start + index * height..rows.end.min(rows.start + (index + 1) * height);
                let first = new.start.min(rows.end - height);
                let place = Place {
                    first,
                    panel,
                    index,
                    tiles,
                };
                let (start, stride) = self.input.address();
                let block = amx::Block {
                    groups: self.weights.groups(),
                    input: start.wrapping_add(first * stride),
                    input_stride: stride,
                    panel: self.weights.panel(panel),
                    panels: strip.len(),
                    scales: self.weights.scales(panel),
                    ahead: self.upcoming(&place, &part.share, 0),
                    sums: buffers.as_mut_ptr(),
                };
                // SAFETY: the unit is laid out for `height` rows, which exist from `first` on; panels
                // and their scales lie one after the other and hold `groups` groups; there is a
                // buffer for each.
                unsafe { unit.sums(&block) };
                for (buffer, panel) in buffers.iter().zip(strip.clone()) {
                    let done = Done {
                        rows: new.clone(),
                        panel,
                        first: new.start - first,
                    };
                    // SAFETY: the caller's promise.
                    unsafe { self.finish(buffer, &done) };
                }
            }
        }
    }

    /// Whether stores to the output wait long enough to hold up the next tile. They leave in order,
    /// and in int8 so do a tile's totals behind them, which the tile reads again. Measured on Zen 5,
    /// one thread, N x K = 768 x 768: with 128 rows (98 KB, beyond the first-level cache) asking for
    /// the lines takes a product from 66 % of the peak to 75 %, with 64 it changes nothing, and below,
    /// as in f32 and bf16, it costs 2 to 4 % at K = 384.
    fn output_may_be_far(&self, rows: usize) -> bool {
        let row_bytes = self.weights.groups() * size_of::<f32>();
        self.weights.precision() == Precision::Int8 && rows * row_bytes > INPUT_IN_FIRST_LEVEL
    }

    /// Asks for what the epilogue of a tile will meet, while the tile computes.
    #[inline(always)]
    fn ask_for_output(&self, rows: &Range<usize>, panel: usize) {
        let columns = self.columns(panel);
        for row in rows.clone() {
            self.destination.ask_for(row, &columns);
            if let Some(residual) = &self.epilogue.residual {
                residual.ask_for(row, &columns);
            }
        }
    }

    /// The outputs of a panel.
    fn columns(&self, panel: usize) -> Range<usize> {
        panel * PANEL..((panel + 1) * PANEL).min(self.weights.outputs())
    }

    fn tile(&self, place: &Place, part: &Part, buffer: &mut tile::Buffer) -> Tile {
        let (start, stride) = self.input.address();
        Tile {
            groups: self.weights.groups(),
            // Row `first` exists; `gemm` has checked count, columns and padding.
            input: start.wrapping_add(place.first * stride),
            input_stride: stride,
            panel: self.weights.panel(place.panel),
            ahead: self.ahead(place, &part.share),
            scales: self.weights.scales(place.panel),
            sums: buffer.as_mut_ptr(),
        }
    }

    /// What a tile asks for while it computes. The first two tiles of a panel ask for the next
    /// panel; the others would find it in the cache already, so the last of them in the share ask
    /// for what its thread multiplies after the product, a line a group.
    fn ahead(&self, place: &Place, share: &Share) -> *const u8 {
        self.upcoming(place, share, pack::TILES_PER_PANEL)
            .unwrap_or_else(|| self.weights.ahead(place.panel, place.index))
    }

    /// What a tile asks for of what comes after the product, where the first `busy` tiles of each
    /// panel ask for nothing.
    fn upcoming(&self, place: &Place, share: &Share, busy: usize) -> Option<*const u8> {
        let spare = place.index.checked_sub(busy)?;
        let per_panel = place.tiles - busy;
        let to_come = (share.panels.end - place.panel) * per_panel - spare;
        // Without inputs there is no group, and nothing is asked for.
        let piece_bytes = self.weights.groups().max(1) * LINE;
        let mut behind = 0;
        for upcoming in self.epilogue.next.iter().rev() {
            let upcoming = upcoming.of(share);
            let pieces = upcoming.len().div_ceil(piece_bytes);
            if to_come <= behind + pieces {
                let offset = (behind + pieces - to_come) * piece_bytes;
                return Some(std::ptr::without_provenance(upcoming.start + offset));
            }
            behind += pieces;
        }
        None
    }

    /// Writes a tile's sums to the output.
    ///
    /// # Safety
    /// As [`Self::compute`].
    unsafe fn finish(&self, buffer: &tile::Buffer, done: &Done) {
        let Done { rows, panel, first } = done;
        let columns = self.columns(*panel);
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
