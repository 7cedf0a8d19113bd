//! Finding a task's files in a folder and reading them into one pool of rows.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Part, SourceFile, SplitName};
use crate::dataset::{self, Labels};
use crate::error::{Error, Result};
use crate::file::read_error;
use crate::task::{Example, LabelSpace, Source, SplitRule, Task};

/// The folder that a task's files lie in.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Rows of one or several files, and where each comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    pub(super) examples: Vec<Example>,
    /// For every row its file among `files` and its row there.
    pub(super) origins: Vec<(usize, usize)>,
    pub(super) files: Vec<SourceFile>,
    /// For every file the part its rows belong to.
    pub(super) part_of_file: Vec<usize>,
    pub(super) parts: Vec<String>,
    /// Remarks for [`super::Split::origin`].
    pub(super) notes: Vec<String>,
}

impl Folder {
    /// The folder asked for, its sub-folder named as the task, or that of the task file.
    pub(super) fn open(task: &Task, data: Option<&Path>) -> Result<Self> {
        let folder = data.or(task.folder.as_deref());
        let folder = folder
            .ok_or_else(|| Error::NoDataFolder {
                task: task.name.clone(),
            })?
            .to_path_buf();
        let is_task = |name: &str| plain(name) == plain(&task.name);
        let mut matching: Vec<PathBuf> = entries(&folder)?
            .into_iter()
            .filter(|path| path.is_dir() && file_name(path).is_some_and(|name| is_task(&name)))
            .collect();
        matching.sort();
        // A task file names its files relative to its own folder, whatever lies beside them.
        let named = task.split_rule == SplitRule::Paper;
        let path = matching
            .into_iter()
            .next()
            .filter(|_| named)
            .unwrap_or(folder);
        Ok(Self { path })
    }

    /// The task with labels, read from the training rows if the task leaves that to the data.
    pub(super) fn with_labels(&self, task: &Task) -> Result<Task> {
        let mut task = task.clone();
        if task.label_space != LabelSpace::Regression && task.label_space.labels().is_empty() {
            let mut labels = Vec::new();
            for path in self.find(&task.files.train)?.into_iter().flatten() {
                labels.extend(dataset::read_labels(
                    &path,
                    &task.layout,
                    &task.label_space,
                )?);
            }
            // Several files: keep the order of the numbers or names over all of them.
            if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
                labels.sort_by_key(|label| label.parse::<i64>().unwrap_or_default());
            } else {
                labels.sort();
            }
            labels.dedup();
            task.label_space = LabelSpace::new(task.label_space.problem_type(), labels)?;
        }
        Ok(task)
    }

    /// The labelled rows of a source that must be there.
    pub(super) fn required(&self, task: &Task, split: SplitName, source: &Source) -> Result<Pool> {
        let pool = self.optional(task, source, Labels::Required)?;
        pool.ok_or_else(|| self.missing(task, split, std::slice::from_ref(source)))
    }

    /// The rows of a source, if there is one.
    pub(super) fn optional(
        &self,
        task: &Task,
        source: &Source,
        labels: Labels,
    ) -> Result<Option<Pool>> {
        self.concatenation(task, std::slice::from_ref(source), labels)
    }

    /// The rows of those sources that are there, each a part, one after the other; `None` when
    /// none is.
    pub(super) fn concatenation(
        &self,
        task: &Task,
        sources: &[Source],
        labels: Labels,
    ) -> Result<Option<Pool>> {
        let mut pool = Pool::default();
        for source in sources {
            if let Some(files) = self.find(source)? {
                pool.add_part(task, &files, labels)?;
                continue;
            }
            let first = source.alternatives.iter().flatten().next();
            pool.notes.push(format!(
                "{} is absent",
                first.map_or("a file", String::as_str)
            ));
        }
        Ok((!pool.parts.is_empty()).then_some(pool))
    }

    /// The error for a split without files.
    pub(super) fn missing(&self, task: &Task, split: SplitName, sources: &[Source]) -> Error {
        Error::MissingSplit {
            task: task.name.clone(),
            split: split.name(),
            folder: self.path.clone(),
            tried: sources
                .iter()
                .map(Source::tried)
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    /// The files of the first alternative that is there as a whole.
    fn find(&self, source: &Source) -> Result<Option<Vec<PathBuf>>> {
        for alternative in &source.alternatives {
            let mut files = Vec::new();
            let mut complete = true;
            for pattern in alternative {
                let found = self.matches(pattern)?;
                complete &= !found.is_empty();
                files.extend(found);
            }
            if complete && !files.is_empty() {
                return Ok(Some(files));
            }
        }
        Ok(None)
    }

    /// The files that match a name with at most one `*` in its last component, in order.
    fn matches(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        let path = self.path.join(pattern);
        let Some((prefix, suffix)) = file_name(&path).and_then(|name| {
            name.split_once('*')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        }) else {
            return Ok(if path.is_file() {
                vec![path]
            } else {
                Vec::new()
            });
        };
        let folder = path.parent().filter(|folder| folder.is_dir());
        let Some(folder) = folder else {
            return Ok(Vec::new());
        };
        let fits = |name: &str| {
            name.len() >= prefix.len() + suffix.len()
                && name.starts_with(&prefix)
                && name.ends_with(&suffix)
        };
        let mut found = entries(folder)?;
        found.retain(|path| path.is_file() && file_name(path).is_some_and(|name| fits(&name)));
        found.sort();
        Ok(found)
    }
}

impl Pool {
    pub(super) fn rows(&self) -> usize {
        self.examples.len()
    }

    pub(super) fn with_note(mut self, note: &str) -> Self {
        self.notes.push(note.to_owned());
        self
    }

    /// The names of the files, for a message.
    pub(super) fn file_names(&self) -> String {
        let names: Vec<_> = self
            .files
            .iter()
            .filter_map(|file| file_name(&file.path))
            .collect();
        names.join(" + ")
    }

    fn add_part(&mut self, task: &Task, paths: &[PathBuf], labels: Labels) -> Result<()> {
        for path in paths {
            let rows = dataset::read(path, &task.layout, &task.label_space, labels)?;
            let file = self.files.len();
            self.origins
                .extend(rows.positions.iter().map(|position| (file, *position)));
            if rows.skipped > 0 {
                let name = file_name(path).unwrap_or_default();
                self.notes
                    .push(format!("{} broken rows of {name} left out", rows.skipped));
            }
            self.files.push(SourceFile {
                path: path.clone(),
                rows: rows.examples.len() + rows.skipped,
                sha256: rows.sha256,
            });
            self.part_of_file.push(self.parts.len());
            self.examples.extend(rows.examples);
        }
        let stem = paths.first().and_then(|path| path.file_stem());
        self.parts.push(
            stem.map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default(),
        );
        Ok(())
    }

    /// The parts' sizes among the chosen rows.
    pub(super) fn part_sizes(&self, rows: &[usize]) -> Vec<Part> {
        let size = |part: usize| {
            rows.iter()
                .filter(|row| self.part_of_file[self.origins[**row].0] == part)
                .count()
        };
        let parts = self.parts.iter().enumerate();
        parts
            .map(|(part, name)| Part {
                name: name.clone(),
                rows: size(part),
            })
            .collect()
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    listing
        .map(|entry| {
            entry
                .map(|entry| entry.path())
                .map_err(|source| read_error(folder, source))
        })
        .collect()
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
}

/// A name without what people write differently: `SST-2` and `sst2` are the same folder.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', '_'], "")
}
