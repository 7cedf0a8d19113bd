//! `badge doctor`: what this machine will use, and whether it computes as it should.

mod arithmetic;
mod machine;
mod self_test;

use std::path::PathBuf;

use anyhow::Result;
use badge_lab::record::Machine;
use badge_lab::table::{Column, Table};
use badge_tasks::HubEnvironment;
use clap::Args;
use serde::Serialize;

use self::arithmetic::Arithmetic;
use self::machine::{Memory, instruction_sets, logical_cpus};
use self::self_test::{Check, Speed};
use super::facts::Facts;
use super::{Session, Verdict};

/// Flags of `badge doctor`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Example:\n  badge doctor --threads 1\n\n\
    The environment variable BADGE_ISA (scalar, avx2, avx512, amx) forces an instruction set.\n\
    Exit code 1 means that the self-test has failed.")]
pub(crate) struct DoctorArgs {}

#[derive(Debug, Serialize)]
struct Outcome {
    version: &'static str,
    machine: MachineFacts,
    arithmetic: Arithmetic,
    hub: HubFacts,
    self_test: SelfTest,
}

#[derive(Debug, Serialize)]
struct MachineFacts {
    cpu: String,
    os: String,
    instruction_sets: Vec<&'static str>,
    logical_cpus: usize,
    /// What affinity and control groups leave of them.
    granted_cpus: usize,
    threads: usize,
    memory: Memory,
}

#[derive(Debug, Serialize)]
struct HubFacts {
    cache: PathBuf,
    cache_exists: bool,
    endpoint: String,
    offline: bool,
    token: &'static str,
}

#[derive(Debug, Serialize)]
struct SelfTest {
    passed: bool,
    checks: Vec<Check>,
    speed: Option<Speed>,
}

pub(crate) fn run(session: Session) -> Result<Verdict> {
    let isa = Arithmetic::choose()?;
    session.console.note("self-test: about three seconds");
    let outcome = Outcome {
        version: env!("CARGO_PKG_VERSION"),
        machine: MachineFacts::detect(session.threads),
        arithmetic: Arithmetic::measure(isa, session.threads),
        hub: HubFacts::from_env(),
        self_test: SelfTest::run(session.seed),
    };
    session.console.result(&outcome, &outcome.report())?;
    Ok(if outcome.self_test.passed {
        Verdict::Done
    } else {
        Verdict::No
    })
}

impl MachineFacts {
    fn detect(threads: usize) -> Self {
        let machine = Machine::detect(threads, "f32");
        Self {
            cpu: machine.cpu,
            os: machine.os,
            instruction_sets: instruction_sets(),
            logical_cpus: logical_cpus(),
            granted_cpus: machine.logical_cpus,
            threads,
            memory: Memory::detect(),
        }
    }
}

impl HubFacts {
    fn from_env() -> Self {
        let environment = HubEnvironment::from_env();
        Self {
            cache_exists: environment.cache.is_dir(),
            cache: environment.cache,
            endpoint: environment.endpoint,
            offline: environment.offline,
            token: if environment.token.is_some() {
                "set"
            } else {
                "not set"
            },
        }
    }
}

impl SelfTest {
    fn run(seed: u64) -> Self {
        let mut checks = vec![self_test::early_exits(seed), self_test::training(seed)];
        let (check, speed) = self_test::speed(seed);
        checks.push(check);
        Self {
            passed: checks.iter().all(|check| check.passed),
            checks,
            speed,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            Column::text("self-test"),
            Column::text(""),
            Column::text("found"),
        ]);
        for check in &self.checks {
            let verdict = if check.passed { "ok" } else { "FAILED" };
            table.push([check.name, verdict, check.found.as_str()]);
        }
        table
    }
}

impl Outcome {
    fn report(&self) -> String {
        let (machine, hub) = (&self.machine, &self.hub);
        let mut facts = Facts::default();
        facts.add("badge", self.version);
        facts.add("processor", machine.cpu.as_str());
        facts.add("system", machine.os.as_str());
        facts.add("instructions", machine.instruction_sets.join(" "));
        facts.add("kernels", self.arithmetic.isa());
        facts.add("products", self.arithmetic.products());
        facts.add(
            "threads",
            format!(
                "{} used, {} granted, {} in the machine",
                machine.threads, machine.granted_cpus, machine.logical_cpus
            ),
        );
        facts.add("memory", machine.memory.to_string());
        let exists = if hub.cache_exists {
            ""
        } else {
            " (not there yet)"
        };
        facts.add("hub cache", format!("{}{exists}", hub.cache.display()));
        let offline = if hub.offline {
            " (offline: not asked)"
        } else {
            ""
        };
        facts.add("hub", format!("{}{offline}", hub.endpoint));
        facts.add("hub token", hub.token);
        let peaks = self.arithmetic.peaks.table();
        let self_test = self.self_test.table();
        format!("{}\n{peaks}\n{self_test}", facts.to_text())
    }
}
