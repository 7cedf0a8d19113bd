//! Clients that are slow, rude or gone, models that are broken, and an end in the middle of it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use badge_server::http;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::setup::{Setup, get, load, metric, post, post_with, settings};
use crate::sockets::{ask, last_words, predict, start, status};

/// How long the slow are waited for here.
const PATIENCE: Duration = Duration::from_millis(200);

/// Sends text letter by letter, until it is sent or the server has had enough.
async fn trickle(stream: &mut TcpStream, text: &str) {
    for byte in text.as_bytes() {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(PATIENCE / 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_trickles_is_cut_off() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.limits.head_timeout = PATIENCE;
    settings.limits.body_timeout = PATIENCE;
    let running = start(load(settings)).await;
    let begin = Instant::now();
    // One who goes in the middle of a body; nothing at all, a head and a body without an end.
    let half = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 15\r\n\r\n{\"inp";
    drop(running.send(half).await);
    let silent = last_words(running.send("").await);
    let head = async {
        let mut stream = running.send("GET /health HTTP/1.1\r\n").await;
        trickle(&mut stream, &"x-letter: a\r\n".repeat(40)).await;
        last_words(stream).await
    };
    let body = async {
        let request =
            "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{\"inputs\": \"";
        let mut stream = running.send(request).await;
        trickle(&mut stream, &"a".repeat(60)).await;
        last_words(stream).await
    };
    let (silent, head, body) = tokio::join!(silent, head, body);
    assert!(silent.is_empty(), "{silent}");
    assert!(head.is_empty() || status(&head) == Some(408), "{head}");
    assert_eq!(status(&body), Some(408), "{body}");
    assert!(body.contains("did not arrive within"), "{body}");
    assert!(begin.elapsed() < Duration::from_secs(9));
    let good = ask(running.address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(good.0, 200);
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_read_nothing_keep_neither_others_nor_the_end_waiting() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.drain_timeout = Duration::from_millis(300);
    let running = start(load(settings)).await;
    // Far more answers than the system keeps for a connection.
    let many = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(3000);
    let mut deaf = TcpStream::connect(running.address).await.unwrap();
    let writing = tokio::time::timeout(PATIENCE, deaf.write_all(many.as_bytes()));
    let _ = writing.await;
    let good = ask(running.address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(good.0, 200);
    let begin = Instant::now();
    running.go().await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_read_nothing_are_cut_off() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.limits.answer_timeout = PATIENCE;
    let running = start(load(settings)).await;
    let count = 3000;
    let many = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(count);
    let mut deaf = TcpStream::connect(running.address).await.unwrap();
    let _ = tokio::time::timeout(PATIENCE, deaf.write_all(many.as_bytes())).await;
    tokio::time::sleep(PATIENCE * 5).await;
    // Only what the system had kept for the connection is still there.
    let answered = last_words(deaf).await.matches("HTTP/1.1 200").count();
    assert!(answered < count, "{answered}");
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_is_refused_and_harms_nobody() {
    let setup = Setup::new();
    let running = start(load(settings(vec![setup.model("tiny", "albert")]))).await;
    let post = "POST /predict HTTP/1.1\r\nhost: x\r\n";
    let long = "a".repeat(600_000);
    let requests = [
        "nonsense\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
        format!("GET /health HTTP/1.1\r\nhost: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(500)),
        "GET / HTTP/1.1\r\nhost x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: x\0y\r\n\r\n".to_owned(),
        format!("{post}content-length: -1\r\n\r\n"),
        format!("{post}content-length: 5\r\ncontent-length: 6\r\n\r\n{{}}"),
        format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        format!("{post}transfer-encoding: gzip\r\n\r\n"),
    ];
    for request in &requests {
        let begin: String = request.chars().take(70).collect();
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = last_words(stream).await;
        let refused = status(&answer).is_none_or(|status| (400..500).contains(&status));
        assert!(refused, "{begin:?}: {answer}");
    }
    let good = ask(running.address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(good.0, 200);
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_before_it_has_come() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.limits.payload_max = 1000;
    let running = start(load(settings)).await;
    let post = "POST /predict HTTP/1.1\r\nhost: x\r\n";
    for request in [
        format!("{post}content-length: 4000000000\r\n\r\n{{\"inputs\""),
        // Who asks first is told no, and not to go on.
        format!("{post}content-length: 2000\r\nexpect: 100-continue\r\n\r\n"),
        format!(
            "{post}transfer-encoding: chunked\r\n\r\n800\r\n{}\r\n",
            "a".repeat(0x800)
        ),
    ] {
        let mut stream = running.send(&request).await;
        let mut answer = vec![0; 400];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert_eq!(status(&answer), Some(413), "{answer}");
    }
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connections_is_answered_or_refused_to_the_last() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.model.concurrent_requests_max = 12;
    settings.limits.client_batch_max = 4;
    let running = start(load(settings)).await;
    // Some come and go without a word.
    for _ in 0..100 {
        drop(TcpStream::connect(running.address).await.unwrap());
    }
    let mut streams = Vec::new();
    for _ in 0..150 {
        streams.push(TcpStream::connect(running.address).await.unwrap());
    }
    let request = predict(&json!({"inputs": [["the cat sat"], ["on the mat"]]}))
        .replace("host: x", "host: x\r\nconnection: close");
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let mut answered = 0;
    for stream in streams {
        let answer = last_words(stream).await;
        let status = status(&answer);
        assert!(matches!(status, Some(200 | 429)), "{answer}");
        answered += u32::from(status == Some(200));
    }
    assert!(answered > 0);
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_cost_nothing_and_are_counted() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.model.batch_requests_max = 1;
    settings.model.concurrent_requests_max = 3000;
    settings.limits.client_batch_max = 2000;
    let server = load(settings);
    let app = http::app(Arc::clone(&server));
    let running = start(server).await;
    let texts = vec![["the old red stone bridge ".repeat(12)]; 2000];
    let (address, texts) = (running.address, json!({"inputs": texts}));
    let busy = tokio::spawn(async move { ask(address, &texts).await });
    while metric(&app, "badge_layers_executed_total{model=\"tiny\"}").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // They come after all others, to the tokeniser, as they are not short, and to the engine.
    let body = json!({"inputs": "a ".repeat(400), "priority": "batch"});
    let mut vanishing = Vec::new();
    for _ in 0..10 {
        vanishing.push(running.send(predict(&body)).await);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!busy.is_finished(), "they would have waited");
    drop(vanishing);
    assert_eq!(busy.await.unwrap().unwrap().0, 200);
    let abandoned = "badge_abandoned_total{model=\"tiny\"}";
    let begin = Instant::now();
    while metric(&app, abandoned).await < 10.0 && begin.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(metric(&app, abandoned).await, 10.0);
    let computed = metric(&app, "badge_exits_total{model=\"tiny\",layer=\"5\"}").await;
    assert_eq!(computed, 2000.0);
    running.go().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_when_the_server_goes_under_load() {
    let setup = Setup::new();
    let mut settings = settings(vec![setup.model("tiny", "albert")]);
    settings.shutdown_delay = Duration::from_millis(60);
    let server = load(settings);
    let running = start(Arc::clone(&server)).await;
    let address = running.address;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut answered = 0;
                let body = json!({"inputs": "the cat sat on the mat"});
                // Until the port is closed; whoever was let in is answered.
                while let Ok(stream) = ask(address, &body).await {
                    assert_eq!(stream.0, 200, "{}", stream.1);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.is_ready());
    let gone = running.go();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!server.is_ready(), "readiness ends first");
    let during = ask(address, &json!({"inputs": "a"})).await.unwrap();
    assert_eq!(during.0, 200, "the delay is for those who have not noticed");
    gone.await.unwrap();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_model_under_load_is_not_noticed_by_anyone_who_asks() {
    let setup = Setup::new();
    let server = load(settings(vec![setup.model("tiny", "albert")]));
    let (app, admin) = (http::app(Arc::clone(&server)), http::admin(server));
    let inputs = json!({"inputs": [["the cat sat"], ["a dog"]]});
    let expected = post(&app, "/predict", inputs.clone()).await.json();
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (app, done) = (app.clone(), Arc::clone(&done));
            let (inputs, expected) = (inputs.clone(), expected.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = post(&app, "/predict", inputs.clone()).await.json();
                    assert_eq!(answer, expected);
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let files = ["model.safetensors", "config.json", "tokenizer.json"];
    for file in files {
        let path = format!("tiny/{file}");
        let whole = std::fs::read(setup.path(&path)).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"nonsense", b""] {
            setup.write(&path, damaged);
            let load = post_with(&admin, "/v2/repository/models/tiny/load", &[], "").await;
            let (status, _, message) = load.native_error();
            assert_eq!(status, 422, "{message}");
            assert!(message.contains(file), "{message}");
            assert_eq!(get(&app, "/health").await.status, 200);
        }
        setup.write(&path, &whole);
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}
