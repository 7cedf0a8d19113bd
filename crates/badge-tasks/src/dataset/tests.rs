//! What every reader accepts and refuses.

use std::fs;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;
use crate::task::Target;

fn single(labels: &[&str]) -> LabelSpace {
    LabelSpace::SingleLabel {
        labels: labels.iter().map(ToString::to_string).collect(),
    }
}

fn layout(pair: Option<&str>) -> Layout {
    let columns = Columns {
        text: Column::any_of(&["text"]),
        pair: pair.map(|name| Column::any_of(&[name])),
        label: Column::any_of(&["label"]),
    };
    input_layout(&columns, None)
}

fn read_content(name: &str, content: &[u8], layout: &Layout, space: &LabelSpace) -> Result<Rows> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    read(&path, layout, space, Labels::Required)
}

fn texts(rows: &Rows) -> Vec<(&str, Option<&Target>)> {
    rows.examples
        .iter()
        .map(|row| (row.text.as_str(), row.target.as_ref()))
        .collect()
}

const NO_YES: [&str; 2] = ["no", "yes"];

#[test]
fn every_format_gives_the_same_examples() {
    let expected = [
        ("say \"hi\"", Some(&Target::Class(1))),
        ("é, ok", Some(&Target::Class(0))),
    ];
    let cases = [
        ("a.tsv", "text\tlabel\nsay \"hi\"\tyes\né, ok\tno\n"),
        (
            "crlf.tsv",
            "text\tlabel\r\nsay \"hi\"\tyes\r\né, ok\tno\r\n\r\n",
        ),
        ("bom.tsv", "\u{feff}text\tlabel\nsay \"hi\"\t1\né, ok\t0"),
        ("a.csv", "label,text\n1,\"say \"\"hi\"\"\"\nno,\"é, ok\"\n"),
        (
            "bom.csv",
            "\u{feff}text,label\r\n\"say \"\"hi\"\"\",yes\r\n\"é, ok\",no\r\n",
        ),
        (
            "a.jsonl",
            "{\"text\":\"say \\\"hi\\\"\",\"label\":1}\n{\"text\":\"é, ok\",\"label\":\"no\"}\n",
        ),
        (
            "b.jsonl",
            "{\"text\":\"say \\\"hi\\\"\",\"label\":true}\n{\"text\":\"é, ok\",\"label\":0.0}",
        ),
    ];
    for (name, content) in cases {
        let rows = read_content(name, content.as_bytes(), &layout(None), &single(&NO_YES));
        assert_eq!(texts(&rows.unwrap()), expected, "{name}");
    }
}

type Fault<'a> = (&'a str, &'a [u8], &'a str);

fn check_faults(cases: &[Fault<'_>]) {
    for (name, content, message) in cases {
        let error = read_content(name, content, &layout(None), &single(&NO_YES)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(message),
            "{name}: `{error}` does not say `{message}`"
        );
        assert!(error.contains(name), "`{error}` does not name the file");
    }
}

#[test]
fn every_fault_of_a_tsv_file_is_located() {
    let long = format!("text\tlabel\n{}\tyes\n", "x".repeat(TEXT_BYTES_MAX + 1));
    check_faults(&[
        (
            "a.tsv",
            b"text\tlabel\nx\tyes\ny\n",
            "line 3: 1 fields where 2 are expected",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\ty\tyes\n",
            "line 2: 3 fields where 2 are expected",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\tyes\n\ny\tno\n",
            "line 3: 1 fields where 2",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\xff\tyes\n",
            "line 2: not UTF-8 at byte 12 of the file",
        ),
        (
            "a.tsv",
            b"text\tlabel\n \tyes\n",
            "line 2: column `text` is empty",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\tmaybe\n",
            "unknown label `maybe`; the labels are `no`, `yes`",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\t2\n",
            "line 2: label 2 is out of range; the labels are 0 to 1",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\t-1\n",
            "line 2: label -1 is out of range",
        ),
        (
            "a.tsv",
            b"text\tlabel\nx\t\n",
            "line 2: the row has no label",
        ),
        (
            "a.tsv",
            b"sentence\tlabel\nx\t0\n",
            "no column `text`; the columns are `sentence`, `label`",
        ),
        (
            "a.tsv",
            b"text\tscore\nx\t0\n",
            "no column `label`; the columns are `text`, `score`",
        ),
        ("a.tsv", b"text\tlabel\n", "holds no rows"),
        ("a.tsv", b"", "holds no rows"),
        ("a.tsv", b"\n\n", "holds no rows"),
        (
            "a.tsv",
            long.as_bytes(),
            "has 1048577 bytes, more than the limit of 1048576",
        ),
    ]);
}

#[test]
fn every_fault_of_other_files_is_located() {
    check_faults(&[
        (
            "a.csv",
            b"text,label\nx,yes\n\"a\nb\",no\ny\n",
            "line 5: 1 fields where 2",
        ),
        ("a.csv", b"", "holds no rows"),
        (
            "a.csv",
            b"text,label\n\"open,yes\n",
            "line 2: a quoted field of this row is not closed",
        ),
        (
            "a.csv",
            b"label,text\nyes,x\nyes,\"one \"\"two\"\"\nno,y\n",
            "line 3: a quoted field of this row is not closed",
        ),
        (
            "a.jsonl",
            b"{\"text\":\"x\",\"label\":0}\n{\"text\":",
            "line 2: not a JSON object",
        ),
        ("a.jsonl", b"[1]\n", "line 1: not a JSON object"),
        (
            "a.jsonl",
            b"{\"txt\":\"x\",\"label\":0}",
            "no key `text`; the keys are `txt`, `label`",
        ),
        (
            "a.jsonl",
            b"{\"text\":5,\"label\":0}",
            "`text` holds the number 5 where a text is",
        ),
        (
            "a.jsonl",
            b"{\"text\":{},\"label\":0}",
            "line 1: key `text` holds an object",
        ),
        (
            "a.jsonl",
            b"{\"text\":\"x\",\"label\":[0]}",
            "`label` holds a list of 1 where the name",
        ),
        (
            "a.jsonl",
            b"{\"text\":\"x\",\"label\":null}",
            "line 1: the row has no label",
        ),
        ("a.dat", b"x", "unknown format; name the file .tsv, .csv"),
    ]);
}

#[test]
fn missing_file_is_named() {
    let path = Path::new("/nowhere/train.tsv");
    let error = read(path, &layout(None), &single(&NO_YES), Labels::Required).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/train.tsv: no such file; check the path"
    );
}

#[test]
fn pair_column_is_needed_and_checked() {
    let space = single(&NO_YES);
    let layout = layout(Some("pair"));
    let rows = read_content("a.tsv", b"pair\ttext\tlabel\nq\tp\tno\n", &layout, &space).unwrap();
    assert_eq!(rows.examples[0].pair.as_deref(), Some("q"));
    let error = read_content("a.tsv", b"text\tlabel\np\tno\n", &layout, &space).unwrap_err();
    assert!(error.to_string().contains("no column `pair`"), "{error}");
    let content = b"pair\ttext\tlabel\n\tp\tno\n";
    let error = read_content("a.tsv", content, &layout, &space).unwrap_err();
    assert!(
        error.to_string().contains("column `pair` is empty"),
        "{error}"
    );
}

#[test]
fn broken_rows_are_counted_where_they_may_be_skipped() {
    let layout = Layout {
        malformed: Malformed::Skip,
        ..layout(None)
    };
    let content = b"text\tlabel\nx\tyes\nbroken\n\tno\ny\tno\n";
    let rows = read_content("a.tsv", content, &layout, &single(&NO_YES)).unwrap();
    assert_eq!((rows.examples.len(), rows.skipped), (2, 2));
    assert_eq!(rows.positions, [0, 3]);
}

#[test]
fn columns_of_a_headless_file_are_called_by_their_position() {
    let mut layout = layout(None);
    layout.columns.text = Column::any_of(&["sentence", "4"]);
    layout.columns.label = Column::any_of(&["label", "2"]);
    layout.header = Header::Detect;
    let rows = read_content(
        "a.tsv",
        b"s\t1\t*\tit\ns\t0\t\tok\n",
        &layout,
        &single(&NO_YES),
    );
    let expected = [
        ("it", Some(&Target::Class(1))),
        ("ok", Some(&Target::Class(0))),
    ];
    assert_eq!(texts(&rows.unwrap()), expected);
    let rows = read_content(
        "a.tsv",
        b"label\tsentence\n1\tit\n",
        &layout,
        &single(&NO_YES),
    );
    assert_eq!(texts(&rows.unwrap()), expected[..1]);
    layout.header = Header::Absent;
    let rows = read_content("a.csv", b"s,1,*,it\n", &layout, &single(&NO_YES));
    assert_eq!(texts(&rows.unwrap()), expected[..1]);
}

#[test]
fn numbers_are_names_where_labels_are_numbers() {
    let rows = read_content(
        "a.tsv",
        b"text\tlabel\nx\t2\n",
        &layout(None),
        &single(&["1", "2"]),
    );
    assert_eq!(rows.unwrap().examples[0].target, Some(Target::Class(1)));
    let error = read_content(
        "a.tsv",
        b"text\tlabel\nx\t0\n",
        &layout(None),
        &single(&["1", "2"]),
    );
    assert!(error.unwrap_err().to_string().contains("unknown label `0`"));
}

#[test]
fn regression_values_are_finite_numbers() {
    let space = LabelSpace::Regression;
    let rows = read_content("a.tsv", b"text\tlabel\nx\t3.25\n", &layout(None), &space).unwrap();
    assert_eq!(rows.examples[0].target, Some(Target::Value(3.25)));
    for value in ["NaN", "inf", "1e60", "three"] {
        let content = format!("text\tlabel\nx\t{value}\n");
        let error = read_content("a.tsv", content.as_bytes(), &layout(None), &space).unwrap_err();
        let message = format!("line 2: `{value}` is not a finite number");
        assert!(error.to_string().contains(&message), "{error}");
    }
}

#[test]
fn label_sets_come_as_lists_flags_or_joined_names() {
    let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
    let space = LabelSpace::MultiLabel { labels };
    let cases: [(&str, &str, [bool; 3]); 7] = [
        ("a.tsv", "text\tlabel\nx\ta, c\n", [true, false, true]),
        ("a.tsv", "text\tlabel\nx\t\n", [false, false, false]),
        ("a.csv", "text,label\nx,\"c,b\"\n", [false, true, true]),
        (
            "a.jsonl",
            "{\"text\":\"x\",\"label\":[\"b\"]}",
            [false, true, false],
        ),
        (
            "a.jsonl",
            "{\"text\":\"x\",\"label\":[0,2]}",
            [true, false, true],
        ),
        (
            "a.jsonl",
            "{\"text\":\"x\",\"label\":[false,true,true]}",
            [false, true, true],
        ),
        (
            "a.jsonl",
            "{\"text\":\"x\",\"label\":[]}",
            [false, false, false],
        ),
    ];
    for (name, content, expected) in cases {
        let rows = read_content(name, content.as_bytes(), &layout(None), &space).unwrap();
        let target = Some(Target::Classes(expected.to_vec()));
        assert_eq!(rows.examples[0].target, target, "{content}");
    }
    let content = b"text\tlabel\nx\ta,d\n";
    let error = read_content("a.tsv", content, &layout(None), &space).unwrap_err();
    assert!(error.to_string().contains("unknown label `d`"), "{error}");
}

#[test]
fn optional_labels_may_be_absent_empty_or_minus_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.tsv");
    for content in ["text\nx\n", "text\tlabel\nx\t\n", "text\tlabel\nx\t-1\n"] {
        fs::write(&path, content).unwrap();
        let rows = read(&path, &layout(None), &single(&NO_YES), Labels::Optional).unwrap();
        assert_eq!(rows.examples[0].target, None, "{content}");
    }
}

#[test]
fn inputs_are_found_in_the_usual_columns() {
    let name = Path::new("standard input");
    let parse =
        |content: &str, format| parse_inputs(name, content.as_bytes(), &common_columns(), format);
    let one = [Example::of_text("x")];
    let two = [Example::of_pair("x", "y")];
    assert_eq!(parse("x\n", Format::Lines).unwrap(), one);
    assert_eq!(parse("sentence\tlabel\nx\t1\n", Format::Tsv).unwrap(), one);
    assert_eq!(
        parse("question\tsentence\nx\ty\n", Format::Tsv).unwrap(),
        two
    );
    assert_eq!(
        parse("premise,hypothesis\nx,y\n", Format::Csv).unwrap(),
        two
    );
    assert_eq!(parse("{\"text\":\"x\"}\n", Format::Jsonl).unwrap(), one);
    assert!(
        parse("x\n\ny\n", Format::Lines)
            .unwrap_err()
            .to_string()
            .contains("line 2")
    );
    assert!(
        parse("", Format::Lines)
            .unwrap_err()
            .to_string()
            .contains("no rows")
    );
    assert!(
        parse("PAR1", Format::Parquet)
            .unwrap_err()
            .to_string()
            .contains("must be a file")
    );
}

/// A Parquet file as the hub's data sets are: texts, labels as 64-bit integers, a score.
fn parquet_content(texts: &[&str], labels: &[i64]) -> Vec<u8> {
    let message = "message schema { required binary text (UTF8); optional int64 label; \
                   required double label_score; }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut content = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut content, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&values, None, None)
        .unwrap();
    column.close().unwrap();
    let levels: Vec<i16> = labels
        .iter()
        .map(|label| i16::from(*label != i64::MIN))
        .collect();
    let present: Vec<i64> = labels
        .iter()
        .copied()
        .filter(|label| *label != i64::MIN)
        .collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&present, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    let scores: Vec<f64> = (0..texts.len()).map(|row| row as f64 / 2.0).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<DoubleType>()
        .write_batch(&scores, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    content
}

#[test]
fn parquet_labels_are_numbers() {
    let content = parquet_content(&["x", "y"], &[1, 0]);
    let rows = read_content("a.parquet", &content, &layout(None), &single(&NO_YES)).unwrap();
    assert_eq!(
        texts(&rows),
        [
            ("x", Some(&Target::Class(1))),
            ("y", Some(&Target::Class(0)))
        ]
    );
}

#[test]
fn parquet_values_and_missing_labels_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.parquet");
    fs::write(&path, parquet_content(&["x", "y", "z"], &[-1, i64::MIN, 0])).unwrap();
    let rows = read(&path, &layout(None), &single(&NO_YES), Labels::Optional).unwrap();
    let targets: Vec<_> = rows.examples.iter().map(|row| row.target.clone()).collect();
    assert_eq!(targets, [None, None, Some(Target::Class(0))]);
    let mut layout = layout(None);
    layout.columns.label = Column::any_of(&["label_score"]);
    let rows = read(&path, &layout, &LabelSpace::Regression, Labels::Required).unwrap();
    assert_eq!(rows.examples[1].target, Some(Target::Value(0.5)));
}

#[test]
fn parquet_faults_are_located() {
    let content = parquet_content(&["x", "y"], &[0, 2]);
    let space = single(&NO_YES);
    let error = read_content("a.parquet", &content, &layout(None), &space).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("line 2: label 2 is out of range"),
        "{error}"
    );
    let error = read_content("a.parquet", &content, &layout(Some("pair")), &space).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no column `pair`; the columns are `text`"),
        "{error}"
    );
}

#[test]
fn truncated_parquet_is_an_error_at_every_length() {
    let content = parquet_content(&["x", "y"], &[0, 1]);
    let space = single(&NO_YES);
    for length in 0..content.len() {
        let error = read_content("a.parquet", &content[..length], &layout(None), &space);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("a.parquet: not a readable Parquet file"),
            "{length}: {error}"
        );
    }
}

#[test]
fn flipped_parquet_bytes_never_panic() {
    let content = parquet_content(&["some text", "another one"], &[0, 1]);
    let space = single(&NO_YES);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let mut refused = 0;
    for at in 0..content.len() {
        let mut broken = content.clone();
        broken[at] ^= 0x41;
        fs::write(&path, &broken).unwrap();
        refused += usize::from(read(&path, &layout(None), &space, Labels::Required).is_err());
    }
    assert!(
        refused > content.len() / 4,
        "only {refused} of {} refused",
        content.len()
    );
}
