//! The report: one HTML file with its style, tables and figures inside, readable without a network.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use badge_tasks::file;

use crate::plot::Svg;
use crate::table::{Align, Table};

/// A page of sections.
#[derive(Debug, Clone)]
pub struct Report {
    /// The heading of the page, and the name of the browser's tab.
    pub title: String,
    /// One or two sentences under the heading.
    pub summary: String,
    /// The sections, in reading order.
    pub sections: Vec<Section>,
}

/// A heading and what stands under it.
#[derive(Debug, Clone)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// What stands under it, in reading order.
    pub blocks: Vec<Block>,
}

/// One piece of a section. All text is plain: it is escaped when the page is written.
#[derive(Debug, Clone)]
pub enum Block {
    /// A paragraph.
    Paragraph(String),
    /// A table with a caption, which may be empty.
    Table {
        /// The cells.
        table: Table,
        /// One sentence that says what the table shows.
        caption: String,
    },
    /// A drawing with a caption, which may be empty.
    Figure {
        /// The drawing.
        svg: Svg,
        /// One sentence that says what the figure shows.
        caption: String,
    },
    /// Names and their values: the settings of a run, the machine.
    Facts(Vec<(String, String)>),
    /// Lines to type, or output, in a fixed-width face.
    Code(String),
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            summary: summary.into(),
            sections: Vec::new(),
        }
    }

    /// Adds a section.
    pub fn push(&mut self, heading: impl Into<String>, blocks: Vec<Block>) {
        self.sections.push(Section {
            heading: heading.into(),
            blocks,
        });
    }

    /// The whole page.
    pub fn to_html(&self) -> String {
        let title = escape(&self.title);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <header>\n<h1>{title}</h1>\n<p>{}</p>\n</header>\n",
            escape(&self.summary)
        );
        for section in &self.sections {
            section.write_html(&mut page);
        }
        page.push_str("</main>\n</body>\n</html>\n");
        page
    }

    /// Writes the page to `path`, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::write_atomic(path, self.to_html().as_bytes())
            .with_context(|| format!("the report could not be written to {}", path.display()))
    }
}

impl Section {
    fn write_html(&self, page: &mut String) {
        page.push_str("<section>\n<h2>");
        page.push_str(&escape(&self.heading));
        page.push_str("</h2>\n");
        for block in &self.blocks {
            block.write_html(page);
        }
        page.push_str("</section>\n");
    }
}

impl Block {
    /// A table without a caption.
    pub fn table(table: Table) -> Self {
        Self::Table {
            table,
            caption: String::new(),
        }
    }

    fn write_html(&self, page: &mut String) {
        match self {
            Self::Paragraph(text) => push(page, format_args!("<p>{}</p>\n", escape(text))),
            Self::Table { table, caption } => {
                push(
                    page,
                    format_args!(
                        "<figure>\n{}{}</figure>\n",
                        html_table(table),
                        below(caption)
                    ),
                );
            }
            Self::Figure { svg, caption } => {
                push(
                    page,
                    format_args!("<figure>\n{}\n{}</figure>\n", svg.as_str(), below(caption)),
                );
            }
            Self::Facts(facts) => {
                page.push_str("<dl>\n");
                for (name, value) in facts {
                    let (name, value) = (escape(name), escape(value));
                    push(page, format_args!("<dt>{name}</dt><dd>{value}</dd>\n"));
                }
                page.push_str("</dl>\n");
            }
            Self::Code(text) => push(
                page,
                format_args!("<pre><code>{}</code></pre>\n", escape(text)),
            ),
        }
    }
}

/// Text made safe for HTML content and for quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn below(caption: &str) -> String {
    if caption.is_empty() {
        return String::new();
    }
    format!("<figcaption>{}</figcaption>\n", escape(caption))
}

fn html_table(table: &Table) -> String {
    let class = |at: usize| match table.columns()[at].align() {
        Align::Left => "",
        Align::Right => " class=\"number\"",
    };
    let mut html = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    for (at, column) in table.columns().iter().enumerate() {
        let heading = escape(column.heading());
        push(
            &mut html,
            format_args!("<th scope=\"col\"{}>{heading}</th>", class(at)),
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for cells in table.rows() {
        html.push_str("<tr>");
        for (at, cell) in cells.iter().enumerate() {
            push(
                &mut html,
                format_args!("<td{}>{}</td>", class(at), escape(cell)),
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text)
        .expect("writing to a string cannot fail");
}

/// The page's style: system faces, one accent, both colour schemes, and a print form.
const STYLE: &str = "\
:root { --ink: #1c2128; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --wash: #f6f8fa;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --paper: #0d1117; --wash: #161b22;
    --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { border-bottom: 3px solid var(--accent); margin-bottom: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
header p { color: var(--soft); margin: 0 0 1.25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
figure { margin: 1.25rem 0; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
svg { display: block; max-width: 100%; height: auto; color: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; font-size: .95rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .9rem; text-align: left; border-bottom: 1px solid var(--line); }
th { border-bottom: 2px solid var(--line); font-weight: 600; white-space: nowrap; }
tbody tr:hover { background: var(--wash); }
.number { text-align: right; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: 1rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem; overflow-x: auto; }
code { font: .9em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media print { main { max-width: none; padding: 0; } section { break-inside: avoid; } }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Curve, Plot};
    use crate::table::Column;

    fn report() -> Report {
        let mut table = Table::new([Column::text("text"), Column::number("exit")]);
        table.push(["<b>Ann & \"Bob\"</b>", "3"]);
        let svg = Plot::new("Curve", "speed-up", "score")
            .with(Curve::new("dge", vec![(1.0, 0.9), (2.0, 0.8)]))
            .to_inline_svg()
            .unwrap();
        let mut report = Report::new("A <title>", "All of it");
        report.push(
            "Results",
            vec![
                Block::Paragraph("1 < 2".into()),
                Block::table(table),
                Block::Figure {
                    svg,
                    caption: "Up & right is better.".into(),
                },
                Block::Facts(vec![("seed".into(), "42".into())]),
                Block::Code("badge predict --model out".into()),
            ],
        );
        report
    }

    #[test]
    fn text_is_escaped_everywhere() {
        let html = report().to_html();
        assert!(html.contains("<title>A &lt;title&gt;</title>"));
        assert!(html.contains("<p>1 &lt; 2</p>"));
        assert!(html.contains("<td>&lt;b&gt;Ann &amp; &quot;Bob&quot;&lt;/b&gt;</td>"));
        assert!(html.contains("Up &amp; right"));
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let html = report().to_html();
        for outside in ["<script", "<link", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(outside), "found {outside}");
        }
    }

    #[test]
    fn every_element_that_opens_closes() {
        let html = report().to_html();
        for name in [
            "html", "head", "body", "main", "section", "table", "dl", "figure", "svg",
        ] {
            let opened = html.matches(&format!("<{name}>")).count()
                + html.matches(&format!("<{name} ")).count();
            assert_eq!(
                opened,
                html.matches(&format!("</{name}>")).count(),
                "{name}"
            );
            assert!(opened > 0, "{name}");
        }
    }

    #[test]
    fn numbers_are_aligned_to_the_right() {
        assert!(report().to_html().contains("<td class=\"number\">3</td>"));
    }

    #[test]
    fn writing_to_a_missing_folder_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = report()
            .write(&folder.path().join("missing/report.html"))
            .unwrap_err();
        assert!(format!("{error:#}").contains("missing"), "{error:#}");
    }
}
