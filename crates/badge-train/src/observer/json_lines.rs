//! The event log that scripts read: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use badge_tasks::file;
use serde::Serialize;

use super::{EpochReport, Observer, StepReport};
use crate::error::Result;

/// Appends to a `.jsonl` file. A resumed run drops the lines that lie behind its checkpoint,
/// because it will write them again.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Step(&'a StepReport),
    Epoch(&'a EpochReport),
}

impl JsonLines {
    /// A log at this path, opened when the run starts.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            writer: None,
        }
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let failed = |source| file::write_error(&self.path, source);
        let writer = self
            .writer
            .as_mut()
            .expect("a run starts before its first step");
        let mut text = serde_json::to_vec(line).expect("plain data serialises");
        text.push(b'\n');
        writer.write_all(&text).map_err(failed)?;
        // A step takes long enough for those who follow the file to see each line at once.
        Ok(writer.flush().map_err(failed)?)
    }
}

impl Observer for JsonLines {
    fn start(&mut self, step: u64, _steps_total: u64) -> Result<()> {
        let kept: String = match std::fs::read_to_string(&self.path) {
            Ok(text) if step > 0 => {
                let at_most = |line: &&str| {
                    let value = serde_json::from_str::<serde_json::Value>(line).ok();
                    value
                        .and_then(|v| v["step"].as_u64())
                        .is_some_and(|s| s <= step)
                };
                text.lines()
                    .filter(at_most)
                    .flat_map(|line| [line, "\n"])
                    .collect()
            }
            _ => String::new(),
        };
        file::write_atomic(&self.path, kept.as_bytes())?;
        let failed = |source| file::write_error(&self.path, source);
        let file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(failed)?;
        self.writer = Some(BufWriter::new(file));
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.write(&Line::Step(report))
    }

    fn epoch(&mut self, report: &EpochReport) -> Result<()> {
        self.write(&Line::Epoch(report))
    }
}
