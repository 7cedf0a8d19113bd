//! Which traces meet which governors.

use anyhow::Result;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Governor, Outcome, PROMISE, Promise, StaticLevel, TIGHT_PROMISE, Variant, simulate};
use crate::traffic::Pattern;

/// The traces: a burst within what the floor can carry, one beyond it, quick turns, a wave of
/// bunched arrivals, and three times full depth's capacity for an SLO of four lone requests.
const TRACES: [(&str, &str, Promise); 5] = [
    (
        "burst of 3 times the rate",
        "step:rate=200,peak=600,start=30,length=20,seconds=80",
        PROMISE,
    ),
    (
        "burst of 8 times the rate",
        "step:rate=200,peak=1600,start=30,length=10,seconds=80",
        PROMISE,
    ),
    (
        "on and off every half second",
        "on-off:low=180,high=700,turn=0.5,seconds=80",
        PROMISE,
    ),
    (
        "wave, gaps with CV² = 4",
        "sinusoid:mean=300,amplitude=200,period=20,seconds=80,cv2=4",
        PROMISE,
    ),
    (
        "burst of 3 times the capacity",
        "step:rate=100,peak=1455,start=30,length=20,seconds=80",
        TIGHT_PROMISE,
    ),
];

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Traces and what is promised on them.
    pub loads: Vec<Load>,
    /// Governors by name.
    pub governors: Vec<(String, Governor)>,
    /// Decides when requests arrive.
    pub seed: u64,
}

/// One trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// What people call it.
    pub name: String,
    /// When requests arrive.
    pub pattern: Pattern,
    /// What is promised to them.
    pub promise: Promise,
}

/// Everything that was simulated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    /// One row a trace.
    pub rows: Vec<Row>,
}

/// One trace under every governor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What people call the trace.
    pub name: String,
    /// The trace as a pattern.
    pub trace: String,
    /// What was promised.
    pub promise: Promise,
    /// One cell a governor.
    pub cells: Vec<Cell>,
}

/// One trace under one governor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What people call the governor.
    pub name: String,
    /// Who decided.
    pub governor: Governor,
    /// What came of it.
    pub outcome: Outcome,
}

impl Plan {
    /// The traces and governors of `docs/controller.md`.
    pub fn standard(seed: u64) -> Self {
        let law = |tick: Option<f64>, variant: Variant| Governor::Law { tick, variant };
        let fixed = |level: StaticLevel| Governor::Static { level };
        let loads = TRACES.map(|(name, text, promise)| Load {
            name: name.to_owned(),
            pattern: text.parse().expect("the plan's own patterns are sound"),
            promise,
        });
        let governors = [
            ("full depth", fixed(StaticLevel::Full)),
            ("floor", fixed(StaticLevel::Floor)),
            ("law", law(None, Variant::Whole)),
            ("law, last come first", law(None, Variant::LastComeFirst)),
            ("ticks alone, SLO/4", law(None, Variant::TicksAlone)),
            ("ticks alone, 100 ms", law(Some(0.1), Variant::TicksAlone)),
            ("ticks alone, 0.5 s", law(Some(0.5), Variant::TicksAlone)),
            ("ticks alone, 2 s", law(Some(2.0), Variant::TicksAlone)),
        ];
        Self {
            loads: loads.into(),
            governors: governors
                .map(|(name, governor)| (name.to_owned(), governor))
                .into(),
            seed,
        }
    }

    /// Simulates every trace under every governor. A trace's arrivals are the same for all of them.
    ///
    /// # Errors
    /// When a pattern has no arrivals.
    pub fn run(&self) -> Result<Simulation> {
        let row = |load: &Load| {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            let arrivals = load.pattern.arrivals(&mut random)?;
            let burst = load.pattern.shape.step();
            let cell = |(name, governor): &(String, Governor)| Cell {
                name: name.clone(),
                governor: *governor,
                outcome: simulate(&arrivals, *governor, load.promise, burst),
            };
            Ok(Row {
                name: load.name.clone(),
                trace: load.pattern.to_string(),
                promise: load.promise,
                cells: self.governors.iter().map(cell).collect(),
            })
        };
        let rows = self.loads.iter().map(row).collect::<Result<_>>()?;
        Ok(Simulation { rows })
    }
}
