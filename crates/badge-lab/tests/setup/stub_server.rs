//! A server of a few lines whose every answer and delay a test decides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with one request of `/predict`.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    delay: Duration,
    status: u16,
    headers: String,
    body: String,
    hangs_up: bool,
}

impl Act {
    /// An answer with this label, from exit 6.
    pub(crate) fn answer(label: &str) -> Self {
        let body =
            format!("[{{\"score\":0.9,\"label\":\"{label}\"}},{{\"score\":0.1,\"label\":\"-\"}}]");
        Self::body(&body).header("x-exit-layer", "6")
    }

    pub(crate) fn body(body: &str) -> Self {
        Self {
            delay: Duration::ZERO,
            status: 200,
            headers: String::new(),
            body: body.to_owned(),
            hangs_up: false,
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::body("{\"error\":\"no\",\"error_type\":\"Overloaded\"}")
        }
    }

    /// The connection ends without an answer.
    pub(crate) fn hang_up() -> Self {
        Self {
            hangs_up: true,
            ..Self::body("")
        }
    }

    pub(crate) fn after_ms(mut self, delay: u64) -> Self {
        self.delay = Duration::from_millis(delay);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.extend([name, ": ", value, "\r\n"]);
        self
    }
}

/// What the connections share.
struct Shared {
    act: Box<dyn Fn(usize) -> Act + Send + Sync>,
    asked: AtomicUsize,
    metrics_read: AtomicUsize,
    last_head: Mutex<String>,
}

/// Listens for as long as the test runs.
pub(crate) struct StubServer {
    port: u16,
    shared: Arc<Shared>,
}

impl StubServer {
    /// A server that does with the n-th request, from 0, what `act` says.
    pub(crate) fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            act: Box::new(act),
            asked: AtomicUsize::new(0),
            metrics_read: AtomicUsize::new(0),
            last_head: Mutex::new(String::new()),
        });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests of `/predict` so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The head of the last of them.
    pub(crate) fn last_head(&self) -> String {
        self.shared.last_head.lock().unwrap().clone()
    }
}

impl Shared {
    /// Answers requests on one connection until the other side closes it.
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(head) = read_head(&mut reader) {
            let act = if head.starts_with("GET /info") {
                Act::body("{\"model_id\":\"stub\",\"num_layers\":12}")
            } else if head.starts_with("GET /metrics") {
                // Two seconds more each time.
                let read = self.metrics_read.fetch_add(1, Ordering::SeqCst);
                Act::body(&format!("process_cpu_seconds_total {}\n", 2 * read + 1))
            } else {
                let at = self.asked.fetch_add(1, Ordering::SeqCst);
                *self.last_head.lock().unwrap() = head;
                (self.act)(at)
            };
            thread::sleep(act.delay);
            if act.hangs_up {
                return;
            }
            let answer = format!(
                "HTTP/1.1 {} Stub\r\ncontent-length: {}\r\n{}\r\n{}",
                act.status,
                act.body.len(),
                act.headers,
                act.body
            );
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A request's head; its body is read and dropped. None at the end of the connection.
fn read_head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(head)
}
