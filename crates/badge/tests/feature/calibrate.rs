//! `badge calibrate` from outside: choosing, certifying, refusing.

use std::fmt::Write;

use serde_json::{Value, json};

use super::setup::{Setup, stderr};
use super::{TRAIN, document, done, stdout};

const CALIBRATE: &str = "calibrate --model out --task task.toml";

/// A trained model in `out/`, and as many dev rows as asked for.
fn trained(dev_rows: usize) -> Setup {
    let setup = Setup::new();
    let mut content = "label\ttext\n".to_owned();
    let words = ["one", "two", "three", "four", "five", "six", "seven"];
    for row in 0..dev_rows {
        let (label, text) = [("yes", "the cat sat on the mat"), ("no", "a dog ran over")][row % 2];
        let _ = writeln!(
            content,
            "{label}\t{text} {} {}",
            words[row % 7],
            words[row / 7 % 7]
        );
    }
    setup.write("data/dev.tsv", content);
    done(&setup, &format!("{TRAIN} --epochs 1"));
    setup
}

fn json_file(setup: &Setup, name: &str) -> Value {
    serde_json::from_slice(&setup.read(name)).unwrap()
}

#[test]
fn a_certified_point_is_kept_and_found_again_at_once() {
    let setup = trained(80);
    let ask = format!("{CALIBRATE} --max-drop 0.2 --confidence 0.9 --policies dge,fixed");
    let first = document(&setup, &ask);
    assert_eq!(first["logits_from_cache"], false);
    let calibration = json_file(&setup, "out/exit_calibration.json");
    assert_eq!(calibration, first["calibration"]);
    let certificate = &calibration["certificate"];
    assert_eq!(
        (&certificate["method"], &certificate["loss"]),
        (&json!("ltt"), &json!("excess"))
    );
    assert_eq!(
        (&certificate["epsilon"], &certificate["rows"]),
        (&json!(0.2), &json!(80))
    );
    // Three chains of DGE and one of fixed depths share what may go wrong.
    assert_eq!(certificate["chains"], 4);
    assert_eq!(calibration["temperatures"].as_array().unwrap().len(), 5);
    assert!(
        first["promise"]
            .as_str()
            .unwrap()
            .starts_with("With 90 % confidence")
    );
    let record = json_file(&setup, "out/exit_calibration.record.json");
    assert_eq!(record["command"], "calibrate");
    assert_eq!(record["results"]["calibration"], calibration);

    let second = document(&setup, &ask);
    assert_eq!(second["logits_from_cache"], true);
    assert_eq!(second["calibration"], calibration);
    // Other numbers are other logits.
    let bf16 = document(&setup, &format!("{ask} --precision bf16"));
    assert_eq!(bf16["logits_from_cache"], false);
    done(&setup, &ask);

    let policy = calibration["policy"].as_str().unwrap();
    let predicted = document(&setup, "predict --model out texts.txt");
    assert_eq!(predicted["policy"], policy);
    let facts = stdout(&done(&setup, "inspect out"));
    assert!(facts.contains(policy), "{facts}");
    let told = stdout(&done(&setup, &ask));
    for words in [
        "chosen",
        policy,
        "With 90 % confidence",
        "stored logits",
        "--split test",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(setup.leftovers("out").is_empty());
}

#[test]
fn what_was_replayed_is_what_the_engine_does_live() {
    let setup = trained(40);
    let found = document(&setup, &format!("{CALIBRATE} --target-speedup 1.2"));
    let points = found["calibration"]["points"].as_array().unwrap();
    assert!(points.len() > 1);
    for point in points {
        let policy = point["policy"].as_str().unwrap();
        let live = format!("eval --model out --task task.toml --split dev --policy {policy}");
        let live = &document(&setup, &live)["policies"][0];
        for figure in ["score", "mean_exit", "layer_speedup"] {
            assert_eq!(live[figure], point[figure], "{policy}: {figure}");
        }
    }
    let chosen = &found["calibration"]["policy"];
    let chosen = points
        .iter()
        .find(|point| point["policy"] == *chosen)
        .unwrap();
    assert!(chosen["layer_speedup"].as_f64().unwrap() >= 1.2);
    assert_eq!(found["calibration"]["certificate"], Value::Null);
    assert_eq!(found["promise"], Value::Null);
}

#[test]
fn too_few_rows_certify_nothing_and_it_says_what_they_could() {
    let setup = trained(8);
    let ask = format!("{CALIBRATE} --max-drop 0.01 --confidence 0.95");
    let output = setup.run(&ask);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = stdout(&output);
    for words in [
        "can be certified on 8 rows",
        "--max-drop 0.",
        "dev rows would be enough",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!setup.path("out/exit_calibration.json").exists());
    assert!(!setup.path("out/exit_calibration.record.json").exists());
    let output = setup.run(&format!("{ask} --json"));
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let refusal = &answer["refusal"];
    assert_eq!(
        (&refusal["reason"], &refusal["rows"]),
        (&json!("not_certified"), &json!(8))
    );
    // What it says would be enough, is.
    let least = refusal["least_epsilon"].as_f64().unwrap() + 1e-6;
    document(
        &setup,
        &format!("{CALIBRATE} --max-drop {least} --confidence 0.95"),
    );
    let output = setup.run(&format!("{CALIBRATE} --target-speedup 77"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("the fastest policy reaches 5.00x"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn expectations_and_scores_and_speeds_are_certified_too() {
    let setup = trained(60);
    for (flags, method, loss) in [
        ("--max-drop 0.3 --method crc", "crc", "excess"),
        (
            "--max-drop 0.3 --method crc --policies fixed --loss disagreement",
            "crc",
            "disagreement",
        ),
        ("--min-score 0.1 --confidence 0.8", "ltt", "error"),
        ("--target-speedup 1.5 --confidence 0.8", "ltt", "excess"),
    ] {
        let answer = document(&setup, &format!("{CALIBRATE} {flags}"));
        let certificate = &answer["calibration"]["certificate"];
        assert_eq!(
            (&certificate["method"], &certificate["loss"]),
            (&json!(method), &json!(loss))
        );
        let epsilon = certificate["epsilon"].as_f64().unwrap();
        assert!(
            certificate["mean_loss"].as_f64().unwrap() <= epsilon,
            "{flags}"
        );
        assert_eq!(
            certificate["confidence"].is_null(),
            method == "crc",
            "{flags}"
        );
    }
}

#[test]
fn fitted_temperatures_and_speeds_serve_other_commands() {
    let setup = trained(80);
    let tempered = "maxprob:0.6,temperatures=calibrated";
    let eval = format!("eval --model out --task task.toml --split dev --policy {tempered}");
    let refused = setup.run(&eval);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("no calibrated temperatures"),
        "{}",
        stderr(&refused)
    );

    let found = document(
        &setup,
        &format!("{CALIBRATE} --max-drop 0.1 --policies maxprob"),
    );
    let fitted = found["calibration"]["temperatures"].as_array().unwrap();
    let fitted: Vec<_> = fitted.iter().map(ToString::to_string).collect();
    let in_numbers = format!("maxprob:0.6,temperatures={}", fitted.join("/"));
    // Whether they are named or written, temperatures do the same; and they do something.
    let of = |policy: &str| {
        let live = format!("eval --model out --task task.toml --split dev --policy {policy}");
        let answer = document(&setup, &live);
        let evaluated = &answer["policies"][0];
        ["score", "mean_exit"].map(|figure| evaluated[figure].clone())
    };
    assert_eq!(of(tempered), of(&in_numbers));
    // Without a promise the search uses them, with one it may not.
    let is_tempered = |found: &Value| {
        let points = found["calibration"]["points"].as_array().unwrap();
        let policies = points.iter().map(|point| point["policy"].as_str().unwrap());
        policies
            .filter(|policy| policy.contains("temperatures="))
            .count()
    };
    assert!(is_tempered(&found) > 0, "{found}");
    let certified = "--max-drop 0.5 --confidence 0.8 --policies maxprob";
    let certified = document(&setup, &format!("{CALIBRATE} {certified}"));
    assert_eq!(is_tempered(&certified), 0, "{certified}");

    let found = document(&setup, &format!("{CALIBRATE} --max-drop 0.5"));
    let points = found["calibration"]["points"].as_array().unwrap();
    let speed = |point: &Value| point["layer_speedup"].as_f64().unwrap();
    let fastest = points.iter().map(speed).fold(1.0, f64::max);
    let predict = |least: f64| format!("predict --model out --target-speedup {least} texts.txt");
    let predicted = document(&setup, &predict(fastest));
    let taken = points
        .iter()
        .find(|point| point["policy"] == predicted["policy"]);
    assert_eq!(speed(taken.unwrap()), fastest);
    let refused = setup.run(&predict(fastest + 0.1));
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("--target-speedup: no calibrated point"),
        "{}",
        stderr(&refused)
    );

    // Temperatures of other weights are refused; a policy that needs none goes on.
    let mut calibration = json_file(&setup, "out/exit_calibration.json");
    calibration["model_sha256"] = json!("00");
    setup.write("out/exit_calibration.json", calibration.to_string());
    let refused = setup.run(&eval);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("calibration of another model"),
        "{}",
        stderr(&refused)
    );
    done(
        &setup,
        "eval --model out --task task.toml --split dev --policy fixed:2",
    );
}
