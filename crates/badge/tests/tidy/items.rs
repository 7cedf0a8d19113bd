//! Rust paths in texts: whether `badge_core::cost::TimeSaved` is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::repository::{code_spans, files_in, read, report, root, words};

const KEYWORDS: [&str; 8] = [
    "fn", "struct", "enum", "trait", "type", "const", "static", "mod",
];

/// Finds an item by its path: a module, something it declares or re-exports, or a method, field or
/// variant of that.
///
/// # Errors
/// A sentence that says which part of the path is not there.
pub(crate) fn resolve(item: &str) -> Result<(), String> {
    let segments: Vec<_> = item.split("::").collect();
    let name = segments[0].replace('_', "-");
    let source = root().join("crates").join(&name).join("src");
    if !source.is_dir() {
        return Err(format!("{item}: there is no crate {name}"));
    }
    let path = &segments[1..];
    let depth = (0..=path.len())
        .rev()
        .find(|depth| module_file(&source, &path[..*depth]).is_some())
        .unwrap_or(0);
    let file = module_file(&source, &path[..depth]).expect("a crate has a root");
    let text = fs::read_to_string(&file).unwrap();
    match &path[depth..] {
        [] => Ok(()),
        [name] if declares(&text, name) || re_exports(&text, name) => Ok(()),
        [owner, member] if declares(&text, owner) || re_exports(&text, owner) => {
            let folder = format!("crates/{}/src/", segments[0].replace('_', "-"));
            let mut files = files_in(&folder, ".rs").into_iter();
            if files.any(|file| has_member(&file.text, owner, member)) {
                Ok(())
            } else {
                Err(format!("{item}: {owner} has no {member}"))
            }
        }
        rest => Err(format!(
            "{item}: no {} in {}",
            rest.join("::"),
            file.strip_prefix(root()).unwrap().display()
        )),
    }
}

/// The file of a module, or of the crate's root for no segments.
fn module_file(source: &Path, segments: &[&str]) -> Option<PathBuf> {
    let folder: PathBuf = source.join(segments.iter().collect::<PathBuf>());
    let candidates = if segments.is_empty() {
        [folder.join("lib.rs"), folder.join("main.rs")]
    } else {
        [folder.with_extension("rs"), folder.join("mod.rs")]
    };
    candidates.into_iter().find(|file| file.is_file())
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn declares(text: &str, name: &str) -> bool {
    code_lines(text).any(|line| {
        let words: Vec<_> = words(line).collect();
        words
            .windows(2)
            .any(|pair| KEYWORDS.contains(&pair[0]) && pair[1] == name)
    })
}

/// Whether a `pub use` names it; that it then exists, the compiler sees to.
fn re_exports(text: &str, name: &str) -> bool {
    text.split("pub use ").skip(1).any(|statement| {
        let statement = statement.split(';').next().unwrap_or_default();
        words(statement).any(|word| word == name)
    })
}

/// Whether a field, variant or method stands in a definition or `impl` block of the owner.
fn has_member(text: &str, owner: &str, member: &str) -> bool {
    let mut inside = false;
    for line in code_lines(text).filter(|line| !line.is_empty()) {
        if !line.starts_with([' ', '\t']) {
            inside = line.ends_with('{') && words(line).any(|word| word == owner);
            continue;
        }
        let words: Vec<_> = words(line).collect();
        let is_function = words.windows(2).any(|pair| pair == ["fn", member]);
        // Fields and variants stand one level deep; what lies deeper is a body.
        let own = line.strip_prefix("    ").filter(|l| !l.starts_with(' '));
        let own = own.map(|own| own.strip_prefix("pub ").unwrap_or(own));
        let rest = own.and_then(|own| own.strip_prefix(member));
        let is_part = rest.is_some_and(|rest| rest.starts_with([',', '(', ':', ' ']));
        if inside && (is_function || is_part) {
            return true;
        }
    }
    false
}

/// Whether a text between backticks is a path into one of our crates.
fn is_item(span: &str) -> bool {
    span.starts_with("badge")
        && span.contains("::")
        && span.split("::").all(|segment| {
            !segment.is_empty() && segment.chars().all(|c| c.is_alphanumeric() || c == '_')
        })
}

/// Whether a file, below `crates/`, holds a test of this name.
///
/// # Errors
/// A sentence that says what is not there.
pub(crate) fn find_test(test: &str) -> Result<(), String> {
    let (file, name) = test
        .split_once("::")
        .ok_or_else(|| format!("{test}: a test is written as file::name"))?;
    let path = root().join("crates").join(file);
    let text = fs::read_to_string(path).map_err(|error| format!("{test}: {error}"))?;
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let start = format!("fn {name}(");
    let is_test = lines.iter().enumerate().any(|(at, line)| {
        let above = &lines[at.saturating_sub(4)..at];
        line.starts_with(&start) && above.contains(&"#[test]")
    });
    is_test
        .then_some(())
        .ok_or_else(|| format!("{test}: no such test"))
}

#[test]
fn every_item_that_a_text_names_is_there() {
    // The changelog speaks of what was.
    let texts = files_in("", ".md")
        .into_iter()
        .filter(|file| file.path != "CHANGELOG.md");
    let mut found = 0;
    let mut problems = Vec::new();
    for file in texts {
        for item in file
            .text
            .lines()
            .flat_map(code_spans)
            .filter(|s| is_item(s))
        {
            found += 1;
            if let Err(problem) = resolve(item) {
                problems.push(format!("{}: {problem}", file.path));
            }
        }
    }
    assert!(found > 40, "{found} items");
    report(&problems);
}

#[test]
fn the_code_map_names_every_module() {
    let map = read("ARCHITECTURE.md");
    let modules = files_in("crates/", ".rs").into_iter().filter(|file| {
        let parts: Vec<_> = file.path.split('/').collect();
        parts.len() == 4 && parts[2] == "src" && !["lib.rs", "error.rs"].contains(&parts[3])
    });
    let missing = modules.filter(|file| !map.contains(&format!("({})", file.path)));
    report(
        &missing
            .map(|file| format!("ARCHITECTURE.md does not speak of {}", file.path))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn paths_that_lead_nowhere_are_found() {
    for good in [
        "badge_core::cost",
        "badge_core::cost::TimeSaved",
        "badge_core::policy::Policy::observe",
        "badge_core::policy::PolicySpec::Dge",
        "badge_core::bypass::BypassConfig::rank",
        "badge_train::Device",
    ] {
        assert_eq!(resolve(good), Ok(()), "{good}");
    }
    for bad in [
        "badge_nothing::x",
        "badge_core::nothing",
        "badge_core::cost::Nothing",
        "badge_core::policy::Policy::nothing",
        "badge_core::policy::PolicySpec::observe",
        "badge_core::policy::Policy::observe::deeper",
    ] {
        assert!(resolve(bad).is_err(), "{bad}");
    }
    let file = "badge/tests/tidy/items.rs";
    assert_eq!(
        find_test(&format!("{file}::paths_that_lead_nowhere_are_found")),
        Ok(())
    );
    for bad in ["resolve", "nothing"] {
        assert!(find_test(&format!("{file}::{bad}")).is_err(), "{bad}");
    }
    assert!(find_test("badge/tests/nothing.rs::x").is_err());
}
