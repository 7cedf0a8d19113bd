//! Records: what ran, on what machine, with which data, and what came out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use badge_engine::kernels::isa::Isa;
use badge_tasks::file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name a record has beside the outputs of its run.
pub const RECORD_FILE: &str = "record.json";

/// Everything needed to run a command again, and what it answered.
///
/// # Example
///
/// ```
/// use badge_lab::record::{Machine, Record};
///
/// let machine = Machine::detect(2, "f32");
/// let mut record = Record::new("quickstart", 42, machine).started(1_750_000_000);
/// record.configuration = serde_json::json!({"blocks": 6});
/// record.results = serde_json::json!({"s_avg": 0.91});
/// let text = record.to_json();
/// assert_eq!(Record::from_json(&text).unwrap(), record);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The layout of this file; 1 so far.
    pub format: u32,
    /// The command that ran.
    pub command: String,
    /// All settings in force, defaults included.
    pub configuration: Value,
    /// The seed every random stream comes from.
    pub seed: u64,
    /// SHA-256 of each file or split read, by name.
    pub data: BTreeMap<String, String>,
    /// The version of the program.
    pub version: String,
    /// The commit the program was built from, where the build knew it.
    pub commit: Option<String>,
    /// Where it ran.
    pub machine: Machine,
    /// The scores, counts and times of the run; files of raw outputs by name and hash.
    pub results: Value,
    /// When the run began, in UTC.
    pub started: String,
    /// When the run ended, in UTC.
    pub finished: String,
}

/// The machine of a run, and how much of it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as the operating system names it.
    pub cpu: String,
    /// Logical processors of the machine.
    pub logical_cpus: usize,
    /// Threads the run used.
    pub threads: usize,
    /// The instruction set of the kernels.
    pub instruction_set: String,
    /// The arithmetic of the run, such as `f32`.
    pub precision: String,
    /// Operating system and architecture.
    pub os: String,
}

impl Record {
    /// A record of `command` with nothing in it yet but the program and the machine.
    pub fn new(command: impl Into<String>, seed: u64, machine: Machine) -> Self {
        Self {
            format: 1,
            command: command.into(),
            configuration: Value::Null,
            seed,
            data: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("BADGE_COMMIT").map(str::to_owned),
            machine,
            results: Value::Null,
            started: String::new(),
            finished: String::new(),
        }
    }

    /// Says when the run began, in seconds since 1970.
    #[must_use]
    pub fn started(mut self, seconds: u64) -> Self {
        self.started = utc(seconds);
        self
    }

    /// Says when the run ended, in seconds since 1970.
    #[must_use]
    pub fn finished(mut self, seconds: u64) -> Self {
        self.finished = utc(seconds);
        self
    }

    /// The record as indented JSON with a final line break.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("a record has only string keys");
        json + "\n"
    }

    /// Reads a record's text.
    ///
    /// # Errors
    ///
    /// When the text is not a record; the message has line and column.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("not a run record")
    }

    /// Writes the record to `path`, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::write_atomic(path, self.to_json().as_bytes())
            .with_context(|| format!("the record could not be written to {}", path.display()))
    }

    /// Reads the record at `path`.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is not a record.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        Self::from_json(&text).with_context(|| format!("{}", path.display()))
    }
}

impl Machine {
    /// This machine, for a run with `threads` threads and arithmetic in `precision`.
    pub fn detect(threads: usize, precision: impl Into<String>) -> Self {
        Self {
            cpu: cpu_model(),
            logical_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            threads,
            instruction_set: instruction_set().to_owned(),
            precision: precision.into(),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The clock of the machine, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    model_name(&text)
        .unwrap_or(std::env::consts::ARCH)
        .to_owned()
}

/// The first processor's name in the text of `/proc/cpuinfo`.
fn model_name(cpuinfo: &str) -> Option<&str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name" && !value.trim().is_empty()).then(|| value.trim())
    })
}

/// What the kernels compute with here; a wrong `BADGE_ISA` is told by whoever computes.
fn instruction_set() -> &'static str {
    Isa::choose().unwrap_or(Isa::Scalar).name()
}

/// A moment as ISO 8601 in UTC, from seconds since 1970.
///
/// Days become a date by counting eras of 400 Gregorian years, which all have 146 097 days, with
/// years that begin in March so that the leap day comes last.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468; // from 0000-03-01 to 1970-01-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::new("train", 7, Machine::detect(2, "f32"))
            .started(0)
            .finished(951_782_399);
        record.configuration = serde_json::json!({"rate": 1e-3, "blocks": 6});
        record.data.insert("train.tsv".into(), "ab12".into());
        record.results = serde_json::json!({"exits": [0.5, 0.75]});
        record
    }

    #[test]
    fn a_record_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RECORD_FILE);
        record().write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "a temporary file was left behind");
    }

    #[test]
    fn moments_match_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn the_processor_is_the_first_that_has_a_name() {
        let text = "processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nmodel name\t: Other\n";
        assert_eq!(model_name(text), Some("Example CPU @ 2 GHz"));
        assert_eq!(model_name("processor : 0\n"), None);
    }

    #[test]
    fn every_fact_about_the_machine_is_filled_in() {
        let machine = Machine::detect(3, "f32");
        assert_eq!(machine.threads, 3);
        assert!(machine.logical_cpus >= 1);
        for fact in [
            &machine.cpu,
            &machine.instruction_set,
            &machine.precision,
            &machine.os,
        ] {
            assert!(!fact.is_empty(), "{machine:?}");
        }
    }

    #[test]
    fn a_broken_record_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RECORD_FILE);
        fs::write(&path, "{\"format\": 1").unwrap();
        let message = format!("{:#}", Record::read(&path).unwrap_err());
        assert!(
            message.contains(RECORD_FILE) && message.contains("line 1"),
            "{message}"
        );
    }
}
