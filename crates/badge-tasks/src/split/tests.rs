//! The splits of made-up and of real data.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;

use super::*;
use crate::task::{LabelSpace, Target};

/// A TSV file in GLUE's style with `rows` rows, no two alike.
fn write_pairs(path: &Path, prefix: &str, rows: usize) {
    let mut content = "index\tsentence1\tsentence2\tlabel\n".to_owned();
    for row in 0..rows {
        let label = if row % 3 == 0 {
            "entailment"
        } else {
            "not_entailment"
        };
        writeln!(content, "{row}\t{prefix} {row}\tpair {row}\t{label}").unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn texts(split: &Split) -> HashSet<&str> {
    split
        .examples
        .iter()
        .map(|example| example.text.as_str())
        .collect()
}

#[test]
fn small_task_halves_its_validation_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(&folder.path().join("train.tsv"), "train", 30);
    write_pairs(&folder.path().join("dev.tsv"), "dev", 11);
    let task = Task::builtin("rte").unwrap();
    let data = load(&task, Some(folder.path()), 7).unwrap();
    assert_eq!(
        (data.train.len(), data.dev.len(), data.test.len()),
        (30, 5, 6)
    );
    assert!(texts(&data.dev).is_disjoint(&texts(&data.test)));
    assert_eq!(
        data.dev.origin,
        "5 of 11 rows of dev.tsv, drawn with seed 7"
    );
    assert_eq!(data.train.origin, "all 30 rows of train.tsv");
    let again = load(&task, Some(folder.path()), 7).unwrap();
    assert_eq!(again.dev.record(), data.dev.record());
    let other = load(&task, Some(folder.path()), 8).unwrap();
    assert_ne!(other.dev.rows_sha256, data.dev.rows_sha256);
    assert_ne!(other.dev.sha256, data.dev.sha256);
}

#[test]
fn large_task_takes_dev_out_of_its_training_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(&folder.path().join("train.tsv"), "train", 10_000);
    write_pairs(&folder.path().join("dev.tsv"), "dev", 11);
    let task = Task::builtin("rte").unwrap();
    let data = load(&task, Some(folder.path()), SPLIT_SEED).unwrap();
    assert_eq!(
        (data.train.len(), data.dev.len(), data.test.len()),
        (8_000, 2_000, 11)
    );
    assert!(texts(&data.dev).is_disjoint(&texts(&data.train)));
    assert_eq!(data.test.origin, "all 11 rows of dev.tsv");
}

#[test]
fn rows_held_out_beforehand_are_dev() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, rows) in [("train_9k", 9), ("valid_1k", 4), ("dev_matched", 6)] {
        write_pairs(
            &folder.join("MNLI").join(name).with_extension("tsv"),
            name,
            rows,
        );
    }
    let mut task = Task::builtin("mnli").unwrap();
    // The made-up rows have RTE's labels.
    task.label_space = Task::builtin("rte").unwrap().label_space;
    let data = load(&task, Some(folder), SPLIT_SEED).unwrap();
    assert_eq!(
        (data.train.len(), data.dev.len(), data.test.len()),
        (9, 4, 6)
    );
    let origin = "all 4 rows of valid_1k.tsv; held out of the training rows beforehand";
    assert_eq!(data.dev.origin, origin);
    let origin = "all 6 rows of dev_matched.tsv; dev_mismatched.tsv is absent";
    assert_eq!(data.test.origin, origin);
}

#[test]
fn parts_are_scored_apart_and_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, rows) in [
        ("train", 9),
        ("valid_1k", 4),
        ("dev_matched", 6),
        ("dev_mismatched", 3),
    ] {
        write_pairs(&folder.join(name).with_extension("tsv"), name, rows);
    }
    let mut task = Task::builtin("mnli").unwrap();
    task.label_space = Task::builtin("rte").unwrap().label_space;
    let data = load(&task, Some(folder), SPLIT_SEED).unwrap();
    let part = |name: &str, rows| Part {
        name: name.to_owned(),
        rows,
    };
    assert_eq!(
        data.test.parts,
        [part("dev_matched", 6), part("dev_mismatched", 3)]
    );
    // Labels are 0 1 1 0 1 1 and 0 1 1: always answering 1 is right for 4 of 6 and 2 of 3.
    let mut predictions = vec![Target::Class(1); 9];
    let found = data.test.score(MetricKind::Accuracy, &predictions).unwrap();
    assert!((found - 2.0 / 3.0).abs() < 1e-12);
    predictions[6] = Target::Class(0);
    let found = data.test.score(MetricKind::Accuracy, &predictions).unwrap();
    assert!(
        (found - f64::midpoint(2.0 / 3.0, 1.0)).abs() < 1e-12,
        "{found}"
    );
}

#[test]
fn missing_files_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let task = Task::builtin("sst2").unwrap();
    let error = load(&task, Some(folder.path()), 0).unwrap_err().to_string();
    assert!(
        error.starts_with("task `sst2`: no file for split `train` in "),
        "{error}"
    );
    assert!(
        error.contains("train.tsv, train_9k.tsv, train-*.parquet"),
        "{error}"
    );
    let error = load(&task, None, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task `sst2` needs its files; give their folder with --data"
    );
    let missing = folder.path().join("missing");
    assert!(matches!(
        load(&task, Some(&missing), 0).unwrap_err(),
        Error::FileMissing { .. }
    ));
}

#[test]
fn validation_rows_too_few_to_halve_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(&folder.path().join("train.tsv"), "train", 3);
    write_pairs(&folder.path().join("dev.tsv"), "dev", 1);
    let error = load(&Task::builtin("rte").unwrap(), Some(folder.path()), 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task `rte`: 1 rows of dev.tsv are too few to divide; 2 are needed"
    );
}

#[test]
fn unlabelled_split_cannot_be_scored() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("test.tsv"),
        "index\tsentence1\tsentence2\n0\ta\tb\n",
    )
    .unwrap();
    let task = Task::builtin("rte").unwrap();
    let split = official_test(&task, Some(folder.path())).unwrap().unwrap();
    assert_eq!(split.examples[0], Example::of_pair("a", "b"));
    let error = split
        .score(MetricKind::Accuracy, &[Target::Class(0)])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("split `official-test` has no labels (row 1)"),
        "{error}"
    );
}

#[test]
fn names_of_splits_round_trip() {
    for name in SplitName::ALL {
        assert_eq!(name.name().parse::<SplitName>().unwrap(), name);
        assert_eq!(serde_json::to_string(&name).unwrap(), format!("\"{name}\""));
    }
    assert!("valid".parse::<SplitName>().is_err());
}

#[test]
fn target_and_order_change_the_content_hash() {
    let example = |target| Example {
        target,
        ..Example::of_text("x")
    };
    let hashes: HashSet<String> = [
        None,
        Some(Target::Class(0)),
        Some(Target::Class(1)),
        Some(Target::Classes(vec![true])),
        Some(Target::Value(0.0)),
    ]
    .into_iter()
    .map(|target| content_sha256(&[example(target)]))
    .collect();
    assert_eq!(hashes.len(), 5);
}

#[test]
fn labels_left_to_the_data_are_sorted_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.tsv");
    let mut task = Task::builtin("sst2").unwrap();
    task.split_rule = SplitRule::Given {
        dev: 0.2,
        test: 0.2,
    };
    task.files.held_out = crate::task::Source::default();
    task.files.dev.clear();
    task.files.test.clear();
    for (labels, expected) in [(["b", "a"], ["a", "b"]), (["10", "9"], ["9", "10"])] {
        task.label_space = LabelSpace::SingleLabel { labels: Vec::new() };
        let mut content = "sentence\tlabel\n".to_owned();
        for row in 0..10 {
            writeln!(content, "text {row}\t{}", labels[row % 2]).unwrap();
        }
        fs::write(&path, content).unwrap();
        let data = load(&task, Some(folder.path()), 1).unwrap();
        assert_eq!(data.task.label_space.labels(), expected);
        assert_eq!(
            (data.train.len(), data.dev.len(), data.test.len()),
            (6, 2, 2)
        );
    }
}
