//! What the process takes of the machine, under the names that all services use for it.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Linux tells times of processes in hundredths of a second, whatever its clock's rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// Looks at the process whenever metrics are read; says nothing where the system does not tell.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Process {
    cpu_seconds: f64,
    /// Seconds since 1970.
    start_seconds: f64,
    resident_bytes: u64,
    threads: u64,
    open_files: u64,
}

impl Process {
    /// This process, as the files of Linux show it.
    fn this() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self {
            open_files,
            ..Self::parse(&stat, &status, &machine)?
        })
    }

    fn parse(stat: &str, status: &str, machine: &str) -> Option<Self> {
        // The program's name may hold anything, and ends at the last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| -> Option<f64> { fields.get(field)?.parse().ok() };
        let number = |text: &str, key: &str| -> Option<u64> {
            let value = text.lines().find_map(|line| line.strip_prefix(key))?;
            value.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            start_seconds: number(machine, "btime")? as f64 + ticks(19)? / TICKS_PER_SECOND,
            resident_bytes: number(status, "VmRSS:")? * 1024,
            threads: number(status, "Threads:")?,
            open_files: 0,
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(process) = Process::this() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(process.cpu_seconds);
        let help = "Time that processors spent on this process";
        let kind = cpu.metric_type();
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?)?;
        for (name, unit, help, value) in [
            (
                "process_start_time",
                Some(Unit::Seconds),
                "When the process began, since 1970",
                process.start_seconds,
            ),
            (
                "process_resident_memory",
                Some(Unit::Bytes),
                "Memory that the process has in use",
                process.resident_bytes as f64,
            ),
            (
                "process_threads",
                None,
                "Threads of the process",
                process.threads as f64,
            ),
            (
                "process_open_fds",
                None,
                "Files and connections that are open",
                process.open_files as f64,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_read() {
        let stat = "77 (a (strange) name) S 1 77 77 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 9 0 \
                    12345 1000000 200 18446744073709551615";
        let status = "Name:\tbadge\nVmRSS:\t   2048 kB\nThreads:\t9\n";
        let process = Process::parse(stat, status, "cpu 1 2\nbtime 1700000000\n").unwrap();
        assert_eq!(
            process,
            Process {
                cpu_seconds: 3.0,
                start_seconds: 1_700_000_123.45,
                resident_bytes: 2 << 20,
                threads: 9,
                open_files: 0,
            }
        );
        for damaged in ["", "77 (name", "77 (name) S 1 2"] {
            assert_eq!(Process::parse(damaged, status, "btime 1"), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_there() {
        let process = Process::this().unwrap();
        assert!(process.resident_bytes > 1 << 20 && process.threads >= 1);
        assert!(process.open_files >= 3 && process.start_seconds > 1.7e9);
    }
}
