//! What `deploy/` and the documentation say of metrics, held against what a server tells.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::setup::{Setup, app, get, post, settings};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of metrics as they are written in queries: our own, and the process's.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let is_metric = |word: &&str| {
        let ours = word.strip_prefix("badge_").is_some_and(|rest| {
            // Crates begin like this too.
            let crates = [
                "core", "engine", "kernels", "lab", "server", "tasks", "train",
            ];
            !rest.is_empty() && !crates.contains(&rest)
        });
        ours || (word.starts_with("process_") && word.len() > "process_".len())
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

/// The names under which Prometheus keeps what a server tells.
fn exported(metrics: &str) -> BTreeSet<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let endings: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            endings.iter().map(move |ending| format!("{name}{ending}"))
        })
        .collect()
}

#[tokio::test]
async fn every_metric_that_is_named_is_there() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.calibrated("tiny")]);
    settings.model.slo = Some(std::time::Duration::from_secs(5));
    let app = app(settings);
    post(&app, "/predict", json!({"inputs": "a"})).await.json();
    let there = exported(&get(&app, "/metrics").await.text());
    for (path, least) in [
        ("deploy/grafana.json", 20),
        ("deploy/kubernetes/keda.yaml", 3),
    ] {
        let named = named(&read(path));
        assert!(named.len() >= least, "{path}: {named:?}");
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{path}: no server tells {missing:?}");
    }
    // Texts name histograms as a whole.
    let whole = |name: &String| {
        let mut parts = ["_bucket", "_sum", "_count"].iter();
        parts
            .find_map(|part| name.strip_suffix(part))
            .map(str::to_owned)
    };
    let histograms: BTreeSet<_> = there.iter().filter_map(whole).collect();
    let told: BTreeSet<_> = there.union(&histograms).cloned().collect();
    let documented = named(&read("docs/serving.md"));
    let missing: Vec<_> = documented.difference(&told).collect();
    assert!(
        missing.is_empty(),
        "docs/serving.md: no server tells {missing:?}"
    );
    let part = |name: &&String| whole(name).is_none_or(|whole| !documented.contains(&whole));
    let silent: Vec<_> = there.difference(&documented).filter(part).collect();
    assert!(
        silent.is_empty(),
        "docs/serving.md says nothing of {silent:?}"
    );
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut places = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for (other, (left, top, width, height)) in &places {
            let apart = x + w <= *left || left + width <= x || y + h <= *top || top + height <= y;
            assert!(apart, "{title} lies over {other}");
        }
        places.push((title, (x, y, w, h)));
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let balance = |open: char, close: char| {
                query.matches(open).count() == query.matches(close).count()
            };
            assert!(balance('(', ')') && balance('{', '}'), "{title}: {query}");
            assert!(query.contains("$job"), "{title}: {query}");
        }
    }
    assert!(panels.len() >= 15);
}

#[test]
fn names_are_found_in_queries_and_texts() {
    let text =
        "`badge_exits_total{model,layer}`, sum(process_threads{a=\"b\"}) badge_core::x badge_";
    let names = named(text);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(names, ["badge_exits_total", "process_threads"]);
    let text = "# TYPE badge_a counter\n# TYPE badge_b histogram\n# TYPE badge_c gauge\n";
    let names: Vec<_> = exported(text).into_iter().collect();
    let expected = [
        "badge_a_total",
        "badge_b_bucket",
        "badge_b_count",
        "badge_b_sum",
        "badge_c",
    ];
    assert_eq!(names, expected);
}
