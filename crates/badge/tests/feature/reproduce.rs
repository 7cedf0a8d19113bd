//! `badge reproduce`: grids that end the same however often they are killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::setup::{Setup, stderr};
use crate::{document, done};

const GRID: &str = r#"
title = "A small grid"
paper = "table1"
methods = ["joint", "badge"]
ranks = [3]
seeds = [1, 2]
[budget]
epochs = 3
patience = 3
max-length = 16
checkpoint-minutes = 0.0
[curves]
points = 6
timed-rows = 0
of = [{ method = "badge", policies = ["dge", "patience"] }]
[[tasks]]
task = "task.toml"
paper = "MRPC"
batch-sizes = [4]
learning-rates = [1e-3, 2e-3]
[[backbones]]
name = "tiny"
source = "model"
blocks = 5
"#;

const RUN: &str = "reproduce --config grid.toml --threads 1";

/// Everything that a grid's tables say, without the time that it took.
fn tables(setup: &Setup, out: &str) -> (String, String) {
    let text = |ending: &str| {
        let bytes = setup.read(&format!("{out}/grid.{ending}"));
        String::from_utf8(bytes).unwrap()
    };
    let page = text("md");
    let (figures, _) = page.split_once("## Where it ran").unwrap();
    (figures.to_owned(), text("csv"))
}

/// Every record by its cell's name.
fn records(setup: &Setup, out: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let cells = fs::read_dir(setup.path(&format!("{out}/cells"))).unwrap();
    let record = |folder: PathBuf| {
        let bytes = fs::read(folder.join("record.json")).unwrap();
        (folder, bytes)
    };
    cells.map(|entry| record(entry.unwrap().path())).collect()
}

#[test]
fn a_grid_killed_at_random_moments_ends_with_the_same_tables() {
    let setup = Setup::new();
    setup.write("grid.toml", GRID);
    let began = Instant::now();
    done(&setup, &format!("{RUN} --out whole"));
    let longest = began.elapsed().as_millis() as u64;
    let (mut kills, mut wait) = (0, 7_u64);
    while kills < 10 {
        let mut command = setup.command(&format!("{RUN} --out killed"));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // From before the first cell to behind the last one, in no order.
        wait = wait * 6_364_136_223 % 1_000_003;
        std::thread::sleep(Duration::from_millis(wait % longest));
        if child.try_wait().unwrap().is_some() {
            // All was done before the kill; from here on there is less to do.
            fs::remove_dir_all(setup.path("killed")).unwrap();
            continue;
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        kills += 1;
    }
    done(&setup, &format!("{RUN} --out killed"));
    assert_eq!(tables(&setup, "whole"), tables(&setup, "killed"));
    let left: Vec<_> = records(&setup, "killed").into_keys().collect();
    assert_eq!(
        left.len(),
        4 + 2,
        "candidates, and the winners' second seed"
    );
    assert_eq!(setup.leftovers("killed"), Vec::<PathBuf>::new());

    let before = records(&setup, "killed");
    done(&setup, &format!("{RUN} --out killed"));
    assert_eq!(
        records(&setup, "killed"),
        before,
        "a finished cell ran again"
    );
}

#[test]
fn a_cell_that_fails_is_told_of_and_runs_again_on_request_alone() {
    let setup = Setup::new();
    setup.write("grid.toml", GRID.replace("[1e-3, 2e-3]", "[1e-3]"));
    done(&setup, &format!("{RUN} --out out"));
    let (cell, _) = records(&setup, "out").pop_first().unwrap();
    fs::remove_dir_all(&cell).unwrap();
    // A folder where a file of the model should be.
    fs::create_dir_all(cell.join("config.json")).unwrap();
    let failed = setup.run(&format!("{RUN} --out out --json"));
    assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
    let told: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(told["summary"]["cells"]["failed"], 1);
    let message = told["standing"]["failed"][0]["message"].as_str().unwrap();
    assert!(message.contains("config.json"), "{message}");

    fs::remove_dir(cell.join("config.json")).unwrap();
    let still = document_of_failure(&setup, "");
    assert_eq!(
        still["summary"]["cells"]["failed"], 1,
        "nobody asked for it"
    );
    let again = document(&setup, &format!("{RUN} --out out --retry-failed"));
    assert_eq!(again["summary"]["cells"]["failed"], 0);
    assert_eq!(again["summary"]["cells"]["done"], 4);
}

fn document_of_failure(setup: &Setup, flags: &str) -> Value {
    let output = setup.run(&format!("{RUN} --out out --json {flags}"));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tables_can_be_had_at_any_time_and_show_what_has_not_run() {
    let setup = Setup::new();
    setup.write("grid.toml", GRID.replace("[1e-3, 2e-3]", "[1e-3]"));
    let empty = document(&setup, &format!("{RUN} --out out --tables-only"));
    let lines = &empty["summary"]["tables"][0]["lines"];
    assert!(lines[0]["average"].is_null());
    assert_eq!(
        lines[0]["paper"]["average"], 84.4,
        "the paper's figure stands there already"
    );
    assert!(!setup.path("out/cells").exists(), "nothing ran");

    done(&setup, &format!("{RUN} --out out --methods joint"));
    let half = document(&setup, &format!("{RUN} --out out --tables-only"));
    let lines = &half["summary"]["tables"][0]["lines"];
    assert_eq!(lines[0]["average"]["seeds"], 2);
    assert_eq!(lines[1]["average"], Value::Null);
    let counts = &half["summary"]["cells"];
    assert_eq!((&counts["done"], &counts["cells"]), (&2.into(), &4.into()));

    done(&setup, &format!("{RUN} --out out --methods badge"));
    let whole = document(&setup, &format!("{RUN} --out out --tables-only"));
    let claims = whole["summary"]["tables"][0]["claims"].as_array().unwrap();
    assert_eq!(claims.len(), 2);
    // Two seeds are too few to tell.
    let told = claims.iter().map(|claim| claim["judgement"].as_str());
    assert_eq!(told.collect::<Vec<_>>(), [Some("cannot-tell"); 2]);
}

#[test]
fn a_folder_keeps_the_experiment_that_was_run_into_it() {
    let setup = Setup::new();
    setup.write("grid.toml", GRID.replace("[1e-3, 2e-3]", "[1e-3]"));
    done(&setup, &format!("{RUN} --out out --seeds 1"));
    // Tables are those of what was run, whatever the flags say.
    let same = document(&setup, &format!("{RUN} --out out --tables-only"));
    let badge = &same["summary"]["tables"][0]["lines"][1];
    assert_eq!(
        (&badge["seeds"], &badge["average"]["seeds"]),
        (&1.into(), &1.into())
    );
    for flags in ["--seeds 2", "--epochs 2 --seeds 1"] {
        let refused = setup.run(&format!("{RUN} --out out {flags}"));
        let told = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("out holds another experiment"), "{told}");
    }
    let more = document(&setup, &format!("{RUN} --out out --seeds 2,1"));
    assert_eq!(more["summary"]["cells"]["done"], 4);
}

#[test]
fn other_data_than_a_record_was_made_with_are_refused() {
    let setup = Setup::new();
    setup.write("grid.toml", GRID.replace("[1e-3, 2e-3]", "[1e-3]"));
    done(&setup, &format!("{RUN} --out out --seeds 1"));
    let rows = String::from_utf8(setup.read("data/train.tsv")).unwrap();
    setup.write("data/train.tsv", rows + "yes\tthe cat sat once more\n");
    let refused = setup.run(&format!("{RUN} --out out --seeds 1"));
    let told = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(
        told.contains("record.json") && told.contains("another train"),
        "{told}"
    );
    assert!(told.contains("choose another --out"), "{told}");
}

#[test]
fn grids_that_cannot_be_meant_are_refused_by_file_and_key() {
    let setup = Setup::new();
    for (from, to, flags, wanted) in [
        ("ranks = [3]", "ranks = [0]", "", "grid.toml: key `ranks`"),
        (
            "ranks = [3]",
            "ranks = [4096]",
            "",
            "grid.toml: badge-r4096 on backbone tiny: key `ranks`",
        ),
        ("blocks = 5", "blocks = 6", "", "has 5 blocks, not 6"),
        ("source = \"model\"", "source = \"nowhere\"", "", "nowhere"),
        (
            "",
            "",
            "--tasks mrpc",
            "--tasks: the experiment has no mrpc",
        ),
        (
            "",
            "",
            "--methods single",
            "--methods: the experiment has no single",
        ),
        ("", "", "--seeds 1,1", "1 stands there twice"),
        ("", "", "--smoke --backbone model", "--backbone: --smoke"),
        ("", "", "--out grid.toml", "--out: grid.toml is a file"),
    ] {
        setup.write("grid.toml", GRID.replace(from, to));
        let refused = setup.run(&format!("reproduce --config grid.toml {flags}"));
        let told = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{flags} {to}: {told}");
        assert!(told.contains(wanted), "{wanted}: {told}");
        assert_eq!(
            told.lines()
                .filter(|line| line.starts_with("error"))
                .count(),
            1
        );
    }
    let unknown = setup.run("reproduce table4");
    assert!(
        stderr(&unknown).contains("table1, table2"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn every_experiment_has_a_small_form_that_runs_everything() {
    let setup = Setup::new();
    for name in ["table1", "table2", "table3", "table6", "figure2", "grid"] {
        let told = document(
            &setup,
            &format!("reproduce {name} --smoke --out {name} --no-cache"),
        );
        let counts = &told["summary"]["cells"];
        assert_eq!(counts["done"], counts["cells"], "{name}");
        let page = String::from_utf8(setup.read(&format!("{name}/report.html"))).unwrap();
        assert!(page.contains("<table>") && page.contains("<svg"), "{name}");
        for file in ["md", "csv", "json"] {
            assert!(
                setup.path(&format!("{name}/{name}.{file}")).exists(),
                "{name}.{file}"
            );
        }
        let claims = told["summary"]["tables"][0]["claims"].as_array().unwrap();
        // A curve of four blocks may end before half of them are saved.
        let is_open = |claim: &&Value| claim["judgement"] == "not-run";
        assert_eq!(
            claims.iter().filter(is_open).count(),
            0,
            "{name}: {claims:#?}"
        );
        assert_eq!(claims.is_empty(), name == "grid", "{name}");
    }
    let figures = fs::read_dir(setup.path("figure2/figures")).unwrap();
    let names: Vec<_> = figures.map(|entry| entry.unwrap().file_name()).collect();
    for wanted in [
        "time-",
        "blocks-",
        "histogram-badge",
        "heat-badge",
        "exits-",
    ] {
        for ending in [".svg", ".png", "-dark.png"] {
            let is_it = |name: &&std::ffi::OsString| {
                let name = name.to_string_lossy();
                name.starts_with(wanted) && name.ends_with(ending)
            };
            assert!(
                names.iter().any(|name| is_it(&name)),
                "{wanted}*{ending}: {names:?}"
            );
        }
    }
}
