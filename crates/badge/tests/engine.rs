//! `predict`, `eval` and `sweep` by the engine, from outside; the trainer is the yardstick.

#[expect(dead_code, reason = "other tests use the rest of it")]
mod setup;

use std::process::Output;

use serde_json::{Value, json};
use setup::{Setup, stderr};

const EVAL: &str = "eval --model out --task task.toml";
const SWEEP: &str = "sweep --model out --task task.toml --out curves";

/// A setup whose `out/` is a model trained for its task.
fn trained() -> Setup {
    let setup = Setup::new();
    done(
        &setup,
        "train --backbone model --task task.toml --out out --batch-size 2 --lr 1e-3 \
         --bypass-rank 3 --max-length 16 --epochs 1",
    );
    setup
}

/// Runs a command that must succeed.
fn done(setup: &Setup, arguments: &str) -> Output {
    let output = setup.run(arguments);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "badge {arguments}\n{told}");
    output
}

/// Runs a command with `--json`.
fn document(setup: &Setup, arguments: &str) -> Value {
    let output = done(setup, &format!("{arguments} --json"));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn rows(document: &Value) -> &[Value] {
    document["predictions"].as_array().unwrap()
}

/// Asserts that two documents are the same but for the last digits of their numbers.
fn close(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!(
                (found - expected).abs() < 1e-4,
                "{place}: {found} for {expected}"
            );
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{place}");
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                close(found, expected, &format!("{place}[{index}]"));
            }
        }
        (Value::Object(found), Value::Object(expected)) => {
            assert!(found.keys().eq(expected.keys()), "{place}");
            for (key, value) in found {
                close(value, &expected[key], &format!("{place}.{key}"));
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn the_engine_predicts_what_the_trainer_predicts() {
    let setup = Setup::new();
    // One label, any of several, a number; with and without bypasses.
    for fixture in [
        "albert",
        "bert_gelu",
        "bert_relu",
        "albert_groups",
        "elasticbert",
    ] {
        setup.add_model(fixture, fixture);
        for policy in ["full", "fixed:1", "dge:tau=1.5,t=1"] {
            let arguments =
                format!("predict --model {fixture} --policy {policy} --logits texts.txt");
            let engine = document(&setup, &arguments);
            let trainer = document(&setup, &format!("{arguments} --engine trainer"));
            let place = format!("{fixture} {policy}");
            close(&engine["predictions"], &trainer["predictions"], &place);
        }
    }
}

#[test]
fn rows_keep_their_order_and_their_answers_in_long_files() {
    let setup = Setup::new();
    let words = [
        "the cat sat",
        "a dog",
        "one old red stone bridge over the river",
        "two",
    ];
    let lines: Vec<String> = (0..600)
        .map(|row| format!("{} {}", words[row % 4], words[row / 4 % 3]))
        .collect();
    setup.write("long.txt", lines.join("\n"));
    setup.write("short.txt", lines[..12].join("\n"));
    let policy = "--policy dge:tau=1.6,t=1";
    let long = document(&setup, &format!("predict --model model {policy} long.txt"));
    let texts: Vec<_> = rows(&long)
        .iter()
        .map(|row| row["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, lines);
    // The texts repeat after twelve rows, and so do the answers, to the last digit.
    let short = document(
        &setup,
        &format!("predict --model model {policy} short.txt --threads 1"),
    );
    for (row, found) in rows(&long).iter().enumerate() {
        assert_eq!(*found, rows(&short)[row % 12], "row {row}");
    }
}

#[test]
fn shards_and_pickles_are_packed_too() {
    let setup = Setup::new();
    let whole = document(&setup, "predict --model model texts.txt");
    setup.write(
        "model/model.safetensors.index.json",
        sharded(&setup).to_string(),
    );
    let shard = setup.path("model/model-00001-of-00001.safetensors");
    std::fs::rename(setup.path("model/model.safetensors"), shard).unwrap();
    let shards = document(&setup, "predict --model model texts.txt");
    assert_eq!(rows(&shards), rows(&whole));
}

/// The index of a model whose only shard holds everything.
fn sharded(setup: &Setup) -> Value {
    let bytes = setup.read("model/model.safetensors");
    let tensors = badge_core::checkpoint::Checkpoint::from_safetensors("model", &bytes).unwrap();
    let shard = "model-00001-of-00001.safetensors";
    let map = tensors
        .iter()
        .map(|(name, _)| (name.to_owned(), json!(shard)));
    json!({"weight_map": map.collect::<serde_json::Map<_, _>>()})
}

#[test]
fn an_evaluation_names_what_computed_it_and_agrees_with_the_trainer() {
    let setup = trained();
    let policies = "--policy dge:tau=0.65,t=1 --policy fixed:2";
    let command = format!("{EVAL} {policies} --compare trainer --out scores");
    let scores = document(&setup, &command);
    assert_eq!(scores["computed_by"]["name"], "engine");
    assert_eq!(scores["computed_by"]["precision"], "f32");
    let agreement = &scores["agreement"];
    assert_eq!(agreement["reference"]["name"], "trainer");
    let exits = agreement["exits"].as_array().unwrap();
    assert_eq!(exits.len(), 5);
    for exit in exits {
        assert_eq!(exit["label_agreement"], 1.0);
        assert_eq!(exit["score"], exit["reference_score"]);
        assert!(
            exit["largest_difference"].as_f64().unwrap() < 1e-5,
            "{exit}"
        );
    }
    let points = agreement["points"].as_array().unwrap();
    let named: Vec<_> = points
        .iter()
        .map(|point| point["policy"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["full", "dge:tau=0.65,t=1", "fixed:2"]);
    assert!(
        points.iter().all(|point| point["exit_agreement"] == 1.0),
        "{points:?}"
    );

    // What ran row by row is what replay finds, but for the time.
    let replayed = document(&setup, &format!("{EVAL} {policies} --replay"));
    for (run, replayed) in [0, 1].map(|i| (&scores["policies"][i], &replayed["policies"][i])) {
        assert_eq!(run["histogram"], replayed["histogram"]);
        assert_eq!(run["score"], replayed["score"]);
        assert!(run["time"]["early_ms"].as_f64().unwrap() > 0.0);
        assert!(replayed["time"].is_null());
    }
    let record: Value = serde_json::from_slice(&setup.read("scores/record.json")).unwrap();
    let machine = &record["machine"];
    assert_eq!(
        machine["instruction_set"],
        scores["computed_by"]["instruction_set"]
    );
    assert_eq!(record["configuration"]["engine"], "engine");
    assert_eq!(record["configuration"]["compare"], "trainer");
    let told = text(&done(&setup, &format!("{EVAL} --compare f32 --replay")).stdout);
    assert!(
        told.contains("computed by engine, f32") && told.contains("Held against"),
        "{told}"
    );
}

#[test]
fn narrow_numbers_are_held_against_f32() {
    let setup = trained();
    for precision in ["bf16", "int8"] {
        let command = format!("{EVAL} --replay --precision {precision} --compare f32");
        let scores = document(&setup, &command);
        assert_eq!(scores["computed_by"]["precision"], precision);
        assert_eq!(scores["agreement"]["reference"]["precision"], "f32");
        let deepest = &scores["agreement"]["exits"][4];
        let largest = deepest["largest_difference"].as_f64().unwrap();
        assert!(largest > 0.0 && largest < 0.2, "{precision}: {largest}");
    }
}

#[test]
fn a_sweep_draws_curves_and_times_their_best_points() {
    let setup = trained();
    let sweep = document(&setup, &format!("{SWEEP} --timed-rows 3"));
    assert_eq!(
        (&sweep["split"], &sweep["timed_rows"]),
        (&json!("dev"), &json!(3))
    );
    let curves = "dge entropy maxprob patience pcee flexible-patience vote fixed";
    let curves: Vec<_> = curves.split(' ').collect();
    assert_eq!(sweep["families"], json!(curves));
    let points = sweep["points"].as_array().unwrap();
    let of = |family: &str| {
        points
            .iter()
            .filter(|point| point["family"] == family)
            .count()
    };
    assert_eq!((of("full"), of("fixed")), (1, 5));
    for curve in curves {
        let least = if curve == "patience" { 3 } else { 5 };
        assert!(of(curve) >= least, "{curve}: {} points", of(curve));
    }
    for point in points {
        let timed = point["frontier"] == true && point["family"] != "full";
        assert_eq!(point["time"].is_object(), timed, "{point}");
        let speedup = point["layer_speedup"].as_f64().unwrap();
        assert!((1.0..=5.0).contains(&speedup), "{point}");
    }
    let csv = text(&setup.read("curves/curve.csv"));
    assert_eq!(csv.lines().count(), points.len() + 1);
    let fields = |line: &str| line.replace("t=", "").matches(',').count();
    assert!(csv.starts_with("policy,curve,score,"), "{csv}");
    assert!(csv.lines().all(|line| fields(line) >= 10), "{csv}");
    let written: Value = serde_json::from_slice(&setup.read("curves/curve.json")).unwrap();
    assert_eq!(written["points"], sweep["points"]);
    assert!(setup.read("curves/curve.svg").starts_with(b"<svg"));
    let page = text(&setup.read("curves/report.html"));
    assert!(
        page.contains("DGE, divergence ce") && page.contains("layer speed-up"),
        "{page}"
    );
    let record: Value = serde_json::from_slice(&setup.read("curves/record.json")).unwrap();
    assert_eq!(record["command"], "sweep");
    assert_eq!(record["results"]["points"], sweep["points"]);
    assert_eq!(record["data"]["dev"], sweep["split_sha256"]);
    assert!(setup.path("curves/logits-dev.safetensors").exists());
    assert!(setup.leftovers("curves").is_empty());
}

#[test]
fn a_sweep_may_take_no_time_and_draw_one_curve() {
    let setup = trained();
    let sweep = document(
        &setup,
        &format!("{SWEEP} --timed-rows 0 --policies fixed --split test --engine trainer"),
    );
    assert_eq!(sweep["computed_by"]["name"], "trainer");
    let points = sweep["points"].as_array().unwrap();
    assert_eq!(points.len(), 6);
    assert!(points.iter().all(|point| point["time"].is_null()));
    let told = text(&done(&setup, &format!("{SWEEP} --timed-rows 0")).stdout);
    for words in ["full ", "fixed:1", "FLOPs speed-up", "curves: report.html"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
