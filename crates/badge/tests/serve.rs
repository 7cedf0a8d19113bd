//! `badge serve` as a process: it starts, answers, loads anew and goes when it is told to.
#![cfg(unix)]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod setup;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use setup::Setup;

/// A server of the program, with its log.
struct Serving {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Serving {
    fn start(setup: &Setup, arguments: &str) -> Self {
        let arguments = format!("serve --hostname 127.0.0.1 --port 0 --json-output {arguments}");
        let mut command = setup.command(&arguments);
        command.env("BADGE_SHUTDOWN_DELAY_S", "0");
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// The next line of the log that says this.
    fn told(&mut self, message: &str) -> Value {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).unwrap();
            assert!(read > 0, "the log ended without `{message}`:\n{all}");
            all.push_str(&line);
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"] == message {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Whatever a test has found, no server outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status of a request, and its answer.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

fn predict(address: SocketAddr, headers: &str) -> (u16, String) {
    let body = r#"{"inputs": "the cat sat"}"#;
    let length = body.len();
    let request = format!(
        "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\
         {headers}\r\n{body}"
    );
    ask(address, &request)
}

#[test]
fn the_server_starts_answers_reloads_and_goes() {
    let setup = Setup::new();
    setup.write("key", "s3cret\n");
    let mut serving = Serving::start(
        &setup,
        "--model tiny=model --policy fixed:2 --api-key-file key --max-client-batch-size 4",
    );
    let loaded = serving.told("loaded");
    assert_eq!(
        (&loaded["model"], &loaded["policy"]),
        (&"tiny".into(), &"fixed:2".into())
    );
    let ready = serving.told("ready");
    assert!(ready["ready_ms"].is_u64());
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(predict(address, "").0, 401);
    let (status, answer) = predict(address, "authorization: Bearer s3cret\r\n");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("x-exit-layer: 2"), "{answer}");
    serving.signal("HUP");
    serving.told("loaded");
    assert_eq!(predict(address, "authorization: Bearer s3cret\r\n").0, 200);
    serving.signal("TERM");
    serving.told("gone");
    assert_eq!(serving.exit_code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_told_once() {
    let setup = Setup::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port();
    let output = setup.run(&format!(
        "serve --model model --hostname 127.0.0.1 --port {port}"
    ));
    assert_eq!(output.status.code(), Some(2));
    let told = setup::stderr(&output);
    let error = told.lines().find(|line| line.starts_with("error:"));
    let error = error.unwrap_or_else(|| panic!("no error: {told}"));
    assert!(
        error.contains(&format!("cannot listen on {address}")),
        "{error}"
    );
    assert!(
        error.ends_with("choose another --hostname or --port"),
        "{error}"
    );
}

#[test]
fn variables_stand_for_flags() {
    let setup = Setup::new();
    let arguments = "serve --hostname 127.0.0.1 --model model --json-output";
    let mut command = setup.command(arguments);
    command
        .env("PORT", "0")
        .env("BADGE_SHUTDOWN_DELAY_S", "0")
        .env("BADGE_POLICY", "fixed:3")
        .env("API_KEY", "s3cret")
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut serving = Serving { child, log };
    assert_eq!(serving.told("loaded")["policy"], "fixed:3");
    let ready = serving.told("ready");
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    assert_ne!(address.port(), 3000);
    assert_eq!(predict(address, "").0, 401);
    serving.signal("INT");
    assert_eq!(serving.exit_code(), Some(0));
}

/// The first request that comes, answered with 200.
fn take_one(listener: &TcpListener) -> (String, Vec<u8>) {
    let (stream, _) = listener.accept().unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    stream.get_mut().write_all(answer).unwrap();
    (head, body)
}

#[test]
fn variables_of_opentelemetry_say_where_spans_go_and_what_with() {
    let setup = Setup::new();
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", collector.local_addr().unwrap());
    let arguments = "serve --hostname 127.0.0.1 --port 0 --model model --json-output";
    let mut command = setup.command(arguments);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret,other=a%20b")
        .env("OTEL_SERVICE_NAME", "classifier")
        .env("BADGE_SHUTDOWN_DELAY_S", "0")
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut serving = Serving { child, log };
    let ready = serving.told("ready");
    assert_eq!(ready["traces"], format!("{url}/v1/traces"));
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(predict(address, "").0, 200);
    // Spans wait for others until the server goes.
    serving.signal("TERM");
    let (head, body) = take_one(&collector);
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("\r\nx-key: s3cret\r\n"), "{head}");
    assert!(head.contains("\r\nother: a b\r\n"), "{head}");
    let body = String::from_utf8_lossy(&body);
    for part in ["classifier", "POST /predict", "badge.exit_layer", "compute"] {
        assert!(body.contains(part), "{part}: {body}");
    }
    assert!(!body.contains("cat"), "{body}");
    assert_eq!(serving.exit_code(), Some(0));
}

/// The status of a request over a connection of its own, or nothing where none was accepted.
fn status(address: SocketAddr, request: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    let timeout = Some(Duration::from_secs(30));
    stream.set_read_timeout(timeout).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn nothing_accepted_is_lost_when_the_process_is_told_to_go() {
    let setup = Setup::new();
    let mut serving = Serving::start(&setup, "--model model --shutdown-delay-s 2");
    let ready = serving.told("ready");
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    let client = move || {
        let body = r#"{"inputs": [["the cat sat"], ["on the mat"]]}"#;
        let length = body.len();
        let request = format!(
            "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        let mut answered = 0;
        while let Some(status) = status(address, &request) {
            assert_eq!(status, 200);
            answered += 1;
        }
        answered
    };
    let clients: Vec<_> = (0..3).map(|_| std::thread::spawn(client)).collect();
    let health = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        status(address, &request)
    };
    assert_eq!(health("/readyz"), Some(200));
    serving.signal("TERM");
    serving.told("going away: no longer ready");
    // Balancers have until the port closes to notice.
    assert_eq!(
        (health("/readyz"), health("/livez")),
        (Some(503), Some(200))
    );
    serving.told("gone");
    assert_eq!(serving.exit_code(), Some(0));
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
}

#[test]
fn idle_connections_of_grpc_do_not_hold_up_the_end() {
    let setup = Setup::new();
    let mut serving = Serving::start(&setup, "--model model --grpc-port 0");
    let ready = serving.told("ready");
    let address: SocketAddr = ready["grpc"].as_str().unwrap().parse().unwrap();
    let silent = TcpStream::connect(address).unwrap();
    let mut idle = TcpStream::connect(address).unwrap();
    let timeout = Some(Duration::from_secs(30));
    idle.set_read_timeout(timeout).unwrap();
    // The preface of HTTP/2 and settings without an entry, which are answered by settings.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    idle.write_all(preface).unwrap();
    let mut frame = [0; 9];
    idle.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4);
    let begin = std::time::Instant::now();
    serving.signal("TERM");
    serving.told("gone");
    assert_eq!(serving.exit_code(), Some(0));
    let time = begin.elapsed();
    assert!(time < Duration::from_secs(5), "{time:?}");
    drop((silent, idle));
}

#[test]
fn what_is_being_computed_when_the_process_is_told_to_go_is_answered() {
    let setup = Setup::new();
    let flags = "--model model --max-client-batch-size 500 --max-batch-requests 1";
    let mut serving = Serving::start(&setup, flags);
    let ready = serving.told("ready");
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    let texts = vec![["the old red stone bridge ".repeat(20)]; 500];
    let body = serde_json::json!({"inputs": texts}).to_string();
    let length = body.len();
    let head = format!("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n");
    let request = format!("{head}connection: close\r\n\r\n{body}");
    let client = std::thread::spawn(move || status(address, &request));
    let metrics = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let waiting = || -> u32 {
        let (_, text) = ask(address, metrics);
        let mut lines = text.lines();
        let line =
            lines.find_map(|line| line.strip_prefix("badge_queue_requests{model=\"model\"} "));
        line.map_or(0, |count| count.parse().unwrap())
    };
    while waiting() < 200 {
        assert!(
            !client.is_finished(),
            "it was answered before it was looked for"
        );
    }
    serving.signal("TERM");
    serving.told("gone");
    assert_eq!(client.join().unwrap(), Some(200));
    assert_eq!(serving.exit_code(), Some(0));
}

#[test]
fn a_server_without_room_for_more_connections_goes_on_when_there_is_some() {
    let setup = Setup::new();
    let program = setup.command("serve --hostname 127.0.0.1 --port 0 --model model --json-output");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .env("BADGE_SHUTDOWN_DELAY_S", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    setup.isolate(&mut command);
    let mut child = command.spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut serving = Serving { child, log };
    let ready = serving.told("ready");
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    let connect = |_| TcpStream::connect(address).unwrap();
    let storm: Vec<_> = (0..100).map(connect).collect();
    serving.told("cannot accept connections for a moment");
    drop(storm);
    assert_eq!(predict(address, "").0, 200);
    serving.signal("TERM");
    assert_eq!(serving.exit_code(), Some(0));
}

/// Words of a text that begin so, up to the first letter that does not belong to such names.
fn names<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).map(move |(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn deployments_name_only_flags_and_variables_that_there_are() {
    let setup = Setup::new();
    let help = setup.command("serve --help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let mut found = 0;
    for file in [
        "Dockerfile",
        "kubernetes/deployment.yaml",
        "kubernetes/kserve.yaml",
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let lines = text.lines().filter(|line| !line.contains("cargo"));
        for line in lines {
            for variable in names(line, "BADGE_").filter(|name| *name != "BADGE_CACHE") {
                assert!(
                    help.contains(&format!("[env: {variable}=")),
                    "{file}: {variable}"
                );
                found += 1;
            }
            let (_, arguments) = line.split_once("serve").unwrap_or_default();
            for flag in names(arguments, "--") {
                assert!(help.contains(&format!("{flag} ")), "{file}: {flag}");
                found += 1;
            }
        }
    }
    assert!(found > 12, "{found}");
}
