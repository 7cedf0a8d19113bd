//! A grid on the console: a line for every cell that ended, a bar for the one under way.

use std::time::{Duration, Instant};

use badge_lab::reproduce::cell::Cell;
use badge_lab::reproduce::forecast::duration;
use badge_lab::reproduce::{Ended, Standing, Watcher};
use badge_train::observer::{Observer, StepReport};
use indicatif::ProgressBar;

use crate::console::Console;

/// Watches a grid.
pub(super) struct GridProgress {
    console: Console,
    bar: CellBar,
    began: Instant,
}

/// The steps of the cell under way.
struct CellBar(ProgressBar);

impl GridProgress {
    pub(super) fn new(console: Console) -> Self {
        Self {
            console,
            bar: CellBar(ProgressBar::hidden()),
            began: Instant::now(),
        }
    }
}

/// `3 of 40`, counting what is done, failed or cannot run.
fn place(standing: &Standing) -> String {
    let ended = standing.done + standing.failed.len();
    format!("{ended} of {}", standing.cells - standing.waiting)
}

impl Watcher for GridProgress {
    fn note(&mut self, text: &str) {
        self.console.note(text);
    }

    fn begin(&mut self, cell: &Cell, standing: &Standing) {
        self.began = Instant::now();
        self.console.detail(&format!("begins: {}", cell.title()));
        let bar = self.console.bar(0, &place(standing));
        bar.set_message(format!("· {}", cell.title()));
        bar.enable_steady_tick(Duration::from_secs(1));
        self.bar = CellBar(bar);
    }

    fn training(&mut self) -> &mut dyn Observer {
        &mut self.bar
    }

    fn end(&mut self, cell: &Cell, ended: Ended<'_>, standing: &Standing) {
        self.bar.0.finish_and_clear();
        let took = duration(self.began.elapsed().as_secs_f64());
        let outcome = match ended {
            Ended::Done(average) => format!("dev S-avg {:.1}, {took}", 100.0 * average),
            Ended::Failed(message) => format!("failed: {message}"),
        };
        let left = standing.seconds_left.filter(|seconds| *seconds > 0.0);
        let left = left.map_or(String::new(), |s| format!("; about {} to go", duration(s)));
        let (place, title) = (place(standing), cell.title());
        self.console
            .note(&format!("{place}: {title}: {outcome}{left}"));
    }
}

impl Observer for CellBar {
    fn start(&mut self, step: u64, steps_total: u64) -> badge_train::Result<()> {
        self.0.set_length(steps_total);
        self.0.set_position(step);
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> badge_train::Result<()> {
        self.0.set_position(report.step);
        Ok(())
    }
}
