//! Steps allocate nothing. One test alone in its program: the counter counts all threads.

mod tiny;

use std::sync::Arc;
use std::time::Duration;

use badge_core::policy::Policy;
use badge_engine::kernels::allocation::CountingAllocator;
use badge_engine::{Admission, Engine, EngineOptions, Precision, When};
use tiny::{MODELS, Model, Row, fitting};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const POLICIES: [&str; 12] = [
    "full",
    "fixed:3",
    "dge:tau=1,t=1",
    "dge:tau=1.1,t=2",
    "entropy:0.9",
    "entropy:0.9,normalised",
    "maxprob:0.5",
    "patience:2",
    "pcee:tau=0.95,t=2",
    "flexible-patience:tau=0.05,t=2",
    "vote:tau=1.6",
    "lte:0.4",
];

/// Runs twelve sequences that join two by two; returns the allocations during steps.
fn allocations_of_steps(engine: &mut Engine, policies: &[Arc<Policy>], rows: &[Row]) -> usize {
    let mut allocations = 0;
    let (mut next, mut left) = (0, 0);
    while left < rows.len() {
        for _ in 0..2 {
            let Some(row) = rows.get(next) else { break };
            let policy = &policies[next % policies.len()];
            if engine.admit(next as u64, row.tokens(), policy).unwrap() == Admission::Accepted {
                next += 1;
            }
        }
        let before = ALLOCATOR.allocations();
        left += engine.step().left;
        allocations += ALLOCATOR.allocations() - before;
    }
    // Nobody took what has finished until now.
    assert_eq!(engine.finished().count(), rows.len());
    allocations
}

/// Waits until the engine's threads have started, for which the system allocates.
fn settle() {
    loop {
        let before = ALLOCATOR.allocations();
        std::thread::sleep(Duration::from_millis(10));
        if ALLOCATOR.allocations() == before {
            return;
        }
    }
}

#[test]
fn steps_allocate_nothing_after_the_first_sequences() {
    let rows: Vec<_> = (1..=12)
        .map(|seed| Row::random(2 * seed as usize, seed))
        .collect();
    for model in 0..MODELS.len() {
        let model = Model::random(model, 7);
        for precision in Precision::ALL {
            for when in [When::Auto, When::Always, When::Never] {
                let mut engine = model.engine(EngineOptions {
                    threads: 2,
                    tokens_max: 120,
                    sequences_max: 6,
                    cls_first: when,
                    exits_wait: when,
                    ..EngineOptions::new(precision)
                });
                let policy = |text: &&str| {
                    let spec = fitting(text, &engine).parse().unwrap();
                    Arc::new(engine.policy(&spec).unwrap())
                };
                let policies: Vec<_> = POLICIES.iter().map(policy).collect();
                allocations_of_steps(&mut engine, &policies, &rows);
                settle();
                let allocations = allocations_of_steps(&mut engine, &policies, &rows);
                assert_eq!(allocations, 0, "{precision} {when:?}");
            }
        }
    }
    let before = ALLOCATOR.allocations();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(ALLOCATOR.allocations() - before, 1, "the counter counts");
}
