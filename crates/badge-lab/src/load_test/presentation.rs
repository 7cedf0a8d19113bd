//! A run in words, as a table, as four panes, as a page.

use anyhow::Result;
use serde::Serialize;

use super::{Quantiles, ServerFacts, Summary, Timeline, Window};
use crate::plot::{Line, Pane, Panes};
use crate::report::{Block, Report};
use crate::table::{Column, Table};

/// Everything that a run gives, to be shown and kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// The trace, as text or by file name.
    pub trace: String,
    /// The server.
    pub server: ServerFacts,
    /// The metrics.
    pub summary: Summary,
    /// Second by second.
    pub timeline: Timeline,
}

impl LoadReport {
    /// The metrics for a terminal.
    pub fn to_text(&self) -> String {
        self.table().to_text()
    }

    fn table(&self) -> Table {
        let mut table = Table::new([Column::text("what"), Column::number("value")]);
        for (name, value) in self.facts() {
            table.push([name.to_owned(), value]);
        }
        table
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let summary = &self.summary;
        let percent = |share: f64| format!("{:.2}%", 100.0 * share);
        let failed: usize = summary.failed.values().sum();
        let mut facts = vec![
            ("offered", summary.offered.to_string()),
            ("served", summary.served.to_string()),
            ("refused (429)", summary.refused.to_string()),
            ("expired (504)", summary.expired.to_string()),
            ("failed", failed.to_string()),
            ("lost", summary.lost.to_string()),
            ("SLO", format!("{} ms", summary.slo_ms)),
            ("in time", percent(summary.attainment)),
            ("SLO violations", percent(summary.slo_violation_ratio)),
            (
                "offered a second",
                format!("{:.1}", summary.offered_per_second),
            ),
            ("served a second", format!("{:.1}", summary.throughput)),
            ("in time a second", format!("{:.1}", summary.goodput)),
            (
                "latency p50 / p95 / p99 / p99.9",
                quantiles(&summary.latency_ms),
            ),
        ];
        let mut add = |name, value: Option<String>| facts.extend(value.map(|v| (name, v)));
        let refusal = summary.refusal_ms;
        add(
            "refusal p50 / p95 / p99 / p99.9",
            refusal.p50.map(|_| quantiles(&refusal)),
        );
        add(
            "effective accuracy",
            summary.effective_accuracy.map(percent),
        );
        add(
            "greatest accuracy drop",
            summary.accuracy_drop_max.map(percent),
        );
        let depth = |depth: f64| self.depth_text(depth);
        add("mean depth", summary.mean_depth.map(depth));
        let changes = summary.level_changes_per_minute;
        add("level changes a minute", changes.map(|c| format!("{c:.1}")));
        let cpu = summary.cpu_seconds_per_1000;
        add("server CPU s per 1000", cpu.map(|c| format!("{c:.3}")));
        if let Some(burst) = &summary.burst {
            add("burst: in time", Some(percent(burst.attainment)));
            add(
                "burst: in time a second",
                Some(format!("{:.1}", burst.goodput)),
            );
            add("burst: mean depth", burst.mean_depth.map(depth));
            add(
                "burst: effective accuracy",
                burst.effective_accuracy.map(percent),
            );
            let seconds = |seconds: Option<f64>| seconds.map(|s| format!("{s:.2} s"));
            add("full depth again after", seconds(burst.recovered_seconds));
            add("full depth for good after", seconds(burst.settled_seconds));
        }
        add(
            "sent late p50 / p95 / p99 / p99.9",
            Some(quantiles(&summary.lag_ms)),
        );
        facts
    }

    fn depth_text(&self, depth: f64) -> String {
        match self.server.blocks {
            Some(blocks) => {
                format!(
                    "{depth:.3} ({:.2} of {blocks} blocks)",
                    depth * blocks as f64
                )
            }
            None => format!("{depth:.2} blocks"),
        }
    }

    /// Offered and served, p99 with the SLO, depth with the policy level, accuracy: four panes over
    /// time. What the server or the texts do not tell is left out.
    pub fn panes(&self) -> Panes {
        let per_second = |count: usize| count as f64 / self.timeline.window_seconds;
        let rate = |of: fn(&Window) -> usize| self.line(|w| Some(per_second(of(w))));
        let requests = Pane::new("requests / s")
            .with(Line::new("offered", rate(|w| w.offered)))
            .with(Line::new("served", rate(|w| w.served)))
            .with(Line::new("refused", rate(|w| w.refused)));
        let latency = Pane::new("p99 (ms)")
            .with(Line::new("p99", self.line(|w| w.p99_ms)))
            .with(Line::new("p50", self.line(|w| w.p50_ms)))
            .with_reference("SLO", self.summary.slo_ms);
        let label = match self.server.blocks {
            Some(_) => "relative depth",
            None => "mean exit",
        };
        let depth = Pane::new(label)
            .with(Line::new("mean depth", self.line(|w| w.depth)))
            .with(Line::new("policy level", self.line(|w| w.level)));
        let accuracy =
            Pane::new("accuracy").with(Line::new("effective accuracy", self.line(|w| w.accuracy)));
        let title = format!(
            "{} against an SLO of {} ms",
            self.trace, self.summary.slo_ms
        );
        Panes::new(title, "seconds", vec![requests, latency, depth, accuracy])
    }

    fn line(&self, value: impl Fn(&Window) -> Option<f64>) -> Vec<(f64, f64)> {
        let middle = 0.5 * self.timeline.window_seconds;
        let windows = self.timeline.windows.iter();
        windows
            .filter_map(|window| Some((window.start + middle, value(window)?)))
            .collect()
    }

    /// The page.
    ///
    /// # Errors
    /// When the panes cannot be drawn.
    pub fn page(&self) -> Result<Report> {
        let mut page = Report::new("Replay", format!("The trace: {}", self.trace));
        let figure = Block::Figure {
            svg: self.panes().to_inline_svg()?,
            caption:
                "Requests count where they were to be sent, served where the answer came; latency \
                      runs from the moment at which a request was to be sent."
                    .to_owned(),
        };
        page.push("Over time", vec![figure]);
        page.push("In numbers", vec![Block::table(self.table())]);
        let unknown = || "not told".to_owned();
        let server = &self.server;
        let facts = [
            ("model", server.model.clone()),
            ("version", server.version.clone()),
            ("computes with", server.compute.clone()),
            ("blocks", server.blocks.map(|blocks| blocks.to_string())),
        ];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.unwrap_or_else(unknown)));
        page.push("The server", vec![Block::Facts(facts.into())]);
        Ok(page)
    }
}

fn quantiles(quantiles: &Quantiles) -> String {
    let Quantiles {
        p50,
        p95,
        p99,
        p999,
        ..
    } = *quantiles;
    let text = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"));
    format!(
        "{} / {} / {} / {} ms",
        text(p50),
        text(p95),
        text(p99),
        text(p999)
    )
}
