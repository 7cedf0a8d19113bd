//! `badge bench`: how fast engine and training are here, beside how fast this machine can be.

mod controller;
mod heads;
mod kernels;
mod latency;
mod load;
mod throughput;
mod train;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use badge_core::config::ModelConfig;
use badge_engine::kernels::isa::Isa;
use badge_engine::{EngineOptions, Precision, When};
use badge_lab::bench::machine::{BenchMachine, Peaks};
use badge_lab::bench::shape::Shape;
use badge_lab::bench::{Report, check_lengths};
use badge_lab::record::{Machine, Record, now};
use badge_tasks::{file, hash};
use badge_train::weights::SAFETENSORS_FILE;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use self::controller::ControllerArgs;
use self::heads::HeadsArgs;
use self::kernels::KernelsArgs;
use self::latency::LatencyArgs;
use self::load::LoadArgs;
use self::throughput::ThroughputArgs;
use self::train::TrainArgs;
use super::{Session, Verdict};

/// Flags of `badge bench`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  badge bench latency --model runs/rte --precision f32,int8 --threads 1\n\n\
    Leave the machine alone while it measures: another busy program changes every figure."
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: BenchCommand,
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
enum BenchCommand {
    /// Milliseconds of a batch, by precision, length, policy and depth
    Latency(LatencyArgs),
    /// Tokens per second of batches of ragged lengths
    Throughput(ThroughputArgs),
    /// Microseconds of each kernel, beside the machine's measured peaks
    Kernels(KernelsArgs),
    /// Milliseconds of every form of exit, beside its parameters
    Heads(HeadsArgs),
    /// Milliseconds to load a model, and the memory it takes
    Load(LoadArgs),
    /// Milliseconds of an optimiser step, and the memory it takes
    Train(TrainArgs),
    /// The SLO controller against static depths, on simulated traffic
    Controller(ControllerArgs),
}

impl BenchArgs {
    /// Whether the training framework takes part.
    pub(crate) fn trains(&self) -> bool {
        matches!(self.what, BenchCommand::Train(_) | BenchCommand::Heads(_))
    }
}

/// Flags that every benchmark of a model takes.
#[derive(Debug, Clone, Args)]
struct EngineArgs {
    /// Model directory or hub id
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,
    #[command(flatten)]
    precisions: PrecisionArgs,
    /// Whether blocks that may end a sample compute its first row, CLS, before the others
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    cls_first: Order,
    /// Whether exits of a sample that is alone wait for the next ones, to be computed together
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    exits_wait: Order,
    #[command(flatten)]
    out: OutArgs,
}

/// When one of two ways is taken; see [`When`].
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// Where it was measured to be faster.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Order {
    /// As it is typed.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl From<Order> for When {
    fn from(order: Order) -> Self {
        match order {
            Order::Auto => Self::Auto,
            Order::Always => Self::Always,
            Order::Never => Self::Never,
        }
    }
}

/// The flag that says what numbers are multiplied.
#[derive(Debug, Clone, Args)]
struct PrecisionArgs {
    /// f32, bf16 or int8; several joined by commas [default: all]
    #[arg(long, value_name = "PRECISION", value_delimiter = ',')]
    precision: Vec<Precision>,
}

/// The flag that says where the record goes.
#[derive(Debug, Clone, Args)]
struct OutArgs {
    /// File to write the record to, with the machine, the settings and every row
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &BenchArgs, session: Session) -> Result<Verdict> {
    let bench = Bench::start(session)?;
    match &args.what {
        BenchCommand::Latency(args) => latency::run(args, &bench),
        BenchCommand::Throughput(args) => throughput::run(args, &bench),
        BenchCommand::Kernels(args) => kernels::run(args, &bench),
        BenchCommand::Heads(args) => heads::run(args, &bench),
        BenchCommand::Load(args) => load::run(args, &bench),
        BenchCommand::Train(args) => train::run(args, &bench),
        BenchCommand::Controller(args) => controller::run(args, &bench),
    }?;
    Ok(Verdict::Done)
}

/// What every benchmark begins with.
#[derive(Debug, Clone, Copy)]
struct Bench {
    session: Session,
    isa: Isa,
    started: u64,
}

impl Bench {
    fn start(session: Session) -> Result<Self> {
        Ok(Self {
            session,
            isa: Isa::choose()?,
            started: now(),
        })
    }

    /// What products in these precisions can reach.
    fn peaks_of(&self, precisions: &[Precision]) -> Peaks {
        Peaks::of_precisions(self.isa, self.session.threads, precisions)
    }

    fn report<M>(&self, command: &'static str, peaks: Option<Peaks>, measured: M) -> Report<M> {
        Report {
            command,
            machine: BenchMachine::detect(self.isa, self.session.threads),
            peaks,
            measured,
        }
    }

    /// Writes the record if a file is named, and prints the result.
    fn finish<M: Serialize>(
        &self,
        report: &Report<M>,
        text: &str,
        provenance: Provenance<'_>,
    ) -> Result<()> {
        if let Some(path) = &provenance.out.out {
            self.record(report, provenance)?.write(path)?;
        }
        let machine = &report.machine;
        let threads = match machine.threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        let mut told = format!("{}, {}, {threads}\n\n", machine.cpu, machine.isa);
        if let Some(peaks) = &report.peaks {
            told += &peaks.table().to_text();
            told += "\n";
        }
        told += text;
        self.session.console.result(report, &told)
    }

    fn record<M: Serialize>(
        &self,
        report: &Report<M>,
        provenance: Provenance<'_>,
    ) -> Result<Record> {
        let precision = match &provenance.precisions[..] {
            [] => "none".to_owned(),
            names => names.join(","),
        };
        let mut machine = Machine::detect(report.machine.threads, precision);
        machine.instruction_set.clone_from(&report.machine.isa);
        let mut record = Record::new(report.command, self.session.seed, machine);
        record = record.started(self.started);
        record.configuration = provenance.configuration;
        record.data = provenance.data;
        record.results = serde_json::to_value(Results {
            peaks: report.peaks.as_ref(),
            measured: &report.measured,
        })?;
        Ok(record.finished(now()))
    }
}

/// What a record says of the origin of its numbers.
struct Provenance<'a> {
    configuration: serde_json::Value,
    precisions: Vec<&'static str>,
    /// SHA-256 of what was read, by name.
    data: BTreeMap<String, String>,
    out: &'a OutArgs,
}

impl EngineArgs {
    fn options(&self, precision: Precision, bench: &Bench) -> EngineOptions {
        EngineOptions {
            threads: bench.session.threads,
            isa: Some(bench.isa),
            cls_first: self.cls_first.into(),
            exits_wait: self.exits_wait.into(),
            ..EngineOptions::new(precision)
        }
    }

    /// The origin of numbers that were measured on the model in `directory`.
    fn provenance(&self, directory: &Path, configuration: Value) -> Result<Provenance<'_>> {
        let mut data = BTreeMap::new();
        let weights = directory.join(SAFETENSORS_FILE);
        // A large file is read once more only where somebody wants to know.
        if self.out.out.is_some() && weights.exists() {
            let sha256 = hash::sha256_hex(&file::read_bytes(&weights)?);
            data.insert(SAFETENSORS_FILE.to_owned(), sha256);
        }
        Ok(Provenance {
            configuration,
            precisions: self.precisions.names(),
            data,
            out: &self.out,
        })
    }
}

/// What a record keeps beside the machine, which it has a place of its own for.
#[derive(Serialize)]
struct Results<'a, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    peaks: Option<&'a Peaks>,
    #[serde(flatten)]
    measured: &'a M,
}

impl PrecisionArgs {
    /// Those that were typed, each once, else all.
    fn all(&self) -> Vec<Precision> {
        let mut precisions = Vec::new();
        for precision in &self.precision {
            if !precisions.contains(precision) {
                precisions.push(*precision);
            }
        }
        if precisions.is_empty() {
            precisions = Precision::ALL.into();
        }
        precisions
    }

    fn names(&self) -> Vec<&'static str> {
        self.all().into_iter().map(Precision::name).collect()
    }
}

/// Lengths in tokens from a JSON file that a model can take, and the file's SHA-256.
fn read_lengths(path: &Path, config: &ModelConfig) -> Result<(Vec<usize>, String)> {
    let text = file::read_text(path)?;
    let lengths: Vec<usize> = serde_json::from_str(&text)
        .with_context(|| format!("{}: not a JSON list of lengths", path.display()))?;
    check_lengths(&path.display().to_string(), &lengths, config)?;
    Ok((lengths, hash::sha256_hex(text.as_bytes())))
}

/// Names of sizes that random weights may have.
fn shapes() -> PossibleValuesParser {
    Shape::ALL.map(Shape::name).into()
}

/// The record cannot take the place of a folder, nor lie in one that is not there: said before
/// anything is measured.
fn check_out(out: &OutArgs) -> Result<()> {
    if let Some(path) = &out.out {
        ensure!(
            !path.is_dir(),
            "--out: {} is a directory; name a file",
            path.display()
        );
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        ensure!(
            folder.is_none_or(Path::is_dir),
            "--out: the folder of {} does not exist",
            path.display()
        );
    }
    Ok(())
}
