use proptest::prelude::*;

use super::*;
use crate::calibration::{Certificate, ExitCalibration, Goal, LossKind, Method, OperatingPoint};

/// Ten certified levels from 0.95 down to 0.35, each costing a little more than the last.
fn calibration() -> ExitCalibration {
    let point = |(tau, speedup, score): (f64, f64, f64)| OperatingPoint {
        policy: format!("entropy:{tau}").parse().unwrap(),
        score,
        mean_exit: 12.0 / speedup,
        layer_speedup: speedup,
        certified: true,
    };
    let points = [
        (0.05, 1.0 / 0.95, 0.9196),
        (0.1, 1.0 / 0.8, 0.919),
        (0.2, 1.0 / 0.65, 0.917),
        (0.3, 1.0 / 0.5, 0.914),
        (0.4, 1.0 / 0.35, 0.91),
    ];
    ExitCalibration {
        version: ExitCalibration::VERSION,
        policy: "entropy:0.4".parse().unwrap(),
        goal: Goal::MaxDrop(0.02),
        certificate: Some(Certificate {
            method: Method::Ltt,
            loss: LossKind::Disagreement,
            loss_scale: None,
            epsilon: 0.02,
            confidence: Some(0.95),
            rows: 2000,
            chains: 20,
            mean_loss: 0.012,
        }),
        points: points.map(point).into(),
        temperatures: Vec::new(),
        data_set: "sst2".to_owned(),
        split: "dev".to_owned(),
        split_sha256: String::new(),
        n: 2000,
        max_length: None,
        metric: "acc".to_owned(),
        full_score: 0.92,
        model_sha256: String::new(),
        engine: "engine".to_owned(),
        precision: "f32".to_owned(),
        instruction_set: "avx512".to_owned(),
    }
}

fn ladder() -> Ladder {
    Ladder::from_calibration(&calibration(), None)
}

const SLO: f64 = 0.1;

fn controller() -> Controller {
    Controller::new(Settings::new(SLO).unwrap(), ladder())
}

/// 485 requests of one unit a second to full depth, of which 16 fit a batch of 1 ms + 2 ms each.
const SERVICE: Service = Service {
    rate: 485.0,
    fixed: 0.001,
    per_work: 0.002,
    batch: 16.0,
};

const IDLE: Service = Service {
    batch: 1.0,
    ..SERVICE
};

fn normal(work: f64) -> PerClass<f64> {
    PerClass {
        normal: work,
        ..PerClass::default()
    }
}

fn load(now: f64, queued: f64, head_age: f64) -> Load {
    Load {
        now,
        queued: normal(queued),
        head_age,
        service: if queued > 0.0 { SERVICE } else { IDLE },
        ..Load::default()
    }
}

/// The controller after a burst that has taken it to its floor, and the time.
fn at_floor() -> (Controller, f64) {
    let mut controller = controller();
    let mut now = 0.0;
    for _ in 0..20 {
        now += controller.settings().tick_seconds();
        controller.tick(&load(now, 500.0, 0.2));
    }
    assert!(controller.reconsider(&load(now, 500.0, 0.2)).at_floor());
    (controller, now)
}

#[test]
fn an_idle_server_runs_to_full_depth() {
    let mut controller = controller();
    let command = controller.tick(&load(0.0, 0.0, 0.0));
    assert_eq!((command.depth, command.levels.normal), (1.0, 0));
    assert!(!command.at_floor() && !command.audit);
    assert_eq!(command.demand, Some(0.0));
}

#[test]
fn the_prediction_is_that_of_the_law() {
    let mut controller = controller();
    // max(0.02, 20 / 485) + 0.001 + 0.032
    let command = controller.tick(&load(0.0, 20.0, 0.02));
    assert!((command.sojourn - (20.0 / 485.0 + 0.033)).abs() < 1e-12);
    let command = controller.tick(&load(0.025, 20.0, 0.06));
    assert!((command.set_point - 0.08).abs() < 1e-12);
    // 0.06 + 0.033 is late: the law says 0.08 / 0.093, and texts run the level above that.
    assert!((command.depth - 0.95).abs() < 1e-12);
    assert!((command.sojourn - (0.06 + 0.033 * 0.95)).abs() < 1e-12);
}

#[test]
fn what_is_steered_is_the_depth_that_runs() {
    let mut coarse = calibration();
    coarse.points.retain(|point| point.layer_speedup > 2.5);
    let ladder = Ladder::from_calibration(&coarse, None);
    assert_eq!(ladder.levels().len(), 2);
    let mut controller = Controller::new(Settings::new(SLO).unwrap(), ladder);
    // 0.06 + 0.033 is late at full depth, and full depth is what runs until the law says 0.35.
    let depth = |tick: u32| {
        let command = controller.tick(&load(0.025 * f64::from(tick), 20.0, 0.06));
        let seconds = if command.depth < 1.0 {
            0.033 * 0.35
        } else {
            0.033
        };
        assert!(
            (command.sojourn - 0.06 - seconds).abs() < 1e-12,
            "{command:?}"
        );
        command.depth
    };
    let depths: Vec<f64> = (0..10).map(depth).collect();
    assert_eq!(depths[0], 1.0);
    assert!((depths[9] - 0.35).abs() < 1e-12, "{depths:?}");
}

#[test]
fn what_a_batch_takes_whatever_is_in_it_comes_with_every_block() {
    assert!((SERVICE.batch_seconds(0.5) - 0.5 * 0.033).abs() < 1e-12);
    // A pass that is all fixed time: 70 ms to full depth, of 80 that there are.
    let fixed = |queued: f64| Load {
        queued: normal(queued),
        service: Service {
            rate: 1000.0,
            fixed: 0.07,
            per_work: 0.0,
            batch: 1.0,
        },
        ..Load::default()
    };
    assert_eq!(controller().reconsider(&fixed(9.0)).depth, 1.0);
    // (0.07 + 0.04) d = 0.08
    let command = controller().reconsider(&fixed(40.0));
    assert!((command.depth - 0.65).abs() < 1e-12, "{}", command.depth);
}

#[test]
fn the_backlog_guard_is_the_deepest_level_that_fits() {
    let command = controller().reconsider(&load(0.0, 60.0, 0.0));
    // (60 / 485 + 0.001) d = 0.08: 0.64, and 0.65 is too deep.
    assert!((command.depth - 0.5).abs() < 1e-9);
    let deepest = controller().reconsider(&load(0.0, 38.0, 0.0));
    assert_eq!(deepest.depth, 1.0);
    let shallowest = controller().reconsider(&load(0.0, 400.0, 0.0));
    assert_eq!(shallowest.depth, shallowest.floor);
}

#[test]
fn the_level_is_the_next_deeper_one() {
    let ladder = ladder();
    for (depth, level) in [
        (1.0, 0),
        (0.96, 0),
        (0.95, 1),
        (0.81, 1),
        (0.5, 4),
        (0.36, 4),
        (0.35, 5),
    ] {
        assert_eq!(ladder.at_depth(depth), level, "{depth}");
    }
    assert!((ladder.floor() - 0.35).abs() < 1e-12);
    assert_eq!(ladder.at_depth(0.0), 5);
}

#[test]
fn a_ladder_holds_certified_settings_alone() {
    let scores =
        |ladder: &Ladder| -> Vec<f64> { ladder.levels().iter().map(|l| l.score).collect() };
    assert_eq!(scores(&ladder()), [0.92, 0.9196, 0.919, 0.917, 0.914, 0.91]);
    assert_eq!(ladder().fixed(), None);
    let mut doubtful = calibration();
    doubtful.points[4].certified = false;
    doubtful.points[1].score = 0.9; // the next one is shallower and better
    let ladder = Ladder::from_calibration(&doubtful, None);
    assert_eq!(scores(&ladder), [0.92, 0.9196, 0.917, 0.914]);
    let mut promised_nothing = doubtful;
    promised_nothing.certificate = None;
    let ladder = Ladder::from_calibration(&promised_nothing, None);
    assert_eq!(ladder.levels().len(), 1);
    assert_eq!(ladder.fixed(), Some(&FixedReason::NotCertified));
}

#[test]
fn what_is_certified_follows_from_the_loss() {
    for (loss, score, agreement) in [
        (LossKind::Disagreement, 0.9, 0.98),
        (LossKind::Excess, 0.9, 0.9),
        (LossKind::Error, 0.98, 0.9),
    ] {
        let mut calibration = calibration();
        calibration.certificate.as_mut().unwrap().loss = loss;
        let ladder = Ladder::from_calibration(&calibration, None);
        let level = &ladder.levels()[3];
        assert!(
            (level.certified_score.unwrap() - score).abs() < 1e-12,
            "{loss}"
        );
        assert!(
            (level.certified_agreement.unwrap() - agreement).abs() < 1e-12,
            "{loss}"
        );
        assert_eq!(ladder.levels()[0].certified_score, Some(0.92));
    }
    let mut correlation = calibration();
    correlation.metric = "spearman".to_owned();
    let certificate = correlation.certificate.as_mut().unwrap();
    certificate.loss_scale = Some(5.0);
    let ladder = Ladder::from_calibration(&correlation, None);
    assert_eq!(ladder.levels()[5].certified_score, None);
    assert_eq!(ladder.levels()[5].certified_agreement, None);
}

#[test]
fn a_floor_that_nothing_is_certified_for_keeps_full_depth_and_says_why() {
    assert_eq!(
        Ladder::from_calibration(&calibration(), Some(0.9))
            .levels()
            .len(),
        6
    );
    let ladder = Ladder::from_calibration(&calibration(), Some(0.91));
    assert_eq!((ladder.levels().len(), ladder.floor()), (1, 1.0));
    let reason = ladder.fixed().unwrap().to_string();
    assert!(
        reason.contains("0.9000") && reason.contains("0.91"),
        "{reason}"
    );
    let mut matthews = calibration();
    matthews.metric = "mcc".to_owned();
    let reason = Ladder::from_calibration(&matthews, Some(0.5));
    assert!(reason.fixed().unwrap().to_string().contains("`mcc`"));
    let mut slow = calibration();
    slow.points.clear();
    let reason = Ladder::from_calibration(&slow, None);
    assert_eq!(reason.fixed(), Some(&FixedReason::NothingSaves));
    assert_eq!(
        Ladder::full_only().fixed(),
        Some(&FixedReason::NotCalibrated)
    );
}

#[test]
fn full_depth_comes_back_within_two_seconds_of_a_burst() {
    let (mut controller, start) = at_floor();
    let tick = controller.settings().tick_seconds();
    let mut now = start;
    loop {
        now += tick;
        if controller.tick(&load(now, 0.0, 0.0)).depth == 1.0 {
            break;
        }
        assert!(now - start < 2.0, "not yet at {now}");
    }
    // Ten ticks of calm, of which the last is the first that goes a twentieth of the way; the
    // nineteenth such step is above the level before full depth.
    let ticks = ((now - start) / tick).round();
    assert_eq!(ticks, 28.0);
}

#[test]
fn requests_are_refused_where_even_the_floor_is_too_late() {
    let (controller, now) = at_floor();
    let command = controller.reconsider(&load(now, 500.0, 0.2));
    let floor = command.floor;
    // 0.9 · 0.1 = Q d / μ̂ + (s0 + 16 c) d
    let fits = (0.09 - 0.033 * floor) * 485.0 / floor;
    let seconds = |work: f64, ask: Ask| match command.admit((&normal(work), 0.0), &ask) {
        Admission::Refuse { retry_after } => retry_after,
        Admission::Admit => 0,
    };
    let none = Ask::default();
    assert_eq!(seconds(fits - 0.01, none), 0);
    assert_eq!(seconds(fits + 0.01, none), 1);
    assert_eq!(seconds(3.2 * 485.0 / floor, none), 4);
    assert_eq!(seconds(1e11, none), 60);
    // Its own work has to be done too, be it more than the next batch's.
    let large = |work: f64| Ask { work, ..none };
    assert_eq!(seconds(fits - 0.01, large(16.0)), 0);
    assert_eq!(seconds(fits - 0.01, large(20.0)), 1);
    assert_eq!(seconds(0.5, large(44.5 / floor)), 0);
    assert_eq!(seconds(0.5, large(44.5)), 0);
    assert_eq!(seconds(0.5, large(46.0 / floor)), 1);
}

#[test]
fn a_deadline_of_ones_own_loosens_no_promise() {
    let (controller, now) = at_floor();
    let command = controller.reconsider(&load(now, 500.0, 0.2));
    let admits = |work: f64, class: Class, slack: Option<f64>| {
        let ask = Ask {
            class,
            slack,
            ..Ask::default()
        };
        command.admit((&normal(work), 0.0), &ask) == Admission::Admit
    };
    let (urgent, patient) = ([Class::High, Class::Normal], Class::Batch);
    // 0.36 s at the floor: far beyond the SLO.
    for class in urgent {
        assert!(!admits(500.0, class, None));
        assert!(!admits(500.0, class, Some(15.0)), "{class}");
        assert!(admits(50.0, class, Some(15.0)) && !admits(50.0, class, Some(0.05)));
    }
    // What nobody waits for has 20 times the SLO, or as long as it says.
    assert!(admits(500.0, patient, None) && !admits(2500.0, patient, None));
    assert!(admits(2500.0, patient, Some(15.0)) && !admits(500.0, patient, Some(0.2)));
}

#[test]
fn an_idle_server_lets_everything_in_that_sets_no_deadline_of_its_own() {
    let hasty = Settings::new(0.002).unwrap();
    let controller = Controller::new(hasty, ladder());
    let command = controller.reconsider(&load(0.0, 0.0, 0.0));
    let admit = |slack: Option<f64>| {
        let ask = Ask {
            slack,
            work: 1e6,
            ..Ask::default()
        };
        command.admit((&normal(0.0), 0.0), &ask)
    };
    assert_eq!(admit(None), Admission::Admit);
    assert_eq!(admit(Some(1e6)), Admission::Admit);
    for slack in [0.001, 0.0, -1.0, f64::NAN] {
        let answer = admit(Some(slack));
        assert!(matches!(answer, Admission::Refuse { .. }), "{slack}");
    }
}

#[test]
fn a_rate_that_is_not_known_yet_refuses_nobody_and_reduces_nothing() {
    let mut controller = controller();
    let load = Load {
        queued: normal(1e6),
        ..Load::default()
    };
    let command = controller.tick(&load);
    assert_eq!((command.depth, command.demand), (1.0, None));
    let answer = command.admit((&load.queued, load.begun), &Ask::default());
    assert_eq!(answer, Admission::Admit);
}

#[test]
fn classes_give_depth_away_in_turn() {
    let command = controller().reconsider(&load(0.0, 60.0, 0.0));
    let ladder = ladder();
    let level = |class: Class| {
        let ask = Ask {
            class,
            ..Ask::default()
        };
        command.level(&ladder, &ask)
    };
    // d = 0.5: batch at the floor, normal 0.5, high 0.75, which is run at 0.8.
    assert_eq!(Class::ALL.map(level), [5, 4, 2]);
}

#[test]
fn a_backlog_of_a_spared_class_asks_more_of_the_others() {
    let with = |queued: PerClass<f64>| {
        let load = Load {
            queued,
            service: SERVICE,
            ..Load::default()
        };
        controller().reconsider(&load).depth
    };
    let mixed = PerClass {
        high: 30.0,
        normal: 30.0,
        batch: 0.0,
    };
    // 30 · 0.8 + 30 · 0.5 units are more than 0.08 s of work; 60 · 0.5 are not.
    assert!((with(mixed) - 0.35).abs() < 1e-12);
    assert!((with(normal(60.0)) - 0.5).abs() < 1e-12);
}

#[test]
fn a_request_may_ask_for_accuracy_or_bring_a_deadline() {
    let (controller, now) = at_floor();
    let ladder = controller.ladder();
    let level = |command: &Command, min_accuracy: Option<f64>, slack: Option<f64>| {
        let ask = Ask {
            min_accuracy,
            slack,
            ..Ask::default()
        };
        command.level(ladder, &ask)
    };
    let busy = controller.reconsider(&load(now, 500.0, 0.2));
    assert_eq!(level(&busy, None, None), 5);
    assert_eq!(level(&busy, Some(0.9), None), 5);
    assert_eq!(level(&busy, Some(0.91), None), 0);
    // A long time of one's own gives nobody depth that the others do not have.
    assert_eq!(level(&busy, None, Some(15.0)), 5);
    // A batch of 16 takes 33 ms to full depth, 26.4 ms at 0.8, 11.6 ms at the floor.
    let calm = Controller::new(Settings::new(SLO).unwrap(), ladder.clone());
    let calm = calm.reconsider(&load(0.0, 20.0, 0.0));
    assert_eq!(level(&calm, None, None), 0);
    assert_eq!(level(&calm, None, Some(0.05)), 0);
    assert_eq!(level(&calm, None, Some(0.027)), 2);
    assert_eq!(level(&calm, None, Some(0.001)), 5);
    assert_eq!(level(&calm, Some(0.91), Some(0.001)), 0);
    // Two texts of that size take twice as long.
    let large = Ask {
        slack: Some(0.05),
        work: 32.0,
        ..Ask::default()
    };
    assert_eq!(calm.level(ladder, &large), 3);
}

#[test]
fn a_long_burst_may_not_spend_more_than_the_budget() {
    let budget = Budget {
        mean_score: 0.917,
        reserve: 10.0,
    };
    let settings = Settings::new(SLO).unwrap().with_budget(budget).unwrap();
    let mut controller = Controller::new(settings, ladder());
    let (mut now, mut floors) = (0.0, Vec::new());
    for _ in 0..400 {
        now += 0.025;
        let load = Load {
            answered: normal(25.0),
            ..load(now, 500.0, 0.2)
        };
        floors.push(controller.tick(&load).floor);
    }
    // 25 answers at 0.91 owe 0.175 a tick: the reserve lasts for about 57 of them.
    assert!((floors[50] - 0.35).abs() < 1e-12, "{}", floors[50]);
    assert!(floors[70] > 0.36 && floors.is_sorted(), "{floors:?}");
    let last = floors[399];
    assert!(last > 0.5 && last <= 0.65 + 1e-9, "{last}");
    let command = controller.reconsider(&load(now, 500.0, 0.2));
    assert_eq!(command.levels.normal, 3, "the level that keeps the mean");
    assert!(command.budget_spent.unwrap() > 1.0);
    // Answers to full depth pay it back.
    for _ in 0..400 {
        now += 0.025;
        let load = Load {
            answered: normal(25.0),
            ..load(now, 0.0, 0.0)
        };
        controller.tick(&load);
    }
    let command = controller.reconsider(&load(now, 0.0, 0.0));
    assert_eq!(command.budget_spent, Some(0.0));
    assert!((command.floor - 0.35).abs() < 1e-12);
}

#[test]
fn answers_that_disagree_raise_the_floor_level_by_level() {
    let (mut controller, now) = at_floor();
    let mut raised = Vec::new();
    for _ in 0..20_000 {
        raised.extend(controller.audited(false));
    }
    assert_eq!(raised, [4, 3, 2, 1, 0]);
    assert!(controller.audit().alarm);
    let command = controller.tick(&load(now + 0.025, 500.0, 0.2));
    assert_eq!((command.depth, command.levels.batch), (1.0, 0));
}

#[test]
fn what_the_audit_has_found_outlives_a_controller() {
    let (mut controller, now) = at_floor();
    while controller.audited(false).is_none() {}
    let memory = controller.audit_memory();
    let settings = Settings::new(2.0 * SLO).unwrap();
    let mut next = Controller::new(settings, ladder()).with_audit(&memory);
    assert!(next.audit().alarm);
    for tick in 0..20 {
        next.tick(&load(now + 0.05 * f64::from(tick), 5000.0, 2.0));
    }
    let command = next.reconsider(&load(now + 1.0, 5000.0, 2.0));
    assert_eq!(command.levels.batch, 4, "level 5 is no longer trusted");
    // A ladder of full depth alone has no floor to raise, and forgets nothing.
    let fixed = Controller::new(settings, Ladder::full_only()).with_audit(&memory);
    assert_eq!(fixed.audit_memory(), memory);
}

#[test]
fn audits_run_while_it_is_calm_and_answers_are_early() {
    let (mut controller, now) = at_floor();
    assert!(!controller.reconsider(&load(now, 500.0, 0.2)).audit);
    let command = controller.tick(&load(now + 0.025, 0.0, 0.0));
    assert!(command.audit && command.depth < 1.0);
}

#[test]
fn a_queue_that_stands_at_the_floor_is_served_from_its_end() {
    let (mut controller, now) = at_floor();
    assert_eq!(
        controller.reconsider(&load(now, 500.0, 0.2)).order,
        QueueOrder::Lifo
    );
    let command = controller.tick(&load(now + 0.025, 500.0, 0.02));
    assert_eq!(command.order, QueueOrder::Fifo);
}

#[test]
fn a_measured_quantile_moves_the_set_point() {
    let mut controller = controller();
    for tick in 0..=400 {
        let load = Load {
            sojourn_quantile: Some(0.12),
            ..load(0.025 * f64::from(tick), 0.0, 0.0)
        };
        controller.tick(&load);
    }
    let command = controller.reconsider(&load(10.0, 0.0, 0.0));
    assert!(
        (command.set_point - 0.078).abs() < 1e-12,
        "{}",
        command.set_point
    );
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        0.0..10.0,
        Just(0.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(-1.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
    ]
}

fn any_classes() -> impl Strategy<Value = PerClass<f64>> {
    [any_number(), any_number(), any_number()].prop_map(|[batch, normal, high]| PerClass {
        batch,
        normal,
        high,
    })
}

fn any_load() -> impl Strategy<Value = Load> {
    let service = [any_number(), any_number(), any_number(), any_number()];
    let numbers = [any_number(), any_number(), any_number(), any_number()];
    let quantile = proptest::option::of(any_number());
    (service, numbers, any_classes(), any_classes(), quantile).prop_map(
        |(
            [rate, fixed, per_work, batch],
            [now, begun, head_age, arrival_rate],
            queued,
            answered,
            q,
        )| {
            Load {
                now,
                queued,
                begun,
                head_age,
                service: Service {
                    rate,
                    fixed,
                    per_work,
                    batch,
                },
                arrival_rate,
                answered,
                sojourn_quantile: q,
            }
        },
    )
}

#[test]
fn what_has_begun_keeps_the_depth_that_it_was_given() {
    let command = controller().tick(&Load {
        service: SERVICE,
        ..load(0.0, 0.0, 0.0)
    });
    assert!(command.floor < 0.5);
    let none = Ask::default();
    let is_in = |queued: f64, begun: f64| {
        command.admit((&normal(queued), begun), &none) == Admission::Admit
    };
    // As much waiting work as can be let in behind: at the floor it is a fraction of that.
    let waiting = (0..).map(f64::from).take_while(|work| is_in(*work, 0.0));
    let waiting = waiting.last().unwrap();
    assert!(is_in(0.0, command.floor * waiting));
    assert!(!is_in(0.0, waiting), "{waiting}");
    assert!(!is_in(waiting, 2.0));
}

proptest! {
    #[test]
    fn whatever_it_is_told_a_command_is_finite_and_never_below_the_floor(
        loads in proptest::collection::vec(any_load(), 1..30),
        mean_score in 0.0..=1.0,
        reserve in 0.01..1e6,
        slo in 1e-6..1e4,
        slack in proptest::option::of(any_number()),
        work in any_number(),
    ) {
        let budget = Budget { mean_score, reserve };
        let settings = Settings::new(slo).unwrap().with_budget(budget).unwrap();
        let mut controller = Controller::new(settings, ladder());
        let lowest = controller.ladder().floor();
        for load in &loads {
            for command in [controller.tick(load), controller.reconsider(load)] {
                prop_assert!((lowest..=1.0).contains(&command.floor), "{command:?}");
                prop_assert!((command.floor..=1.0).contains(&command.depth), "{command:?}");
                for class in Class::ALL {
                    let level = *command.levels.of(class);
                    let depth = controller.ladder().levels()[level].depth;
                    prop_assert!(depth >= command.floor - 1e-6, "{command:?}");
                    let ask = Ask { class, min_accuracy: slack, slack, work };
                    let asked = command.level(controller.ladder(), &ask);
                    let depth = controller.ladder().levels()[asked].depth;
                    prop_assert!(depth >= command.floor - 1e-6, "{command:?}");
                }
                let finite = [command.sojourn, command.set_point, command.budget_spent.unwrap()];
                prop_assert!(finite.iter().all(|number| number.is_finite()), "{command:?}");
                prop_assert!(command.demand.is_none_or(f64::is_finite), "{command:?}");
                let ask = Ask { slack, work, ..Ask::default() };
                if let Admission::Refuse { retry_after } = command.admit((&load.queued, load.begun), &ask) {
                    prop_assert!((1..=60).contains(&retry_after));
                }
            }
        }
    }

    #[test]
    fn more_work_or_waiting_never_deepens(
        history in proptest::collection::vec((0.0..300.0, 0.0..0.3), 0..20),
        queued in 0.0..300.0, more in 0.0..300.0,
        age in 0.0..0.3, longer in 0.0..0.3,
    ) {
        let mut controller = controller();
        let mut now = 0.0;
        for (queued, age) in history {
            now += 0.025;
            controller.tick(&load(now, queued, age));
        }
        let mut less = controller.clone();
        let light = Load { service: SERVICE, ..load(now, queued, age) };
        let heavy = Load { queued: normal(queued + more), head_age: age + longer, ..light };
        let (light, heavy) = (less.tick(&light), controller.tick(&heavy));
        prop_assert!(heavy.depth <= light.depth + 1e-12, "{} > {}", heavy.depth, light.depth);
        prop_assert!(heavy.levels.normal >= light.levels.normal);
        // Nor does it let somebody in whom less work refuses.
        let none = Ask::default();
        let begun = |work: f64| light.admit((&normal(queued), work), &none) == Admission::Admit;
        prop_assert!(begun(age) || !begun(age + more));
        let admits = |work: f64| light.admit((&normal(work), 0.0), &none) == Admission::Admit;
        prop_assert!(admits(queued) || !admits(queued + more));
    }

    #[test]
    fn the_level_deepens_with_the_depth_and_the_accuracy_asked_for(
        depth in 0.0..1.0, deeper in 0.0..1.0, least in 0.0..1.0, more in 0.0..1.0,
    ) {
        let ladder = ladder();
        prop_assert!(ladder.at_depth(depth + deeper) <= ladder.at_depth(depth));
        prop_assert!(ladder.at_certified_score(least + more) <= ladder.at_certified_score(least));
        prop_assert!(ladder.at_score(least + more) <= ladder.at_score(least));
        let chosen = &ladder.levels()[ladder.at_depth(depth)];
        prop_assert!(chosen.depth >= depth - 1e-9);
    }

    #[test]
    fn the_same_loads_give_the_same_commands(
        loads in proptest::collection::vec((0.0..300.0, 0.0..0.3), 1..30),
    ) {
        let commands = || {
            let mut controller = controller();
            let tick = |(at, (queued, age)): (usize, &(f64, f64))| {
                controller.tick(&load(0.025 * at as f64, *queued, *age))
            };
            loads.iter().enumerate().map(tick).collect::<Vec<_>>()
        };
        prop_assert_eq!(commands(), commands());
    }

    #[test]
    fn calm_always_leads_back_to_full_depth_within_thirty_ticks(
        loads in proptest::collection::vec((0.0..500.0, 0.0..0.5), 0..50),
    ) {
        let mut controller = controller();
        let mut now = 0.0;
        for (queued, age) in loads {
            now += 0.025;
            controller.tick(&load(now, queued, age));
        }
        let mut depth = 0.0;
        for _ in 0..30 {
            now += 0.025;
            depth = controller.tick(&load(now, 0.0, 0.0)).depth;
        }
        prop_assert_eq!(depth, 1.0);
    }
}
