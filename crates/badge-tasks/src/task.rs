//! What a task is: where its texts and labels lie, what may be answered, and how it is scored.

mod glue;
mod label_space;

use std::path::{Path, PathBuf};

pub use badge_core::config::ProblemType;
pub use label_space::LabelSpace;

use crate::dataset::Format;
use crate::error::{Error, Result};
use crate::metric::MetricKind;
use crate::task_file;

/// A task: everything needed to read its files, make its splits and score its predictions.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The name: `rte`, or the one a task file gives.
    pub name: String,
    /// What may be answered.
    ///
    /// The list of labels is empty in a task whose file says `labels = "from-data"`, until
    /// [`crate::split::load`] has read them from the training file.
    pub label_space: LabelSpace,
    /// What it is scored by.
    pub metric: MetricKind,
    /// How a file's rows become examples.
    pub layout: Layout,
    /// Which files hold which part.
    pub files: Files,
    /// How train, dev and test come out of the files.
    pub split_rule: SplitRule,
    /// The seed of the splits when the task fixes one itself.
    pub split_seed: Option<u64>,
    /// The folder file names are relative to when none is given: that of the task file.
    pub folder: Option<PathBuf>,
}

/// How a file's rows become examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The format of all files; by each file's extension when absent.
    pub format: Option<Format>,
    /// Whether TSV and CSV files start with the columns' names.
    pub header: Header,
    /// Where texts and labels lie.
    pub columns: Columns,
    /// What stands between the labels of a multi-label cell.
    pub label_delimiter: char,
    /// What happens to broken rows.
    pub malformed: Malformed,
}

/// Whether TSV and CSV files start with the columns' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The first line names the columns.
    FirstLine,
    /// There are no names; columns are called by their position, `1` for the first.
    Absent,
    /// The first line is a header if it holds a name of the text column, and data otherwise.
    Detect,
}

/// What happens to rows that are ragged or lack a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They are an error.
    Refuse,
    /// They are left out, and [`crate::Split::origin`] says how many.
    Skip,
}

/// Where texts and labels lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The text, or the first of a pair.
    pub text: Column,
    /// The second text of a pair.
    pub pair: Option<Column>,
    /// The label.
    pub label: Column,
}

/// A column by the names it goes by; the first that a file has is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The names, the likeliest first.
    pub names: Vec<String>,
}

impl Column {
    /// A column that goes by any of `names`.
    pub fn any_of(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    /// Its place among `columns`.
    pub(crate) fn position(&self, columns: &[String]) -> Option<usize> {
        self.names
            .iter()
            .find_map(|name| columns.iter().position(|column| column == name))
    }

    /// The names for a message.
    pub(crate) fn wanted(&self) -> String {
        let quoted: Vec<_> = self.names.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(" or ")
    }
}

/// Which files hold which part of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Training rows.
    pub train: Source,
    /// Rows that somebody held out of the training rows already.
    pub held_out: Source,
    /// Validation rows; MNLI has two sources, matched and mismatched.
    pub dev: Vec<Source>,
    /// Test rows; GLUE's carry no labels but for MRPC's.
    pub test: Vec<Source>,
}

/// Alternatives for the same rows: the first of which every file is there is taken.
///
/// A name may hold `*` for the shards of a Parquet data set, which are read in order of name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Sets of file names, relative to the data folder.
    pub alternatives: Vec<Vec<String>>,
}

impl Source {
    /// The first of several single files that is there.
    pub fn first_of(names: &[&str]) -> Self {
        Self {
            alternatives: names.iter().map(|name| vec![(*name).to_owned()]).collect(),
        }
    }

    /// The names for a message.
    pub(crate) fn tried(&self) -> String {
        let sets: Vec<_> = self
            .alternatives
            .iter()
            .map(|set| set.join(" + "))
            .collect();
        sets.join(", ")
    }
}

/// How train, dev and test come out of a task's files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SplitRule {
    /// GLUE has no public test labels. With fewer than 10,000 training rows the validation rows
    /// are halved into dev and test; otherwise 2,000 training rows become dev and the validation
    /// rows test (BADGE, Appendix B.3).
    Paper,
    /// Files are taken as they are; what is missing is drawn: dev and test from train by these
    /// fractions, or from dev by halving it when there is a dev file and no test file.
    Given {
        /// Share of the training rows that becomes dev.
        dev: f64,
        /// Share of the training rows that becomes test.
        test: f64,
    },
}

/// One text or pair of texts with its target, if known.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The right answer.
    pub target: Option<Target>,
}

impl Example {
    /// An unlabelled example of one text.
    pub fn of_text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            pair: None,
            target: None,
        }
    }

    /// An unlabelled example of two texts.
    pub fn of_pair(text: impl Into<String>, pair: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            pair: Some(pair.into()),
            target: None,
        }
    }
}

/// An answer, right or predicted.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One label by its number.
    Class(usize),
    /// For every label whether it holds.
    Classes(Vec<bool>),
    /// A value.
    Value(f32),
}

impl Task {
    /// A built-in task by its name; case and the characters `-` and `_` do not matter.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], listing the built-in tasks.
    ///
    /// # Example
    ///
    /// ```
    /// use badge_tasks::Task;
    ///
    /// let task = Task::builtin("rte")?;
    /// assert_eq!(task.label_space.labels(), ["entailment", "not_entailment"]);
    /// assert!(task.is_pair());
    /// # Ok::<(), badge_tasks::Error>(())
    /// ```
    pub fn builtin(name: &str) -> Result<Self> {
        glue::find(name)
            .map(glue::Facts::task)
            .ok_or_else(|| Error::UnknownName {
                what: "task",
                found: name.to_owned(),
                allowed: format!(
                    "{}, or the path of a task.toml",
                    Self::builtin_names().join(", ")
                ),
            })
    }

    /// The names of the built-in tasks.
    pub fn builtin_names() -> Vec<&'static str> {
        glue::NAMES.to_vec()
    }

    /// A task as the command line names it: a built-in name, or the path of a task file.
    ///
    /// # Errors
    ///
    /// As [`Task::builtin`] and [`task_file::read`].
    pub fn open(spec: &str) -> Result<Self> {
        let path = Path::new(spec);
        let is_file = path
            .extension()
            .is_some_and(|extension| extension == "toml")
            || path.components().count() > 1;
        if is_file {
            task_file::read(path)
        } else {
            Self::builtin(spec)
        }
    }

    /// Whether examples are pairs of texts.
    pub fn is_pair(&self) -> bool {
        self.layout.columns.pair.is_some()
    }

    /// The files of a built-in task in the data set `nyu-mll/glue` of the Hugging Face hub, and
    /// nothing for other tasks.
    pub fn hub_files(&self) -> Vec<String> {
        match (self.split_rule, glue::find(&self.name)) {
            (SplitRule::Paper, Some(facts)) => facts.hub_files(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_task_lists_the_known() {
        let error = Task::open("snli").unwrap_err();
        assert_eq!(
            error.to_string(),
            "task `snli` is unknown; use one of cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, \
             wnli, or the path of a task.toml"
        );
    }

    #[test]
    fn spec_with_a_path_is_a_task_file() {
        for spec in ["no/such/folder", "missing.toml"] {
            assert!(
                matches!(Task::open(spec).unwrap_err(), Error::FileMissing { .. }),
                "{spec}"
            );
        }
    }

    #[test]
    fn first_name_that_is_there_wins() {
        let columns = ["label".to_owned(), "gold_label".to_owned()];
        assert_eq!(
            Column::any_of(&["gold_label", "label"]).position(&columns),
            Some(1)
        );
        assert_eq!(
            Column::any_of(&["score", "label"]).position(&columns),
            Some(0)
        );
        assert_eq!(Column::any_of(&["text"]).position(&columns), None);
    }
}
