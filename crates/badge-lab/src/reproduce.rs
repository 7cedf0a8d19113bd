//! The paper's tables and figures, run again: grids of trainings that can be killed and started
//! again at any point, and what their records say of the paper's claims.
//!
//! An [`Experiment`] is read from a TOML file, [`Materials`] are looked for, a [`Scheduler`] runs
//! the cells that have no record yet, and a [`Summary`] reads the records of those that have, at
//! any time.

pub mod cell;
pub mod claims;
pub mod curves;
pub mod document;
pub mod experiment;
pub mod figures;
pub mod forecast;
pub mod materials;
pub mod outputs;
pub mod paper;
pub mod plan;
pub mod presentation;
pub mod run;
pub mod scheduler;
pub mod smoke;
pub mod statistics;
pub mod store;
pub mod summary;
pub mod tasks;
pub mod variant;

use anyhow::{Context, Result};

pub use experiment::Experiment;
pub use materials::{Materials, Sources, TaskRows};
pub use scheduler::{Ended, Only, Options, Scheduler, Standing, Watcher};
pub use smoke::Smoke;
pub use store::Store;
pub use summary::Summary;

/// The experiments that come along, by name.
const EXPERIMENTS: [(&str, &str); 6] = [
    ("table1", include_str!("../../../experiments/table1.toml")),
    ("table2", include_str!("../../../experiments/table2.toml")),
    ("table3", include_str!("../../../experiments/table3.toml")),
    ("table6", include_str!("../../../experiments/table6.toml")),
    ("figure2", include_str!("../../../experiments/figure2.toml")),
    ("grid", include_str!("../../../experiments/grid.toml")),
];

/// The names of the experiments that come along.
pub fn names() -> Vec<&'static str> {
    EXPERIMENTS.iter().map(|(name, _)| *name).collect()
}

/// An experiment that comes along.
///
/// # Errors
/// When none is called so.
pub fn builtin(name: &str) -> Result<Experiment> {
    let found = EXPERIMENTS.iter().find(|(known, _)| *known == name);
    let (_, text) = found.with_context(|| {
        let known = names().join(", ");
        format!("`{name}` is no experiment; there are {known}, and any file with --config")
    })?;
    Experiment::parse(name, text, &format!("experiments/{name}.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_experiments_that_come_along_are_whole_and_have_small_forms() {
        for name in names() {
            let experiment = builtin(name).unwrap();
            assert!(experiment.paper.is_some(), "{name}");
            for axis in &experiment.tasks {
                tasks::open(&axis.task).unwrap();
            }
            let small = experiment.smoke();
            small.check().unwrap();
            assert_eq!(small.variants(), experiment.variants(), "{name}");
        }
        let told = builtin("table4").unwrap_err().to_string();
        assert!(
            told.contains("table1") && told.contains("--config"),
            "{told}"
        );
    }
}
