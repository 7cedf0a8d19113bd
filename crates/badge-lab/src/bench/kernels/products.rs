//! The products of a block with its packed weights.

use badge_engine::kernels::activation::Activation;
use badge_engine::kernels::bf16;
use badge_engine::kernels::gemm::{Epilogue, Input, Output, PackedMatrix, Precision, gemm};
use badge_engine::kernels::matrix::Matrix;
use badge_engine::kernels::quantise::{QuantisedMatrix, quantise_rows};
use badge_engine::kernels::threads::Pool;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::timing::{Times, in_turns};
use super::{BlockSizes, KernelBench, KernelRow};

/// One linear layer.
struct Layer {
    kernel: &'static str,
    weights: PackedMatrix,
    bias: Vec<f32>,
    activation: Activation,
    input: Activations,
    output: Matrix<f32>,
}

/// Rows in the precision of the weights.
enum Activations {
    F32(Matrix<f32>),
    Bf16(Matrix<bf16>),
    Int8(QuantisedMatrix),
}

/// Times the products of a block over `m` tokens in turns, first without the non-linearity, then
/// the one layer that has it as a model runs it.
pub(super) fn time(
    bench: &KernelBench<'_>,
    sizes: &BlockSizes,
    precision: Precision,
    m: usize,
) -> Vec<KernelRow> {
    let mut layers = Layer::of_block(bench.pool, sizes, precision, m);
    let mut rows = time_layers(bench, sizes, (&mut layers, m));
    for layer in &mut layers {
        if layer.kernel == FEED_FORWARD_IN {
            layer.kernel = "feed-forward in, activated";
            layer.activation = sizes.activation;
        }
    }
    let again = time_layers(bench, sizes, (&mut layers, m)).into_iter();
    rows.extend(again.zip(&layers).filter_map(|(row, layer)| {
        let activated = layer.activation != Activation::Identity;
        activated.then_some(row)
    }));
    rows
}

fn time_layers(
    bench: &KernelBench<'_>,
    sizes: &BlockSizes,
    (layers, m): (&mut [Layer], usize),
) -> Vec<KernelRow> {
    let times = in_turns(layers.len(), bench.repeats, |layer| {
        layers[layer].run(bench.pool, m);
        Ok(())
    });
    let times = times.expect("products do not fail");
    let rows = layers.iter().zip(&times);
    rows.map(|(layer, times)| layer.row(bench, sizes, (m, times)))
        .collect()
}

const FEED_FORWARD_IN: &str = "feed-forward in";

impl Layer {
    fn of_block(pool: &Pool, sizes: &BlockSizes, precision: Precision, m: usize) -> Vec<Self> {
        let (d, f) = (sizes.hidden, sizes.intermediate);
        let mut shapes = vec![
            ("keys, values", 2 * d, d),
            ("queries", d, d),
            ("attention output", d, d),
            (FEED_FORWARD_IN, f, d),
            ("feed-forward out", d, f),
        ];
        if let Some(embedding) = sizes.embedding {
            shapes.insert(0, ("embedding mapping", d, embedding));
        }
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let layer = |(kernel, n, k): (_, usize, usize)| {
            let mut numbers = |count: usize, range: f32| -> Vec<f32> {
                (0..count)
                    .map(|_| random.random_range(-range..range))
                    .collect()
            };
            Self {
                kernel,
                weights: PackedMatrix::pack(&numbers(n * k, 0.05), n, k, precision),
                bias: numbers(n, 0.05),
                activation: Activation::Identity,
                input: Activations::of(pool, &numbers(m * k, 1.0), k, precision),
                output: Matrix::zeros(m, n),
            }
        };
        shapes.into_iter().map(layer).collect()
    }

    fn run(&mut self, pool: &Pool, m: usize) {
        let epilogue = Epilogue {
            bias: Some(&self.bias),
            activation: self.activation,
            ..Epilogue::NONE
        };
        let input = match &self.input {
            Activations::F32(x) => Input::F32(x.rows(m)),
            Activations::Bf16(x) => Input::Bf16(x.rows(m)),
            Activations::Int8(x) => Input::Int8(x.rows(m)),
        };
        let output = Output::F32(self.output.rows_mut(m));
        gemm(pool, input, &self.weights, &epilogue, output);
    }

    fn row(
        &self,
        bench: &KernelBench<'_>,
        sizes: &BlockSizes,
        (m, times): (usize, &Times),
    ) -> KernelRow {
        let (n, k, precision) = (
            self.weights.outputs(),
            self.weights.inputs(),
            self.weights.precision(),
        );
        let gflops = 2.0 * (m * n * k) as f64 / times.median() / 1e9;
        let peak = bench.peak();
        let bandwidth = self.weights.bytes() as f64 / times.median() / 1e9;
        KernelRow {
            k: Some(k),
            gflops: Some(gflops),
            share_of_peak: peak.of(precision).map(|peak| gflops / peak),
            share_of_bandwidth: peak.cache_gigabytes_per_second.map(|peak| bandwidth / peak),
            ..bench.plain_row((sizes, self.kernel, precision), (m, n), times)
        }
    }
}

impl Activations {
    fn of(pool: &Pool, numbers: &[f32], columns: usize, precision: Precision) -> Self {
        let plain = Matrix::from_rows(numbers, columns);
        let rows = plain.row_count();
        match precision {
            Precision::F32 => Self::F32(plain),
            Precision::Bf16 => {
                let narrow: Vec<_> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
                Self::Bf16(Matrix::from_rows(&narrow, columns))
            }
            Precision::Int8 => {
                let mut quantised = QuantisedMatrix::zeros(rows, columns);
                quantise_rows(pool, plain.rows(rows), quantised.rows_mut(rows));
                Self::Int8(quantised)
            }
        }
    }
}
