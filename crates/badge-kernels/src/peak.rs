//! What this machine can do at best, measured: the yardstick for the kernels.
//!
//! A processor's data sheet knows nothing of turbo clocks, virtual machines and neighbours, so a
//! kernel's speed is stated as a share of what plain loops reach on the same threads: multiply-adds
//! on registers, dot products on registers, reads from cache and from memory.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::isa::Isa;
use crate::threads::{Pool, wait_until};

#[cfg(target_arch = "x86_64")]
mod dot;
mod plain;
#[cfg(target_arch = "x86_64")]
mod tiles;

#[cfg(target_arch = "x86_64")]
use dot::{Bf16Dots, Int8Dots};
use plain::{MultiplyAdds, PortableMultiplyAdds, Reads};
#[cfg(target_arch = "x86_64")]
use tiles::{Bf16Tiles, Int8Tiles};

/// Time for all repeats of a measurement together.
const BUDGET: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 150 });

/// Time for one repeat: long enough for the clock and the threads' start not to matter, short
/// enough for some repeats to escape whatever else the machine does.
const REPEAT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 10 });

/// Read from the last-level cache: larger than a core's own cache (1 to 3 MB), smaller than what
/// cores share on a server (from 16 MB).
const CACHE_BYTES: usize = if cfg!(miri) { 1 << 10 } else { 8 << 20 };

/// Read from memory by all threads together, at least: several times the last-level cache.
const MEMORY_BYTES: usize = if cfg!(miri) { 1 << 10 } else { 256 << 20 };

/// Read from memory by each thread, at least: with very many threads there are many last-level
/// caches, each of 4 to 12 MB per core.
const MEMORY_BYTES_OF_THREAD: usize = if cfg!(miri) { 1 << 10 } else { 16 << 20 };

/// A rate that bounds kernels, by the instructions of a pool's instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peak {
    /// Multiply-adds of f32, each two operations: fused, or in portable code one after the other.
    MultiplyAddF32,
    /// Dot products of bf16 pairs into f32, each multiply and each add an operation.
    DotBf16,
    /// Dot products of four u8 with four i8 into i32, each multiply and each add an operation.
    DotInt8,
    /// All threads read the same 8 MiB, as they do with weights that fit the last-level cache.
    CacheBandwidth,
    /// Each thread reads its part of 256 MiB or more.
    MemoryBandwidth,
}

impl Peak {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::MultiplyAddF32,
        Self::DotBf16,
        Self::DotInt8,
        Self::CacheBandwidth,
        Self::MemoryBandwidth,
    ];

    /// Its name, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::MultiplyAddF32 => "f32 multiply-add",
            Self::DotBf16 => "bf16 dot product",
            Self::DotInt8 => "int8 dot product",
            Self::CacheBandwidth => "cache read",
            Self::MemoryBandwidth => "memory read",
        }
    }

    /// The unit that [`measure`] returns; G is 10^9.
    pub fn unit(self) -> &'static str {
        match self {
            Self::MultiplyAddF32 | Self::DotBf16 => "GFLOP/s",
            Self::DotInt8 => "GOP/s",
            Self::CacheBandwidth | Self::MemoryBandwidth => "GB/s",
        }
    }
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The highest rate seen in a number of repeats with all threads of the pool working at once, in
/// [`Peak::unit`]; `None` where the pool's instruction set has no instruction for it. For the rate
/// of one thread, pass a pool of one.
///
/// Takes about 0.3 seconds, for [`Peak::MemoryBandwidth`] up to a second and 256 MiB of memory or 16
/// MiB a thread, whichever is more. Other work on the machine lowers the rate.
pub fn measure(pool: &Pool, peak: Peak) -> Option<f64> {
    let isa = pool.isa();
    match peak {
        Peak::MultiplyAddF32 if isa == Isa::Scalar => Some(best_rate(pool, &PortableMultiplyAdds)),
        Peak::MultiplyAddF32 => Some(best_rate(pool, &MultiplyAdds { isa })),
        Peak::DotBf16 => match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => Some(best_rate(pool, &Bf16Dots::new(token)?)),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(token) => Some(best_rate(pool, &Bf16Tiles(token))),
            _ => None,
        },
        Peak::DotInt8 => match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => Some(best_rate(pool, &Int8Dots::new(token)?)),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(token) => Some(best_rate(pool, &Int8Tiles(token))),
            _ => None,
        },
        Peak::CacheBandwidth => Some(best_rate(
            pool,
            &Reads {
                isa,
                numbers: numbers(CACHE_BYTES),
                parts: 1,
            },
        )),
        Peak::MemoryBandwidth => {
            let threads = pool.threads();
            let bytes = MEMORY_BYTES.max(threads * MEMORY_BYTES_OF_THREAD);
            let reads = Reads {
                isa,
                numbers: numbers(bytes),
                parts: threads,
            };
            Some(best_rate(pool, &reads))
        }
    }
}

/// Numbers that differ from page to page, so that no system can keep equal pages once.
fn numbers(bytes: usize) -> Buffer<f32> {
    let mut numbers = Buffer::zeroed(bytes / size_of::<f32>());
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = index as f32;
    }
    numbers
}

/// Work that is nothing but the thing to measure.
trait Load: Sync {
    /// Operations, or bytes, of a round on one thread.
    fn amount(&self) -> f64;
    /// Works `rounds` rounds.
    fn work(&self, worker: usize, rounds: u64);
}

/// The highest rate of `load`, in 10^9 a second.
fn best_rate(pool: &Pool, load: &impl Load) -> f64 {
    let mut rounds = 1;
    let mut span = span(pool, load, rounds);
    while span < REPEAT {
        // Twice at least, lest a lucky first measurement stall the search; ten times at most, for
        // it may have been an unlucky one.
        let wanted = REPEAT.as_secs_f64() / span.as_secs_f64().max(1e-9);
        rounds *= wanted.clamp(2.0, 10.0) as u64;
        span = self::span(pool, load, rounds);
    }
    let repeats = BUDGET.as_nanos().div_ceil(REPEAT.as_nanos()) as usize;
    for _ in 1..repeats {
        span = span.min(self::span(pool, load, rounds));
    }
    let amount = load.amount() * rounds as f64 * pool.threads() as f64;
    amount / span.as_secs_f64() / 1e9
}

/// The time from the first thread's start to the last one's end, where all start together.
fn span(pool: &Pool, load: &impl Load, rounds: u64) -> Duration {
    let arrived = AtomicUsize::new(0);
    let first_start = AtomicU64::new(u64::MAX);
    let last_end = AtomicU64::new(0);
    let clock = Instant::now();
    let now = || clock.elapsed().as_nanos() as u64;
    pool.run(pool.threads(), &|task| {
        // Whoever waits here cannot take a second task, so every thread has one.
        arrived.fetch_add(1, Ordering::Relaxed);
        wait_until(|| arrived.load(Ordering::Relaxed) == pool.threads());
        first_start.fetch_min(now(), Ordering::Relaxed);
        load.work(task.worker, rounds);
        last_end.fetch_max(now(), Ordering::Relaxed);
    });
    Duration::from_nanos(last_end.into_inner() - first_start.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peak_of_every_instruction_set_is_positive_or_lacks_its_instruction() {
        for isa in Isa::available() {
            for threads in [1, 2] {
                let pool = Pool::new(isa, threads);
                for peak in Peak::ALL {
                    let rate = measure(&pool, peak);
                    let has_instruction = match (peak, isa) {
                        #[cfg(target_arch = "x86_64")]
                        (Peak::DotBf16, Isa::Avx512(token)) => token.bf16(),
                        #[cfg(target_arch = "x86_64")]
                        (Peak::DotInt8, Isa::Avx512(token)) => token.vnni(),
                        #[cfg(target_arch = "x86_64")]
                        (Peak::DotBf16 | Peak::DotInt8, Isa::Amx(_)) => true,
                        (Peak::DotBf16 | Peak::DotInt8, _) => false,
                        _ => true,
                    };
                    assert_eq!(rate.is_some(), has_instruction, "{peak} on {isa}");
                    assert!(
                        rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()),
                        "{peak} on {isa}: {rate:?} {}",
                        peak.unit()
                    );
                }
            }
        }
    }

    #[test]
    fn a_span_holds_the_work_of_every_thread() {
        struct Nap;
        impl Load for Nap {
            fn amount(&self) -> f64 {
                1.0
            }
            fn work(&self, worker: usize, rounds: u64) {
                std::thread::sleep(Duration::from_millis(rounds * (1 + worker as u64)));
            }
        }
        let pool = Pool::new(Isa::Scalar, 3);
        assert!(span(&pool, &Nap, 2) >= Duration::from_millis(6));
    }

    #[test]
    fn rates_count_the_work_of_all_threads() {
        /// A round takes a tenth of a repeat, a little more in truth.
        struct Nap;
        impl Load for Nap {
            fn amount(&self) -> f64 {
                1e9
            }
            fn work(&self, _: usize, rounds: u64) {
                std::thread::sleep(REPEAT * rounds as u32 / 10);
            }
        }
        let per_second = 10.0 / REPEAT.as_secs_f64();
        for threads in [1, 3] {
            let rate = best_rate(&Pool::new(Isa::Scalar, threads), &Nap);
            let bound = threads as f64 * per_second;
            assert!(rate <= bound, "{rate} of {bound}");
            assert!(rate >= bound / 100.0, "{rate} of {bound}");
        }
    }
}
