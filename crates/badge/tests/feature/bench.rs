//! `badge bench` on tiny models: what is measured, not how fast.

use badge_lab::record::Record;
use serde_json::{Value, json};

use super::setup::Setup;
use super::{document, done, stdout};

/// A field of every row.
fn column(rows: &Value, name: &str) -> Vec<Value> {
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| row[name].clone()).collect()
}

fn numbers(rows: &Value, name: &str) -> Vec<f64> {
    let column = column(rows, name);
    column
        .iter()
        .map(|x| x.as_f64().unwrap_or_else(|| panic!("{name}: {x}")))
        .collect()
}

#[test]
fn latency_has_a_row_for_each_precision_and_length() {
    let setup = Setup::new();
    let report = document(
        &setup,
        "bench latency --model model --lengths 3,11 --runs 2 --threads 1",
    );
    assert_eq!(report["command"], "bench latency");
    assert_eq!(report["machine"]["threads"], 1);
    let rows = &report["rows"];
    assert_eq!(
        column(rows, "length"),
        [3, 11, 3, 11, 3, 11].map(Value::from)
    );
    let precisions = ["f32", "f32", "bf16", "bf16", "int8", "int8"];
    assert_eq!(column(rows, "precision"), precisions.map(Value::from));
    assert_eq!(column(rows, "policy"), vec![json!("full"); 6]);
    for row in rows.as_array().unwrap() {
        let ms = |name: &str| row[name].as_f64().unwrap();
        assert!(
            0.0 < ms("min_ms") && ms("min_ms") <= ms("median_ms"),
            "{row}"
        );
        assert!(
            ms("median_ms") <= ms("p95_ms") && ms("gflops") > 0.0,
            "{row}"
        );
        // Null where the processor has no instruction for the precision.
        assert!(
            row["share_of_peak"]
                .as_f64()
                .is_none_or(|share| share > 0.0),
            "{row}"
        );
    }
    assert_eq!((report.get("depths"), report.get("exits")), (None, None));
}

#[test]
fn every_depth_is_held_against_the_full_one() {
    let setup = Setup::new();
    let arguments = "bench latency --model model --precision f32 --lengths 7 --batch 2 --runs 2";
    let report = document(&setup, &format!("{arguments} --depths --exits all"));
    let depths = &report["depths"];
    assert_eq!(column(depths, "depth"), [1, 2, 3, 4, 5].map(Value::from));
    assert_eq!(numbers(depths, "ideal_share"), [0.2, 0.4, 0.6, 0.8, 1.0]);
    assert_eq!(numbers(depths, "share_of_full")[4], 1.0);
    for (share, over) in numbers(depths, "share_of_full")
        .iter()
        .zip(numbers(depths, "over_ideal"))
    {
        assert!(*share > 0.0 && over > 0.0, "{depths}");
    }
    let exits = &report["exits"][0];
    assert_eq!((&exits["batch"], &exits["length"]), (&json!(2), &json!(7)));
    let ms = |name: &str| exits[name].as_f64().unwrap();
    assert!(ms("plain_ms") > 0.0 && ms("all_exits_ms") > 0.0);
    assert!(ms("overhead_percent") > -100.0);
    let told = stdout(&done(&setup, &format!("{arguments} --depths --exits all")));
    for words in ["of peak", "over m/M", "overhead"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_profile_tells_where_the_time_goes() {
    let setup = Setup::new();
    let arguments = "bench latency --model model --precision int8 --lengths 7 --runs 2 --profile";
    let report = document(&setup, &format!("{arguments} --policy fixed:1"));
    let operations = &report["operations"];
    let share: f64 = numbers(operations, "share").iter().sum();
    assert!((share - 1.0).abs() < 1e-9, "{operations}");
    let names = column(operations, "operation");
    for name in ["embeddings", "attention", "feed-forward", "classifier"] {
        assert!(names.contains(&json!(name)), "{name}: {operations}");
    }
}

#[test]
fn a_policy_that_leaves_early_computes_less() {
    let setup = Setup::new();
    let work = |policy: &str| {
        let arguments = "bench latency --model model --precision f32 --lengths 9 --runs 2 --policy";
        let report = document(&setup, &format!("{arguments} {policy}"));
        let row = &report["rows"][0];
        assert_eq!(row["policy"], policy);
        row["gflops"].as_f64().unwrap() * row["median_ms"].as_f64().unwrap()
    };
    let (two, full) = (work("fixed:2"), work("full"));
    assert!(two < 0.5 * full, "{two} of {full}");
    // What any two exits say lies within 99, so that every row leaves at the second: later than
    // one that knows beforehand, which computes [CLS] alone in its last block.
    let asking = work("dge:tau=99,t=1");
    assert!(two < asking && asking < full, "{two}, {asking}, {full}");
}

#[test]
fn throughput_counts_the_tokens_of_a_file_of_lengths() {
    let setup = Setup::new();
    setup.write("lengths.json", "[3, 8, 1, 5, 9]");
    let arguments =
        "bench throughput --model model --lengths-file lengths.json --batch 2 --rounds 2";
    let report = document(
        &setup,
        &format!("{arguments} --precision f32,int8 --exit-shares 0.5@2"),
    );
    let rows = &report["rows"];
    assert_eq!(column(rows, "precision"), [json!("f32"), json!("int8")]);
    for row in rows.as_array().unwrap() {
        assert_eq!((&row["tokens"], &row["samples"]), (&json!(26), &json!(5)));
        let speed = |name: &str| row[name].as_f64().unwrap();
        let tokens_per_sample = speed("tokens_per_second") / speed("samples_per_second");
        assert!((tokens_per_sample - 26.0 / 5.0).abs() < 1e-9, "{row}");
    }
    let shares = &report["exit_shares"];
    assert_eq!(column(shares, "exits"), vec![json!("0.5@2"); 2]);
    let ideal = numbers(shares, "ideal_share");
    assert!(
        ideal.iter().all(|share| *share > 0.4 && *share < 1.0),
        "{ideal:?}"
    );
    assert!(
        numbers(shares, "share_of_full")
            .iter()
            .all(|share| *share > 0.0)
    );
}

#[test]
fn throughput_runs_the_rows_of_a_task() {
    let setup = Setup::new();
    let arguments = "bench throughput --model model --task task.toml --precision f32 --rounds 1";
    let report = document(&setup, &format!("{arguments} --batch 3 --policy fixed:1"));
    let row = &report["rows"][0];
    assert_eq!(
        (&row["samples"], &row["policy"]),
        (&json!(8), &json!("fixed:1"))
    );
    assert!(row["tokens"].as_u64().unwrap() > 8 * 3);
}

#[test]
fn kernels_are_held_against_the_peaks_of_the_machine() {
    let setup = Setup::new();
    let report = document(
        &setup,
        "bench kernels --model model --rows 3 --runs 2 --threads 1",
    );
    assert!(
        report["peaks"]["all_threads"]["f32_gflops"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert!(
        report["peaks"]["all_threads"]["memory_gigabytes_per_second"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    let rows = report["rows"].as_array().unwrap();
    for kernel in [
        "embedding mapping",
        "keys, values",
        "feed-forward in, activated",
        "layer norm",
    ] {
        let count = rows.iter().filter(|row| row["kernel"] == kernel).count();
        assert_eq!(count, 3, "{kernel} in three precisions");
    }
    let mapping = &rows[0];
    assert_eq!(mapping["kernel"], "embedding mapping");
    assert_eq!(
        [&mapping["m"], &mapping["n"], &mapping["k"]],
        [&json!(3), &json!(24), &json!(11)]
    );
    for row in rows {
        assert!(row["microseconds"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["model"], "model");
    }
}

#[test]
fn the_environment_forces_an_instruction_set() {
    let setup = Setup::new();
    let run = |isa: &str, arguments: &str| {
        let mut command = setup.command(arguments);
        command.env("BADGE_ISA", isa).output().unwrap()
    };
    let output = run("scalar", "bench kernels --peaks-only --threads 2 --json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["machine"]["isa"], &report["rows"]),
        (&json!("scalar"), &json!([]))
    );
    assert_eq!(report["peaks"]["one_thread"]["threads"], 1);
    assert_eq!(report["peaks"]["all_threads"]["bf16_gflops"], Value::Null);
    for arguments in ["bench kernels --peaks-only", "doctor"] {
        let output = run("sse9", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let told = super::setup::stderr(&output);
        assert!(
            told.contains("BADGE_ISA=`sse9` is not scalar"),
            "{arguments}: {told}"
        );
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}

#[test]
fn loading_tells_the_memory_of_each_precision() {
    let setup = Setup::new();
    let report = document(
        &setup,
        "bench load --model model --tokens 16 --runs 2 --threads 1",
    );
    let rows = &report["rows"];
    assert_eq!(
        column(rows, "precision"),
        ["f32", "bf16", "int8"].map(Value::from)
    );
    let packed = numbers(rows, "packed_bytes");
    assert!(packed[0] > packed[1] && packed[1] > packed[2], "{packed:?}");
    assert!(
        numbers(rows, "workspace_bytes")
            .iter()
            .all(|bytes| *bytes > 0.0)
    );
    assert!(numbers(rows, "median_ms").iter().all(|ms| *ms > 0.0));
    if cfg!(target_os = "linux") {
        let (before, after) = (
            numbers(rows, "resident_before"),
            numbers(rows, "resident_after"),
        );
        assert!(
            before
                .iter()
                .zip(&after)
                .all(|(before, after)| 0.0 < *before && before <= after)
        );
    }
}

#[test]
fn a_record_holds_what_was_printed_and_where_it_comes_from() {
    let setup = Setup::new();
    setup.write("lengths.json", "[3, 8]");
    for (arguments, read) in [
        (
            "latency --model model --lengths 3 --runs 1",
            vec!["model.safetensors"],
        ),
        (
            "throughput --model model --lengths-file lengths.json --rounds 1",
            vec!["lengths", "model.safetensors"],
        ),
        (
            "load --model model --tokens 4 --runs 1",
            vec!["model.safetensors"],
        ),
        ("kernels --model model --rows 1 --runs 1", Vec::new()),
    ] {
        let arguments = format!("bench {arguments} --precision bf16 --threads 1 --out record.json");
        let printed = document(&setup, &arguments);
        let record = Record::read(&setup.path("record.json")).unwrap();
        assert_eq!(record.command, printed["command"], "{arguments}");
        assert_eq!(record.results["rows"], printed["rows"], "{arguments}");
        assert_eq!(
            record.results.get("peaks"),
            printed.get("peaks"),
            "{arguments}"
        );
        assert_eq!(
            record.machine.instruction_set, printed["machine"]["isa"],
            "{arguments}"
        );
        assert_eq!(
            (record.machine.threads, &*record.machine.precision),
            (1, "bf16")
        );
        assert_eq!(record.configuration["model"], "model", "{arguments}");
        assert_eq!(record.data.keys().collect::<Vec<_>>(), read, "{arguments}");
        assert!(setup.leftovers(".").is_empty(), "{arguments}");
    }
}

/// The one row of `bench train` on the tiny model.
fn training(setup: &Setup, arguments: &str) -> Value {
    let train = "bench train --model model --threads 1 --batch 3";
    let report = document(setup, &format!("{train} {arguments}"));
    assert_eq!(report["command"], "bench train");
    assert_eq!(report["rows"].as_array().unwrap().len(), 1, "{report}");
    report["rows"][0].clone()
}

#[test]
fn training_is_timed_step_by_step() {
    let setup = Setup::new();
    let row = training(&setup, "--length 7 --runs 2");
    for (name, expected) in [("batch", 3), ("batches", 1), ("tokens", 21), ("exits", 5)] {
        assert_eq!(row[name], expected, "{name}");
    }
    let number = |name: &str| row[name].as_f64().unwrap();
    assert!(0.0 < number("min_ms") && number("min_ms") <= number("median_ms"));
    let tokens_per_second = 21.0 / number("round_seconds");
    assert!((number("tokens_per_second") / tokens_per_second - 1.0).abs() < 1e-9);
    assert!(number("gflops") > 0.0);
    let memory = |name: &str| row[name].as_u64();
    assert_eq!(
        memory("resident_peak").is_some(),
        memory("resident_before").is_some()
    );
    assert!(
        memory("resident_peak") >= memory("resident_before"),
        "{row}"
    );
}

#[test]
fn an_epoch_of_ragged_rows_counts_no_padding() {
    let setup = Setup::new();
    setup.write("lengths.json", "[3, 11, 5, 7, 2]");
    let row = training(&setup, "--lengths-file lengths.json --runs 1");
    assert_eq!((&row["batches"], &row["tokens"]), (&json!(2), &json!(28)));
    // Work is that of the tokens, however they are batched.
    let alone = training(&setup, "--lengths-file lengths.json --runs 1 --dropout 0.3");
    let work =
        |row: &Value| row["gflops"].as_f64().unwrap() * row["round_seconds"].as_f64().unwrap();
    assert!((work(&row) / work(&alone) - 1.0).abs() < 1e-9);
    let record = "bench train --model model --lengths-file lengths.json --runs 1 --out record.json";
    assert!(stdout(&done(&setup, record)).contains("tokens/s"));
    let record = Record::read(&setup.path("record.json")).unwrap();
    let hashed: Vec<_> = record.data.keys().collect();
    assert_eq!(hashed, ["lengths", "model.safetensors"]);
}

#[test]
fn the_controller_is_simulated_alike_on_every_machine() {
    let setup = Setup::new();
    let report = document(&setup, "bench controller --seed 3 --out record.json");
    assert_eq!(report["command"], "bench controller");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        assert_eq!(row["cells"].as_array().unwrap().len(), 8);
    }
    let record = Record::read(&setup.path("record.json")).unwrap();
    assert_eq!(record.seed, 3);
    assert_eq!(record.results["rows"], report["rows"]);
    assert_eq!(record.configuration["batch_max"], 16);
    let text = stdout(&done(&setup, "bench controller --seed 3"));
    assert!(
        text.contains("burst of 8 times the rate") && text.contains("law"),
        "{text}"
    );
}
