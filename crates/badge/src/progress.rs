//! A training run on the console: a bar for the steps, a table row for every epoch.

use std::time::Duration;

use badge_lab::table::{Column, Table};
use badge_tasks::split::SplitName;
use badge_tasks::tokenizer::cache::Origin;
use badge_train::observer::{EpochReport, Observer, StepReport};
use indicatif::ProgressBar;

use crate::commands::tell_origin;
use crate::console::Console;

/// Watches a run.
pub(crate) struct TrainingProgress {
    console: Console,
    bar: ProgressBar,
    metric: String,
    depths: Vec<usize>,
    history: Vec<EpochReport>,
}

impl TrainingProgress {
    pub(crate) fn new(console: Console, metric: &str, depths: Vec<usize>) -> Self {
        let bar = ProgressBar::hidden();
        Self {
            console,
            bar,
            metric: metric.to_owned(),
            depths,
            history: Vec::new(),
        }
    }

    /// The table of every exit's dev score by epoch, in percent.
    fn row(&self, report: &EpochReport) -> Table {
        let exits = self
            .depths
            .iter()
            .map(|depth| Column::number(format!("exit {depth}")));
        let columns = [Column::number("epoch"), Column::number("loss")]
            .into_iter()
            .chain(exits)
            .chain([
                Column::number("S-avg"),
                Column::number("S-best"),
                Column::text(""),
            ]);
        let mut table = Table::new(columns);
        let percent = |score: f64| format!("{:.1}", 100.0 * score);
        let mut cells = vec![
            format!("{:>5}", report.epoch),
            format!("{:>6.3}", report.loss),
        ];
        cells.extend(report.scores.exits.iter().map(|score| percent(*score)));
        cells.extend([percent(report.scores.average), percent(report.scores.best)]);
        cells.push(if report.improved {
            "best".to_owned()
        } else {
            String::new()
        });
        table.push(cells);
        table
    }
}

impl Observer for TrainingProgress {
    fn tokens(&mut self, split: SplitName, origin: &Origin) -> badge_train::Result<()> {
        tell_origin(split.name(), origin, self.console);
        Ok(())
    }

    fn start(&mut self, step: u64, steps_total: u64) -> badge_train::Result<()> {
        if step > 0 {
            self.console
                .note(&format!("resuming behind step {step} of {steps_total}"));
        }
        self.bar = self.console.bar(steps_total, "training");
        self.bar.set_position(step);
        self.bar.enable_steady_tick(Duration::from_secs(1));
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> badge_train::Result<()> {
        self.bar.set_position(report.step);
        let tokens = report.tokens as f64 / report.seconds;
        self.bar
            .set_message(format!("· loss {:.3} · {tokens:.0} tokens/s", report.loss));
        Ok(())
    }

    fn epoch(&mut self, report: &EpochReport) -> badge_train::Result<()> {
        let text = self.row(report).to_text();
        let mut lines = text.lines();
        if self.history.is_empty() {
            let title = format!("dev {}, percent, by exit", self.metric);
            self.bar.suspend(|| self.console.note(&title));
            for line in lines.by_ref().take(2) {
                self.bar.suspend(|| self.console.note(line));
            }
        } else {
            lines.by_ref().take(2).for_each(drop);
        }
        for line in lines {
            self.bar.suspend(|| self.console.note(line));
        }
        self.history.push(report.clone());
        Ok(())
    }
}

impl Drop for TrainingProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
