//! The paper map: every row leads somewhere, every equation has one, every citation is known.

use std::collections::{BTreeMap, BTreeSet};

use crate::items::{find_test, resolve};
use crate::repository::{cells, code_spans, files_in, read, report};

const MAP: &str = "docs/paper-map.md";
const EQUATIONS: std::ops::RangeInclusive<usize> = 1..=8;
const NOT_BUILT: [&str; 2] = ["not built yet", "–"];

/// One row of the map.
struct Row {
    name: String,
    item: String,
    test: String,
}

impl Row {
    fn is_built(&self) -> bool {
        self.item != NOT_BUILT[0]
    }

    /// Everything wrong with the row.
    fn problems(&self) -> Vec<String> {
        if !self.is_built() {
            let tested = self.test != NOT_BUILT[1];
            return Vec::from_iter(tested.then(|| format!("{}: tested but not built", self.name)));
        }
        let mut problems = Vec::new();
        for cell in [&self.item, &self.test] {
            if code_spans(cell).next().is_none() {
                problems.push(format!("`{cell}` names nothing"));
            }
        }
        problems.extend(code_spans(&self.item).filter_map(|item| resolve(item).err()));
        problems.extend(code_spans(&self.test).filter_map(|test| find_test(test).err()));
        let named = problems.into_iter();
        named
            .map(|problem| format!("{}: {problem}", self.name))
            .collect()
    }

    /// The number of the equation that the row is about.
    fn equation(&self) -> Option<usize> {
        let number = self.name.strip_prefix("Eq. (")?.strip_suffix(')')?;
        number.parse().ok()
    }
}

fn rows(text: &str) -> Vec<Row> {
    let cells = text.lines().filter_map(cells);
    let rows = cells.filter(|row| row.len() == 4 && row[2] != "item");
    rows.map(|row| Row {
        name: row[0].to_owned(),
        item: row[2].to_owned(),
        test: row[3].to_owned(),
    })
    .collect()
}

/// The doc comments of a source file, each as one line.
fn doc_comments(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines().map(str::trim_start) {
        match line.strip_prefix("///").or(line.strip_prefix("//!")) {
            Some(comment) => text += comment,
            None if text.ends_with('\n') => {}
            None => text.push('\n'),
        }
    }
    text
}

/// The equations that doc comments cite, each with the work they are said to be from.
fn citations(source: &str) -> Vec<(String, Vec<usize>)> {
    let text = doc_comments(source);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("Eq. ") {
        let before = text[..at].trim_end().trim_end_matches(',');
        let key: String = before.rsplit([' ', '\n', '(']).next().unwrap().to_owned();
        let key = key.strip_suffix("'s").map_or(key.clone(), str::to_owned);
        found.push((key, numbers(&text[at + "Eq. ".len()..])));
    }
    found
}

/// `(1) and (2)`, `(3), (4)` or a plain `8` at the beginning of a text.
fn numbers(mut text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let inner = text.strip_prefix('(').unwrap_or(text);
        let length = inner.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(number) = inner[..length].parse() else {
            return numbers;
        };
        numbers.push(number);
        let rest = inner[length..].trim_start_matches(')');
        let next = rest.strip_prefix(" and (").or(rest.strip_prefix(", ("));
        match next {
            Some(_) => text = &rest[rest.find('(').unwrap_or(0)..],
            None => return numbers,
        }
    }
}

#[test]
fn every_row_leads_to_an_item_and_a_test() {
    let rows = rows(&read(MAP));
    assert!(rows.len() > 30, "{} rows", rows.len());
    report(&rows.iter().flat_map(Row::problems).collect::<Vec<_>>());
}

#[test]
fn every_equation_table_and_figure_has_one_row() {
    let rows = rows(&read(MAP));
    let wanted = EQUATIONS.map(|n| format!("Eq. ({n})"));
    let wanted = wanted.chain((1..=6).map(|n| format!("Table {n}")));
    let wanted = wanted.chain((1..=2).map(|n| format!("Figure {n}")));
    for name in wanted {
        let count = rows.iter().filter(|row| row.name == name).count();
        assert_eq!(count, 1, "rows for {name}");
    }
}

#[test]
fn citations_are_known_and_built_equations_are_cited() {
    let rows = rows(&read(MAP));
    let built: BTreeMap<_, _> = rows
        .iter()
        .filter_map(|row| Some((row.equation()?, row.is_built())))
        .collect();
    let mut cited = BTreeSet::new();
    let mut problems = Vec::new();
    for file in files_in("crates/", ".rs") {
        for (key, numbers) in citations(&file.text) {
            if key != "paper" || numbers.is_empty() {
                problems.push(format!("{}: `{key}, Eq. {numbers:?}`", file.path));
            }
            let unknown = numbers.iter().filter(|n| !built.contains_key(n));
            problems.extend(unknown.map(|n| format!("{}: no Eq. ({n})", file.path)));
            cited.extend(numbers);
        }
    }
    let uncited = built
        .iter()
        .filter(|(n, built)| **built && !cited.contains(n));
    problems.extend(uncited.map(|(n, _)| format!("Eq. ({n}) is built and cited nowhere")));
    report(&problems);
}

#[test]
fn rows_that_lead_nowhere_are_found() {
    let test = "`badge/tests/tidy/paper_map.rs::rows_that_lead_nowhere_are_found`";
    let problems = |item: &str, test: &str| {
        let text = format!("| Eq. (9) | what | {item} | {test} |");
        rows(&text).iter().flat_map(Row::problems).count()
    };
    assert_eq!(problems("`badge_core::cost`", test), 0);
    assert_eq!(problems("not built yet", "–"), 0);
    assert_eq!(problems("not built yet", test), 1);
    assert_eq!(problems("`badge_core::nothing`", test), 1);
    assert_eq!(problems("`badge_core::cost`", "–"), 1);
    assert_eq!(problems("later", "soon"), 2);
}

#[test]
fn citations_are_read_from_doc_comments_alone() {
    let source = [
        "/// A sum — paper,",
        "/// Eq. (1) and (2)",
        "let a = \"Eq. 5\"; // Eq. 6",
        "/// (the paper's Eq. 3).",
        "//! Key, Eq. (4), (7) and more",
    ]
    .join("\n");
    let expected = [
        ("paper", vec![1, 2]),
        ("paper", vec![3]),
        ("Key", vec![4, 7]),
    ];
    let expected = expected.map(|(key, numbers)| (key.to_owned(), numbers));
    assert_eq!(citations(&source), expected);
}
