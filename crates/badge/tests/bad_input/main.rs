//! Bad input of every kind: one clear message, exit code 2, nothing half-written.

mod bench;
mod data;
mod flags;
mod models;
mod replay;
#[path = "../setup/mod.rs"]
mod setup;
mod writing;

use std::process::Output;

use setup::{Setup, stderr};

/// A way to break the setup, and what the message must say.
struct Case {
    name: &'static str,
    damage: fn(&Setup),
    arguments: &'static str,
    words: &'static [&'static str],
}

const fn case(
    name: &'static str,
    damage: fn(&Setup),
    arguments: &'static str,
    words: &'static [&'static str],
) -> Case {
    Case {
        name,
        damage,
        arguments,
        words,
    }
}

/// Nothing is broken but the arguments.
const NOTHING: fn(&Setup) = |_| {};

#[test]
fn broken_models_are_refused() {
    models::MODELS.iter().for_each(check);
}

#[test]
fn broken_inputs_are_refused() {
    data::INPUTS.iter().for_each(check);
}

#[test]
fn broken_tasks_are_refused() {
    data::TASKS.iter().for_each(check);
}

#[test]
fn impossible_benchmarks_are_refused() {
    bench::BENCHMARKS.iter().for_each(check);
}

#[test]
fn impossible_traffic_is_refused() {
    replay::TRAFFIC.iter().for_each(check);
}

#[test]
fn impossible_flags_are_refused() {
    flags::FLAGS.iter().for_each(check);
}

fn check(case: &Case) {
    let setup = Setup::new();
    (case.damage)(&setup);
    let output = setup.run(case.arguments);
    refused(case.name, &output, case.words);
    assert!(
        output.stdout.is_empty(),
        "{}: results were printed",
        case.name
    );
    let weights = setup.path("out/model.safetensors");
    assert!(!weights.exists(), "{}: half a model was written", case.name);
    assert!(
        setup.leftovers(".").is_empty(),
        "{}: temporary files",
        case.name
    );
}

/// Exit code 2, and one message that says what is wrong and where.
fn refused(name: &str, output: &Output, words: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{name}: {told}");
    let messages = told.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(messages.count(), 1, "{name}: {told}");
    for word in words {
        assert!(told.contains(word), "{name}: `{word}` is not in: {told}");
    }
    for trace in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
        assert!(!told.contains(trace), "{name}: {told}");
    }
}
