//! TensorBoard event files: records of a length, its masked CRC-32C, a protobuf `Event` and the
//! masked CRC-32C of that. Only scalars are written, so the few fields are encoded here.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use badge_tasks::file;

use super::{EpochReport, Observer, StepReport};
use crate::error::Result;

/// Writes `events.out.tfevents.*` into a folder; a resumed run adds another file, which
/// TensorBoard merges.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    path: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl TensorBoard {
    /// A log in this folder, opened when the run starts.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            path: PathBuf::new(),
            writer: None,
        }
    }

    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            bytes_field(&mut entry, 1, tag.as_bytes());
            fixed32_field(&mut entry, 2, (*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        fixed64_field(&mut event, 1, now_s().to_le_bytes());
        varint_field(&mut event, 2, step);
        bytes_field(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> Result<()> {
        let writer = self
            .writer
            .as_mut()
            .expect("a run starts before its first step");
        writer
            .write_all(&framed(event))
            .map_err(|source| file::write_error(&self.path, source))
            .map_err(Into::into)
    }
}

impl Observer for TensorBoard {
    fn start(&mut self, step: u64, _steps_total: u64) -> Result<()> {
        file::create_folder(&self.folder)?;
        let name = format!("events.out.tfevents.{:010}.badge.{step}", now_s() as u64);
        self.path = self.folder.join(name);
        let created = File::create(&self.path);
        let created = created.map_err(|source| file::write_error(&self.path, source))?;
        self.writer = Some(BufWriter::new(created));
        let mut version = Vec::new();
        fixed64_field(&mut version, 1, now_s().to_le_bytes());
        bytes_field(&mut version, 3, b"brain.Event:2");
        self.record(&version)
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        let mut scalars = vec![
            ("train/loss".to_owned(), report.loss),
            ("train/learning_rate".to_owned(), report.learning_rate),
            ("train/gradient_norm".to_owned(), report.gradient_norm),
            (
                "train/tokens_per_second".to_owned(),
                report.tokens as f64 / report.seconds,
            ),
        ];
        for (exit, loss) in report.exit_losses.iter().enumerate() {
            scalars.push((format!("train_exit_loss/{:02}", exit + 1), *loss));
        }
        for (term, value) in &report.terms {
            scalars.push((format!("train_term/{term}"), *value));
        }
        self.scalars(report.step, &scalars)
    }

    fn epoch(&mut self, report: &EpochReport) -> Result<()> {
        let mut scalars = vec![
            ("dev/s_avg".to_owned(), report.scores.average),
            ("dev/s_best".to_owned(), report.scores.best),
        ];
        for (exit, score) in report.scores.exits.iter().enumerate() {
            scalars.push((format!("dev_exit_score/{:02}", exit + 1), *score));
        }
        self.scalars(report.step, &scalars)?;
        let writer = self
            .writer
            .as_mut()
            .expect("a run starts before its first epoch");
        Ok(writer
            .flush()
            .map_err(|source| file::write_error(&self.path, source))?)
    }
}

fn now_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// A record as it stands in the file.
fn framed(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

/// TFRecord's mask: a rotation and a constant, so that a CRC of data with CRCs stays useful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: event files are small.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    })
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn fixed64_field(out: &mut Vec<u8>, field: u64, value: [u8; 8]) {
    varint(out, field << 3 | 1);
    out.extend(value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn fixed32_field(out: &mut Vec<u8>, field: u64, value: [u8; 4]) {
    varint(out, field << 3 | 5);
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_castagnolis() {
        // The check value of the CRC catalogue, and RFC 3720's 32 zero bytes.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_record_is_framed_by_its_length_and_two_checksums() {
        let record = framed(b"abc");
        assert_eq!(record.len(), 8 + 4 + 3 + 4);
        assert_eq!(&record[..8], &3_u64.to_le_bytes());
        assert_eq!(&record[12..15], b"abc");
        assert_eq!(&record[15..], &masked_crc(b"abc").to_le_bytes());
    }

    #[test]
    fn long_numbers_take_seven_bits_a_byte() {
        let mut out = Vec::new();
        varint(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
    }
}
