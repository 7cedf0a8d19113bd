//! Texts to classify and tasks to learn that are damaged, one way each.

use std::fs;

use super::setup::TASK;
use super::{Case, NOTHING, case};

const TRAIN: &str = "data/train.tsv";

pub(crate) const INPUTS: &[Case] = &[
    case(
        "no such file",
        NOTHING,
        "predict --model model absent.txt",
        &["absent.txt", "no such file"],
    ),
    case(
        "a directory instead of a file",
        NOTHING,
        "predict --model model data",
        &["data", "is a directory"],
    ),
    case(
        "an empty file",
        |setup| setup.write("texts.txt", ""),
        "predict --model model texts.txt",
        &["texts.txt", "holds no rows"],
    ),
    case(
        "nothing on standard input",
        NOTHING,
        "predict --model model",
        &["standard input", "holds no rows"],
    ),
    case(
        "Parquet from a stream",
        NOTHING,
        "predict --model model - --format parquet",
        &["standard input", "Parquet"],
    ),
    case(
        "an extension that tells nothing",
        |setup| setup.write("texts.dat", "text"),
        "predict --model model texts.dat",
        &["texts.dat", "unknown format"],
    ),
    case(
        "bytes that are not UTF-8",
        |setup| setup.write("texts.txt", b"the cat\nna\xefve\n"),
        "predict --model model texts.txt",
        &["texts.txt", "line 2", "not UTF-8"],
    ),
    case(
        "an empty line",
        |setup| setup.write("texts.txt", "the cat\n\na dog\n"),
        "predict --model model texts.txt",
        &["texts.txt", "line 2", "empty"],
    ),
    case(
        "a line of 10 MB",
        |setup| {
            setup.write(
                "texts.txt",
                format!("the cat\n{}\n", "ha ".repeat(3_500_000)),
            );
        },
        "predict --model model texts.txt",
        &["texts.txt", "line 2", "bytes"],
    ),
    case(
        "a line of JSONL is cut off",
        |setup| setup.write("texts.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\n"),
        "predict --model model texts.jsonl",
        &["texts.jsonl", "line 2", "JSON"],
    ),
    case(
        "a quote of a CSV file is not closed",
        |setup| setup.write("texts.csv", "text\nfine\n\"open\nmore\n"),
        "predict --model model texts.csv",
        &["texts.csv", "line 3", "not closed"],
    ),
    case(
        "a Parquet file is cut off",
        |setup| setup.write("texts.parquet", b"PAR1\x15\x04\x15\x10"),
        "predict --model model texts.parquet",
        &["texts.parquet", "not a readable Parquet file"],
    ),
    case(
        "no such column",
        NOTHING,
        "predict --model model data/test.tsv --text-column utterance",
        &["data/test.tsv", "`utterance`", "`label`, `text`"],
    ),
    case(
        "no such second column",
        NOTHING,
        "predict --model model data/test.tsv --pair-column other",
        &["--pair-column", "`other`"],
    ),
    case(
        "columns of plain lines",
        NOTHING,
        "predict --model model texts.txt --format lines --text-column text",
        &["--format lines", "--text-column"],
    ),
    case(
        "no room for a single token",
        NOTHING,
        "predict --model model texts.txt --max-length 2",
        &["maximal length of 2 tokens"],
    ),
    case(
        "logits in a table",
        NOTHING,
        "predict --model model texts.txt --logits",
        &["--logits", "--json"],
    ),
    case(
        "rows and a document at once",
        NOTHING,
        "predict --model model texts.txt --output tsv --json",
        &["--output", "--json"],
    ),
];

pub(crate) const TASKS: &[Case] = &[
    case(
        "unknown task",
        NOTHING,
        "train --backbone model --task snli --out out",
        &["task `snli` is unknown", "rte", "task.toml"],
    ),
    case(
        "the data folder is missing",
        NOTHING,
        "train --backbone model --task rte --data absent --out out",
        &["rte", "absent"],
    ),
    case(
        "the data folder is empty",
        |setup| fs::create_dir(setup.path("empty")).unwrap(),
        "eval --model model --task rte --data empty",
        &["rte", "train", "empty"],
    ),
    case(
        "a task file is missing",
        NOTHING,
        "train --backbone model --task absent/task.toml --out out",
        &["absent/task.toml", "no such file"],
    ),
    case(
        "a task file is malformed",
        |setup| setup.write("task.toml", "name = \"x\"\nlabels = [\n"),
        "train --backbone model --task task.toml --out out",
        &["task.toml", "line 2"],
    ),
    case(
        "a task file has an unknown key",
        |setup| setup.write("task.toml", format!("epochs = 3\n{TASK}")),
        "train --backbone model --task task.toml --out out",
        &["task.toml", "line 1", "epochs"],
    ),
    case(
        "a task file names a missing file",
        |setup| setup.write("task.toml", TASK.replace("train.tsv", "gone.tsv")),
        "train --backbone model --task task.toml --out out",
        &["gone.tsv"],
    ),
    case(
        "a metric that does not fit the labels",
        |setup| setup.write("task.toml", TASK.replace("\"acc\"", "\"pearson\"")),
        "train --backbone model --task task.toml --out out",
        &["task.toml", "`metric`", "pearson"],
    ),
    case(
        "a label twice in a task file",
        |setup| setup.write("task.toml", TASK.replace("[\"no\", ", "[\"yes\", ")),
        "train --backbone model --task task.toml --out out",
        &["task.toml", "`labels`", "yes"],
    ),
    case(
        "a row with too many fields",
        |setup| setup.write(TRAIN, "label\ttext\nyes\ta\nno\tb\tc\n"),
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "line 3", "3 fields where 2"],
    ),
    case(
        "a file that is not UTF-8",
        |setup| setup.write(TRAIN, b"label\ttext\nyes\t\xff\xfe\n"),
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "line 2", "not UTF-8"],
    ),
    case(
        "a row without a text",
        |setup| setup.write(TRAIN, "label\ttext\nyes\ta\nno\t \n"),
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "line 3", "`text` is empty"],
    ),
    case(
        "a text of 10 MB",
        |setup| {
            setup.write(
                TRAIN,
                format!("label\ttext\nyes\t{}\n", "x".repeat(10 << 20)),
            );
        },
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "line 2", "`text`", "10485760 bytes"],
    ),
    case(
        "an unknown label",
        |setup| setup.write(TRAIN, "label\ttext\nmaybe\ta\n"),
        "train --backbone model --task task.toml --out out",
        &[
            "train.tsv",
            "line 2",
            "unknown label `maybe`",
            "`no`, `yes`",
        ],
    ),
    case(
        "a label out of range",
        |setup| setup.write(TRAIN, "label\ttext\n1\ta\n7\tb\n"),
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "line 3", "label 7 is out of range", "0 to 1"],
    ),
    case(
        "a column is missing",
        |setup| setup.write(TRAIN, "answer\ttext\nyes\ta\n"),
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "no column `label`", "`answer`"],
    ),
    case(
        "a value that is NaN",
        |setup| {
            let labels = "problem = \"regression\"";
            let task = TASK.replace("labels = [\"no\", \"yes\"]", labels);
            setup.write("task.toml", task.replace("\"acc\"", "\"pearson\""));
            setup.write(TRAIN, "label\ttext\n0.5\ta\nnan\tb\n");
        },
        "train --backbone model --task task.toml --out out",
        &["train.tsv", "line 3", "`nan` is not a finite number"],
    ),
    case(
        "labels that are not the model's",
        NOTHING,
        "eval --model model --task task.toml",
        &[
            "the model answers",
            "LABEL_4",
            "the task asks for",
            "no, yes",
        ],
    ),
    case(
        "unknown split",
        NOTHING,
        "eval --model model --task task.toml --split validation",
        &["--split", "`validation`", "train, dev, test"],
    ),
];
