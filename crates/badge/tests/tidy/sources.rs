//! Source files: headers, sizes, names, and words that must not occur.

use crate::repository::{files_in, report, text_files, words};

const LINES_MAX: usize = 800;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "base", "misc", "stuff",
];

/// The one crate that may hold code the compiler cannot check.
const KERNELS: &str = "crates/badge-kernels/";

#[test]
fn every_source_file_begins_with_its_purpose() {
    // A module of unit tests belongs to the file above it, whose header speaks for both.
    let files = files_in("crates/", ".rs").into_iter();
    let bare =
        files.filter(|file| !file.text.starts_with("//! ") && !file.path.ends_with("/tests.rs"));
    report(&bare.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn source_files_stay_short() {
    let files = files_in("crates/", ".rs").into_iter();
    let long = files
        .filter(|file| file.path.contains("/src/"))
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > LINES_MAX);
    report(
        &long
            .map(|(lines, path)| format!("{path}: {lines} lines"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn files_are_called_by_what_they_hold() {
    let mut problems = Vec::new();
    for file in files_in("crates/", ".rs") {
        let mut parts = file.path.split(['/', '.']);
        if let Some(part) = parts.find(|part| EMPTY_NAMES.contains(part)) {
            problems.push(format!("{}: `{part}` is no name", file.path));
        }
        for line in file.text.lines() {
            let line: Vec<_> = words(line).take(3).collect();
            let module = line.windows(2).find(|pair| pair[0] == "mod");
            if module.is_some_and(|pair| EMPTY_NAMES.contains(&pair[1])) {
                problems.push(format!("{}: {}", file.path, line.join(" ")));
            }
        }
    }
    report(&problems);
}

#[test]
fn code_that_the_compiler_cannot_check_is_in_the_kernels_alone() {
    let keyword = concat!("uns", "afe");
    let outside = files_in("crates/", ".rs")
        .into_iter()
        .filter(|file| !file.path.starts_with(KERNELS) && file.text.contains(keyword));
    report(&outside.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn the_core_knows_no_files_clocks_threads_or_network() {
    let mut problems = Vec::new();
    for file in files_in("crates/badge-core/src/", ".rs") {
        for module in ["fs", "time", "thread", "net", "process", "env", "io"] {
            if file.text.contains(&format!("std::{module}")) {
                problems.push(format!("{}: std::{module}", file.path));
            }
        }
        if file.text.contains("std::{") {
            problems.push(format!("{}: names std's modules in one line", file.path));
        }
    }
    report(&problems);
}

/// What must occur in no file, with the reason.
const FORBIDDEN: [(&str, &str); 8] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("crates", ".io"), "a registry"),
    (concat!("static.rust", "-lang.org"), "a registry"),
    (concat!("pypi", ".org"), "a registry"),
    (concat!("pythonhosted", ".org"), "a registry"),
    (concat!("db", "g!("), "left from debugging"),
    (concat!("to", "do!("), "not written"),
    (concat!("#[ign", "ore"), "a test that is switched off"),
];

/// Whole words that must occur in no file.
const PROMISES: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

fn forbidden_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        for (pattern, reason) in FORBIDDEN {
            if line.contains(pattern) {
                found.push(format!("{at}: {pattern} ({reason})"));
            }
        }
        if let Some(word) = words(line).find(|word| PROMISES.contains(word)) {
            found.push(format!("{at}: {word} (a promise)"));
        }
    }
    found
}

#[test]
fn no_file_speaks_of_machines_registries_or_later() {
    let files = text_files().into_iter();
    let problems = files.flat_map(|file| {
        let found = forbidden_in(&file.text).into_iter();
        found
            .map(|found| format!("{}:{found}", file.path))
            .collect::<Vec<_>>()
    });
    report(&problems.collect::<Vec<_>>());
}

#[test]
fn forbidden_words_are_found_where_they_stand() {
    for (pattern, _) in FORBIDDEN {
        assert_eq!(forbidden_in(&format!("fine\nnot {pattern} x")).len(), 1);
    }
    for word in PROMISES {
        assert_eq!(forbidden_in(&format!("// {word}: later")).len(), 1);
        assert!(forbidden_in(&format!("{word}S")).is_empty());
    }
}
