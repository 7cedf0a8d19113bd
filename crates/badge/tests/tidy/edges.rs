//! Which crate may use which: the table in ARCHITECTURE.md against every manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use toml::Table;

use crate::repository::{cells, code_spans, files_in, read, report, root};

/// One row of the table of allowed edges.
#[derive(Debug, PartialEq)]
struct Place {
    layer: u8,
    may_use: BTreeSet<String>,
}

fn allowed_edges(text: &str) -> BTreeMap<String, Place> {
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with("Allowed edges"))
        .expect("ARCHITECTURE.md has a section `Allowed edges`");
    let rows = section.lines().filter_map(cells);
    rows.filter_map(|row| {
        let layer = row[0].parse().ok()?;
        let name = code_spans(row[1]).next()?.to_owned();
        let may_use = code_spans(row[2]).map(str::to_owned).collect();
        Some((name, Place { layer, may_use }))
    })
    .collect()
}

/// The manifests of all crates by the name of the crate.
fn manifests() -> BTreeMap<String, Table> {
    let folders = fs::read_dir(root().join("crates")).unwrap();
    folders
        .map(|folder| {
            let folder = folder.unwrap().file_name().into_string().unwrap();
            let manifest: Table = read(&format!("crates/{folder}/Cargo.toml"))
                .parse()
                .unwrap();
            let name = manifest["package"]["name"].as_str().unwrap();
            assert_eq!(name, folder, "a crate is called as its folder");
            (folder, manifest)
        })
        .collect()
}

/// The names of everything that a crate depends on, in tests and build scripts too.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(|t| t.as_table());
    let of_targets = targets.into_iter().flat_map(Table::values);
    let tables = of_targets.filter_map(|target| target.as_table());
    let mut names = BTreeSet::new();
    for table in tables.chain([manifest]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = table.get(kind).and_then(|kind| kind.as_table());
            for (name, value) in entries.into_iter().flatten() {
                let renamed = value.get("package").and_then(|package| package.as_str());
                names.insert(renamed.unwrap_or(name).to_owned());
            }
        }
    }
    names
}

fn forbidden_edges(
    allowed: &BTreeMap<String, Place>,
    manifests: &BTreeMap<String, Table>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, manifest) in manifests {
        let Some(place) = allowed.get(name) else {
            problems.push(format!("{name} has no row in `Allowed edges`"));
            continue;
        };
        for dependency in dependencies(manifest) {
            let is_ours = manifests.contains_key(&dependency) || allowed.contains_key(&dependency);
            if is_ours && !place.may_use.contains(&dependency) {
                problems.push(format!("{name} must not use {dependency}"));
            }
        }
    }
    problems
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let allowed = allowed_edges(&read("ARCHITECTURE.md"));
    assert!(allowed.len() >= 5, "{allowed:?}");
    for (name, place) in &allowed {
        for used in &place.may_use {
            assert!(
                allowed[used].layer < place.layer,
                "{name} -> {used} does not go down"
            );
        }
    }
    report(&forbidden_edges(&allowed, &manifests()));
}

#[test]
fn an_edge_that_goes_up_is_found() {
    let allowed = allowed_edges("\n## Allowed edges\n| 1 | `up` | `down` |\n| 0 | `down` | |\n");
    let manifest = |text: &str| text.parse::<Table>().unwrap();
    let manifests = BTreeMap::from([
        ("up".to_owned(), manifest("[dependencies]\ndown = \"1\"")),
        (
            "down".to_owned(),
            manifest("[target.x.dev-dependencies]\nup = \"1\""),
        ),
        ("new".to_owned(), manifest("")),
    ]);
    assert_eq!(
        forbidden_edges(&allowed, &manifests),
        ["down must not use up", "new has no row in `Allowed edges`"]
    );
}

#[test]
fn only_the_trainer_names_the_autodiff_framework() {
    let users: Vec<_> = manifests()
        .into_iter()
        .filter(|(_, manifest)| {
            let mut names = dependencies(manifest).into_iter();
            names.any(|name| name.starts_with("candle"))
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(users, ["badge-train"]);
    let paths = concat!("candle", "_");
    let outside = files_in("crates/", ".rs")
        .into_iter()
        .filter(|file| !file.path.starts_with("crates/badge-train/") && file.text.contains(paths));
    report(&outside.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn every_crate_inherits_lints_versions_and_licence() {
    let mut problems = Vec::new();
    for (name, manifest) in manifests() {
        let inherits = |value: Option<&toml::Value>| {
            value
                .and_then(|v| v.get("workspace"))
                .and_then(toml::Value::as_bool)
                == Some(true)
        };
        if !inherits(manifest.get("lints")) {
            problems.push(format!("{name}: [lints] is not the workspace's"));
        }
        let package = manifest["package"].as_table().unwrap();
        for key in ["version", "edition", "rust-version", "license"] {
            if !inherits(package.get(key)) {
                problems.push(format!("{name}: {key} is not the workspace's"));
            }
        }
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = manifest.get(kind).and_then(|kind| kind.as_table());
            for (dependency, value) in entries.into_iter().flatten() {
                if !inherits(Some(value)) {
                    problems.push(format!("{name}: {dependency} has a version of its own"));
                }
            }
        }
    }
    report(&problems);
}
