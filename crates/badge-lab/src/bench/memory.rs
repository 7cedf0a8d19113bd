//! Memory of this process, as the operating system counts it.

use std::fs;

/// What lies in RAM; `None` where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resident {
    /// Bytes now.
    pub now: Option<u64>,
    /// Bytes at most, since the process started.
    pub peak: Option<u64>,
}

impl Resident {
    /// The memory of this process.
    pub fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status");
        status.map_or_else(|_| Self::default(), |status| Self::in_status(&status))
    }

    fn in_status(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(1024 * kib)
        };
        Self {
            now: field("VmRSS:"),
            peak: field("VmHWM:"),
        }
    }
}

/// Bytes in MiB, for a table.
pub(super) fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| {
        format!("{:.1}", bytes as f64 / f64::from(1 << 20))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        let found = Resident::in_status("VmHWM:\t 9 kB\nVmRSS:\t   12 kB\n");
        assert_eq!((found.now, found.peak), (Some(12 << 10), Some(9 << 10)));
        assert_eq!(
            Resident::in_status("VmRSS:\t many kB\n"),
            Resident::default()
        );
    }

    #[test]
    fn the_peak_keeps_what_is_freed_again() {
        let before = Resident::of_this_process();
        let bytes = 64 << 20;
        std::hint::black_box(vec![1_u8; bytes]);
        let after = Resident::of_this_process();
        // Where the system does not say, it says neither before nor after.
        assert_eq!(before.peak.is_some(), after.peak.is_some());
        if let (Some(now), Some(peak)) = (before.now, after.peak) {
            assert!(
                peak >= now + bytes as u64 / 2,
                "{now} before, {peak} at most"
            );
        }
    }
}
