//! The files of the repository, and tables inside its texts.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file with its path from the root, written with `/`.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Folders that hold what was built, downloaded or trained, not what was written.
const NOT_OURS: [&str; 6] = [
    "target",
    ".git",
    ".venv",
    "__pycache__",
    "runs",
    "badge-quickstart",
];

/// Extensions of files that people read; files without one are read too.
const TEXTS: [&str; 14] = [
    "rs", "toml", "md", "py", "txt", "json", "jsonl", "yml", "yaml", "sh", "csv", "tsv", "svg",
    "html",
];

pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// Every text file of the repository, in a fixed order.
pub(crate) fn text_files() -> Vec<TextFile> {
    let mut files = Vec::new();
    collect(&root(), &root(), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 100, "{} files", files.len());
    files
}

/// Those below a folder with an extension: `("crates/", ".rs")`.
pub(crate) fn files_in(folder: &str, extension: &str) -> Vec<TextFile> {
    let mut files = text_files();
    files.retain(|file| file.path.starts_with(folder) && file.path.ends_with(extension));
    files
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with all that is wrong, one line each.
pub(crate) fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<TextFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) {
                collect(root, &path, files);
            }
            continue;
        }
        // Of a linked worktree, a file.
        if name == ".git" {
            continue;
        }
        let extension = path.extension().map(|e| e.to_string_lossy().into_owned());
        if extension.is_some_and(|e| !TEXTS.contains(&e.as_str())) {
            continue;
        }
        let relative = path.strip_prefix(root).unwrap().components();
        let parts: Vec<_> = relative.map(|c| c.as_os_str().to_string_lossy()).collect();
        // Other tests may write and remove files meanwhile; one that is gone is not ours.
        if let Ok(text) = fs::read_to_string(&path) {
            files.push(TextFile {
                path: parts.join("/"),
                text,
            });
        }
    }
}

/// The cells of a Markdown table's row; `None` for other lines, headings and rules.
pub(crate) fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<_> = inner.split('|').map(str::trim).collect();
    let is_rule = cells
        .iter()
        .all(|cell| !cell.is_empty() && cell.chars().all(|c| "-:".contains(c)));
    (!is_rule).then_some(cells)
}

/// What stands between backticks on one line.
pub(crate) fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The identifiers and numbers of a line, in order.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

#[test]
fn tables_and_code_spans_are_taken_apart() {
    assert_eq!(cells("| a | `b` `c` |"), Some(vec!["a", "`b` `c`"]));
    assert_eq!(cells("|---|--:|"), None);
    assert_eq!(cells("no row"), None);
    assert_eq!(
        code_spans("x `a::b` and `c`").collect::<Vec<_>>(),
        ["a::b", "c"]
    );
    assert_eq!(
        words("pub fn take(n: usize)").collect::<Vec<_>>(),
        ["pub", "fn", "take", "n", "usize"]
    );
}
