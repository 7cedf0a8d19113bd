use super::*;

#[test]
fn names_and_units_are_those_that_dashboards_ask_for() {
    let metrics = Metrics::new();
    metrics.build("avx2", "f32");
    metrics.request("/predict", 200, Duration::from_millis(3));
    let model = metrics.of_model("tiny", &[Depth(2), Depth(5)]);
    model.left(Depth(5));
    model.step(3, 21, Duration::from_millis(1));
    model.expired(1, Instant::now(), None);
    model.shed(4, Shed::Concurrency, false);
    model.arrived(2);
    model.refresh(
        Pressure {
            requests: 6,
            tokens: 60,
            oldest: Duration::from_millis(250),
            ..Pressure::default()
        },
        Instant::now(),
    );
    let text = metrics.text();
    for line in [
        "badge_requests_total{route=\"/predict\",code=\"200\"} 1",
        "badge_request_duration_seconds_bucket{le=\"0.005\",route=\"/predict\"} 1",
        "badge_exits_total{model=\"tiny\",layer=\"5\"} 1",
        "badge_exits_total{model=\"tiny\",layer=\"2\"} 0",
        "badge_layers_executed_total{model=\"tiny\"} 3",
        "badge_queue_requests{model=\"tiny\"} 6",
        "badge_queue_tokens{model=\"tiny\"} 60",
        "badge_queue_oldest_age_seconds{model=\"tiny\"} 0.25",
        "badge_expired_total{model=\"tiny\"} 1",
        "badge_shed_total{model=\"tiny\",reason=\"concurrency\"} 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("badge_build_info{version="), "{text}");
    let work = model.work();
    assert_eq!((work.arrivals, work.token_blocks), (2, 21));
    assert_eq!(model.exits(), [(Depth(2), 0), (Depth(5), 1)]);
    assert_eq!(model.losses(), [4, 1, 0]);
}

#[test]
fn of_a_model_that_is_gone_nothing_stays() {
    let metrics = Metrics::new();
    let depths = [Depth(2), Depth(5)];
    let kept = metrics.of_model("kept", &depths);
    let gone = metrics.of_model("gone", &depths);
    gone.step(3, 21, Duration::from_millis(1));
    gone.left(Depth(5));
    metrics.forget("gone", &depths);
    let text = metrics.text();
    assert!(!text.contains("model=\"gone\""), "{text}");
    kept.left(Depth(2));
    let line = "badge_exits_total{model=\"kept\",layer=\"2\"} 1";
    assert!(metrics.text().contains(line));
}

#[test]
fn a_mean_depth_is_that_of_the_latest_answers_or_none() {
    let metrics = Metrics::new();
    let model = metrics.of_model("tiny", &[Depth(2), Depth(4)]);
    let start = Instant::now();
    model.answered(RecentAnswer {
        at: start,
        latency: Duration::ZERO,
        depth: Depth(2),
    });
    for (seconds, ratio) in [(1, "0.5"), (11, "NaN")] {
        model.refresh(Pressure::default(), start + Duration::from_secs(seconds));
        let line = format!("badge_depth_ratio{{model=\"tiny\"}} {ratio}");
        assert!(metrics.text().contains(&line), "{}", metrics.text());
    }
}

#[test]
fn a_promise_is_counted_where_one_was_made() {
    let metrics = Metrics::new();
    let model = metrics.of_model("tiny", &[Depth(1)]);
    let (now, slo) = (Instant::now(), Duration::from_millis(50));
    let bad = |cause: &str| {
        let text = metrics.text();
        let line = format!("badge_slo_bad_total{{model=\"tiny\",cause=\"{cause}\"}} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap().parse::<u64>().unwrap()
    };
    model.shed(4, Shed::Concurrency, false);
    model.expired(3, now, None);
    assert_eq!((bad("shed"), bad("expired")), (0, 0));
    assert!(model.sojourns(now, slo).is_empty());
    model.shed(4, Shed::Slo, true);
    model.kept(2, (now, Duration::from_millis(20)), slo);
    model.kept(1, (now, Duration::from_millis(70)), slo);
    model.expired(2, now, Some(slo));
    assert_eq!((bad("shed"), bad("late"), bad("expired")), (4, 1, 2));
    // What was given up is no survivor: it is late.
    assert_eq!(model.sojourns(now, slo), [0.1, 0.1, 0.07, 0.02, 0.02]);
    assert_eq!(model.losses(), [8, 5, 0]);
}

#[test]
fn only_the_latest_answers_are_remembered() {
    let model = Metrics::new().of_model("tiny", &[Depth(1)]);
    let start = Instant::now();
    for ms in 0..5 {
        model.answered(RecentAnswer {
            at: start + Duration::from_millis(100 * ms),
            latency: Duration::from_millis(ms),
            depth: Depth(1),
        });
    }
    let now = start + Duration::from_millis(450);
    let latest = model.latest(now, Duration::from_millis(200));
    let latencies: Vec<_> = latest.iter().map(|a| a.latency.as_millis()).collect();
    assert_eq!(latencies, [4, 3]);
}
