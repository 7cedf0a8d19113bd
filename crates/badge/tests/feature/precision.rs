//! The precision that `badge train` computes in where nobody says which.

use std::process::Command;

use serde_json::Value;

use super::setup::{Setup, stderr};
use super::{TRAIN, document};

/// The instruction set that the run in `out/` was recorded with.
fn instruction_set(setup: &Setup) -> Value {
    let record: Value = serde_json::from_slice(&setup.read("out/record.json")).unwrap();
    record["machine"]["instruction_set"].clone()
}

/// The precision that the run in `out/` was recorded with.
fn recorded(setup: &Setup, out: &str) -> Value {
    let record = setup.read(&format!("{out}/record.json"));
    let record: Value = serde_json::from_slice(&record).unwrap();
    let trained = &record["configuration"]["training"]["precision"];
    assert_eq!(record["machine"]["precision"], *trained);
    trained.clone()
}

/// Whether this machine is faster in bf16, by what Linux says of it; none on other systems.
fn is_faster_in_bf16() -> Option<bool> {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let words: Vec<_> = told.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let has_vectors = has("avx512_bf16") && has("avx512bw");
    Some(has_vectors && (has("AuthenticAMD") || has("amx_bf16") && has("amx_int8")))
}

fn finish(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

fn portable(setup: &Setup, arguments: &str) -> Command {
    let mut command = setup.command(arguments);
    command.env("BADGE_ISA", "scalar");
    command
}

#[test]
fn training_is_in_bf16_where_the_processor_is_faster_in_it() {
    let setup = Setup::new();
    let mut usual = setup.command(&format!("{TRAIN} --epochs 1"));
    usual.env_remove("BADGE_ISA");
    finish(usual);
    if let Some(is_faster) = is_faster_in_bf16() {
        let expected = if is_faster { "bf16" } else { "f32" };
        assert_eq!(recorded(&setup, "out"), expected);
    }

    finish(portable(&setup, &format!("{TRAIN} --epochs 1")));
    assert_eq!(recorded(&setup, "out"), "f32");
    assert_eq!(instruction_set(&setup), "scalar");
    finish(portable(
        &setup,
        &format!("{TRAIN} --epochs 1 --precision bf16"),
    ));
    assert_eq!(recorded(&setup, "out"), "bf16");
}

/// Here the other precision than that which is usual on this machine.
#[test]
fn a_run_goes_on_in_the_precision_that_it_began_with() {
    let setup = Setup::new();
    let began = match is_faster_in_bf16() {
        Some(true) => "f32",
        Some(false) | None => "bf16",
    };
    setup.killed_run(&format!("{TRAIN} --epochs 3 --precision {began}"));
    let resume = format!("{TRAIN} --epochs 3 --resume");
    document(&setup, &resume);
    assert_eq!(recorded(&setup, "out"), began);
    // Nor is a finished run another one because nobody says its precision.
    let weights = setup.read("out/model.safetensors");
    document(&setup, &resume);
    assert_eq!(setup.read("out/model.safetensors"), weights);
}

#[test]
fn all_depths_are_trained_and_resumed_in_one_precision() {
    let setup = Setup::new();
    let train = "train --backbone model --task task.toml --out out --method single \
                 --epochs 1 --batch-size 8 --max-length 16";
    finish(portable(&setup, train));
    document(&setup, &format!("{train} --resume"));
    for run in ["out", "out/depth-01", "out/depth-05"] {
        assert_eq!(recorded(&setup, run), "f32");
    }
}
