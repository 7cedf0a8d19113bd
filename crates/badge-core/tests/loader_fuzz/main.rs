//! Damaged model directories without end: whatever the bytes of `config.json` and
//! `model.safetensors`, the loader answers with a model or an error. It does not panic, hang or
//! take more memory than the bytes justify.
//!
//! Cases follow from their number. `BADGE_FUZZ_SECONDS` says how long to go on (2),
//! `BADGE_FUZZ_FIRST` with which number to begin (0), and `BADGE_FUZZ_CASES` how many to run at
//! least (1000): a failure names the variables that run it alone. Where the process itself ends,
//! the number is in `target/tmp/loader_fuzz/last-case`.

use std::any::Any;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tally::Tally;

mod case;
mod json;
mod loader;
mod random;
mod tally;
mod weights;

/// No case may take longer, with other programs running and without optimisation.
const CASE_SECONDS_MAX: u64 = 20;

/// No case may push the address space further than this; the largest file has some 100 kB.
const GROWTH_BYTES_MAX: u64 = 512 << 20;

#[test]
fn no_model_directory_makes_the_loader_panic_hang_or_eat_memory() {
    let number = |name, default| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let first = number("BADGE_FUZZ_FIRST", 0);
    let cases_min = number("BADGE_FUZZ_CASES", 1000);
    let limit = Duration::from_secs(number("BADGE_FUZZ_SECONDS", 2));
    let run = Run {
        start: Instant::now(),
        current: AtomicU64::new(first),
        tally: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut next = first;
            while next - first < cases_min || run.start.elapsed() < limit {
                run.one(next);
                next += 1;
            }
        });
        run.watch(|| worker.is_finished());
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    });
    let tally = run.tally.into_inner().unwrap();
    let _ = writeln!(io::stdout(), "cases from {first}: {tally}");
    if tally.cases() >= 1000 {
        tally.check_that_the_loader_was_reached();
    }
}

/// Cases in progress.
struct Run {
    start: Instant,
    current: AtomicU64,
    tally: Mutex<Tally>,
}

impl Run {
    /// Runs one case; where it fails, keeps its files and says how to run it again.
    fn one(&self, number: u64) {
        // Left behind by a case that ends the process, as an allocation that fails does.
        std::fs::write(folder().join("last-case"), number.to_string()).unwrap();
        self.current.store(number, Ordering::Relaxed);
        let before = address_space_peak();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let config = case::config(number);
            let weights = case::weights(number, &config);
            loader::load(&config, &weights)
        }));
        match outcome {
            Ok(outcome) => self.tally.lock().unwrap().add(outcome),
            Err(panic) => fail(number, &format!("panics: {}", message(&*panic))),
        }
        let growth = address_space_peak() - before;
        if growth > GROWTH_BYTES_MAX {
            fail(number, &format!("takes {growth} bytes"));
        }
    }

    /// Waits for the end, and fails when a case takes too long.
    fn watch(&self, finished: impl Fn() -> bool) {
        let (mut number, mut since) = (u64::MAX, Instant::now());
        while !finished() {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.current.load(Ordering::Relaxed);
            if now != number {
                (number, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(CASE_SECONDS_MAX) {
                // The handle itself: what macros print is lost when the process ends.
                let _ = writeln!(io::stderr(), "{}", failure(number, "hangs"));
                // A thread that hangs cannot be ended in another way.
                std::process::exit(1);
            }
        }
    }
}

fn fail(number: u64, how: &str) -> ! {
    panic!("{}", failure(number, how));
}

/// Keeps the files of a case and says how to run it again.
fn failure(number: u64, how: &str) -> String {
    let directory = folder().join(format!("case-{number}"));
    std::fs::create_dir_all(&directory).unwrap();
    let config = case::config(number);
    std::fs::write(directory.join("config.json"), &config).unwrap();
    // The weights follow from a configuration that is read: this may be what fails.
    if let Ok(weights) = catch_unwind(|| case::weights(number, &config)) {
        std::fs::write(directory.join("model.safetensors"), weights).unwrap();
    }
    format!(
        "case {number} {how}; its files are in {}; run it alone with BADGE_FUZZ_FIRST={number} \
         BADGE_FUZZ_CASES=1 BADGE_FUZZ_SECONDS=0",
        directory.display()
    )
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loader_fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("without a message")
}

/// The most address space that this process has had, in bytes; 0 where nobody says.
fn address_space_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
