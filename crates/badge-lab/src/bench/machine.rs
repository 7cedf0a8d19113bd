//! The machine a benchmark ran on, and the most it can do.

use badge_engine::kernels::gemm::Precision;
use badge_engine::kernels::isa::Isa;
use badge_engine::kernels::peak::{Peak, measure};
use badge_engine::kernels::threads::Pool;
use serde::{Deserialize, Serialize};

use crate::record::Machine;
use crate::table::{Column, Table};

/// The machine, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchMachine {
    /// The processor, as the operating system names it.
    pub cpu: String,
    /// Logical processors that affinity and control groups grant.
    pub logical_cpus: usize,
    /// Threads that compute.
    pub threads: usize,
    /// The instruction set that kernels use.
    pub isa: String,
    /// Operating system and architecture.
    pub os: String,
}

/// What the machine was measured to do at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// With one thread, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_thread: Option<Rates>,
    /// With all threads in use.
    pub all_threads: Rates,
}

/// Peaks of some threads together; none where it was not measured, or where the instruction set
/// has no instruction of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Threads that computed.
    pub threads: usize,
    /// f32 multiply-adds on registers, in GFLOP/s.
    pub f32_gflops: Option<f64>,
    /// bf16 dot products on registers, in GFLOP/s.
    pub bf16_gflops: Option<f64>,
    /// int8 dot products on registers, in GOP/s.
    pub int8_gops: Option<f64>,
    /// Reading what fits the last-level cache, in GB/s.
    pub cache_gigabytes_per_second: Option<f64>,
    /// Reading from memory, in GB/s.
    pub memory_gigabytes_per_second: Option<f64>,
}

impl BenchMachine {
    /// This machine, with kernels on `threads` threads.
    pub fn detect(isa: Isa, threads: usize) -> Self {
        let machine = Machine::detect(threads, "");
        Self {
            cpu: machine.cpu,
            logical_cpus: machine.logical_cpus,
            threads,
            isa: isa.to_string(),
            os: machine.os,
        }
    }
}

impl Peaks {
    /// Measures everything, with one thread and with all: two seconds each.
    pub fn measure(isa: Isa, threads: usize) -> Self {
        let one_thread = (threads > 1).then(|| Rates::measure(&Pool::new(isa, 1), &Peak::ALL));
        Self {
            one_thread,
            all_threads: Rates::measure(&Pool::new(isa, threads), &Peak::ALL),
        }
    }

    /// Measures the arithmetic of some precisions alone: a sixth of a second each.
    pub fn of_precisions(isa: Isa, threads: usize, precisions: &[Precision]) -> Self {
        let peaks: Vec<Peak> = precisions.iter().map(|p| arithmetic(*p)).collect();
        Self {
            one_thread: None,
            all_threads: Rates::measure(&Pool::new(isa, threads), &peaks),
        }
    }

    /// One row a number of threads, one column a peak that was measured.
    pub fn table(&self) -> Table {
        let all: Vec<&Rates> = self.one_thread.iter().chain([&self.all_threads]).collect();
        let measured = |peak: &Peak| all.iter().any(|rates| rates.rate(*peak).is_some());
        let peaks: Vec<Peak> = Peak::ALL.into_iter().filter(measured).collect();
        let heading = |peak: &Peak| Column::number(format!("{peak} {}", peak.unit()));
        let headings = peaks.iter().map(heading);
        let mut table = Table::new([Column::number("threads")].into_iter().chain(headings));
        for rates in all {
            let mut cells = vec![rates.threads.to_string()];
            let rate = |peak: &Peak| {
                rates
                    .rate(*peak)
                    .map_or("-".to_owned(), |r| format!("{r:.1}"))
            };
            cells.extend(peaks.iter().map(rate));
            table.push(cells);
        }
        table
    }
}

impl Rates {
    /// Measures some peaks on the threads of a pool.
    pub fn measure(pool: &Pool, peaks: &[Peak]) -> Self {
        let mut rates = Self {
            threads: pool.threads(),
            ..Self::default()
        };
        for peak in peaks {
            *rates.rate_mut(*peak) = measure(pool, *peak);
        }
        rates
    }

    /// Billions of operations per second in a precision.
    pub fn of(&self, precision: Precision) -> Option<f64> {
        self.rate(arithmetic(precision))
    }

    fn rate(&self, peak: Peak) -> Option<f64> {
        let mut rates = *self;
        *rates.rate_mut(peak)
    }

    fn rate_mut(&mut self, peak: Peak) -> &mut Option<f64> {
        match peak {
            Peak::MultiplyAddF32 => &mut self.f32_gflops,
            Peak::DotBf16 => &mut self.bf16_gflops,
            Peak::DotInt8 => &mut self.int8_gops,
            Peak::CacheBandwidth => &mut self.cache_gigabytes_per_second,
            Peak::MemoryBandwidth => &mut self.memory_gigabytes_per_second,
        }
    }
}

/// The peak that bounds products in a precision.
fn arithmetic(precision: Precision) -> Peak {
    match precision {
        Precision::F32 => Peak::MultiplyAddF32,
        Precision::Bf16 => Peak::DotBf16,
        Precision::Int8 => Peak::DotInt8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_that_were_measured() {
        let all_threads = Rates {
            threads: 2,
            f32_gflops: Some(123.45),
            ..Rates::default()
        };
        let peaks = Peaks {
            one_thread: None,
            all_threads,
        };
        let text = peaks.table().to_text();
        assert_eq!(
            text.lines().next().unwrap(),
            "threads  f32 multiply-add GFLOP/s"
        );
        assert!(
            text.ends_with("123.5\n") || text.ends_with("123.4\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn each_precision_has_a_peak_of_its_own() {
        let rates = Rates {
            threads: 1,
            f32_gflops: Some(1.0),
            bf16_gflops: Some(2.0),
            int8_gops: Some(4.0),
            ..Rates::default()
        };
        let all = Precision::ALL.map(|precision| rates.of(precision));
        assert_eq!(all, [Some(1.0), Some(2.0), Some(4.0)]);
    }

    #[test]
    fn machine_names_its_instruction_set() {
        let machine = BenchMachine::detect(Isa::Scalar, 3);
        assert_eq!((machine.isa.as_str(), machine.threads), ("scalar", 3));
    }
}
