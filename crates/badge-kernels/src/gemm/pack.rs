//! Weights in the order in which tiles read them.
//!
//! `W: [N, K]` is cut into panels of 32 outputs. Within a panel, group after group of inputs (one
//! f32, two bf16 or four i8: 32 bits) lies for all 32 outputs side by side:
//! `panel[group][output][input of the group]`. Outputs and inputs beyond the last are zero. The
//! layout is the same for every instruction set.

use half::bf16;

use super::Precision;
use super::tile::{GROUP_BYTES, PANEL, SCALED_GROUPS};
use crate::buffer::{Buffer, Zeroable};
use crate::isa::Isa;
use crate::simd::{Operation, Simd};

/// Tiles of a panel that ask for the next one.
pub(super) const TILES_PER_PANEL: usize = 2;

/// Inputs that share a scale.
const SCALED_INPUTS: usize = SCALED_GROUPS * 4;

/// Packed weights of one linear layer.
#[derive(Debug)]
pub struct PackedMatrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

/// The numbers.
#[derive(Debug)]
pub(super) enum Panels {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
    Int8 {
        values: Buffer<i8>,
        /// `w = scale * value`: `[panel][run of 64 inputs][output of the panel]`.
        scales: Buffer<f32>,
        /// Sum of `scale * value` of each output, for the zero points of the activations.
        weight_sums: Vec<f32>,
    },
}

impl PackedMatrix {
    /// Packs `weights: [outputs, inputs]`, the order of checkpoints. Int8 weights are symmetric for
    /// each output and 64 inputs: `scale = max |w| / 127`, values rounded to nearest even.
    ///
    /// # Panics
    /// When the length is not `outputs * inputs`.
    pub fn pack(weights: &[f32], outputs: usize, inputs: usize, precision: Precision) -> Self {
        assert_eq!(
            Some(weights.len()),
            outputs.checked_mul(inputs),
            "{outputs} x {inputs} weights"
        );
        let shape = Shape {
            outputs,
            inputs,
            group: precision.group(),
        };
        let panels = match precision {
            Precision::F32 => {
                Panels::F32(shape.pack(|output, input| weights[output * inputs + input]))
            }
            Precision::Bf16 => Panels::Bf16(
                shape.pack(|output, input| bf16::from_f32(weights[output * inputs + input])),
            ),
            Precision::Int8 => pack_int8(weights, shape),
        };
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// Weights that are all zero, to be [shared](Self::share) and written.
    ///
    /// # Panics
    /// For int8, whose scales come from the weights, and when no memory holds so many.
    pub(crate) fn zeros(outputs: usize, inputs: usize, precision: Precision) -> Self {
        let group = precision.group();
        let panels = outputs.div_ceil(PANEL);
        let numbers = panels
            .checked_mul(inputs.div_ceil(group))
            .and_then(|units| units.checked_mul(PANEL * group))
            .expect("the weights fit the address space");
        let panels = match precision {
            Precision::F32 => Panels::F32(Buffer::zeroed(numbers)),
            Precision::Bf16 => Panels::Bf16(Buffer::zeroed(numbers)),
            Precision::Int8 => panic!("int8 weights are packed once"),
        };
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// Access for threads that write disjoint groups, of f32 and bf16.
    pub(super) fn share(&mut self) -> SharedPanels {
        let (panels, groups) = (self.panels(), self.groups());
        let start = match &mut self.panels {
            Panels::F32(numbers) => numbers.as_mut_ptr().cast(),
            Panels::Bf16(numbers) => numbers.as_mut_ptr().cast(),
            Panels::Int8 { .. } => panic!("int8 weights are packed once"),
        };
        SharedPanels {
            start,
            panels,
            groups,
        }
    }

    /// Rows of `W`, `N`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of `W`, `K`.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The precision they were packed in.
    pub fn precision(&self) -> Precision {
        match self.panels {
            Panels::F32(_) => Precision::F32,
            Panels::Bf16(_) => Precision::Bf16,
            Panels::Int8 { .. } => Precision::Int8,
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => panels.bytes(),
            Panels::Bf16(panels) => panels.bytes(),
            Panels::Int8 {
                values,
                scales,
                weight_sums,
            } => values.bytes() + scales.bytes() + size_of_val(&weight_sums[..]),
        }
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Units of 32 bits along the inputs.
    pub(super) fn groups(&self) -> usize {
        self.inputs.div_ceil(self.precision().group())
    }

    pub(super) fn content(&self) -> &Panels {
        &self.panels
    }

    /// Where a panel starts.
    pub(super) fn panel(&self, index: usize) -> *const u8 {
        assert!(index < self.panels(), "panel {index} of {}", self.panels());
        self.address(index * self.groups() * GROUP_BYTES)
    }

    /// What tile `tile` over panel `panel` should ask for: the next panel's first half from the
    /// first tile, its second half from the second; later tiles find it in the cache.
    pub(super) fn ahead(&self, panel: usize, tile: usize) -> *const u8 {
        let bytes = self.groups() * GROUP_BYTES;
        self.address((panel + 1) * bytes + tile.min(1) * (bytes / 2))
    }

    /// Memory of the panels alone, in bytes.
    pub(super) fn panel_bytes(&self) -> usize {
        self.panels() * self.groups() * GROUP_BYTES
    }

    /// The scales of a panel, of int8 weights.
    pub(super) fn scales(&self, panel: usize) -> *const f32 {
        match &self.panels {
            Panels::Int8 { scales, .. } => {
                let runs = self.groups().div_ceil(SCALED_GROUPS);
                scales.as_ptr().wrapping_add(panel * runs * PANEL)
            }
            _ => std::ptr::null(),
        }
    }

    /// Byte `offset` of the panels, or behind them.
    fn address(&self, offset: usize) -> *const u8 {
        let start: *const u8 = match &self.panels {
            Panels::F32(panels) => panels.as_ptr().cast(),
            Panels::Bf16(panels) => panels.as_ptr().cast(),
            Panels::Int8 { values, .. } => values.as_ptr().cast(),
        };
        // The address may lie beyond the end: it is then only asked for, never read.
        start.wrapping_add(offset)
    }
}

/// Panels that several threads write at once, each its own groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedPanels {
    start: *mut [i32; PANEL],
    panels: usize,
    groups: usize,
}

// SAFETY: access goes through `write`, whose callers promise disjoint groups.
unsafe impl Send for SharedPanels {}
// SAFETY: access goes through `write`, whose callers promise disjoint groups.
unsafe impl Sync for SharedPanels {}

impl SharedPanels {
    /// Writes groups of one panel from group `first` on; those beyond the last are left out.
    ///
    /// # Safety
    /// The matrix is alive, and nobody else uses these groups at the same time.
    pub(super) unsafe fn write(&self, panel: usize, first: usize, groups: &[[i32; PANEL]]) {
        assert!(panel < self.panels && first <= self.groups);
        let count = groups.len().min(self.groups - first);
        // SAFETY: these groups lie inside the panels by the assert, and are plain numbers of 32 bits
        // at cache lines; the rest is the caller's promise.
        let to = unsafe {
            let to = self.start.add(panel * self.groups + first);
            std::slice::from_raw_parts_mut(to, count)
        };
        to.copy_from_slice(&groups[..count]);
    }
}

/// The sizes that decide the order.
#[derive(Debug, Clone, Copy)]
struct Shape {
    outputs: usize,
    inputs: usize,
    group: usize,
}

impl Shape {
    /// All numbers in packed order, from the weight of each output and input.
    fn pack<T: Zeroable>(self, weight: impl Fn(usize, usize) -> T) -> Buffer<T> {
        let groups = self.inputs.div_ceil(self.group);
        let panel_length = groups * PANEL * self.group;
        let mut packed = Buffer::zeroed(self.outputs.div_ceil(PANEL) * panel_length);
        if panel_length == 0 {
            return packed;
        }
        for (panel, numbers) in packed.chunks_exact_mut(panel_length).enumerate() {
            let outputs = panel * PANEL..self.outputs.min((panel + 1) * PANEL);
            for (group, numbers) in numbers.chunks_exact_mut(PANEL * self.group).enumerate() {
                let inputs = group * self.group..self.inputs.min((group + 1) * self.group);
                for (numbers, output) in numbers.chunks_exact_mut(self.group).zip(outputs.clone()) {
                    for (number, input) in numbers.iter_mut().zip(inputs.clone()) {
                        *number = weight(output, input);
                    }
                }
            }
        }
        packed
    }
}

fn pack_int8(weights: &[f32], shape: Shape) -> Panels {
    let Shape {
        outputs, inputs, ..
    } = shape;
    let runs = inputs.div_ceil(SCALED_INPUTS);
    let mut values = vec![0_u8; weights.len()];
    let mut scales = Buffer::zeroed(outputs.next_multiple_of(PANEL) * runs);
    let mut weight_sums = vec![0.0; outputs];
    for (output, sum) in weight_sums.iter_mut().enumerate() {
        let row = output * inputs..(output + 1) * inputs;
        let weights = weights[row.clone()].chunks(SCALED_INPUTS);
        for (run, (weights, values)) in weights
            .zip(values[row].chunks_mut(SCALED_INPUTS))
            .enumerate()
        {
            let scale = Isa::best().run(QuantiseWeights { weights, values });
            let place = (output / PANEL * runs + run) * PANEL + output % PANEL;
            scales[place] = scale;
            let integers: i32 = values.iter().map(|v| i32::from(signed(*v))).sum();
            *sum += scale * integers as f32;
        }
    }
    Panels::Int8 {
        values: shape.pack(|output, input| signed(values[output * inputs + input])),
        scales,
        weight_sums,
    }
}

/// The value that [`QuantiseWeights`] keeps as `value + 128`.
fn signed(byte: u8) -> i8 {
    (byte ^ 0x80) as i8
}

/// `round(w / scale) + 128` of one run of the weights of an output; returns the scale. Every
/// instruction set rounds alike.
struct QuantiseWeights<'a> {
    weights: &'a [f32],
    values: &'a mut [u8],
}

impl Operation for QuantiseWeights<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut largest = s.splat(0.0);
        for w in self.weights.chunks(S::LANES) {
            largest = s.max(largest, s.abs(s.load_part(w, 0.0)));
        }
        let largest = s.largest(largest);
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let rows = self.weights.chunks(S::LANES);
        for (w, value) in rows.zip(self.values.chunks_mut(S::LANES)) {
            let v = s.round(s.div(s.load_part(w, 0.0), s.splat(scale)));
            let v = s.min(s.max(v, s.splat(-127.0)), s.splat(127.0));
            s.store_u8(s.add(v, s.splat(128.0)), value);
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_panel_lie_side_by_side_and_the_rest_is_zero() {
        // 33 outputs x 3 inputs: a full panel and one of a single output; weight = 4 o + i.
        let weights: Vec<f32> = (0..99).map(|i| (i / 3 * 4 + i % 3) as f32).collect();
        let packed = PackedMatrix::pack(&weights, 33, 3, Precision::Bf16);
        let Panels::Bf16(numbers) = packed.content() else {
            panic!("packed as bf16")
        };
        assert_eq!(
            (packed.panels(), packed.groups(), numbers.len()),
            (2, 2, 256)
        );
        let number = |i: usize| numbers[i].to_f32();
        assert_eq!(
            [number(0), number(1), number(2), number(3)],
            [0.0, 1.0, 4.0, 5.0]
        );
        assert_eq!([number(64), number(65)], [2.0, 0.0]);
        assert_eq!([number(128), number(129), number(130)], [128.0, 129.0, 0.0]);
    }

    #[test]
    fn int8_weights_use_the_whole_range_of_each_run_of_each_output() {
        // Two outputs of 66 inputs: a run of 64 and one of 2.
        let mut weights = vec![0.0; 132];
        weights[..3].copy_from_slice(&[1.0, -2.0, 0.5]);
        weights[64] = 127.0;
        let packed = PackedMatrix::pack(&weights, 2, 66, Precision::Int8);
        let Panels::Int8 {
            values,
            scales,
            weight_sums,
        } = packed.content()
        else {
            panic!("packed as int8")
        };
        assert_eq!(values[..4], [64, -127, 32, 0]);
        assert_eq!(values[16 * PANEL * 4], 127);
        assert_eq!(scales[..2], [2.0 / 127.0, 1.0]);
        assert_eq!(scales[PANEL..PANEL + 2], [1.0, 1.0]);
        assert_eq!(
            weight_sums[..],
            [2.0 / 127.0 * (64 - 127 + 32) as f32 + 127.0, 0.0]
        );
    }
}
