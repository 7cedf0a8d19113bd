//! The real data sets, where they are there: counts, labels and splits as published.
//!
//! `BADGE_TEST_DATA` names their folder; without it `../shared/data` beside the workspace is
//! tried. A set that is not there is skipped with a message.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use badge_tasks::split::{SPLIT_SEED, official_test};
use badge_tasks::{Example, Split, Target, Task, TaskData, Tokenizer, load};

fn data_folder() -> PathBuf {
    std::env::var_os("BADGE_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    )
}

/// The task's splits, or `None` where its folder is absent.
fn load_real(name: &str, folder: &str) -> Option<TaskData> {
    let data = data_folder();
    if !data.join(folder).is_dir() {
        eprintln!("skipped: no {folder} in {}", data.display());
        return None;
    }
    Some(load(&Task::builtin(name).unwrap(), Some(&data), SPLIT_SEED).unwrap())
}

fn class_counts(splits: &[&Split]) -> Vec<usize> {
    let mut counts = BTreeMap::new();
    for example in splits.iter().flat_map(|split| &split.examples) {
        if let Some(Target::Class(class)) = example.target {
            *counts.entry(class).or_insert(0) += 1;
        }
    }
    counts.into_values().collect()
}

#[test]
fn glue_splits_have_the_papers_sizes() {
    let cases = [
        ("rte", "RTE", [2490, 138, 139]),
        ("mrpc", "MRPC", [3668, 204, 204]),
        ("mnli", "MNLI", [8999, 1000, 9815]),
        ("sst2", "SST-2", [65_349, 2000, 872]),
        ("qnli", "QNLI", [8999, 1000, 5463]),
        ("cola", "CoLA", [8551, 521, 522]),
        ("stsb", "STS-B", [5749, 750, 750]),
        ("wnli", "WNLI", [635, 35, 36]),
    ];
    for (name, folder, sizes) in cases {
        let Some(data) = load_real(name, folder) else {
            continue;
        };
        assert_eq!(
            [data.train.len(), data.dev.len(), data.test.len()],
            sizes,
            "{name}"
        );
        for split in [&data.train, &data.dev, &data.test] {
            split.targets().unwrap();
            assert_eq!(
                split.examples[0].pair.is_some(),
                data.task.is_pair(),
                "{name}"
            );
        }
    }
}

#[test]
fn labels_are_counted_as_in_the_files() {
    let cases: [(&str, &str, &[usize], &[usize]); 4] = [
        ("rte", "RTE", &[1249, 1241], &[146, 131]),
        ("mrpc", "MRPC", &[1194, 2474], &[129, 279]),
        ("wnli", "WNLI", &[323, 312], &[40, 31]),
        (
            "mnli",
            "MNLI",
            &[3061, 2980, 2958],
            &[347 + 3479, 333 + 3123, 320 + 3213],
        ),
    ];
    for (name, folder, train, evaluation) in cases {
        let Some(data) = load_real(name, folder) else {
            continue;
        };
        assert_eq!(class_counts(&[&data.train]), train, "{name}");
        assert_eq!(class_counts(&[&data.dev, &data.test]), evaluation, "{name}");
    }
}

#[test]
fn rte_split_is_pinned() {
    let Some(data) = load_real("rte", "RTE") else {
        return;
    };
    assert_eq!(
        data.dev.origin,
        "138 of 277 rows of dev.tsv, drawn with seed 2023"
    );
    // Recorded once: published scores refer to these rows.
    assert_eq!(data.dev.rows_sha256, RTE_DEV_ROWS);
    assert_eq!(data.test.rows_sha256, RTE_TEST_ROWS);
}

/// SHA-256 of the list `dev.tsv:ROW` of the dev half.
const RTE_DEV_ROWS: &str = "df711ec1534c71a9790a1f72874e17e78b6df0142d0ec09946e4c96c4a667487";
/// The same of the test half.
const RTE_TEST_ROWS: &str = "f6b8eeb092d21b0f8b13ae5f369cbbc63cb7909a1595f7e108c7e5904eeed2c5";

#[test]
fn official_test_rows_are_labelled_for_mrpc_only() {
    let data = data_folder();
    if !data.join("RTE").is_dir() || !data.join("MRPC").is_dir() {
        eprintln!("skipped: no RTE and MRPC in {}", data.display());
        return;
    }
    let read = |name| {
        official_test(&Task::builtin(name).unwrap(), Some(&data))
            .unwrap()
            .unwrap()
    };
    let mrpc = read("mrpc");
    assert_eq!(class_counts(&[&mrpc]), [578, 1147]);
    assert_eq!(mrpc.targets().unwrap().len(), 1725);
    let rte = read("rte");
    assert_eq!(rte.len(), 3000);
    assert!(rte.targets().is_err());
}

#[test]
fn mnli_says_that_mismatched_rows_are_absent() {
    let Some(data) = load_real("mnli", "MNLI") else {
        return;
    };
    assert_eq!(
        data.test.origin,
        "all 9815 rows of dev_matched.tsv; dev_mismatched.tsv is absent"
    );
    assert!(
        data.dev
            .origin
            .contains("valid_1k.tsv; held out of the training rows beforehand")
    );
}

#[test]
fn regression_values_lie_between_0_and_5() {
    let Some(data) = load_real("stsb", "STS-B") else {
        return;
    };
    for target in data.train.targets().unwrap() {
        let Target::Value(value) = target else {
            panic!("{target:?} is no value")
        };
        assert!((0.0..=5.0).contains(&value), "{value}");
    }
}

/// A task file for one of the sets that are not of GLUE.
fn load_custom(folder: &str, dev: Option<&str>, columns: &str, metric: &str) -> Option<TaskData> {
    let data = data_folder().join(folder);
    if !data.is_dir() {
        eprintln!("skipped: no {}", data.display());
        return None;
    }
    let dev = dev
        .map(|name| format!("dev = \"{name}\"\n"))
        .unwrap_or_default();
    let text = format!(
        "name = \"{folder}\"\nlabels = \"from-data\"\nmetric = \"{metric}\"\n\
         [files]\ntrain = \"train.tsv\"\n{dev}test = \"test.tsv\"\n\
         [columns]\nlabel = \"label\"\n{columns}\n"
    );
    let task = badge_tasks::task_file::parse(&data.join("task.toml"), &text).unwrap();
    Some(load(&task, None, SPLIT_SEED).unwrap())
}

#[test]
fn custom_tasks_have_the_published_sizes_and_labels() {
    let pair = "text = \"query\"\npair = \"document\"";
    let text = "text = \"text\"";
    let cases = [
        (
            "BANKING77",
            Some("valid.tsv"),
            text,
            "acc",
            [8622, 1540, 3080],
            77,
        ),
        (
            "CLINC150",
            Some("valid.tsv"),
            text,
            "acc",
            [15_000, 3000, 4500],
            150,
        ),
        ("reuters52", None, text, "macro-f1", [5431, 603, 2591], 52),
        ("20ng", None, text, "acc", [10_183, 1131, 7532], 20),
        ("WikiQA", Some("dev.tsv"), pair, "f1", [8672, 1130, 2351], 2),
        ("TrecQA", Some("dev.tsv"), pair, "f1", [5919, 1364, 1517], 2),
    ];
    for (folder, dev, columns, metric, sizes, labels) in cases {
        let Some(data) = load_custom(folder, dev, columns, metric) else {
            continue;
        };
        assert_eq!(
            [data.train.len(), data.dev.len(), data.test.len()],
            sizes,
            "{folder}"
        );
        assert_eq!(data.task.label_space.outputs(), labels, "{folder}");
    }
}

#[test]
fn vocabulary_file_tokenises_as_the_tokenizer_file_does() {
    let models = std::env::var_os("BADGE_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let model = models.join("arctic-embed-s");
    let (Ok(tokenizer), Some(data)) = (Tokenizer::from_directory(&model), load_real("rte", "RTE"))
    else {
        eprintln!("skipped: no tokeniser in {}", model.display());
        return;
    };
    let hello = tokenizer
        .encode(&Example::of_pair("Hello, world!", "It's me."), 16)
        .unwrap();
    let expected = [
        101, 7592, 1010, 2088, 999, 102, 2009, 1005, 1055, 2033, 1012, 102,
    ];
    assert_eq!(hello.ids, expected);
    assert_eq!(hello.type_ids, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model.join("vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    let built = Tokenizer::from_directory(folder.path()).unwrap();
    for max_length in [24, 256] {
        assert_eq!(
            built.encode_all(&data.dev.examples, max_length).unwrap(),
            tokenizer
                .encode_all(&data.dev.examples, max_length)
                .unwrap()
        );
    }
}
