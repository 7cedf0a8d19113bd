//! Texts: links that lead somewhere, figures that stand in two places, the changelog's form.

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::{cells, code_spans, files_in, read, report, root};

/// The lines of a Markdown text outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// The targets of a line's links, what stands in backticks left out.
fn links(line: &str) -> Vec<String> {
    let plain: String = line.split('`').step_by(2).collect();
    let ends = plain.split("](").skip(1);
    ends.filter_map(|end| Some(end.split_once(')')?.0.to_owned()))
        .collect()
}

/// The name under which a heading is linked to: lower-case words joined by hyphens.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect()
}

/// What is wrong with a link in the file at `path`, whose text is `text`.
fn broken(path: &str, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        root().join(path)
    } else {
        root().join(path).parent()?.join(file)
    };
    let problem = |what: &str| Some(format!("{path}: {link} {what}"));
    let Ok(target) = target.canonicalize() else {
        return problem("is not there");
    };
    if !target.starts_with(root()) {
        return problem("lies outside of the repository");
    }
    if fragment.is_empty() {
        return None;
    }
    let read = || std::fs::read_to_string(&target).unwrap_or_default();
    let known = if file.is_empty() {
        anchors(text)
    } else {
        anchors(&read())
    };
    if known.contains(fragment) {
        return None;
    }
    problem("names no heading")
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    let mut problems = Vec::new();
    for file in files_in("", ".md") {
        for link in prose(&file.text).flat_map(links) {
            found += 1;
            problems.extend(broken(&file.path, &file.text, &link));
        }
    }
    assert!(found > 40, "{found} links");
    report(&problems);
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let text = "# One two\n[a](b.md) `[c](d)` [e](f)\n```\n[g](h)\n```\n";
    let found: Vec<_> = prose(text).flat_map(links).collect();
    assert_eq!(found, ["b.md", "f"]);
    let is_broken = |link: &str| broken("docs/tasks.md", text, link).is_some();
    for good in [
        "../README.md",
        "#one-two",
        "tasks.md",
        "https://example.org",
    ] {
        assert!(!is_broken(good), "{good}");
    }
    for bad in ["README.md", "#three", "tasks.md#nothing", "../../"] {
        assert!(is_broken(bad), "{bad}");
    }
}

/// `const NAME: f32 = 1e-5;` by name.
fn constants(source: &str) -> BTreeMap<String, f32> {
    let declarations = source.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("const ")?.split_once(": f32 = ")?;
        Some((name.to_owned(), value.strip_suffix(';')?.parse().ok()?))
    });
    declarations.collect()
}

/// The rows of the table of bounds: a constant's name in backticks, then its value.
fn bounds(text: &str) -> BTreeMap<String, f32> {
    let rows = text.lines().filter_map(cells);
    rows.filter_map(|row| {
        let name = code_spans(row.first()?).next()?;
        let is_constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let value = row.get(1)?.split(' ').next()?.parse().ok()?;
        is_constant.then(|| (name.to_owned(), value))
    })
    .collect()
}

#[test]
fn the_bounds_of_parity_are_those_of_its_tests() {
    let stated = bounds(&read("docs/parity.md"));
    let mut tested = constants(&read("crates/badge-train/tests/parity.rs"));
    tested.extend(constants(&read("crates/badge-lab/tests/parity.rs")));
    assert_eq!(stated, tested);
    assert_eq!(stated.len(), 10);
}

#[test]
fn changes_say_of_what_kind_they_are() {
    let kinds = ["breaking", "added", "changed", "fixed", "perf"];
    let text = read("CHANGELOG.md");
    let lines = text.lines().filter(|line| line.starts_with("- "));
    let wrong = lines.filter(|line| {
        let mut starts = kinds.iter().map(|kind| format!("- **{kind}** "));
        !starts.any(|start| line.starts_with(&start))
    });
    report(&wrong.map(str::to_owned).collect::<Vec<_>>());
}
