//! Tasks beside GLUE's that experiments use: public data sets that stand in for the paper's
//! proprietary ones. Their files are described in `experiments/tasks`.

use std::path::Path;

use anyhow::Result;
use badge_tasks::{Task, task_file};

/// Name and description.
const TASKS: [(&str, &str); 3] = [
    (
        "banking77",
        include_str!("../../../../experiments/tasks/banking77.toml"),
    ),
    (
        "reuters52",
        include_str!("../../../../experiments/tasks/reuters52.toml"),
    ),
    (
        "wikiqa",
        include_str!("../../../../experiments/tasks/wikiqa.toml"),
    ),
];

/// A task by its name in an experiment, and whether it comes with a folder of its own: the path of
/// a task file does.
///
/// # Errors
/// When no task is called so, or its file is wrong.
pub fn open(name: &str) -> Result<Task> {
    match TASKS.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => {
            let file = format!("experiments/tasks/{name}.toml");
            let task = task_file::parse(Path::new(&file), text)?;
            Ok(Task {
                folder: None,
                ..task
            })
        }
        None => Ok(Task::open(name)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_that_come_along_are_whole() {
        for (name, _) in TASKS {
            let task = open(name).unwrap();
            assert_eq!(task.name, name);
            assert!(
                task.folder.is_none(),
                "its rows lie where the data folder says"
            );
        }
        assert_eq!(open("mrpc").unwrap().name, "mrpc");
        assert!(open("wishes").is_err());
    }
}
