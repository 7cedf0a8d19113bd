//! The products of a training step beside the machine's measured peak.
//!
//!     cargo bench -p badge-kernels --bench training_products -- 1 > record.json
//!
//! One JSON document: for each shape and precision the median microseconds of `Y = X Wᵀ`,
//! `dX = dY W`, `dW += dYᵀ X`, the bias's gradient and the packing of the weights, and the share of
//! the peak that the three products reach. Shapes are those of ALBERT-base and of 12x384 with 1024
//! tokens; the argument is the number of threads.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use badge_kernels::bf16;
use badge_kernels::gemm::{Epilogue, Input, Output, PackedMatrix, Precision, gemm};
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::peak::{Peak, measure};
use badge_kernels::threads::Pool;
use badge_kernels::training::Factor;
use badge_kernels::training::products::{GradientScratch, TrainedMatrix, weight_gradient};
use badge_kernels::training::reductions::bias_gradient;

const TOKENS: usize = 1024;
/// `(N, K)`.
const SHAPES: [(usize, usize); 6] = [
    (768, 768),
    (3072, 768),
    (768, 3072),
    (384, 384),
    (1536, 384),
    (384, 1536),
];
const RUNS: usize = 15;

/// Median microseconds of a call.
fn time(mut work: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    for run in 0..RUNS + 2 {
        let start = Instant::now();
        work();
        if run >= 2 {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Rows in both precisions.
struct Rows {
    f32: Matrix<f32>,
    bf16: Matrix<bf16>,
}

impl Rows {
    fn new(columns: usize) -> Self {
        let number = |i: usize| (i % 251) as f32 / 128.0 - 1.0;
        let numbers: Vec<f32> = (0..TOKENS * columns).map(number).collect();
        let narrow: Vec<bf16> = numbers.iter().copied().map(bf16::from_f32).collect();
        Self {
            f32: Matrix::from_rows(&numbers, columns),
            bf16: Matrix::from_rows(&narrow, columns),
        }
    }

    fn input(&self, precision: Precision) -> Input<'_> {
        match precision {
            Precision::Bf16 => Input::Bf16(self.bf16.rows(TOKENS)),
            _ => Input::F32(self.f32.rows(TOKENS)),
        }
    }

    fn factor(&self, precision: Precision) -> Factor<'_> {
        match precision {
            Precision::Bf16 => Factor::Bf16(self.bf16.rows(TOKENS)),
            _ => Factor::F32(self.f32.rows(TOKENS)),
        }
    }
}

/// One shape in one precision, as a line of JSON.
fn report(pool: &Pool, precision: Precision, (n, k): (usize, usize), peak: f64) -> String {
    let (x, dy) = (Rows::new(k), Rows::new(n));
    let weights = vec![0.01; n * k];
    let mut matrix = TrainedMatrix::new(n, k, precision);
    let pack = time(|| matrix.pack(pool, &weights));
    let product = |input: &Rows, packed: &PackedMatrix| {
        let mut out = Matrix::<f32>::zeros(TOKENS, packed.outputs());
        time(|| {
            let out = Output::F32(out.rows_mut(TOKENS));
            gemm(pool, input.input(precision), packed, &Epilogue::NONE, out);
        })
    };
    let forward = product(&x, matrix.forward());
    let backward = product(&dy, matrix.backward());
    let mut scratch = GradientScratch::new(pool);
    let mut gradient = vec![0.0; n * k];
    let (left, right) = (dy.factor(precision), x.factor(precision));
    let weight = time(|| weight_gradient(pool, left, right, &mut scratch, &mut gradient));
    let mut sums = vec![0.0; n];
    let bias = time(|| bias_gradient(pool, left, &mut sums));
    let share = |us: f64| (2 * TOKENS * n * k) as f64 / us / 1e3 / peak;
    format!(
        "{{\"precision\": \"{precision}\", \"tokens\": {TOKENS}, \"n\": {n}, \"k\": {k}, \
         \"forward_us\": {forward:.1}, \"backward_us\": {backward:.1}, \"weight_us\": {weight:.1}, \
         \"bias_us\": {bias:.1}, \"pack_us\": {pack:.1}, \"forward_share\": {:.3}, \
         \"backward_share\": {:.3}, \"weight_share\": {:.3}}}",
        share(forward),
        share(backward),
        share(weight)
    )
}

fn main() {
    let threads = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let isa = Isa::choose().expect("BADGE_ISA names an instruction set of this machine");
    let pool = Pool::new(isa, threads.unwrap_or(1));
    println!(
        "{{\"isa\": \"{isa}\", \"threads\": {}, \"shapes\": [",
        pool.threads()
    );
    let f32 = measure(&pool, Peak::MultiplyAddF32).expect("every machine multiplies");
    let mut lines = Vec::new();
    for (precision, peak) in [
        (Precision::F32, f32),
        (
            Precision::Bf16,
            measure(&pool, Peak::DotBf16).unwrap_or(f32),
        ),
    ] {
        for shape in SHAPES {
            lines.push(report(&pool, precision, shape, peak));
        }
    }
    println!("{}\n]}}", lines.join(",\n"));
}
