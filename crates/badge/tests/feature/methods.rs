//! Training methods from outside: what each trains answers, and is told apart.

use serde_json::Value;

use super::setup::{Setup, stderr};
use super::{document, done};

const TRAIN: &str = "train --backbone model --task task.toml --epochs 1 --batch-size 4 --lr 1e-3 \
                     --max-length 16";

fn record(setup: &Setup, directory: &str) -> Value {
    serde_json::from_slice(&setup.read(&format!("{directory}/record.json"))).unwrap()
}

#[test]
fn every_method_trains_a_model_that_answers() {
    let setup = Setup::new();
    for (flags, name, is_for_engine) in [
        ("--method joint --exit-weights linear", "joint", true),
        ("--method alternating --bypass-rank 3", "alternating", true),
        (
            "--method gradient-equilibrium --exits 2,5",
            "gradient-equilibrium",
            true,
        ),
        ("--method two-stage --head-lr 1e-2", "two-stage", true),
        (
            "--method two-stage --second-stage distillation --kl student-first --temperature 2 \
             --bypass-placement ffn --bypass-rank 3",
            "two-stage",
            false,
        ),
        ("--bypass-placement mhsa --bypass-rank 3", "joint", false),
        ("--method global-past-future", "global-past-future", false),
        (
            "--method joint --exit-head mha --exit-head-rank 4",
            "joint",
            false,
        ),
        (
            "--method joint --exit-head mha-fastbert --exit-head-rank 6 --exit-head-heads 3",
            "joint",
            false,
        ),
        ("--method joint --lte joint", "joint", true),
        ("--method joint --lte frozen", "joint", true),
    ] {
        done(&setup, &format!("{TRAIN} --out out {flags}"));
        let record = record(&setup, "out");
        assert_eq!(
            record["configuration"]["training"]["method"]["name"], name,
            "{flags}"
        );
        let answer = setup.run("predict --model out texts.txt --json");
        assert_eq!(
            answer.status.code(),
            Some(0),
            "{flags}: {}",
            stderr(&answer)
        );
        let falls_back = stderr(&answer).contains("the trainer's model does");
        assert_eq!(falls_back, !is_for_engine, "{flags}: {}", stderr(&answer));
        // What a program reads is no other for it.
        let document: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(
            document["predictions"].as_array().unwrap().len(),
            3,
            "{flags}"
        );
        if !is_for_engine {
            let refused = setup.run("predict --model out --precision bf16 texts.txt");
            assert_eq!(refused.status.code(), Some(2), "{flags}");
            assert!(
                stderr(&refused).contains("early_exit"),
                "{}",
                stderr(&refused)
            );
        }
    }
}

#[test]
fn single_exits_of_all_depths_are_a_model_each() {
    let setup = Setup::new();
    let all = format!("{TRAIN} --out out --method single");
    let found = document(&setup, &all);
    let models = found["models"].as_array().unwrap();
    let depths: Vec<_> = models
        .iter()
        .map(|model| model["depth"].as_u64().unwrap())
        .collect();
    assert_eq!(depths, [1, 2, 3, 4, 5]);
    let scores: Vec<_> = models
        .iter()
        .map(|model| model["score"].as_f64().unwrap())
        .collect();
    let mean = scores.iter().sum::<f64>() / 5.0;
    assert!((found["average"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert_eq!(record(&setup, "out")["results"]["best"], found["best"]);
    let model = document(&setup, "inspect out/depth-03");
    assert_eq!(model["sizes"]["blocks"], 3);
    assert_eq!(model["early_exit"]["exits"], serde_json::json!([3]));
    // One depth by itself is the same model; what is finished is not trained again.
    done(
        &setup,
        &format!("{TRAIN} --out alone --method single --depth 3"),
    );
    let weights = |directory: &str| setup.read(&format!("{directory}/model.safetensors"));
    assert_eq!(weights("alone"), weights("out/depth-03"));
    let before = record(&setup, "out/depth-02");
    done(&setup, &format!("{all} --resume"));
    assert_eq!(record(&setup, "out/depth-02"), before);
}

#[test]
fn a_learning_to_exit_head_serves_its_policy() {
    let setup = Setup::new();
    done(
        &setup,
        &format!("{TRAIN} --out out --method joint --lte joint"),
    );
    // Nothing is more certain than 1: the first exit answers. Nothing is below the least: the last.
    for (threshold, depth) in [("1", 1), ("1e-30", 5)] {
        let found = document(
            &setup,
            &format!("predict --model out --policy lte:{threshold} texts.txt"),
        );
        let rows = found["predictions"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["exit"] == depth), "{rows:?}");
    }
    // Row by row and replayed over what was stored: the same exits.
    let eval = "eval --model out --task task.toml --policy lte:0.5";
    let (timed, replayed) = (
        document(&setup, eval),
        document(&setup, &format!("{eval} --replay")),
    );
    let exits = |found: &Value| found["policies"][0]["histogram"].clone();
    assert!(exits(&timed).is_array(), "{timed}");
    assert_eq!(exits(&timed), exits(&replayed));
    let plain = setup.run("predict --model model --policy lte:0.5 texts.txt");
    assert_eq!(plain.status.code(), Some(2));
    assert!(stderr(&plain).contains("no learning-to-exit head"));
}

#[test]
fn inspect_counts_one_bypass_and_one_exit() {
    let setup = Setup::new();
    done(&setup, &format!("{TRAIN} --out out --bypass-rank 3"));
    let found = document(&setup, "inspect out");
    let hidden = found["sizes"]["hidden"].as_u64().unwrap();
    let one = 2 * hidden * 3 + 2 * hidden;
    assert_eq!(found["weights"]["parameters"]["bypass"], one);
    assert_eq!(found["weights"]["parameters"]["bypasses"], 5 * one);
    assert_eq!(found["cost"]["bypass_macs"], 2 * hidden * 3);
    let head = "--method joint --exit-head mha --exit-head-rank 4";
    done(&setup, &format!("{TRAIN} --out out {head}"));
    let found = document(&setup, "inspect out --tokens 9");
    assert_eq!(found["weights"]["parameters"]["exit_head"], 4 * hidden * 4);
    let attention = 2 * (9 + 1) * hidden * 4 + 2 * 9 * 4;
    let labels = 2;
    let linear = hidden * hidden + hidden * labels;
    assert_eq!(found["cost"]["exit_macs"], attention + linear);
}
