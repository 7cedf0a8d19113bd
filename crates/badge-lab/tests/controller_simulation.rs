//! The SLO controller in simulated time: what it promises on every trace of the plan.

use badge_lab::simulation::{
    Governor, Outcome, PROMISE, Plan, Promise, Simulation, StaticLevel, TIGHT_PROMISE, Variant,
    capacity, simulate,
};
use badge_lab::traffic::Pattern;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const LAW: Governor = Governor::Law {
    tick: None,
    variant: Variant::Whole,
};

const FULL: Governor = Governor::Static {
    level: StaticLevel::Full,
};

const AT_FLOOR: Governor = Governor::Static {
    level: StaticLevel::Floor,
};

const FLOOR: f64 = PROMISE.floor;

fn run(trace: &str, governor: Governor, seed: u64) -> Outcome {
    run_with(PROMISE, trace, governor, seed)
}

fn run_with(promise: Promise, trace: &str, governor: Governor, seed: u64) -> Outcome {
    let pattern: Pattern = trace.parse().unwrap();
    let arrivals = pattern
        .arrivals(&mut ChaCha8Rng::seed_from_u64(seed))
        .unwrap();
    simulate(&arrivals, governor, promise, pattern.shape.step())
}

fn cell<'a>(simulation: &'a Simulation, row: usize, name: &str) -> &'a Outcome {
    let cells = &simulation.rows[row].cells;
    &cells.iter().find(|cell| cell.name == name).unwrap().outcome
}

#[test]
fn a_burst_within_the_floor_is_answered_in_time_and_not_at_the_floor() {
    for seed in 0..5 {
        let trace = "step:rate=200,peak=600,start=30,length=20,seconds=80";
        let law = run(trace, LAW, seed);
        assert!(law.in_time >= 0.99, "{law:?}");
        assert!(law.p99_ms <= 1e3 * PROMISE.slo, "{law:?}");
        assert_eq!(law.refused, 0.0, "{law:?}");
        assert!(law.depth_before.unwrap() > 0.99, "{law:?}");
        assert!(law.depth_in_burst.unwrap() > FLOOR + 0.2, "{law:?}");
        assert!(law.settled_seconds.unwrap() <= 2.0, "{law:?}");
        let full = run(trace, FULL, seed);
        assert!(full.in_time < 0.6, "{full:?}");
    }
}

#[test]
fn a_burst_beyond_the_floor_keeps_the_floors_goodput_and_refuses_the_rest() {
    for seed in 0..5 {
        let trace = "step:rate=200,peak=1600,start=30,length=10,seconds=80";
        let law = run(trace, LAW, seed);
        let goodput = law.goodput_in_burst.unwrap();
        assert!(goodput >= 0.9 * capacity(FLOOR), "{law:?}");
        assert!(law.refused > 0.05 && law.expired < 0.005, "{law:?}");
        assert!(law.p99_ms <= 1e3 * PROMISE.slo * 1.05, "{law:?}");
        assert!(law.settled_seconds.unwrap() <= 2.0, "{law:?}");
        for governor in [FULL, AT_FLOOR] {
            let fixed = run(trace, governor, seed);
            assert!(fixed.in_time < law.in_time - 0.2, "{fixed:?}");
        }
    }
}

#[test]
fn quick_turns_and_bunched_waves_are_answered_in_time() {
    for seed in 0..5 {
        for trace in [
            "on-off:low=180,high=700,turn=0.5,seconds=80",
            "sinusoid:mean=300,amplitude=200,period=20,seconds=80,cv2=4",
        ] {
            let law = run(trace, LAW, seed);
            assert!(law.in_time >= 0.99, "{trace}: {law:?}");
            assert!(law.depth > FLOOR + 0.2, "{trace}: {law:?}");
            let full = run(trace, FULL, seed);
            assert!(full.in_time < law.in_time, "{trace}: {full:?}");
        }
    }
}

#[test]
fn a_controller_that_looks_every_two_seconds_comes_too_late() {
    let simulation = Plan::standard(1).run().unwrap();
    for row in 0..simulation.rows.len() {
        let quick = cell(&simulation, row, "ticks alone, SLO/4").in_time;
        let slow = cell(&simulation, row, "ticks alone, 2 s").in_time;
        assert!(
            slow <= quick,
            "{}: {slow} {quick}",
            simulation.rows[row].name
        );
    }
    let (quick, slow) = (
        cell(&simulation, 1, "ticks alone, SLO/4"),
        cell(&simulation, 1, "ticks alone, 2 s"),
    );
    assert!(slow.in_time < quick.in_time - 0.05, "{slow:?}");
}

#[test]
fn no_answer_is_below_what_is_certified() {
    for row in Plan::standard(3).run().unwrap().rows {
        for cell in row.cells {
            let least = cell.outcome.score_least;
            assert!(least >= 0.9 - 1e-12, "{}: {least}", cell.name);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_simulation() {
    let run = || Plan::standard(9).run().unwrap();
    assert_eq!(run(), run());
}

#[test]
fn three_times_the_capacity_within_four_lone_requests_is_answered_in_time_or_refused() {
    for seed in 0..5 {
        let peak = (3.0 * capacity(1.0)).round();
        let trace = format!("step:rate=100,peak={peak},start=30,length=20,seconds=80");
        let law = run_with(TIGHT_PROMISE, &trace, LAW, seed);
        assert!(law.in_time >= 0.98, "{law:?}");
        let late = 1.0 - law.in_time - law.refused;
        assert!(late < 0.001, "{law:?}");
        assert!(law.settled_seconds.unwrap() <= 2.0, "{law:?}");
        let full = run_with(TIGHT_PROMISE, &trace, FULL, seed);
        assert!(full.in_time < 0.2, "{full:?}");
    }
}
