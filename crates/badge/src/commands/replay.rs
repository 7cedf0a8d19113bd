//! `badge replay`: traffic from a trace on a server, and how it fared.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use badge_lab::load_test::{LoadReport, Options, Question, Summary, Timeline, questions};
use badge_lab::record::{Machine, RECORD_FILE, Record, now};
use badge_lab::traffic::{Adjustment, Source, Traffic};
use badge_lab::{load_test, report};
use badge_tasks::dataset::{common_columns, read_inputs};
use badge_tasks::split::{SplitName, official_test};
use badge_tasks::{LabelSpace, Split, file, hash};
use clap::Args;
use serde_json::json;

use super::held_out::check_out;
use super::{Session, Verdict, sources};

/// Flags of `badge replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  \
    badge replay --url http://127.0.0.1:8080 --texts reviews.txt --slo-ms 100 --out runs/burst \\\n    \
    --trace step:rate=50,peak=150,start=20,length=20,seconds=60\n\n\
    Patterns, with cv2=V for the regularity of gaps (0 clockwork, 1 Poisson, more: bunches):\n  \
    poisson:rate=R · gamma:rate=R,cv2=V · step:rate=R,peak=P,start=S,length=S · ramp:from=R,to=R\n  \
    on-off:low=R,high=R,turn=S · sinusoid:mean=R,amplitude=R,period=S, all with seconds=S\n\n\
    Files: the Azure Functions trace of 2021 (app,func,end_timestamp,duration), a list of arrivals in\n\
    milliseconds, or requests a minute, one number a line.\n\n\
    Requests go out when the trace says so, and latency counts from there.")]
pub(crate) struct ReplayArgs {
    /// The server: any that has text-embeddings-inference's /predict
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// When requests are sent: a pattern or a file
    #[arg(long, value_name = "PATTERN|FILE")]
    trace: Source,
    /// So many times as many requests
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    scale: f64,
    /// The trace's time runs so many times faster
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    speedup: f64,
    /// Only the first seconds, after speeding up
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    #[command(flatten)]
    texts: TextArgs,
    /// The promised time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    slo_ms: f64,
    /// Send requests with this deadline, in milliseconds (x-request-deadline-ms)
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<f64>,
    /// Requests that may be on their way at once; each is a connection and a thread
    #[arg(long, value_name = "N", default_value_t = 256)]
    connections: usize,
    /// When a request without an answer counts as lost, in seconds
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    timeout: f64,
    /// The key that the server asks for
    #[arg(
        long,
        value_name = "KEY",
        env = "BADGE_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Folder for record.json, report.html and replay.svg
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What is asked: a file of texts, or a task's rows.
#[derive(Debug, Clone, Args)]
struct TextArgs {
    /// File of texts: lines, TSV, CSV, JSONL or Parquet
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "task",
        conflicts_with = "task"
    )]
    texts: Option<PathBuf>,
    /// Task whose rows are asked about; their labels tell the accuracy
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Folder of the task's files
    #[arg(long, value_name = "DIR", requires = "task")]
    data: Option<PathBuf>,
    /// Which of the task's rows
    #[arg(long, value_name = "SPLIT", default_value = "dev", requires = "task")]
    split: String,
}

/// The texts, and what they were read from.
struct Asked {
    questions: Vec<Question>,
    name: String,
    sha256: String,
}

/// The drawing beside the record.
const SVG_FILE: &str = "replay.svg";

/// The page beside it.
const PAGE_FILE: &str = "report.html";

pub(crate) fn run(args: &ReplayArgs, session: Session) -> Result<Verdict> {
    let started = now();
    let options = args.options()?;
    let adjustment = args.adjustment();
    adjustment.check()?;
    if let Some(out) = &args.out {
        check_out(out)?;
    }
    let traffic = args.trace.traffic(adjustment, session.seed);
    let traffic = traffic.context("--trace")?;
    let asked = args.texts.read(session)?;
    let report = args.send(&options, &traffic, (&asked, session))?;
    if let Some(out) = &args.out {
        let record = args.record(&report, &asked, session)?;
        write(out, &report, &record.started(started).finished(now()))?;
    }
    session.console.result(&report, &report.to_text())?;
    Ok(Verdict::Done)
}

fn write(out: &Path, report: &LoadReport, record: &Record) -> Result<()> {
    file::create_folder(out)?;
    let svg = report.panes().to_svg()?;
    file::write_atomic(&out.join(SVG_FILE), svg.as_str().as_bytes())?;
    let page: report::Report = report.page()?;
    page.write(&out.join(PAGE_FILE))?;
    // Last, as it says that everything is there.
    record.write(&out.join(RECORD_FILE))
}

impl ReplayArgs {
    fn options(&self) -> Result<Options> {
        let options = Options {
            url: self.url.clone(),
            slo: milliseconds("--slo-ms", self.slo_ms)?,
            deadline: (self.deadline_ms)
                .map(|ms| milliseconds("--deadline-ms", ms))
                .transpose()?,
            connections: self.connections,
            timeout: milliseconds("--timeout", 1e3 * self.timeout)?,
            api_key: self.api_key.clone(),
        };
        options.check()?;
        Ok(options)
    }

    fn adjustment(&self) -> Adjustment {
        Adjustment {
            scale: self.scale,
            speedup: self.speedup,
            seconds: self.seconds,
        }
    }

    fn send(
        &self,
        options: &Options,
        traffic: &Traffic,
        (asked, session): (&Asked, Session),
    ) -> Result<LoadReport> {
        let (arrivals, burst) = (&traffic.arrivals, traffic.burst);
        let bar = session
            .console
            .bar(arrivals.times().len() as u64, "requests");
        let mut progress = |ended: usize| bar.set_position(ended as u64);
        let outcome = load_test::run(options, arrivals, &asked.questions, &mut progress);
        bar.finish_and_clear();
        let outcome = outcome?;
        let summary = Summary::of(&outcome, options, (arrivals.seconds(), burst));
        Ok(LoadReport {
            trace: self.trace.to_string(),
            timeline: Timeline::of(&outcome, options, summary.seconds),
            server: outcome.server,
            summary,
        })
    }

    fn record(&self, report: &LoadReport, asked: &Asked, session: Session) -> Result<Record> {
        // The generator computes nothing; what the server computes with stands among the results.
        let machine = Machine::detect(self.connections, "none");
        let mut record = Record::new("replay", session.seed, machine);
        record.configuration = json!({
            "url": self.url, "trace": self.trace.to_string(), "scale": self.scale,
            "speedup": self.speedup, "seconds": self.seconds, "texts": asked.name,
            "questions": asked.questions.len(), "slo_ms": self.slo_ms,
            "deadline_ms": self.deadline_ms, "connections": self.connections,
            "timeout": self.timeout,
        });
        record.data.insert(asked.name.clone(), asked.sha256.clone());
        if let Some(path) = self.trace.path() {
            let sha256 = hash::sha256_hex(&file::read_bytes(path)?);
            record.data.insert(self.trace.to_string(), sha256);
        }
        record.results = serde_json::to_value(report)?;
        Ok(record)
    }
}

impl TextArgs {
    fn read(&self, session: Session) -> Result<Asked> {
        match (&self.texts, &self.task) {
            (Some(path), _) => {
                let examples = read_inputs(path, &common_columns(), None)?;
                Ok(Asked {
                    questions: questions(&examples, None).context("--texts")?,
                    name: file_name(path),
                    sha256: hash::sha256_hex(&file::read_bytes(path)?),
                })
            }
            (None, Some(task)) => self.read_task(task, session),
            (None, None) => {
                bail!("there is nothing to ask about: give a file of --texts, or a --task")
            }
        }
    }

    fn read_task(&self, task: &str, session: Session) -> Result<Asked> {
        let name: SplitName = self.split.parse().context("--split")?;
        let (data, folder) = sources::task_data(task, self.data.as_deref(), session.console)?;
        let drawn = data.split(name);
        let official = match drawn {
            Some(_) => None,
            None => official_test(&data.task, folder.as_deref())?,
        };
        let split: &Split = official
            .as_ref()
            .or(drawn)
            .with_context(|| format!("--split: {} has no {name} rows", data.task.name))?;
        let space: &LabelSpace = &data.task.label_space;
        Ok(Asked {
            questions: questions(&split.examples, Some(space)).context("--split")?,
            name: format!("{} {name}", data.task.name),
            sha256: split.sha256.clone(),
        })
    }
}

/// A file's name without the folders it lies in.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn milliseconds(flag: &str, ms: f64) -> Result<Duration> {
    const DAY: f64 = 86_400e3;
    ensure!(
        ms > 0.0 && ms <= DAY,
        "{flag}: {ms} is no time above 0 and up to a day"
    );
    Ok(Duration::from_secs_f64(ms / 1e3))
}
