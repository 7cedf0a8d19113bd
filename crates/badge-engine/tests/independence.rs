//! A sequence's answer depends on the sequence alone: bit for bit the same in every batch, order
//! of admission, number of threads and way of scheduling, in every precision.

mod tiny;

use std::sync::Arc;

use badge_core::distribution::Prediction;
use badge_core::policy::{Observation, Policy, PolicySpec};
use badge_engine::{Admission, Answer, Engine, EngineOptions, Precision, When};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tiny::{MODELS, Model, Row, fitting};

/// Policies that fit every model, the last in some form; which depths exit under most of them
/// depends on the weights.
const POLICIES: [&str; 8] = [
    "full",
    "fixed:3",
    "fixed:5",
    "dge:tau=1.5,t=1",
    "dge:tau=1.2,t=1,window=adjacent",
    "dge:tau=1.5,t=2",
    "dge:tau=0.5,t=1,divergence=mismatch",
    "lte:0.4",
];

/// What makes a result, to be compared bit by bit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bits {
    depth: usize,
    logits: Vec<u32>,
    reason: String,
}

impl Bits {
    fn of(answer: &Answer) -> Self {
        Self {
            depth: answer.depth.0,
            logits: answer.logits.iter().map(|z| z.to_bits()).collect(),
            reason: answer.reason().to_string(),
        }
    }
}

/// A model, an input with a policy for each request, and how they are run.
#[derive(Debug, Clone)]
struct Scene {
    model: (usize, u64),
    precision: Precision,
    requests: Vec<Request>,
    /// Requests offered before each step, over and over.
    arrivals: Vec<usize>,
    threads: usize,
    cls_first: When,
    exits_wait: When,
    tokens_max: usize,
    sequences_max: usize,
}

#[derive(Debug, Clone)]
struct Request {
    length: usize,
    seed: u64,
    policy: usize,
}

fn scene() -> impl Strategy<Value = Scene> {
    let request =
        (1usize..=24, any::<u64>(), 0..POLICIES.len()).prop_map(|(length, seed, policy)| Request {
            length,
            seed,
            policy,
        });
    let requests = (vec(request, 1..10), vec(0usize..4, 1..5))
        .prop_filter("somebody must arrive", |(_, arrivals)| {
            arrivals.iter().any(|count| *count > 0)
        });
    let when = || select(vec![When::Auto, When::Always, When::Never]);
    (
        (0..MODELS.len(), any::<u64>()),
        select(Precision::ALL.to_vec()),
        requests,
        (1usize..4, when(), when()),
        (24usize..100, 1usize..6),
    )
        .prop_map(
            |(model, precision, requests, (threads, cls_first, exits_wait), sizes)| Scene {
                model,
                precision,
                requests: requests.0,
                arrivals: requests.1,
                threads,
                cls_first,
                exits_wait,
                tokens_max: sizes.0,
                sequences_max: sizes.1,
            },
        )
}

impl Scene {
    fn model(&self) -> Model {
        Model::random(self.model.0, self.model.1)
    }

    fn rows(&self) -> Vec<Row> {
        let row = |request: &Request| Row::random(request.length, request.seed);
        self.requests.iter().map(row).collect()
    }

    fn options(&self) -> EngineOptions {
        EngineOptions {
            threads: self.threads,
            tokens_max: self.tokens_max,
            sequences_max: self.sequences_max,
            cls_first: self.cls_first,
            exits_wait: self.exits_wait,
            ..EngineOptions::new(self.precision)
        }
    }

    /// An engine that knows one sequence at a time, every row of a block before its exit, and every
    /// exit before the next block.
    fn plain_engine(&self) -> Engine {
        self.model().engine(EngineOptions {
            threads: 1,
            tokens_max: 24,
            sequences_max: 1,
            cls_first: When::Never,
            exits_wait: When::Never,
            ..EngineOptions::new(self.precision)
        })
    }

    /// Every request by itself.
    fn alone(&self) -> Vec<Bits> {
        let mut engine = self.plain_engine();
        let policies = policies(&engine);
        let rows = self.rows();
        let answer = |(row, request): (&Row, &Request)| {
            let answers = engine
                .classify(&[row.tokens()], &policies[request.policy])
                .unwrap();
            Bits::of(&answers[0])
        };
        rows.iter().zip(&self.requests).map(answer).collect()
    }

    /// Requests as they arrive and find room, whoever else is under way.
    fn stepped(&self) -> Vec<Bits> {
        let mut engine = self.model().engine(self.options());
        let policies = policies(&engine);
        let rows = self.rows();
        let mut answers = vec![None; rows.len()];
        let mut arrivals = self.arrivals.iter().cycle();
        let mut next = 0;
        while next < rows.len() || engine.live() > 0 {
            for _ in 0..*arrivals.next().unwrap() {
                let Some(request) = self.requests.get(next) else {
                    break;
                };
                let policy = &policies[request.policy];
                match engine
                    .admit(next as u64, rows[next].tokens(), policy)
                    .unwrap()
                {
                    Admission::Accepted => next += 1,
                    Admission::Full => break,
                }
            }
            let live = engine.live();
            let report = engine.step();
            assert_eq!((report.advanced, report.left), (live, live - engine.live()));
            for finished in engine.finished() {
                let place = &mut answers[finished.request as usize];
                let before = place.replace(Bits::of(&finished.answer.unwrap()));
                assert_eq!(before, None, "request {} answered twice", finished.request);
            }
        }
        answers.into_iter().map(Option::unwrap).collect()
    }
}

fn policies(engine: &Engine) -> Vec<Arc<Policy>> {
    let build = |text: &&str| {
        let spec = fitting(text, engine).parse().unwrap();
        Arc::new(engine.policy(&spec).unwrap())
    };
    POLICIES.iter().map(build).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_neighbour_order_thread_or_schedule_changes_a_bit(scene in scene()) {
        prop_assert_eq!(scene.stepped(), scene.alone());
    }

    #[test]
    fn a_classified_batch_answers_as_each_input_alone(mut scene in scene()) {
        let policy = scene.requests[0].policy;
        scene.requests.iter_mut().for_each(|request| request.policy = policy);
        let mut engine = scene.model().engine(scene.options());
        let rows = scene.rows();
        let inputs: Vec<_> = rows.iter().map(Row::tokens).collect();
        let policy = Arc::clone(&policies(&engine)[policy]);
        let answers = engine.classify(&inputs, &policy).unwrap();
        prop_assert_eq!(answers.iter().map(Bits::of).collect::<Vec<_>>(), scene.alone());
    }

    #[test]
    fn policies_replayed_over_all_exits_leave_where_the_engine_does(scene in scene()) {
        let mut engine = scene.model().engine(scene.options());
        let rows = scene.rows();
        let inputs: Vec<_> = rows.iter().map(Row::tokens).collect();
        let mut exits = vec![Vec::new(); rows.len()];
        engine.all_exits(&inputs, |index, depth, output| {
            exits[index].push((depth, output.logits.to_vec(), output.continue_probability));
        }).unwrap();

        let policies = policies(&engine);
        for ((alone, request), exits) in scene.alone().iter().zip(&scene.requests).zip(exits) {
            let policy = &policies[request.policy];
            let depths: Vec<_> = exits.iter().map(|(depth, ..)| *depth).collect();
            prop_assert_eq!(&depths, policy.plan().depths());
            let predict = |logits: &[f32]| Prediction::from_logits(policy.kind(), logits).unwrap();
            let outputs: Vec<_> = exits.iter().map(|(_, logits, _)| predict(logits)).collect();
            let observations = outputs.iter().zip(&exits).map(|(prediction, exit)| Observation {
                prediction,
                continue_probability: exit.2,
            });
            let point = policy.replay(&mut policy.start(), observations);
            prop_assert_eq!(point.depth.0, alone.depth);
            let bits: Vec<_> = exits[point.position].1.iter().map(|z| z.to_bits()).collect();
            prop_assert_eq!(&bits, &alone.logits);
        }
    }
}

#[test]
fn the_scenes_leave_at_many_depths() {
    let mut depths = [0; 6];
    for model in 0..MODELS.len() {
        for seed in 0..4 {
            let request = |index: u64| Request {
                length: 9,
                seed: index,
                policy: 3 + index as usize % 5,
            };
            let scene = Scene {
                model: (model, seed),
                precision: Precision::F32,
                requests: (0..8).map(request).collect(),
                arrivals: vec![1],
                threads: 1,
                cls_first: When::Always,
                exits_wait: When::Always,
                tokens_max: 100,
                sequences_max: 8,
            };
            scene
                .alone()
                .iter()
                .for_each(|bits| depths[bits.depth] += 1);
        }
    }
    assert!(
        depths[2..].iter().all(|count| *count >= 5),
        "exits at {depths:?}"
    );
}

/// Steps until a sequence that is alone leaves at its first exit.
fn steps_until_it_leaves(engine: &mut Engine, row: &Row) -> usize {
    let policy = Arc::new(engine.policy(&"maxprob:0.01".parse().unwrap()).unwrap());
    engine.admit(0, row.tokens(), &policy).unwrap();
    let mut steps = 0;
    while engine.live() > 0 {
        engine.step();
        steps += 1;
    }
    let answers: Vec<_> = engine.finished().map(|f| f.answer.unwrap().depth).collect();
    assert_eq!(answers, [policy.plan().depths()[0]]);
    steps
}

#[test]
fn exits_that_wait_are_computed_with_the_fourth() {
    let model = Model::random(0, 1);
    let row = Row::random(9, 1);
    let engine = |exits_wait| {
        model.engine(EngineOptions {
            exits_wait,
            ..EngineOptions::default()
        })
    };
    let first = engine(When::Never).config().exits().exits.depths()[0].0;
    assert_eq!(steps_until_it_leaves(&mut engine(When::Never), &row), first);
    assert_eq!(steps_until_it_leaves(&mut engine(When::Auto), &row), first);
    let steps = steps_until_it_leaves(&mut engine(When::Always), &row);
    assert!(steps > first, "{steps} steps for an exit after {first}");
}

#[test]
fn exits_wait_once_hardly_a_sequence_has_left_there() {
    let model = Model::random(0, 1);
    let row = Row::random(9, 1);
    let mut engine = model.engine(EngineOptions::default());
    let stay = Arc::new(engine.policy(&"entropy:0.001".parse().unwrap()).unwrap());
    for _ in 0..100 {
        engine.classify(&[row.tokens()], &stay).unwrap();
    }
    let first = engine.config().exits().exits.depths()[0].0;
    assert!(steps_until_it_leaves(&mut engine, &row) > first);
    for _ in 0..3 {
        steps_until_it_leaves(&mut engine, &row);
    }
    assert_eq!(steps_until_it_leaves(&mut engine, &row), first);
}

#[test]
fn specifications_of_the_test_are_valid() {
    for text in POLICIES {
        text.parse::<PolicySpec>().unwrap();
    }
}
