//! What HTTP and scheduling add to a call of the engine: one text at a time, in turns.
//!
//!     cargo bench -p badge-server --bench overhead -- MODEL TEXTS [PRECISION] [THREADS] [ROUNDS] > record.json
//!
//! For every text of a file, in changing order: its ids made and classified by an engine, and the
//! same asked of a server of the same model over one connection that stays open. One JSON document
//! with medians in milliseconds; `added` is the median of the texts' differences, round by round, and
//! `added_in` where it comes about, by what the server says of its stages: there the connection's
//! share holds the wakes of threads on the way in and out. `echo` is what a byte takes to a thread
//! that does nothing but send it back, and home again: no server is quicker than that here.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]

use std::error::Error;
use std::future::pending;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use badge_core::policy::{Policy, PolicySpec};
use badge_engine::{Engine, EngineOptions, Precision, TokenIds};
use badge_server::{Listeners, ModelSource, Server, Settings, serve};
use badge_tasks::dataset::{common_columns, read_inputs};
use badge_tasks::{Example, Tokenizer};
use serde_json::{Value, json};

type Done<T> = Result<T, Box<dyn Error>>;

/// Rounds where none are asked for.
const ROUNDS: usize = 5;

/// Texts that are asked before anything is measured.
const WARM_UP: usize = 20;

/// The engine without anything around it.
struct Bare {
    engine: Engine,
    tokenizer: Tokenizer,
    policy: Arc<Policy>,
    length_max: usize,
}

/// One connection to the server.
struct Client {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

/// Milliseconds of one text, both ways, and of a byte.
#[derive(Debug, Clone, Copy)]
struct Pair {
    tokenised: f64,
    bare: f64,
    served: Served,
    echo: f64,
}

/// What the client measures, and what the server says of it.
#[derive(Debug, Clone, Copy, Default)]
struct Served {
    total: f64,
    tokenised: f64,
    queued: f64,
    computed: f64,
}

impl Bare {
    fn load(directory: &Path, precision: Precision, server: &Server) -> Done<Self> {
        let model = &server.settings().model;
        let length_max = model.length_max.ok_or("the server has a length")?;
        let options = EngineOptions {
            threads: model.threads,
            tokens_max: model.batch_tokens_max.max(length_max),
            sequences_max: model.batch_requests_max,
            ..EngineOptions::new(precision)
        };
        let engine = Engine::load(directory, options)?;
        Ok(Self {
            policy: Arc::new(engine.policy(&PolicySpec::Full)?),
            tokenizer: Tokenizer::from_directory(directory)?,
            engine,
            length_max,
        })
    }

    /// Milliseconds to make ids, and to make them and classify.
    fn classify(&mut self, example: &Example) -> Done<(f64, f64)> {
        let start = Instant::now();
        let encoding = self.tokenizer.encode(example, self.length_max)?;
        let tokenised = milliseconds(start);
        let tokens = TokenIds {
            ids: &encoding.ids,
            type_ids: &encoding.type_ids,
        };
        self.engine.classify(&[tokens], &self.policy)?;
        Ok((tokenised, milliseconds(start)))
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Done<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let answers = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, answers })
    }

    /// Milliseconds until the whole answer is there.
    fn ask(&mut self, body: &str) -> Done<Served> {
        let length = body.len();
        let request = format!(
            "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        let start = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0_usize);
        let mut served = Served::default();
        self.answers.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(format!("the server says {line}").into());
        }
        loop {
            line.clear();
            self.answers.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(("x-tokenization-time-us", value)) => {
                    served.tokenised = 1e-3 * value.parse::<f64>()?;
                }
                Some(("x-queue-time-us", value)) => served.queued = 1e-3 * value.parse::<f64>()?,
                Some(("x-inference-time-us", value)) => {
                    served.computed = 1e-3 * value.parse::<f64>()?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = vec![0; length];
        self.answers.read_exact(&mut answer)?;
        served.total = milliseconds(start);
        Ok(served)
    }
}

/// A connection to a thread that sends back what comes.
struct Echo(TcpStream);

impl Echo {
    fn start() -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut other, _) = listener.accept()?;
        for end in [&stream, &other] {
            end.set_nodelay(true)?;
        }
        thread::spawn(move || {
            let mut byte = [0];
            while other.read_exact(&mut byte).is_ok() && other.write_all(&byte).is_ok() {}
        });
        Ok(Self(stream))
    }

    /// Milliseconds until a byte is back.
    fn ask(&mut self) -> Done<f64> {
        let start = Instant::now();
        self.0.write_all(&[1])?;
        self.0.read_exact(&mut [0])?;
        Ok(milliseconds(start))
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn body(example: &Example) -> String {
    match &example.pair {
        None => json!({"inputs": example.text}),
        Some(pair) => json!({"inputs": [[example.text, pair]]}),
    }
    .to_string()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What is compared.
struct Contenders {
    bare: Bare,
    client: Client,
    echo: Echo,
}

/// All texts once, both ways, the first way in turns.
fn round(contenders: &mut Contenders, examples: &[Example]) -> Done<Vec<Pair>> {
    let Contenders { bare, client, echo } = contenders;
    let mut pairs = Vec::with_capacity(examples.len());
    for (number, example) in examples.iter().enumerate() {
        let body = body(example);
        let early = (number % 2 == 0).then(|| client.ask(&body)).transpose()?;
        let (tokenised, direct) = bare.classify(example)?;
        let served = match early {
            Some(served) => served,
            None => client.ask(&body)?,
        };
        pairs.push(Pair {
            tokenised,
            bare: direct,
            served,
            echo: echo.ask()?,
        });
    }
    Ok(pairs)
}

fn summary(pairs: &[Pair]) -> Value {
    let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value).collect());
    json!({
        "tokenisation_ms": of(|pair| pair.tokenised),
        "bare_ms": of(|pair| pair.bare),
        "served_ms": of(|pair| pair.served.total),
        "added_ms": of(|pair| pair.served.total - pair.bare),
        "echo_ms": of(|pair| pair.echo),
        "added_in": {
            "tokenisation_ms": of(|pair| pair.served.tokenised - pair.tokenised),
            "queue_ms": of(|pair| pair.served.queued),
            "computation_ms": of(|pair| pair.served.computed - (pair.bare - pair.tokenised)),
            "connection_ms": of(|pair| {
                let Served { total, tokenised, queued, computed } = pair.served;
                total - tokenised - queued - computed
            }),
        },
    })
}

fn measure(arguments: &[String]) -> Done<Value> {
    let [directory, texts, rest @ ..] = arguments else {
        return Err("give a model directory and a file of texts".into());
    };
    let precision: Precision = rest.first().map_or("f32", String::as_str).parse()?;
    let number = |at: usize, default: usize| {
        let text = rest.get(at);
        text.map_or(Ok(default), |text| text.parse::<usize>())
    };
    let (threads, rounds) = (number(1, 1)?, number(2, ROUNDS)?);
    let examples = read_inputs(texts.as_ref(), &common_columns(), None)?;
    let mut settings = Settings::new(vec![ModelSource::new("model", directory)]);
    settings.model.precision = precision;
    settings.model.policy = Some(PolicySpec::Full);
    settings.model.length_max = Some(128);
    settings.model.threads = threads;
    let server = Server::load(settings)?;
    let bare = Bare::load(directory.as_ref(), precision, &server)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let listeners = runtime.block_on(Listeners::bind(server.settings()))?;
    let mut contenders = Contenders {
        bare,
        client: Client::connect(listeners.address())?,
        echo: Echo::start()?,
    };
    runtime.spawn(serve(server, listeners, pending()));
    round(&mut contenders, &examples[..WARM_UP.min(examples.len())])?;
    let mut done = Vec::new();
    for number in 1..=rounds {
        let pairs = round(&mut contenders, &examples)?;
        done.push(summary(&pairs));
        eprintln!("round {number} of {rounds}: {}", done[number - 1]);
    }
    let over_rounds = |key: &str| {
        let values = done.iter().filter_map(|round| round[key].as_f64());
        median(values.collect())
    };
    Ok(json!({
        "texts": examples.len(), "threads": threads, "precision": precision.to_string(),
        "instruction_set": contenders.bare.engine.isa().name(), "rounds": done,
        "tokenisation_ms": over_rounds("tokenisation_ms"), "bare_ms": over_rounds("bare_ms"),
        "served_ms": over_rounds("served_ms"), "added_ms": over_rounds("added_ms"),
        "echo_ms": over_rounds("echo_ms"),
    }))
}

fn main() -> ExitCode {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<_> = (std::env::args().skip(1))
        .filter(|argument| argument != "--bench")
        .collect();
    match measure(&arguments) {
        Ok(record) => {
            println!("{record:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::from(2)
        }
    }
}
