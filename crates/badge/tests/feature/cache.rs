//! The token cache: rows are tokenised once, and never wrongly taken from a file.

use std::fs;
use std::path::PathBuf;

use super::{TRAIN, done};
use crate::setup::{Setup, stderr};

/// Rows with the labels of the untrained model.
fn with_rows() -> Setup {
    let setup = Setup::new();
    let labels: Vec<_> = (0..5).map(|label| format!("\"LABEL_{label}\"")).collect();
    let task = [
        "name = \"five\"",
        &format!("labels = [{}]", labels.join(", ")),
        "metric = \"acc\"\n[files]\ntrain = \"five.tsv\"\ndev = \"five.tsv\"\ntest = \"five.tsv\"",
        "[columns]\ntext = \"text\"\nlabel = \"label\"\n",
    ];
    setup.write("five.toml", task.join("\n"));
    setup.write(
        "five.tsv",
        "label\ttext\nLABEL_0\tthe cat sat\nLABEL_3\ta dog\n",
    );
    setup
}

const EVAL: &str = "eval --model model --task five.toml";

/// The files of token ids.
fn files(setup: &Setup) -> Vec<PathBuf> {
    let folder = fs::read_dir(setup.path("cache/tokens"));
    let entries = folder.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// How often a command says something of the rows' tokens.
fn told(setup: &Setup, arguments: &str, what: &str) -> usize {
    stderr(&done(setup, arguments)).matches(what).count()
}

#[test]
fn rows_are_tokenised_once() {
    let setup = Setup::new();
    let train = format!("{TRAIN} --epochs 1 -v");
    let first = told(&setup, &train, "tokenised, and kept in");
    assert_eq!((first, files(&setup).len()), (2, 2));
    let weights = setup.read("out/model.safetensors");
    assert_eq!(told(&setup, &train, "token ids read from"), 2);
    assert_eq!(setup.read("out/model.safetensors"), weights);
    // Dev is known from training, which had the same longest input.
    let eval = "eval --model out --task task.toml --split dev -v";
    assert_eq!(told(&setup, eval, "token ids read from"), 1);
    assert_eq!(files(&setup).len(), 2);
}

#[test]
fn a_damaged_file_is_told_of_and_replaced() {
    let setup = with_rows();
    let eval = format!("{EVAL} --json");
    let expected = done(&setup, &eval).stdout;
    let [path] = &files(&setup)[..] else {
        panic!("{:?}", files(&setup));
    };
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() - 3]).unwrap();
    let output = done(&setup, &eval);
    assert!(
        stderr(&output).contains("were damaged"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.stdout, expected);
    assert_eq!(fs::read(path).unwrap(), whole);
}

#[test]
fn no_cache_reads_and_writes_none() {
    let setup = with_rows();
    let eval = format!("{EVAL} --no-cache -v");
    assert_eq!(told(&setup, &eval, "test: tokenised\n"), 1);
    assert!(files(&setup).is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_told_of() {
    let setup = with_rows();
    setup.write("cache", "a file where a folder should be");
    assert_eq!(told(&setup, EVAL, "not kept for the next time"), 1);
}
