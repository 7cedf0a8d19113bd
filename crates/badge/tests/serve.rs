//! `badge serve` as a process: it starts, answers, loads anew and goes when it is told to.
#![cfg(unix)]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod setup;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
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
        let arguments = format!(
            "serve --hostname 127.0.0.1 --port 0 --shutdown-delay-s 0 --json-output {arguments}"
        );
        let mut command = setup.command(&arguments);
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
