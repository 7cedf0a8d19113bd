//! Our products beside the best libraries', in turns: `gemm` (f32) and `rten-gemm` (f32, int8; its
//! weights prepacked as ours are).
//!
//!     RAYON_NUM_THREADS=1 cargo bench -p badge-kernels --bench yardsticks -- 1 > record.json
//!
//! One JSON document: for each shape and precision the median microseconds of each side, taken in
//! alternation, and the ratio of the medians. Shapes are those of ALBERT-base and of 12x384.
#![allow(
    unsafe_code,
    clippy::print_stdout,
    reason = "a benchmark prints, and the library's entry point is an unsafe function"
)]

use std::time::Instant;

use badge_kernels::gemm::{Epilogue, Input, Output, PackedMatrix, Precision, gemm};
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::quantise::{QuantisedMatrix, quantise_rows};
use badge_kernels::threads::Pool;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, QuantParams};
use rten_tensor::NdTensorView;

const ROWS: [usize; 4] = [16, 32, 64, 128];
/// `(N, K)` of query, keys and values, both feed-forward products.
const SHAPES: [(usize, usize); 7] = [
    (768, 768),
    (1536, 768),
    (3072, 768),
    (768, 3072),
    (384, 384),
    (1536, 384),
    (384, 1536),
];
const RUNS: usize = 41;

/// Median microseconds of each of two functions, called in turns.
fn in_turns(mut ours: impl FnMut(), mut theirs: impl FnMut()) -> [f64; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for run in 0..RUNS + 2 {
        for (times, work) in times
            .iter_mut()
            .zip([&mut ours as &mut dyn FnMut(), &mut theirs])
        {
            let start = Instant::now();
            work();
            if run >= 2 {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// One product.
#[derive(Clone, Copy)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
}

/// f32 factors as libraries take them and as ours does.
struct Factors {
    x: Vec<f32>,
    w: Vec<f32>,
    rows: Matrix<f32>,
    packed: PackedMatrix,
}

impl Factors {
    fn new(Shape { m, n, k }: Shape) -> Self {
        let (x, w) = (vec![0.5; m * k], vec![0.25; n * k]);
        Self {
            rows: Matrix::from_rows(&x, k),
            packed: PackedMatrix::pack(&w, n, k, Precision::F32),
            x,
            w,
        }
    }

    /// Our product into `y`.
    fn ours<'a>(&'a self, pool: &'a Pool, y: &'a mut Matrix<f32>) -> impl FnMut() + 'a {
        let m = self.rows.row_count();
        move || {
            let input = Input::F32(self.rows.rows(m));
            let out = Output::F32(y.rows_mut(m));
            gemm(pool, input, &self.packed, &Epilogue::NONE, out);
        }
    }
}

struct Bench {
    pool: Pool,
    first: bool,
}

impl Bench {
    fn report(
        &mut self,
        library: &str,
        precision: Precision,
        shape: Shape,
        [ours, theirs]: [f64; 2],
    ) {
        let Shape { m, n, k } = shape;
        let comma = if self.first { "" } else { ",\n" };
        self.first = false;
        print!(
            "{comma}{{\"library\": \"{library}\", \"precision\": \"{precision}\", \"m\": {m}, \"n\": {n}, \
             \"k\": {k}, \"ours_us\": {ours:.2}, \"library_us\": {theirs:.2}, \"ratio\": {:.3}}}",
            theirs / ours
        );
    }

    fn f32_beside_gemm(&mut self, shape: Shape) {
        let Shape { m, n, k } = shape;
        let factors = Factors::new(shape);
        let Factors { x, w, .. } = &factors;
        let mut y = Matrix::<f32>::zeros(m, n);
        let mut out = vec![0.0_f32; m * n];
        let parallelism = match self.pool.threads() {
            1 => ::gemm::Parallelism::None,
            threads => ::gemm::Parallelism::Rayon(threads),
        };
        let [n_, k_] = [n, k].map(|size| size as isize);
        let library = || {
            // SAFETY: the three matrices have the sizes and strides that are passed.
            unsafe {
                ::gemm::gemm(
                    m,
                    n,
                    k,
                    out.as_mut_ptr(),
                    1,
                    n_,
                    false,
                    x.as_ptr(),
                    1,
                    k_,
                    w.as_ptr(),
                    k_,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
        };
        let times = in_turns(factors.ours(&self.pool, &mut y), library);
        self.report("gemm", Precision::F32, shape, times);
    }

    fn f32_beside_rten(&mut self, shape: Shape) {
        let Shape { m, n, k } = shape;
        let factors = Factors::new(shape);
        let Factors { x, w, .. } = &factors;
        let mut y = Matrix::<f32>::zeros(m, n);
        let executor = GemmExecutor::<f32>::new();
        let b = NdTensorView::from_data([n, k], &w[..]);
        let b = executor.prepack_b(b.transposed());
        let a = NdTensorView::from_data([m, k], &x[..]);
        let mut out = vec![0.0_f32; m * n];
        let library = || {
            let (a, b) = (GemmInputA::Unpacked(a), GemmInputB::Packed(&b));
            executor
                .gemm(&mut out, a, b, GemmOptions::default())
                .expect("shapes agree");
        };
        let times = in_turns(factors.ours(&self.pool, &mut y), library);
        self.report("rten-gemm", Precision::F32, shape, times);
    }

    fn int8(&mut self, shape: Shape) {
        let Shape { m, n, k } = shape;
        let w = vec![0.25_f32; n * k];
        let packed = PackedMatrix::pack(&w, n, k, Precision::Int8);
        let x = Matrix::from_rows(&vec![0.5_f32; m * k], k);
        let mut q = QuantisedMatrix::zeros(m, k);
        quantise_rows(&self.pool, x.rows(m), q.rows_mut(m));
        let mut y = Matrix::<f32>::zeros(m, n);
        let ours = || {
            let out = Output::F32(y.rows_mut(m));
            gemm(
                &self.pool,
                Input::Int8(q.rows(m)),
                &packed,
                &Epilogue::NONE,
                out,
            );
        };
        let executor = GemmExecutor::<u8, i8, i32>::new();
        let (bytes, weights) = (vec![200_u8; m * k], vec![127_i8; n * k]);
        let b = executor.prepack_b(NdTensorView::from_data([n, k], &weights[..]).transposed());
        let a = NdTensorView::from_data([m, k], &bytes[..]);
        let zero_points = vec![3_u8; m];
        let mut out = vec![0_i32; m * n];
        let library = || {
            let options = GemmOptions {
                a_quant: Some(QuantParams {
                    zero_point: &zero_points,
                }),
                ..GemmOptions::default()
            };
            let (a, b) = (GemmInputA::Unpacked(a), GemmInputB::Packed(&b));
            executor
                .gemm(&mut out, a, b, options)
                .expect("shapes agree");
        };
        let times = in_turns(ours, library);
        self.report("rten-gemm", Precision::Int8, shape, times);
    }
}

fn main() {
    let threads = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let threads = threads.unwrap_or(1);
    let isa = Isa::choose().expect("BADGE_ISA names an instruction set of this machine");
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    println!(
        "{{\"cpu\": \"{}\", \"isa\": \"{isa}\", \"threads\": {threads}, \"rows\": [",
        cpu.unwrap_or("unknown")
    );
    let mut bench = Bench {
        pool: Pool::new(isa, threads),
        first: true,
    };
    for m in ROWS {
        for (n, k) in SHAPES {
            bench.f32_beside_gemm(Shape { m, n, k });
            bench.f32_beside_rten(Shape { m, n, k });
            bench.int8(Shape { m, n, k });
        }
    }
    println!("\n]}}");
}
