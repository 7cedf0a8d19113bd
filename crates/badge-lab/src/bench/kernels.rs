//! Microseconds of each kernel at the sizes of real models, beside what the machine can do.
//!
//! The products of a block run one after the other, as in a model: each finds its weights where a
//! forward pass would find them, not in the first-level cache where the last call left them.

mod element_wise;
mod products;

use badge_core::config::ModelConfig;
use badge_engine::kernel_activation;
use badge_engine::kernels::activation::Activation;
use badge_engine::kernels::gemm::Precision;
use badge_engine::kernels::threads::Pool;
use serde::Serialize;

use super::machine::{Peaks, Rates};
use super::percent_or_dash;
use super::timing::{Repeats, Times};
use crate::table::{Column, Table};

/// Everything that `bench kernels` measures.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Kernels {
    /// One row a kernel, size and precision.
    pub rows: Vec<KernelRow>,
}

/// Time of one kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelRow {
    /// Whose sizes these are.
    model: String,
    /// What was computed.
    kernel: &'static str,
    precision: &'static str,
    threads: usize,
    /// Rows of the input: tokens.
    m: usize,
    /// Columns of the output.
    n: usize,
    /// Columns of the input, the length of each sum; none where nothing is summed.
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    /// Median.
    microseconds: f64,
    min_microseconds: f64,
    /// GFLOP/s, of int8 GOP/s, of products alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    /// Of the measured peak of the same precision and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
    /// Bytes of weights over time, of the measured bandwidth of the last-level cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_bandwidth: Option<f64>,
}

/// The sizes of a model's block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSizes {
    /// A name for tables.
    pub name: String,
    /// Width of the embedding tables, where a mapping widens it.
    pub embedding: Option<usize>,
    /// Hidden size, `D`.
    pub hidden: usize,
    /// Attention heads, `H`.
    pub heads: usize,
    /// Feed-forward size, `F`.
    pub intermediate: usize,
    /// The non-linearity of the feed-forward layer.
    pub activation: Activation,
}

impl BlockSizes {
    /// ALBERT-base and a BERT of 12 blocks of hidden size 384.
    pub fn references() -> Vec<Self> {
        let sizes = |name: &str, embedding, hidden, activation| Self {
            name: name.to_owned(),
            embedding,
            hidden,
            heads: 12,
            intermediate: 4 * hidden,
            activation,
        };
        vec![
            sizes("albert-base", Some(128), 768, Activation::GeluTanh),
            sizes("12x384", None, 384, Activation::Gelu),
        ]
    }

    /// The sizes of a model.
    pub fn of(name: impl Into<String>, config: &ModelConfig) -> Self {
        let backbone = &config.backbone;
        Self {
            name: name.into(),
            embedding: backbone.shape().embedding,
            hidden: backbone.hidden,
            heads: backbone.heads,
            intermediate: backbone.intermediate,
            activation: kernel_activation(backbone.activation),
        }
    }
}

/// What kernels are timed with.
#[derive(Debug)]
pub struct KernelBench<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// What they can do.
    pub peaks: &'a Peaks,
    /// How often each call is repeated.
    pub repeats: Repeats,
    /// The precisions to multiply in.
    pub precisions: &'a [Precision],
}

impl KernelBench<'_> {
    /// Times every kernel of a block over `m` tokens.
    pub fn block(&self, sizes: &BlockSizes, m: usize) -> Vec<KernelRow> {
        let mut rows = Vec::new();
        for precision in self.precisions {
            rows.extend(products::time(self, sizes, *precision, m));
        }
        rows.extend(element_wise::time(self, sizes, m));
        rows
    }

    fn peak(&self) -> &Rates {
        &self.peaks.all_threads
    }

    /// A row of a kernel that is no product with weights.
    fn plain_row(
        &self,
        (sizes, kernel, precision): (&BlockSizes, &'static str, Precision),
        (m, n): (usize, usize),
        times: &Times,
    ) -> KernelRow {
        KernelRow {
            model: sizes.name.clone(),
            kernel,
            precision: precision.name(),
            threads: self.pool.threads(),
            m,
            n,
            k: None,
            microseconds: 1e6 * times.median(),
            min_microseconds: 1e6 * times.min(),
            gflops: None,
            share_of_peak: None,
            share_of_bandwidth: None,
        }
    }
}

impl Kernels {
    /// A table of what was measured, for a terminal.
    pub fn to_text(&self) -> String {
        let mut table = Table::new([
            Column::text("model"),
            Column::text("kernel"),
            Column::text("precision"),
            Column::number("M"),
            Column::number("N"),
            Column::number("K"),
            Column::number("µs"),
            Column::number("GFLOP/s"),
            Column::number("of peak"),
            Column::number("of cache"),
        ]);
        for row in &self.rows {
            table.push([
                row.model.clone(),
                row.kernel.to_owned(),
                row.precision.to_owned(),
                row.m.to_string(),
                row.n.to_string(),
                row.k.map_or("-".to_owned(), |k| k.to_string()),
                format!("{:.2}", row.microseconds),
                row.gflops
                    .map_or("-".to_owned(), |rate| format!("{rate:.1}")),
                percent_or_dash(row.share_of_peak),
                percent_or_dash(row.share_of_bandwidth),
            ]);
        }
        table.to_text()
    }
}
