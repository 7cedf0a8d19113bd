//! The facts of GLUE's nine tasks: labels, metrics, columns and file names.
//!
//! One row per task serves three layouts: the official TSV files, simplified TSV files that keep
//! the texts and the label, and the Parquet files of the hub's `nyu-mll/glue`. They differ in the
//! names of columns and files only, so each fact is a list of names, and the one that is there is
//! taken. Labels are in the hub's order, which is the order of the logits.

use super::{
    Column, Columns, Files, Header, LabelSpace, Layout, Malformed, Source, SplitRule, Task,
};
use crate::metric::MetricKind;

/// The names, in the order of the GLUE paper.
pub(super) const NAMES: [&str; 9] = [
    "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli",
];

const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];

/// What distinguishes one task from the next.
#[derive(Debug)]
pub(super) struct Facts {
    name: &'static str,
    /// In the order of the logits; none for regression.
    labels: &'static [&'static str],
    metric: MetricKind,
    text: &'static [&'static str],
    pair: &'static [&'static str],
    label: &'static [&'static str],
    header: Header,
    malformed: Malformed,
    /// File names beyond the common ones.
    extra_train: &'static [&'static str],
    extra_test: &'static [&'static str],
    /// What stands behind `dev`, `validation` and `test` in file names.
    suffixes: &'static [&'static str],
}

/// The facts that most tasks share.
const COMMON: Facts = Facts {
    name: "",
    labels: &[],
    metric: MetricKind::Accuracy,
    text: &["sentence1"],
    pair: &["sentence2"],
    label: &["label"],
    header: Header::FirstLine,
    malformed: Malformed::Refuse,
    extra_train: &[],
    extra_test: &[],
    suffixes: &[""],
};

const FACTS: [Facts; 9] = [
    Facts {
        name: "cola",
        labels: &["unacceptable", "acceptable"],
        metric: MetricKind::Matthews,
        // The official train and dev files have no header: source, label, star, sentence.
        text: &["sentence", "4"],
        pair: &[],
        label: &["label", "2"],
        header: Header::Detect,
        ..COMMON
    },
    Facts {
        name: "sst2",
        labels: &["negative", "positive"],
        text: &["sentence"],
        pair: &[],
        ..COMMON
    },
    Facts {
        name: "mrpc",
        labels: &["not_equivalent", "equivalent"],
        metric: MetricKind::AccuracyF1,
        text: &["sentence1", "#1 String"],
        pair: &["sentence2", "#2 String"],
        label: &["label", "Quality"],
        extra_train: &["msr_paraphrase_train.txt"],
        extra_test: &["msr_paraphrase_test.txt"],
        ..COMMON
    },
    Facts {
        name: "stsb",
        metric: MetricKind::PearsonSpearman,
        label: &["score", "label"],
        ..COMMON
    },
    Facts {
        name: "qqp",
        labels: &["not_duplicate", "duplicate"],
        metric: MetricKind::AccuracyF1,
        text: &["question1", "sentence1"],
        pair: &["question2", "sentence2"],
        label: &["is_duplicate", "label"],
        // A few rows of the official file are broken off; the hub's build leaves them out too.
        malformed: Malformed::Skip,
        ..COMMON
    },
    Facts {
        name: "mnli",
        labels: &["entailment", "neutral", "contradiction"],
        text: &["sentence1", "premise"],
        pair: &["sentence2", "hypothesis"],
        label: &["gold_label", "label"],
        suffixes: &["_matched", "_mismatched"],
        ..COMMON
    },
    Facts {
        name: "qnli",
        labels: ENTAILMENT,
        text: &["question", "sentence1"],
        pair: &["sentence", "sentence2"],
        ..COMMON
    },
    Facts {
        name: "rte",
        labels: ENTAILMENT,
        ..COMMON
    },
    Facts {
        name: "wnli",
        labels: &["not_entailment", "entailment"],
        ..COMMON
    },
];

/// The task called `name`, however its hyphens and capitals are written.
pub(super) fn find(name: &str) -> Option<&'static Facts> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    FACTS.iter().find(|facts| facts.name == plain(name))
}

impl Facts {
    pub(super) fn task(&self) -> Task {
        let labels: Vec<String> = self.labels.iter().map(ToString::to_string).collect();
        let label_space = match labels.as_slice() {
            [] => LabelSpace::Regression,
            _ => LabelSpace::SingleLabel { labels },
        };
        Task {
            name: self.name.to_owned(),
            label_space,
            metric: self.metric,
            layout: Layout {
                format: None,
                header: self.header,
                columns: Columns {
                    text: Column::any_of(self.text),
                    pair: (!self.pair.is_empty()).then(|| Column::any_of(self.pair)),
                    label: Column::any_of(self.label),
                },
                label_delimiter: ',',
                malformed: self.malformed,
            },
            files: self.files(),
            split_rule: SplitRule::Paper,
            split_seed: None,
            folder: None,
        }
    }

    /// The files of `nyu-mll/glue` at its main revision.
    pub(super) fn hub_files(&self) -> Vec<String> {
        let file = |split: &str| format!("{}/{split}-00000-of-00001.parquet", self.name);
        let mut files = vec![file("train")];
        for split in ["validation", "test"] {
            files.extend(
                self.suffixes
                    .iter()
                    .map(|suffix| file(&format!("{split}{suffix}"))),
            );
        }
        files
    }

    fn files(&self) -> Files {
        let mut train = vec!["train.tsv".to_owned(), "train_9k.tsv".to_owned()];
        train.extend(self.extra_train.iter().map(ToString::to_string));
        train.extend(self.parquet("train"));
        let dev = |suffix: &&str| {
            let mut names = vec![format!("dev{suffix}.tsv")];
            names.extend(self.parquet(&format!("validation{suffix}")));
            source(names)
        };
        let test = |suffix: &&str| {
            // The original corpus has labels in its test file, which GLUE's own lacks.
            let mut names: Vec<_> = self.extra_test.iter().map(ToString::to_string).collect();
            names.push(format!("test{suffix}.tsv"));
            names.extend(self.parquet(&format!("test{suffix}")));
            source(names)
        };
        Files {
            train: source(train),
            held_out: Source::first_of(&["valid_1k.tsv", "valid.tsv"]),
            dev: self.suffixes.iter().map(dev).collect(),
            test: self.suffixes.iter().map(test).collect(),
        }
    }

    /// Where the hub's branches and their copies keep the Parquet files of a split.
    fn parquet(&self, split: &str) -> [String; 6] {
        let config = self.name;
        [
            format!("{split}-*.parquet"),
            format!("{config}/{split}-*.parquet"),
            format!("data/{split}-*.parquet"),
            format!("{split}.parquet"),
            // The layout of the branch `refs/convert/parquet`.
            format!("{split}/*.parquet"),
            format!("{config}/{split}/*.parquet"),
        ]
    }
}

fn source(names: Vec<String>) -> Source {
    Source {
        alternatives: names.into_iter().map(|name| vec![name]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_task_whose_metric_fits() {
        for name in NAMES {
            let task = Task::builtin(name).unwrap();
            assert_eq!(task.name, name);
            task.metric.check(&task.label_space).unwrap();
        }
        assert_eq!(FACTS.map(|facts| facts.name), NAMES);
    }

    #[test]
    fn spelling_of_the_name_does_not_matter() {
        for name in ["SST-2", "sst2", "Sst_2"] {
            assert_eq!(Task::builtin(name).unwrap().name, "sst2");
        }
    }

    #[test]
    fn labels_are_in_the_order_of_the_hub() {
        let cases: [(&str, &[&str], &str); 9] = [
            ("cola", &["unacceptable", "acceptable"], "mcc"),
            ("sst2", &["negative", "positive"], "acc"),
            ("mrpc", &["not_equivalent", "equivalent"], "acc-f1"),
            ("stsb", &[], "pearson-spearman"),
            ("qqp", &["not_duplicate", "duplicate"], "acc-f1"),
            ("mnli", &["entailment", "neutral", "contradiction"], "acc"),
            ("qnli", &["entailment", "not_entailment"], "acc"),
            ("rte", &["entailment", "not_entailment"], "acc"),
            ("wnli", &["not_entailment", "entailment"], "acc"),
        ];
        for (name, labels, metric) in cases {
            let task = Task::builtin(name).unwrap();
            assert_eq!(task.label_space.labels(), labels, "{name}");
            assert_eq!(task.metric.name(), metric, "{name}");
        }
    }

    #[test]
    fn hub_files_follow_its_layout() {
        assert_eq!(
            Task::builtin("mnli").unwrap().hub_files(),
            [
                "mnli/train-00000-of-00001.parquet",
                "mnli/validation_matched-00000-of-00001.parquet",
                "mnli/validation_mismatched-00000-of-00001.parquet",
                "mnli/test_matched-00000-of-00001.parquet",
                "mnli/test_mismatched-00000-of-00001.parquet",
            ]
        );
    }
}
