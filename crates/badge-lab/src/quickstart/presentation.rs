//! The quickstart's results as tables, a plot, a page and files to try things on.

use std::path::Path;

use anyhow::Result;
use badge_tasks::file;

use super::corpus::Grade;
use super::{MAX_DROP, Quickstart, Results, ShownLine};
use crate::plot::{Curve, Plot};
use crate::report::{Block, Report};
use crate::table::{Column, Table};
use crate::tables::{percent, policy_table};

/// Accuracy by difficulty and exit, with the chosen policy beside it.
pub fn grade_table(results: &Results) -> Table {
    let exits = results
        .test
        .depths
        .iter()
        .map(|depth| Column::number(format!("exit {depth}")));
    let columns = [Column::text("test texts"), Column::number("rows")]
        .into_iter()
        .chain(exits)
        .chain([Column::number("DGE"), Column::number("mean exit")]);
    let mut table = Table::new(columns);
    for grade in &results.by_grade {
        let mut cells = vec![grade.grade.to_owned(), grade.rows.to_string()];
        cells.extend(grade.exits.iter().map(|score| percent(*score)));
        cells.extend([
            percent(grade.policy_score),
            format!("{:.2}", grade.mean_exit),
        ]);
        table.push(cells);
    }
    table.push_rule();
    let mut cells = vec!["all".to_owned(), results.test.rows.to_string()];
    cells.extend(
        results
            .test
            .scores
            .exits
            .iter()
            .map(|score| percent(*score)),
    );
    if let Some(chosen) = results.policies.last() {
        cells.extend([percent(chosen.score), format!("{:.2}", chosen.mean_exit)]);
    }
    table.push(cells);
    table
}

/// Score over layer speed-up on the test split.
pub fn speed_score_plot(results: &Results) -> Plot {
    let full = results.test.scores.exits.last().copied().unwrap_or(0.0);
    Plot::new(
        "Score kept while blocks are saved",
        "layer speed-up (6 / mean exit)",
        "test accuracy, percent",
    )
    .with(Curve::new("DGE, t = 1", results.curve.clone()))
    .with(Curve::new(
        "one exit for all texts",
        results.fixed_curve.clone(),
    ))
    .with_reference("all six blocks", 100.0 * full)
}

/// The page that explains the run.
///
/// # Errors
/// When the plot cannot be drawn.
pub fn report(results: &Results, lines: &[ShownLine]) -> Result<Report> {
    let mut report = Report::new(
        "BADGE quickstart",
        "A small multi-exit ALBERT with block-wise bypasses, trained from scratch on a corpus that \
         the program made, and divergence-based early exiting on texts it has not seen.",
    );
    let mut grades = Table::new([Column::text("grade"), Column::text("what makes it so")]);
    for grade in Grade::ALL {
        grades.push([grade.name(), grade.explanation()]);
    }
    report.push(
        "Accuracy by difficulty",
        vec![
            Block::table(grades),
            Block::Table {
                table: grade_table(results),
                caption: "Percent correct at every exit; DGE is the calibrated policy.".to_owned(),
            },
        ],
    );
    report.push(
        "What a policy saves",
        vec![
            Block::Table {
                table: policy_table(&results.policies),
                caption: "Row by row at batch size 1; time saved is against the plain backbone \
                          with one exit, measured in turn."
                    .to_owned(),
            },
            Block::Figure {
                svg: speed_score_plot(results).to_inline_svg()?,
                caption: "Every point is a threshold or a depth, on the test split.".to_owned(),
            },
            Block::Paragraph(format!(
                "The operating point {} was chosen on the {} dev texts as the fastest that loses at \
                 most {:.1} points there. It is not certified.",
                results.calibration.policy,
                results.calibration.n,
                100.0 * MAX_DROP,
            )),
        ],
    );
    report.push("Live", vec![Block::table(line_table(lines))]);
    Ok(report)
}

fn line_table(lines: &[ShownLine]) -> Table {
    let mut table = Table::new([
        Column::text("text"),
        Column::text("answer"),
        Column::number("probability"),
        Column::number("exit"),
        Column::text("why there"),
    ]);
    for line in lines {
        table.push([
            line.text.to_owned(),
            line.label.clone(),
            format!("{:.2}", line.probability),
            line.exit.to_string(),
            line.reason.clone(),
        ]);
    }
    table
}

/// Writes `report.html`, `curve.svg` and `texts.txt`, a few test texts to try `predict` on.
///
/// # Errors
/// Names the file that cannot be written.
pub fn files(
    quickstart: &Quickstart,
    results: &Results,
    lines: &[ShownLine],
    directory: &Path,
) -> Result<()> {
    report(results, lines)?.write(&directory.join("report.html"))?;
    let svg = speed_score_plot(results).to_svg()?;
    file::write_atomic(&directory.join("curve.svg"), svg.as_str().as_bytes())?;
    let texts: String = quickstart
        .data
        .test
        .examples
        .iter()
        .take(20)
        .flat_map(|e| [e.text.as_str(), "\n"])
        .collect();
    Ok(file::write_atomic(
        &directory.join("texts.txt"),
        texts.as_bytes(),
    )?)
}
