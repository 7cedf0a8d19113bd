//! What a task file may say, and how it is told what it may not.

use std::fmt::Write as _;

use super::*;

const MINIMAL: &str = "name = \"t\"\nlabels = [\"a\", \"b\"]\nmetric = \"acc\"\n\
                       [files]\ntrain = \"train.tsv\"\n\
                       [columns]\ntext = \"text\"\nlabel = \"label\"\n";

fn parse_text(text: &str) -> Result<Task> {
    parse(Path::new("some/task.toml"), text)
}

#[test]
fn minimal_file_has_the_documented_defaults() {
    let task = parse_text(MINIMAL).unwrap();
    assert_eq!(task.folder.as_deref(), Some(Path::new("some")));
    assert_eq!(task.layout.format, None);
    assert_eq!(task.layout.header, Header::FirstLine);
    assert_eq!(task.layout.label_delimiter, ',');
    assert_eq!(
        task.split_rule,
        SplitRule::Given {
            dev: 0.1,
            test: 0.1
        }
    );
    assert_eq!(task.split_seed, None);
    assert!(!task.is_pair());
    let beside = parse(Path::new("t.toml"), MINIMAL).unwrap();
    assert_eq!(beside.folder.as_deref(), Some(Path::new(".")));
}

#[test]
fn every_key_reaches_the_task() {
    let task = parse_text(
        "name = \"t\"\nproblem = \"multi-label\"\nlabels = \"from-data\"\nmetric = \"f1\"\n\
         format = \"csv\"\nheader = false\nlabel_delimiter = \"|\"\n\
         [files]\ntrain = [\"a.csv\", \"b.csv\"]\ndev = \"c.csv\"\n\
         [columns]\ntext = 1\npair = 2\nlabel = \"3\"\n\
         [split]\nseed = 5\ndev = 0.2\n",
    )
    .unwrap();
    assert_eq!(
        task.label_space,
        LabelSpace::MultiLabel { labels: Vec::new() }
    );
    assert_eq!(task.layout.format, Some(Format::Csv));
    assert_eq!(task.layout.header, Header::Absent);
    assert_eq!(task.layout.label_delimiter, '|');
    assert_eq!(task.layout.columns.pair, Some(Column::any_of(&["2"])));
    assert_eq!(task.layout.columns.label, Column::any_of(&["3"]));
    assert_eq!(task.files.train.alternatives, [["a.csv", "b.csv"]]);
    assert_eq!(task.files.dev.len(), 1);
    assert!(task.files.test.is_empty());
    assert_eq!(
        task.split_rule,
        SplitRule::Given {
            dev: 0.2,
            test: 0.1
        }
    );
    assert_eq!(task.split_seed, Some(5));
}

/// What of the minimal file is replaced by what, and what the error says.
type Fault<'a> = (&'a str, &'a str, &'a str);

fn check_faults(cases: &[Fault<'_>]) {
    for (from, to, message) in cases {
        assert!(MINIMAL.contains(from), "{from}");
        let error = parse_text(&MINIMAL.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("some/task.toml: "), "{error}");
        assert!(
            error.contains(message),
            "`{error}` does not say `{message}`"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

const LABELS: &str = "[\"a\", \"b\"]";

#[test]
fn impossible_values_name_their_key() {
    check_faults(&[
        (
            "\"acc\"",
            "\"accuracy\"",
            "key `metric`: metric `accuracy` is unknown",
        ),
        (
            "\"acc\"",
            "\"pearson\"",
            "key `metric`: metric `pearson` does not fit",
        ),
        (
            LABELS,
            "[\"a\"]",
            "key `labels`: the labels are invalid: at least 2",
        ),
        (
            LABELS,
            "[\"a\", \"a\"]",
            "key `labels`: the labels are invalid: `a`",
        ),
        ("labels = [\"a\", \"b\"]", "", "key `labels`: is needed"),
        (
            "metric",
            "problem = \"regression\"\nmetric",
            "key `labels`: a regression task",
        ),
        (
            "metric",
            "problem = \"ranking\"\nmetric",
            "key `problem`: `ranking` is unknown",
        ),
        (
            "metric",
            "format = \"lines\"\nmetric",
            "key `format`: `lines` have no labels",
        ),
        (
            "metric",
            "format = \"xls\"\nmetric",
            "key `format`: format `xls` is unknown",
        ),
        (
            "metric",
            "label_delimiter = \"\"\nmetric",
            "key `label_delimiter`: must be one",
        ),
        ("\"text\"", "1", "key `columns.text`: must be a name"),
        (
            "metric",
            "header = false\nmetric",
            "key `columns.text`: must be a position",
        ),
        ("\"train.tsv\"", "[]", "key `files.train`: must name a file"),
        (
            "name = \"t\"",
            "name = \" \"",
            "key `name`: must not be empty",
        ),
    ]);
}

#[test]
fn impossible_shares_name_their_key() {
    check_faults(&[
        (
            "[files]",
            "[split]\ndev = 1.5\n[files]",
            "key `split.dev`: 1.5 is not a share",
        ),
        (
            "[files]",
            "[split]\ndev = nan\n[files]",
            "key `split.dev`: NaN is not a share",
        ),
        (
            "[files]",
            "[split]\ndev = 0.5\ntest = 0.5\n[files]",
            "key `split`: dev and test",
        ),
    ]);
}

#[test]
fn syntax_errors_name_their_line() {
    check_faults(&[
        (LABELS, "\"data\"", "line 2 `labels = \"data\"`"),
        (
            "metric",
            "mertic = 1\nmetric",
            "line 3 `mertic = 1`: unknown field `mertic`",
        ),
        ("train = \"train.tsv\"", "", "missing field `train`"),
        ("\"train.tsv\"", "7", "line 5 `train = 7`"),
        ("name = \"t\"", "name = ", "line 1 `name =`"),
        (
            "[files]",
            "[split]\nseed = -1\n[files]",
            "line 5 `seed = -1`",
        ),
    ]);
}

#[test]
fn files_are_relative_to_the_task_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.toml");
    std::fs::write(&path, MINIMAL).unwrap();
    let mut content = "text\tlabel\n".to_owned();
    for row in 0..20 {
        writeln!(content, "text {row}\t{}", ["a", "b"][row % 2]).unwrap();
    }
    std::fs::write(folder.path().join("train.tsv"), content).unwrap();
    let task = Task::open(path.to_str().unwrap()).unwrap();
    let data = crate::split::load(&task, None, 1).unwrap();
    assert_eq!(
        (data.train.len(), data.dev.len(), data.test.len()),
        (16, 2, 2)
    );
    assert_eq!(
        data.dev.origin,
        "2 of 20 rows of train.tsv, drawn with seed 1"
    );
}

#[test]
fn example_of_the_documentation_is_a_task() {
    let document = include_str!("../../../../docs/tasks.md");
    let example = document
        .split("```")
        .find_map(|block| block.strip_prefix("toml\n"))
        .unwrap();
    let task = parse_text(example).unwrap();
    assert_eq!(task.name, "intents");
    assert_eq!(task.label_space.labels(), ["cancel", "order", "smalltalk"]);
    assert_eq!(task.split_seed, Some(crate::split::SPLIT_SEED));
}
