//! The layouts that GLUE's tasks come in: the official TSV files and the hub's Parquet files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use badge_tasks::split::{SPLIT_SEED, official_test};
use badge_tasks::{Example, Target, Task, TaskData, load};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// Writes a task's files and loads it.
fn load_files(task: &str, files: &[(&str, String)]) -> TaskData {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    load(
        &Task::builtin(task).unwrap(),
        Some(folder.path()),
        SPLIT_SEED,
    )
    .unwrap()
}

fn labelled(text: &str, pair: Option<&str>, class: usize) -> Example {
    Example {
        text: text.to_owned(),
        pair: pair.map(str::to_owned),
        target: Some(Target::Class(class)),
    }
}

#[test]
fn mrpc_has_columns_with_number_signs() {
    let header = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n";
    let rows = "1\t10\t11\tHe said \"no .\tHe refused .\r\n0\t12\t13\ta\tb\r\n";
    let files = [
        ("msr_paraphrase_train.txt", format!("{header}{rows}")),
        ("dev.tsv", format!("{header}{rows}")),
    ];
    let data = load_files("mrpc", &files);
    let expected = [
        labelled("He said \"no .", Some("He refused ."), 1),
        labelled("a", Some("b"), 0),
    ];
    assert_eq!(data.train.examples, expected);
    assert_eq!((data.dev.len(), data.test.len()), (1, 1));
}

#[test]
fn mnli_has_its_label_behind_the_annotators_labels() {
    let train = "index\tpromptID\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label\n\
                 0\t1\t( ROOT x )\tpremise\thypothesis\tentailment\tneutral\n";
    let dev = "index\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label\n\
               0\tp\th\tneutral\tneutral\tcontradiction\n";
    let files = [
        ("train.tsv", train.to_owned()),
        ("valid_1k.tsv", dev.to_owned()),
        ("dev_matched.tsv", dev.to_owned()),
        (
            "dev_mismatched.tsv",
            format!("{dev}1\tp2\th2\tneutral\tneutral\tentailment\n"),
        ),
    ];
    let data = load_files("mnli", &files);
    assert_eq!(
        data.train.examples,
        [labelled("premise", Some("hypothesis"), 1)]
    );
    let classes = data.test.targets().unwrap();
    assert_eq!(
        classes,
        [Target::Class(2), Target::Class(2), Target::Class(0)]
    );
    assert_eq!(
        data.test.origin,
        "all 3 rows of dev_matched.tsv + dev_mismatched.tsv"
    );
}

#[test]
fn cola_has_a_header_in_its_test_file_only() {
    let rows = "gj04\t1\t\tThey sang.\ngj04\t0\t*\tThem sang.\n";
    let folder = tempfile::tempdir().unwrap();
    for name in ["train.tsv", "dev.tsv"] {
        fs::write(folder.path().join(name), rows).unwrap();
    }
    fs::write(
        folder.path().join("test.tsv"),
        "index\tsentence\n0\tBill whistled.\n",
    )
    .unwrap();
    let task = Task::builtin("cola").unwrap();
    let data = load(&task, Some(folder.path()), SPLIT_SEED).unwrap();
    let expected = [
        labelled("They sang.", None, 1),
        labelled("Them sang.", None, 0),
    ];
    assert_eq!(data.train.examples, expected);
    let test = official_test(&task, Some(folder.path())).unwrap().unwrap();
    assert_eq!(test.examples, [Example::of_text("Bill whistled.")]);
}

#[test]
fn qqp_leaves_out_broken_rows_and_says_so() {
    let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
    let rows =
        "1\t1\t2\tWhat?\tWhich?\t1\n2\t3\t4\tWhy\n3\t5\t6\tHow?\t\t0\n4\t7\t8\tWho?\tWe?\t0\n";
    let content = format!("{header}{rows}");
    let data = load_files(
        "qqp",
        &[("train.tsv", content.clone()), ("dev.tsv", content)],
    );
    let expected = [
        labelled("What?", Some("Which?"), 1),
        labelled("Who?", Some("We?"), 0),
    ];
    assert_eq!(data.train.examples, expected);
    let origin = "all 2 rows of train.tsv; 2 broken rows of train.tsv left out";
    assert_eq!(data.train.origin, origin);
}

/// A file as `nyu-mll/glue` has them: texts, the label as a number, the row's number.
fn write_parquet(path: &Path, texts: [&[&str]; 2], labels: &[i64]) {
    let message = "message schema { optional binary question (UTF8); \
                   optional binary sentence (UTF8); optional int64 label; optional int32 idx; }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels = vec![1_i16; labels.len()];
    for texts in texts {
        let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&levels), None)
            .unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(labels, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    let numbers: Vec<i32> = (0..labels.len() as i32).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int32Type>()
        .write_batch(&numbers, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn hub_files_are_read_shard_by_shard() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("qnli");
    fs::create_dir(&files).unwrap();
    let shard = |name: &str| files.join(format!("{name}.parquet"));
    write_parquet(&shard("train-00000-of-00002"), [&["a?"], &["b"]], &[1]);
    write_parquet(&shard("train-00001-of-00002"), [&["c?"], &["d"]], &[0]);
    write_parquet(
        &shard("validation-00000-of-00001"),
        [&["e?", "g?"], &["f", "h"]],
        &[0, 1],
    );
    write_parquet(&shard("test-00000-of-00001"), [&["i?"], &["j"]], &[-1]);
    let task = Task::builtin("qnli").unwrap();
    let data = load(&task, Some(folder.path()), SPLIT_SEED).unwrap();
    let expected = [labelled("a?", Some("b"), 1), labelled("c?", Some("d"), 0)];
    assert_eq!(data.train.examples, expected);
    assert_eq!((data.dev.len(), data.test.len()), (1, 1));
    let test = official_test(&task, Some(folder.path())).unwrap().unwrap();
    assert_eq!(test.examples, [Example::of_pair("i?", "j")]);
}

#[test]
fn unlabelled_row_in_training_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000-of-00001.parquet");
    write_parquet(&path, [&["a?"], &["b"]], &[-1]);
    let error = load(&Task::builtin("qnli").unwrap(), Some(folder.path()), 0).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("line 1: label -1 is out of range"),
        "{error}"
    );
}
