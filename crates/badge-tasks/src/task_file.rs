//! `task.toml`: a task of one's own, described in a file.
//!
//! # Example
//!
//! A complete file; only `name`, `metric`, `labels`, `files.train` and the two columns are needed.
//!
//! ```
//! let text = r#"
//! ## What the task is called in records and tables.
//! name = "intents"
//! ## single-label (the default), multi-label or regression.
//! problem = "single-label"
//! ## The labels in the order of the logits, or "from-data": all that occur in the training files,
//! ## sorted. Not allowed for regression.
//! labels = ["cancel", "order", "smalltalk"]
//! ## acc, f1, macro-f1, acc-f1, mcc, pearson, spearman or pearson-spearman.
//! metric = "acc"
//! ## tsv, csv, jsonl or parquet; by the files' extensions if left out.
//! format = "tsv"
//! ## Whether TSV and CSV files start with the columns' names (the default). If not, columns are
//! ## called by their position: 1 is the first.
//! header = true
//! ## What stands between the labels of a multi-label cell; a comma if left out.
//! label_delimiter = ","
//!
//! ## Names relative to this file, or lists of them; dev and test may be left out.
//! [files]
//! train = ["train-a.tsv", "train-b.tsv"]
//! dev = "dev.tsv"
//! test = "test.tsv"
//!
//! ## The names of the columns; `pair` only for tasks on pairs of texts.
//! [columns]
//! text = "utterance"
//! label = "intent"
//!
//! ## How what is left out of `files` is drawn.
//! [split]
//! seed = 2023
//! dev = 0.1
//! test = 0.1
//! "#;
//! let task = badge_tasks::task_file::parse(std::path::Path::new("intents/task.toml"), text)?;
//! assert_eq!(task.label_space.outputs(), 3);
//! # Ok::<(), badge_tasks::Error>(())
//! ```
//!
//! # Splits
//!
//! Files that are named are taken whole. Without `files.test`, the rows of `files.dev` are halved
//! into dev and test. Without `files.dev`, the share `split.dev` of the training rows becomes dev;
//! without both, `split.dev` and `split.test` of them become dev and test: 8 : 1 : 1 by default,
//! as the paper divides its own data sets.

mod form;

use std::path::{Path, PathBuf};

use crate::dataset::Format;
use crate::error::{Error, Result};
use crate::file;
use crate::metric::MetricKind;
use crate::task::{
    Column, Columns, Files, Header, LabelSpace, Layout, Malformed, ProblemType, Source, SplitRule,
    Task,
};

use self::form::{ColumnName, Labels, OneOrMany, TaskForm};

/// The shares drawn when the file does not say: the paper's 8 : 1 : 1.
const DEFAULT_SHARE: f64 = 0.1;

/// Reads a task file.
///
/// # Errors
///
/// [`Error::TaskFile`] naming the file and the key, and what reading a file can meet.
pub fn read(path: &Path) -> Result<Task> {
    parse(path, &file::read_text(path)?)
}

/// Parses the text of a task file; file names in it are relative to the folder of `path`.
///
/// # Errors
///
/// [`Error::TaskFile`] naming the file and the key.
pub fn parse(path: &Path, text: &str) -> Result<Task> {
    let form: TaskForm = toml::from_str(text).map_err(|error| syntax_error(path, text, &error))?;
    let context = Context { path };
    let label_space = context.label_space(&form)?;
    let metric: MetricKind = context.word("metric", &form.metric)?;
    if !label_space.labels().is_empty() || label_space == LabelSpace::Regression {
        metric
            .check(&label_space)
            .map_err(|error| context.error("metric", &error.to_string()))?;
    }
    if form.name.trim().is_empty() {
        return Err(context.error("name", "must not be empty"));
    }
    Ok(Task {
        layout: context.layout(&form)?,
        files: context.files(&form)?,
        split_rule: context.split_rule(&form)?,
        split_seed: form.split.seed,
        name: form.name,
        label_space,
        metric,
        folder: Some(context.folder()),
    })
}

/// Turns parts of the form into parts of a task, with errors that name the file.
struct Context<'a> {
    path: &'a Path,
}

impl Context<'_> {
    fn error(&self, key: &str, problem: &str) -> Error {
        Error::TaskFile {
            path: self.path.to_path_buf(),
            key: format!("key `{key}`"),
            problem: problem.to_owned(),
        }
    }

    /// The folder that file names are relative to.
    fn folder(&self) -> PathBuf {
        let folder = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_path_buf()
    }

    /// A word that stands for one of several values.
    fn word<T: std::str::FromStr<Err = Error>>(&self, key: &str, word: &str) -> Result<T> {
        word.parse()
            .map_err(|error: Error| self.error(key, &error.to_string()))
    }

    fn label_space(&self, form: &TaskForm) -> Result<LabelSpace> {
        let kind = match form.problem.as_deref() {
            None | Some("single-label") => ProblemType::SingleLabel,
            Some("multi-label") => ProblemType::MultiLabel,
            Some("regression") => ProblemType::Regression,
            Some(other) => {
                let allowed = "use single-label, multi-label or regression";
                return Err(self.error("problem", &format!("`{other}` is unknown; {allowed}")));
            }
        };
        match (&form.labels, kind) {
            (None, ProblemType::Regression) => Ok(LabelSpace::Regression),
            (Some(_), ProblemType::Regression) => {
                Err(self.error("labels", "a regression task has none; remove the key"))
            }
            (None, _) => Err(self.error("labels", "is needed: a list, or \"from-data\"")),
            (Some(Labels::FromData), ProblemType::MultiLabel) => {
                Ok(LabelSpace::MultiLabel { labels: Vec::new() })
            }
            (Some(Labels::FromData), ProblemType::SingleLabel) => {
                Ok(LabelSpace::SingleLabel { labels: Vec::new() })
            }
            (Some(Labels::List(labels)), _) => LabelSpace::new(kind, labels.clone())
                .map_err(|error| self.error("labels", &error.to_string())),
        }
    }

    fn layout(&self, form: &TaskForm) -> Result<Layout> {
        let format: Option<Format> = match &form.format {
            Some(name) => Some(self.word("format", name)?),
            None => None,
        };
        if format == Some(Format::Lines) {
            return Err(self.error(
                "format",
                "`lines` have no labels; use it for prediction only",
            ));
        }
        let header = if form.header.unwrap_or(true) {
            Header::FirstLine
        } else {
            Header::Absent
        };
        let column = |key: &str, name: &ColumnName| self.column(key, name, header);
        let delimiter = form.label_delimiter.as_deref().unwrap_or(",");
        let mut characters = delimiter.chars();
        let (Some(label_delimiter), None) = (characters.next(), characters.next()) else {
            return Err(self.error("label_delimiter", "must be one character"));
        };
        let pair = form.columns.pair.as_ref();
        Ok(Layout {
            format,
            header,
            columns: Columns {
                text: column("columns.text", &form.columns.text)?,
                pair: pair.map(|name| column("columns.pair", name)).transpose()?,
                label: column("columns.label", &form.columns.label)?,
            },
            label_delimiter,
            malformed: Malformed::Refuse,
        })
    }

    fn column(&self, key: &str, name: &ColumnName, header: Header) -> Result<Column> {
        let name = match (name, header) {
            (ColumnName::Name(name), Header::Absent) if name.parse::<usize>().is_err() => {
                let problem = "must be a position (1 is the first column), for `header` is false";
                return Err(self.error(key, problem));
            }
            (ColumnName::Name(name), _) => name.clone(),
            (ColumnName::Position(position), Header::Absent) => position.to_string(),
            (ColumnName::Position(_), _) => {
                let problem = "must be a name; positions need `header = false`";
                return Err(self.error(key, problem));
            }
        };
        if name.is_empty() || name == "0" {
            return Err(self.error(key, "must be a name, or a position from 1"));
        }
        Ok(Column { names: vec![name] })
    }

    fn files(&self, form: &TaskForm) -> Result<Files> {
        let source = |key: &str, files: &OneOrMany| {
            let names = files.names();
            if names.is_empty() || names.iter().any(String::is_empty) {
                return Err(self.error(key, "must name a file"));
            }
            Ok(Source {
                alternatives: vec![names],
            })
        };
        let part = |key: &str, files: &Option<OneOrMany>| match files {
            Some(files) => Ok(vec![source(key, files)?]),
            None => Ok(Vec::new()),
        };
        Ok(Files {
            train: source("files.train", &form.files.train)?,
            held_out: Source::default(),
            dev: part("files.dev", &form.files.dev)?,
            test: part("files.test", &form.files.test)?,
        })
    }

    fn split_rule(&self, form: &TaskForm) -> Result<SplitRule> {
        let share = |key: &str, share: Option<f64>| {
            let share = share.unwrap_or(DEFAULT_SHARE);
            if share > 0.0 && share < 1.0 {
                Ok(share)
            } else {
                Err(self.error(key, &format!("{share} is not a share between 0 and 1")))
            }
        };
        let dev = share("split.dev", form.split.dev)?;
        let test = share("split.test", form.split.test)?;
        if dev + test >= 1.0 {
            return Err(self.error("split", "dev and test together leave nothing to train on"));
        }
        Ok(SplitRule::Given { dev, test })
    }
}

/// The parser's message with the line it points at.
fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = error
        .span()
        .map(|span| 1 + text[..span.start].matches('\n').count());
    let shown = line
        .and_then(|line| text.lines().nth(line - 1))
        .map(str::trim)
        .unwrap_or_default();
    let key = match line {
        Some(line) if !shown.is_empty() => format!("line {line} `{shown}`"),
        _ => "the file".to_owned(),
    };
    Error::TaskFile {
        path: path.to_path_buf(),
        key,
        problem: error.message().trim().replace('\n', ", "),
    }
}

#[cfg(test)]
mod tests;
