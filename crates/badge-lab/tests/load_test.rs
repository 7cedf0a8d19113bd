//! Open-loop load on a server whose delays are known.

#[path = "setup/stub_server.rs"]
mod stub_server;

use std::time::Duration;

use badge_lab::load_test::{Fate, LoadReport, Options, Outcome, Question, Summary, Timeline, run};
use badge_lab::traffic::{Arrivals, Pattern};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use stub_server::{Act, StubServer};

const SLO: Duration = Duration::from_millis(100);

fn options(server: &StubServer, connections: usize) -> Options {
    Options {
        url: server.url(),
        slo: SLO,
        deadline: None,
        connections,
        timeout: Duration::from_millis(700),
        api_key: None,
    }
}

fn arrivals(pattern: &str) -> Arrivals {
    let pattern: Pattern = pattern.parse().unwrap();
    pattern.arrivals(&mut ChaCha8Rng::seed_from_u64(1)).unwrap()
}

fn questions() -> Vec<Question> {
    let question = |label: &str| Question {
        body: format!("{{\"inputs\":\"a text that is {label}\",\"truncate\":true}}"),
        label: Some(label.to_owned()),
    };
    vec![question("yes"), question("no")]
}

fn loaded(server: &StubServer, options: &Options, arrivals: &Arrivals) -> (Outcome, Summary) {
    let outcome = run(options, arrivals, &questions(), &mut |_| {}).unwrap();
    assert_eq!(outcome.events.len(), arrivals.times().len());
    // The first question asks whether there is anybody.
    assert_eq!(server.asked(), 1 + arrivals.times().len());
    let summary = Summary::of(&outcome, options, (arrivals.seconds(), None));
    (outcome, summary)
}

#[test]
fn latency_is_that_of_the_server_while_connections_are_free() {
    let server = StubServer::start(|_| Act::answer("yes").after_ms(20));
    let arrivals = arrivals("poisson:rate=100,seconds=1,cv2=0");
    let (outcome, summary) = loaded(&server, &options(&server, 32), &arrivals);
    assert_eq!(
        (summary.offered, summary.served, summary.in_time),
        (100, 100, 100)
    );
    let p50 = summary.latency_ms.p50.unwrap();
    assert!((20.0..60.0).contains(&p50), "{summary:?}");
    assert_eq!(summary.effective_accuracy, Some(0.5));
    assert_eq!(outcome.server.blocks, Some(12));
    assert_eq!(outcome.server.model.as_deref(), Some("stub"));
    assert_eq!(summary.mean_depth, Some(0.5));
    // Two seconds of CPU for 100 answers, says the stub.
    assert_eq!(summary.cpu_seconds_per_1000, Some(20.0));
}

#[test]
fn a_pause_of_the_server_is_felt_by_all_who_should_have_been_sent_meanwhile() {
    // One connection, a request every 10 ms, answers at once, but the first takes 400 ms. Whoever
    // counts from the actual sending sees one late answer; 40 requests were late.
    let server = StubServer::start(|at| match at {
        1 => Act::answer("yes").after_ms(400),
        _ => Act::answer("yes"),
    });
    let arrivals = arrivals("poisson:rate=100,seconds=1,cv2=0");
    let (outcome, summary) = loaded(&server, &options(&server, 1), &arrivals);
    assert_eq!(summary.served, 100);
    let late = summary.served - summary.in_time;
    assert!((28..70).contains(&late), "{late}");
    let slow = |seconds: f64| seconds > SLO.as_secs_f64();
    let by_sending = outcome.events.iter().filter(|e| slow(e.done - e.sent));
    assert!(by_sending.count() <= 3, "answers themselves were quick");
    assert!(summary.lag_ms.p99.unwrap() > 300.0, "{summary:?}");
    // A request that should have gone out in the middle of the pause waited for the rest of it.
    let middle = &outcome.events[20];
    assert!((0.15..0.4).contains(&middle.latency()), "{middle:?}");
}

#[test]
fn refusals_expiries_and_failures_are_told_apart() {
    let server = StubServer::start(|at| match at % 5 {
        1 => Act::status(429),
        2 => Act::status(504).after_ms(5),
        3 => Act::status(500),
        _ => Act::answer("no"),
    });
    let arrivals = arrivals("poisson:rate=200,seconds=0.5,cv2=0");
    let (outcome, summary) = loaded(&server, &options(&server, 8), &arrivals);
    assert_eq!(
        (summary.served, summary.refused, summary.expired),
        (40, 20, 20)
    );
    assert_eq!(summary.failed.get(&500), Some(&20));
    assert_eq!((summary.lost, summary.failed.len()), (0, 1));
    assert!((summary.refused_share - 0.2).abs() < 1e-12);
    assert!(
        (summary.slo_violation_ratio - 0.6).abs() < 0.05,
        "{summary:?}"
    );
    assert!(summary.refusal_ms.p50.unwrap() < 50.0);
    let refused = outcome
        .events
        .iter()
        .find(|e| e.fate == Fate::Refused)
        .unwrap();
    assert_eq!(
        (refused.exit, refused.level, refused.correct),
        (None, None, None)
    );
}

#[test]
fn connections_that_break_and_answers_that_never_come_are_lost() {
    let server = StubServer::start(|at| match at % 4 {
        1 => Act::hang_up(),
        2 => Act::answer("yes").after_ms(2000),
        _ => Act::answer("yes"),
    });
    let arrivals = arrivals("poisson:rate=40,seconds=0.5,cv2=0");
    let (outcome, summary) = loaded(&server, &options(&server, 20), &arrivals);
    assert_eq!((summary.served, summary.lost), (10, 10));
    let slowest = outcome
        .events
        .iter()
        .map(badge_lab::load_test::Event::latency)
        .fold(0.0, f64::max);
    // Given up at the time-out.
    assert!((0.6..1.5).contains(&slowest), "{slowest}");
}

#[test]
fn deadlines_and_keys_are_sent() {
    let server = StubServer::start(|_| Act::answer("yes"));
    let mut options = options(&server, 2);
    options.deadline = Some(Duration::from_millis(80));
    options.api_key = Some("secret".to_owned());
    loaded(
        &server,
        &options,
        &arrivals("poisson:rate=20,seconds=0.2,cv2=0"),
    );
    let head = server.last_head().to_lowercase();
    assert!(head.contains("authorization: bearer secret"), "{head}");
    let deadline = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-deadline-ms: "));
    let left: u64 = deadline.unwrap().trim().parse().unwrap();
    assert!((1..=80).contains(&left), "{left}");
}

#[test]
fn levels_tell_of_a_burst_and_of_its_end() {
    // Requests 11 to 30 are answered while the policy runs half of the blocks.
    let server = StubServer::start(|at| {
        let level = if (11..=30).contains(&at) { 0.5 } else { 1.0 };
        Act::answer("yes").header("x-policy-level", &level.to_string())
    });
    let arrivals = arrivals("poisson:rate=50,seconds=1,cv2=0");
    let options = options(&server, 1);
    let outcome = run(&options, &arrivals, &questions(), &mut |_| {}).unwrap();
    let burst = Some((0.2, 0.5));
    let summary = Summary::of(&outcome, &options, (1.0, burst));
    let seconds = summary.seconds;
    let changes = summary.level_changes_per_minute.unwrap();
    assert!((changes - 120.0 / seconds).abs() < 1e-9, "{changes}");
    let burst = summary.burst.clone().unwrap();
    assert_eq!(burst.offered, 15);
    // Request 30 is scheduled for 0.59 s and the next one for 0.61 s.
    assert!(
        (burst.settled_seconds.unwrap() - 0.09).abs() < 1e-9,
        "{burst:?}"
    );
    assert!(
        (burst.recovered_seconds.unwrap() - 0.11).abs() < 1e-9,
        "{burst:?}"
    );
    let timeline = Timeline::of(&outcome, &options, summary.seconds);
    let offered: usize = timeline.windows.iter().map(|w| w.offered).sum();
    let served: usize = timeline.windows.iter().map(|w| w.served).sum();
    assert_eq!((offered, served), (50, 50));
    let report = LoadReport {
        trace: "step".to_owned(),
        server: outcome.server.clone(),
        summary,
        timeline,
    };
    let svg = report.panes().to_svg().unwrap();
    for name in [
        "requests / s",
        "p99 (ms)",
        "SLO",
        "policy level",
        "effective accuracy",
    ] {
        assert!(svg.as_str().contains(name), "{name}");
    }
    let page = report.page().unwrap().to_html();
    assert!(page.contains("full depth for good after"));
    // The stub's texts leave after 6 of its 12 blocks.
    let text = report.to_text();
    assert!(text.contains("0.500 (6.00 of 12 blocks)"), "{text}");
}

#[test]
fn a_server_that_is_not_there_or_is_another_is_refused_before_the_trace_begins() {
    let arrivals = arrivals("poisson:rate=10,seconds=60");
    let refused = |options: &Options| {
        let error = run(options, &arrivals, &questions(), &mut |_| {}).unwrap_err();
        format!("{error:#}")
    };
    let gone = StubServer::start(|_| Act::answer("yes"));
    let mut nobody = options(&gone, 1);
    nobody.url = "http://127.0.0.1:9".to_owned();
    assert!(refused(&nobody).contains("--url: http://127.0.0.1:9 gives no answer"));
    let other = StubServer::start(|_| Act::status(404));
    assert!(refused(&options(&other, 1)).contains("status 404"));
    let strange = StubServer::start(|_| Act::body("{}"));
    assert!(refused(&options(&strange, 1)).contains("labels and scores"));
    let mut none = options(&gone, 0);
    assert!(refused(&none).contains("--connections: 0"));
    none.url = "localhost:80".to_owned();
    assert!(refused(&none).contains("http://"));
}
