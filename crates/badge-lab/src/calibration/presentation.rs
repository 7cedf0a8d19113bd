//! A calibration as a table and in words.

use badge_core::calibration::Goal;

use super::{Refusal, Search};
use crate::table::{Column, Table};
use crate::tables::percent;

/// The points worth having, the slowest first.
pub fn point_table(search: &Search) -> Table {
    let mut table = Table::new([
        Column::text("policy"),
        Column::number("score"),
        Column::number("mean exit"),
        Column::number("layer speed-up"),
        Column::text(""),
    ]);
    let chosen = search.chosen().map(|candidate| &candidate.spec);
    for point in search.points() {
        let mark = match (chosen == Some(&point.policy), point.certified) {
            (true, _) => "chosen",
            (false, true) => "certified",
            (false, false) => "",
        };
        table.push([
            point.policy.to_string(),
            percent(point.score),
            format!("{:.2}", point.mean_exit),
            format!("{:.2}x", point.layer_speedup),
            mark.to_owned(),
        ]);
    }
    table
}

/// Why nothing was chosen, and what could be.
pub fn refusal_text(refusal: &Refusal, goal: Goal) -> String {
    match *refusal {
        Refusal::Unreachable { best } => {
            let best = match goal {
                Goal::TargetSpeedup(_) => format!("the fastest policy reaches {best:.2}x"),
                Goal::MaxDrop(_) | Goal::MinScore(_) => {
                    format!(
                        "the best score there is to choose from is {:.2}",
                        100.0 * best
                    )
                }
            };
            format!("No policy has {goal} on these rows; {best}.")
        }
        Refusal::NotCertified {
            least_epsilon: None,
            ..
        } => "None of these policies saves anything on these rows.".to_owned(),
        Refusal::NotCertified {
            rows,
            least_epsilon: Some(least),
            rows_needed,
        } => {
            let least = match goal {
                Goal::MinScore(_) => format!(
                    "the most they can promise is --min-score {:.4}",
                    ((1.0 - least) * 1e4).floor() / 1e4
                ),
                _ => format!(
                    "the least they can promise is --max-drop {:.4}",
                    (least * 1e4).ceil() / 1e4
                ),
            };
            let needed = match rows_needed {
                Some(needed) => format!(
                    "With losses as they are here, {needed} dev rows would be enough for what was \
                     asked."
                ),
                None => "What was asked is less than what is lost on these very rows: more rows \
                         would not help."
                    .to_owned(),
            };
            format!(
                "No policy that saves anything can be certified on {rows} rows: {least}. {needed}"
            )
        }
    }
}
