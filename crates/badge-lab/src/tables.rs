//! Evaluations as tables, the same on the console, in a report and in a model card.

use crate::evaluation::{Evaluation, PolicyEvaluation, TimeEvaluation};
use crate::interval::Interval;
use crate::table::{Column, Table};

/// A score between 0 and 1 as percent with one decimal.
pub fn percent(score: f64) -> String {
    format!("{:.1}", 100.0 * score)
}

fn range(interval: Interval) -> String {
    format!("{}-{}", percent(interval.low), percent(interval.high))
}

/// One row per exit and the two summaries.
pub fn exit_table(evaluation: &Evaluation) -> Table {
    let mut table = Table::new([
        Column::number("exit"),
        Column::number("score"),
        Column::number("95 %"),
    ]);
    let scores = &evaluation.scores;
    let exits = evaluation
        .depths
        .iter()
        .zip(&scores.exits)
        .zip(&evaluation.intervals);
    for ((depth, score), interval) in exits {
        table.push([depth.to_string(), percent(*score), range(*interval)]);
    }
    table.push_rule();
    table.push(["S-avg".to_owned(), percent(scores.average), String::new()]);
    table.push(["S-best".to_owned(), percent(scores.best), String::new()]);
    table
}

/// One row per policy: what it scores and what it saves.
pub fn policy_table(policies: &[PolicyEvaluation]) -> Table {
    let mut table = Table::new([
        Column::text("policy"),
        Column::number("score"),
        Column::number("95 %"),
        Column::number("mean exit"),
        Column::number("layer speed-up"),
        Column::number("MFLOPs"),
        Column::number("ms"),
        Column::number("time saved"),
        Column::number("wall-clock"),
    ]);
    for policy in policies {
        let time = |read: fn(&TimeEvaluation) -> String| {
            policy.time.as_ref().map_or_else(|| "-".to_owned(), read)
        };
        table.push([
            policy.policy.to_string(),
            percent(policy.score),
            range(policy.interval),
            format!("{:.2}", policy.mean_exit),
            format!("{:.2}x", policy.layer_speedup),
            format!("{:.1}", policy.flops / 1e6),
            time(|t| format!("{:.2}", t.early_ms)),
            time(|t| format!("{:.0} %", 100.0 * t.time_saved)),
            time(|t| format!("{:.2}x", t.wall_clock_speedup)),
        ]);
    }
    table
}
