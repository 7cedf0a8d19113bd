//! `badge replay` against a server whose answers are known.

use badge_lab::record::Record;

use super::setup::Setup;
use super::stub_server::{Act, StubServer};
use super::{document, done, stdout};

#[test]
fn replay_reports_what_became_of_every_request() {
    let setup = Setup::new();
    // The labels of the task's rows take turns, `yes` first; every fifth request is refused.
    let server = StubServer::start(|at| match at % 5 {
        1 => Act::status(429),
        _ => Act::answer("yes"),
    });
    let url = server.url();
    let arguments = format!(
        "replay --url {url} --task task.toml --out out --connections 8 --slo-ms 500 --seed 4 \
         --trace step:rate=50,peak=200,start=0.4,length=0.2,seconds=1,cv2=0"
    );
    let report = document(&setup, &arguments);
    let summary = &report["summary"];
    assert_eq!(
        (&summary["offered"], &summary["refused"]),
        (&80.into(), &16.into())
    );
    assert_eq!(
        (&summary["served"], &summary["lost"]),
        (&64.into(), &0.into())
    );
    assert_eq!(summary["burst"]["offered"], 40);
    let accuracy = summary["effective_accuracy"].as_f64().unwrap();
    assert!((accuracy - 0.5).abs() < 0.05, "{accuracy}");
    assert_eq!(report["server"]["model"], "stub");
    let record = Record::read(&setup.path("out/record.json")).unwrap();
    assert_eq!((record.command.as_str(), record.seed), ("replay", 4));
    assert_eq!(record.results["summary"]["offered"], 80);
    assert!(record.data.contains_key("tiny dev"), "{:?}", record.data);
    assert!(!record.to_json().contains("api_key"));
    let svg = String::from_utf8(setup.read("out/replay.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("SLO"));
    let page = String::from_utf8(setup.read("out/report.html")).unwrap();
    assert!(page.contains("effective accuracy") && page.contains("</html>"));
    assert!(setup.leftovers(".").is_empty());
}

#[test]
fn replay_sends_a_recorded_trace_faster() {
    let setup = Setup::new();
    let lines: Vec<String> = (0..60).map(|at| format!("a,f,{}.5,0.5", at + 1)).collect();
    let trace = format!("app,func,end_timestamp,duration\n{}\n", lines.join("\n"));
    setup.write("azure.csv", trace);
    let server = StubServer::start(|_| Act::answer("yes"));
    let url = server.url();
    let arguments = format!(
        "replay --url {url} --texts texts.txt --trace azure.csv --speedup 100 --seconds 0.295"
    );
    let text = stdout(&done(&setup, &arguments));
    let value = |name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(
        (value("offered").as_str(), value("served  ").as_str()),
        ("30", "30")
    );
    assert_eq!(value("lost"), "0");
    // The first question asks whether there is anybody.
    assert_eq!(server.asked(), 31);
}
