//! What the operating system says about the machine and about our share of it.

use std::fmt;
use std::fs;
use std::path::Path;

#[cfg(target_arch = "x86_64")]
use badge_engine::kernels::isa::Isa;
use serde::Serialize;

/// Memory in bytes; `None` where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    total: Option<u64>,
    available: Option<u64>,
    /// What the control group leaves us.
    limit: Option<u64>,
}

impl Memory {
    pub(super) fn detect() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            total: meminfo(&text, "MemTotal"),
            available: meminfo(&text, "MemAvailable"),
            limit: group_limit(),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        match (self.total, self.available) {
            (Some(total), Some(available)) => {
                write!(f, "{:.1} GiB, {:.1} GiB free", gib(total), gib(available))?;
            }
            (Some(total), None) => write!(f, "{:.1} GiB", gib(total))?,
            (None, _) => f.write_str("unknown")?,
        }
        match self.limit {
            Some(limit) => write!(f, ", {:.1} GiB allowed", gib(limit)),
            None => Ok(()),
        }
    }
}

/// A line of `/proc/meminfo`, which counts in KiB, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kib)
}

/// The memory limit of our control group (version 2), or of the one above that holds it.
fn group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let limit_of = |group: &Path| {
        let text = fs::read_to_string(group.join("memory.max")).ok()?;
        text.trim().parse().ok() // "max" is no limit.
    };
    root.join(own)
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .filter_map(limit_of)
        .min()
}

/// The machine's processors, ours or not.
pub(super) fn logical_cpus() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = text.lines().filter(|line| line.starts_with("processor"));
    match count.count() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// The vector instructions that matrix products can use.
#[cfg(target_arch = "x86_64")]
pub(super) fn instruction_sets() -> Vec<&'static str> {
    let all = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("amx", Isa::named("amx").is_ok()),
    ];
    all.iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| *name)
        .collect()
}

/// The vector instructions that matrix products can use.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn instruction_sets() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") {
        vec!["neon"]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_line_of_its_key_alone() {
        let text = "MemTotal:        2048 kB\nMemTotalX: 1 kB\nMemAvailable: 1024 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(2 << 20));
        assert_eq!(meminfo(text, "MemAvailable"), Some(1 << 20));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(meminfo("MemTotal: many\n", "MemTotal"), None);
    }

    #[test]
    fn memory_is_told_as_far_as_it_is_known() {
        let gib = |n: u64| Some(n << 30);
        let memory = |total, available, limit| Memory {
            total,
            available,
            limit,
        };
        for (memory, text) in [
            (memory(gib(8), gib(3), None), "8.0 GiB, 3.0 GiB free"),
            (
                memory(gib(8), gib(3), gib(2)),
                "8.0 GiB, 3.0 GiB free, 2.0 GiB allowed",
            ),
            (memory(gib(8), None, None), "8.0 GiB"),
            (memory(None, None, None), "unknown"),
        ] {
            assert_eq!(memory.to_string(), text);
        }
    }
}
